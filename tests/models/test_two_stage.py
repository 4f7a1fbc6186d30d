"""Two stages: no pixel reaches a reasoner of text, words do; folders, readouts, and the leak of a block mask."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_lmm import SPEC, make_model
from torch import Tensor

from models.conversations import answer_rows
from models.errors import MissingWeightsError, ModelError
from models.levels import LEVELS
from models.quality_lmm import IMAGE_PREFIX, VIDEO_PREFIX, QualityLMM
from models.reasoning_text import leaks
from models.two_stage import (
    Description,
    ReasonerInput,
    TwoStageLMM,
    described,
    logits_after,
    pair,
    shown,
    verdict_sentence,
    verdict_tokens,
)
from models.vision_encoder import VisualInput, prepare_clip, prepare_image

TEXTS = [
    Description("The image is blurry, and fine detail is lost.", is_video=False),
    Description("Edges are crisp. Noise is visible.", is_video=False),
    Description("", is_video=True),
]


@pytest.fixture(scope="module")
def model() -> QualityLMM:
    return make_model()


@pytest.fixture(scope="module")
def media() -> list[VisualInput]:
    rng = np.random.default_rng(1)
    images = [prepare_image(rng.integers(0, 256, (70 + 20 * i, 90, 3), dtype=np.uint8), SPEC) for i in range(2)]
    clip = prepare_clip(rng.integers(0, 256, (9, 60, 80, 3), dtype=np.uint8), np.arange(9) / 25, SPEC)
    return [*images, clip]


def other(media: list[VisualInput]) -> list[VisualInput]:
    """The same shapes with other pixels."""
    return [
        VisualInput(one.tiles_TCHW.flip(0, 1) + 0.5, None if one.motion_CTHW is None else one.motion_CTHW.flip(0))
        for one in media
    ]


def attached(media: list[VisualInput]) -> list[VisualInput]:
    """The same pixels, each of which asks for its gradient."""
    return [
        VisualInput(
            one.tiles_TCHW.clone().requires_grad_(),
            None if one.motion_CTHW is None else one.motion_CTHW.clone().requires_grad_(),
        )
        for one in media
    ]


def pixels(media: list[VisualInput]) -> list[Tensor]:
    return [part for one in media for part in (one.tiles_TCHW, one.motion_CTHW) if part is not None]


def reached(root: Tensor) -> set[int]:
    """Every tensor that ends the graph of a result: what its value was computed from."""
    seen, found, waiting = set[Any](), set[int](), [root.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found |= {id(getattr(node, "variable", None))}
            waiting += [following for following, _ in node.next_functions]
    return found


@pytest.mark.parametrize("shared", [True, False])
def test_no_pixel_is_in_the_graph_of_a_verdict_from_text(model: QualityLMM, media: list[VisualInput], shared: bool):  # noqa: FBT001
    both, seen = pair(model, "text", shared=shared), attached(media)
    logits = both.verdict_logits(TEXTS, seen)
    gradients = torch.autograd.grad(logits.sum(), pixels(seen), allow_unused=True)
    assert gradients == (None,) * len(pixels(seen))
    assert reached(logits).isdisjoint(id(part) for part in pixels(seen))
    assert id(both.reasoner.vocabulary_head.weight) in reached(logits)
    # the same walk does find pixels where they are
    direct = logits_after(model, seen, TEXTS, "perception", blind=False)
    assert reached(direct) >= {id(part) for part in pixels(seen)}


@torch.no_grad()
def test_the_image_changes_no_bit_of_a_verdict_from_text_and_the_words_do(model: QualityLMM, media: list[VisualInput]):
    both = pair(model, "text", shared=False)
    logits = both.verdict_logits(TEXTS, media)
    assert torch.equal(logits, both.verdict_logits(TEXTS, other(media)))
    assert torch.equal(logits, both.verdict_logits(TEXTS))
    shuffled = [Description(" ".join(reversed(one.text.split())), one.is_video) for one in TEXTS]
    changed = (both.verdict_logits(shuffled) - logits).abs().amax(1)
    assert bool((changed[:2] > 1e-4).all())
    assert float(changed[2]) == 0.0  # nothing was said, so nothing was shuffled


@pytest.mark.parametrize("shared", [True, False])
def test_a_block_mask_leaks_through_the_words_and_through_nothing_else(
    model: QualityLMM,
    media: list[VisualInput],
    shared: bool,  # noqa: FBT001
):
    both, seen = pair(model, "block_mask", shared=shared), attached(media)
    logits = both.verdict_logits(TEXTS, seen)
    gradients = torch.autograd.grad(logits.sum(), pixels(seen))
    assert all(float(gradient.abs().sum()) > 0 for gradient in gradients)
    with torch.no_grad():
        assert not torch.equal(logits, both.verdict_logits(TEXTS, other(media)))
        open_ = logits_after(model, media, TEXTS, "perception", blind=False)
    assert not torch.allclose(logits, open_, atol=1e-5)


@torch.no_grad()
def test_what_a_block_mask_hides_is_all_that_a_verdict_sees_of_the_medium_directly():
    """In one layer, the verdict's rows owe nothing to the medium: its words are heard in the second layer first."""
    single = make_model(1)
    single.language_model.layers = single.language_model.layers[:1]
    rng = np.random.default_rng(2)
    one, two = ([prepare_image(rng.integers(0, 256, (80, 90, 3), dtype=np.uint8), SPEC)] for _ in range(2))
    text = [TEXTS[0]]
    blind = [logits_after(single, medium, text, "perception", blind=True) for medium in (one, two)]
    seeing = [logits_after(single, medium, text, "perception", blind=False) for medium in (one, two)]
    assert torch.allclose(blind[0], blind[1], atol=1e-6)
    assert not torch.allclose(seeing[0], seeing[1], atol=1e-4)


