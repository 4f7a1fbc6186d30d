"""Answers and their likelihoods against the plain forward pass, token by token."""

import numpy as np
import pytest
import torch
from tiny_lmm import SPEC, make_model
from transformers import DynamicCache

from models import answering
from models.answering import answer_ids, groups_by_length
from models.quality_lmm import QualityLMM
from models.vision_encoder import VisualInput, prepare_clip, prepare_image


@pytest.fixture(scope="module")
def model() -> QualityLMM:
    return make_model()


@pytest.fixture(scope="module")
def media() -> list[VisualInput]:
    rng = np.random.default_rng(1)
    image = prepare_image(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8), SPEC)
    clip = prepare_clip(rng.integers(0, 256, (9, 60, 80, 3), dtype=np.uint8), np.arange(9) / 25, SPEC)
    return [image, clip]


def test_likelihood_of_answers_equals_the_forward_pass(model: QualityLMM, media: list[VisualInput]):
    answers = ["The quality of the image is good", "poor", "The video"]
    found = model.answer_log_likelihood(media[:2], answers)
    each = model.answer_log_likelihood(media[:2], answers, per_token=True)
    for row, medium in enumerate(media[:2]):
        for column, answer in enumerate(answers):
            ids, mask = model.answer_ids([answer])
            with torch.no_grad():
                logs = model.logits(model([medium], ids, mask))[0].log_softmax(-1)
            expected = logs.gather(-1, ids[0][:, None]).sum()
            assert torch.allclose(found[row, column], expected, atol=1e-3)
            assert torch.allclose(each[row, column], expected / ids.shape[1], atol=1e-4)


def test_answers_share_one_cache_of_the_prompt(
    model: QualityLMM, media: list[VisualInput], monkeypatch: pytest.MonkeyPatch
):
    caches: list[DynamicCache] = []

    def counted() -> DynamicCache:
        caches.append(DynamicCache())
        return caches[-1]

    monkeypatch.setattr(answering, "DynamicCache", counted)
    answers = ["good", "The quality of the image is poor", "fair and good"] * 7
    found = model.answer_log_likelihood(media, answers)
    assert torch.allclose(found[:, :3], found[:, 18:], atol=1e-5)  # the company of other answers changes none
    read = int(model.answer_ids(answers)[1].sum()) - len(answers)  # of every answer all tokens but the last
    size = model.language_model.config
    per_token = 2 * size.num_key_value_heads * (size.hidden_size // size.num_attention_heads)
    assert len(caches) == len(media)
    for cache, tokens_KD in zip(caches, model.visual_tokens(media), strict=True):
        prompt = len(model._head_embeddings(tokens_KD, ""))
        assert [layer.keys.numel() + layer.values.numel() for layer in cache.layers] == [
            (prompt + read) * per_token
        ] * size.num_hidden_layers


def test_greedy_text_takes_the_best_token_at_every_step(model: QualityLMM, media: list[VisualInput]):
    texts = model.generate(media[:2], max_new_tokens=4, prefix="The quality of the")
    again = model.generate([media[1]], max_new_tokens=4, prefix="The quality of the")
    assert texts[1] == again[0]
    said = model.tokenizer.encode("The quality of the", add_special_tokens=False)
    chosen: list[int] = []
    for _ in range(4):
        ids = torch.tensor([[*said, *chosen, 0]])
        with torch.no_grad():
            hidden = model([media[0]], ids, torch.ones_like(ids, dtype=torch.bool))
        best = int(model.logits(hidden[0, -1]).argmax())
        if best == model.tokenizer.convert_tokens_to_ids("<|im_end|>"):
            break
        chosen.append(best)
    assert texts[0] == model.tokenizer.decode(chosen, skip_special_tokens=True).strip()


def test_a_banned_opening_is_not_said(model: QualityLMM):
    prompt = model.language_model.embed_tokens(torch.tensor([[1, 2, 3]]))
    (first,) = answer_ids(model, prompt, end_id=-1, max_new_tokens=3)
    (other,) = answer_ids(model, prompt, end_id=-1, max_new_tokens=3, banned=[first[:2]])
    assert len(first) == len(other) == 3
    assert other[0] == first[0]
    assert other[1] != first[1]
    (ended,) = answer_ids(model, prompt, end_id=first[1], max_new_tokens=3, banned=[])
    assert ended == first[:1]


def test_prompts_of_one_length_share_a_group():
    assert groups_by_length([torch.zeros(n, 2) for n in (3, 5, 3, 4)]) == [[0, 2], [1], [3]]