@torch.no_grad()
def test_a_separate_reasoner_begins_as_the_describers_decoder_and_shares_no_weight_with_it(model: QualityLMM):
    apart, together = pair(model, "text", shared=False), pair(model, "text", shared=True)
    assert (apart.kind, together.kind) == ("separate", "shared")
    assert torch.equal(apart.verdict_logits(TEXTS), together.verdict_logits(TEXTS))
    mine = {value.data_ptr() for value in model.parameters()}
    assert mine.isdisjoint(value.data_ptr() for value in apart.reasoner.parameters())
    assert mine.issuperset(value.data_ptr() for value in together.reasoner.parameters())
    # the prompt is the description and nothing else: as the quality LMM reads a conversation without a medium
    verdicts = [verdict_sentence(LEVELS[0], is_video=one.is_video) for one in TEXTS]
    ids, mask = model.answer_ids(verdicts, end=False)
    hidden = model.hidden_states([None] * 3, ids, mask, [one.text for one in TEXTS])
    wanted = model.logits(hidden[torch.arange(3), mask.sum(1) - 1])[:, list(model.level_ids)]
    assert torch.allclose(apart.verdict_logits(TEXTS), wanted, atol=1e-5)


@torch.no_grad()
def test_an_asked_reasoner_is_asked_about_the_description(model: QualityLMM):
    asked = make_model()
    asked.question = "asked"
    one, two = pair(model, "text", shared=True), pair(asked, "text", shared=True)
    assert not torch.allclose(one.verdict_logits(TEXTS), two.verdict_logits(TEXTS), atol=1e-5)


@pytest.mark.parametrize("reads", ["text", "block_mask"])
@pytest.mark.parametrize("shared", [True, False])
@torch.no_grad()
def test_a_folder_gives_back_the_same_bits_and_holds_no_more_than_needed(
    model: QualityLMM,
    media: list[VisualInput],
    tmp_path: Path,
    reads: ReasonerInput,
    shared: bool,  # noqa: FBT001
):
    both = pair(model, reads, shared=shared)
    if not shared:
        next(both.reasoner.parameters()).add_(0.01)
    both.save_pretrained(tmp_path)
    again = TwoStageLMM.from_pretrained(tmp_path)
    assert (again.input, again.kind) == (reads, both.kind)
    assert torch.equal(again.verdict_logits(TEXTS, media), both.verdict_logits(TEXTS, media))
    assert again.describe(media, 4) == both.describe(media, 4)
    assert (tmp_path / "reasoner").exists() is not shared
    if reads == "text" and not shared:
        from transformers import Qwen2ForCausalLM

        plain = Qwen2ForCausalLM.from_pretrained(tmp_path / "reasoner", local_files_only=True)
        assert sum(value.numel() for value in plain.parameters()) == sum(
            value.numel() for value in both.reasoner.parameters()
        )
        names = {name for name, _ in plain.named_parameters()}
        assert not any("vision" in name or "motion" in name or "projector" in name for name in names)
        files = sum(path.stat().st_size for path in (tmp_path / "reasoner").glob("*.safetensors"))
        whole = sum(path.stat().st_size for path in (tmp_path / "describer").rglob("*.safetensors"))
        assert files < 0.8 * whole


SAID = ("Edges are crisp. The quality of the image is good.", "Sharpness is low.", "Noise is visible. 7/10!")
ASSESSED = (f"Edges are crisp. {IMAGE_PREFIX} good", "Noise.", f"{VIDEO_PREFIX} low")


@pytest.fixture(scope="module")
def taught(media: list[VisualInput]) -> QualityLMM:
    """A model that has learnt by heart what to say of three media: ``SAID``, and ``ASSESSED`` where it is to assess."""
    model = make_model(2)
    model.question = "asked"
    with torch.no_grad():
        visual = model.visual_tokens(media)
    talks = [
        shown(number, task, text, model, is_video=media[number].is_video)
        for task, texts in (("perception", SAID), ("assessment", ASSESSED))
        for number, text in enumerate(texts)
    ]
    optimizer = torch.optim.AdamW([*model.language_model.parameters(), *model.internvl.lm_head.parameters()], lr=5e-3)
    for _ in range(150):
        rows = answer_rows(model, visual, talks)
        loss = torch.nn.functional.cross_entropy(model.logits(rows.hidden_ND), rows.ids_N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if float(loss) < 0.02:
            break
    return model.eval()


def test_descriptions_are_free_of_verdicts_whatever_the_describer_says(taught: QualityLMM, media: list[VisualInput]):
    found = pair(taught, "text", shared=True).describe(media, 40)
    assert [one.text for one in found] == ["Edges are crisp.", "", "Noise is visible."]
    assert [one.dropped for one in found] == [
        ("The quality of the image is good.",),
        ("Sharpness is low.",),
        ("7/10!",),
    ]
    assert [one.is_video for one in found] == [False, False, True]
    assert all(leaks(one.text) == () for one in found)


@pytest.mark.parametrize("reads", ["text", "block_mask"])
@torch.no_grad()
def test_a_judgement_is_words_and_probabilities_and_neighbours_change_neither(
    model: QualityLMM, media: list[VisualInput], reads: ReasonerInput
):
    both = pair(model, reads, shared=True)
    found = both.judge(TEXTS, media, max_new_tokens=5)
    assert found.probabilities_N5.shape == (3, 5)
    assert torch.allclose(found.probabilities_N5.sum(1), torch.ones(3), atol=1e-6)
    for number, text in enumerate(TEXTS):
        alone = both.judge([text], [media[number]], max_new_tokens=5)
        assert alone.answers == [found.answers[number]]
        assert torch.allclose(alone.probabilities_N5[0], found.probabilities_N5[number], atol=1e-5)


@torch.no_grad()
def test_words_of_a_judgement_are_the_likeliest_ones(model: QualityLMM):
    both = pair(model, "text", shared=True)
    answers = both.judge(TEXTS[:2], max_new_tokens=4).answers
    for text, answer in zip(TEXTS, answers, strict=False):
        assert model.continue_texts([model._head_embeddings(None, text.text)], 4) == [answer]


@torch.no_grad()
def test_without_a_description_a_verdict_is_read_as_from_every_quality_lmm(model: QualityLMM, media: list[VisualInput]):
    nothing = [Description("", medium.is_video) for medium in media]
    found = logits_after(model, media, nothing, "assessment", blind=False).softmax(-1)
    assert torch.allclose(found, model.level_probabilities(media), atol=1e-5)


def test_the_tail_of_an_answer_is_its_verdict(model: QualityLMM):
    for text in (TEXTS[0].text, ""):
        verdict = verdict_sentence("poor", is_video=False)
        ids = model.tokenizer.encode(described(text, verdict) + "<|im_end|>", add_special_tokens=False)
        count = verdict_tokens(model, text, verdict)
        assert str(model.tokenizer.decode(ids[len(ids) - count :])).strip() == f"{verdict}<|im_end|>"
        assert str(model.tokenizer.decode(ids[: len(ids) - count])) == text


def test_what_does_not_fit_is_refused(model: QualityLMM, media: list[VisualInput], tmp_path: Path):
    with pytest.raises(ModelError, match="QualityLMM does not read text"):
        TwoStageLMM(model, model, "text")
    both = pair(model, "block_mask", shared=True)
    with pytest.raises(ModelError, match="there are none"):
        both.verdict_logits(TEXTS)
    with pytest.raises(ModelError, match="3 descriptions beside their media, and there are 2"):
        both.judge(TEXTS, media[:2])
    with pytest.raises(MissingWeightsError, match=r"two_stage\.json is missing"):
        TwoStageLMM.from_pretrained(tmp_path)
    both.save_pretrained(tmp_path)
    (tmp_path / "two_stage.json").write_text(json.dumps({"input": "pictures", "reasoner": "shared"}))
    with pytest.raises(ModelError, match="'pictures' is none of text, block_mask"):
        TwoStageLMM.from_pretrained(tmp_path)
