"""Drawn answers: tokens with their end, one random stream each, and probabilities that agree with the plain way."""

import pytest
import torch
from tiny_lmm import SPEC, make_model

from models.conversations import Turn
from models.drawn_answers import Policy, end_of_turn, text_of
from models.quality_lmm import QualityLMM
from models.vision_encoder import VisualInput


@pytest.fixture(scope="module")
def model() -> QualityLMM:
    return make_model()


@pytest.fixture
def asked() -> tuple:
    generator = torch.Generator().manual_seed(2)
    tiles = [torch.randn(1, 3, SPEC.tile_px, SPEC.tile_px, generator=generator) for _ in range(2)]
    return [VisualInput(one, None) for one in tiles], [(Turn((number, "\nRate it."), ""),) for number in (0, 1)]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_a_plain_pass(model: QualityLMM, asked: tuple, temperature: float):
    policy = Policy.of(model, "fused", temperature)
    opened = policy.openings(*asked)
    rows = policy.draw([opened[0], opened[1], opened[1]], 9, [1, 2, 3])
    found, tokens = policy.log_probs([opened[0], opened[1], opened[1]], rows)
    assert tokens.lengths_A.tolist() == [len(row) for row in rows]
    expected: list[float] = []
    for head, row in zip([opened[0], opened[1], opened[1]], rows, strict=True):
        whole = torch.cat([head, model.language_model.embed_tokens(torch.tensor(row))])[None]
        logits = model.logits(model.language_model(inputs_embeds=whole).last_hidden_state[0]) / temperature
        logs = logits.detach().log_softmax(-1)[len(head) - 1 : -1]
        expected += [float(logs[place, token]) for place, token in enumerate(row)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    found.sum().backward()
    assert all(model.language_model.layers[0].self_attn.q_proj.weight.grad.isfinite().flatten())  # type: ignore[union-attr]


def test_what_is_drawn_hangs_on_the_answers_own_seed(model: QualityLMM, asked: tuple):
    policy = Policy.of(model, "fused", 1.0)
    opened = policy.openings(*asked)
    together = policy.draw([opened[0], opened[0], opened[1]], 12, [5, 6, 7])
    assert policy.draw([opened[1], opened[0]], 12, [7, 5]) == [together[2], together[0]]
    assert together[0] != together[1]


def test_tokens_are_drawn_as_often_as_they_are_probable(model: QualityLMM, asked: tuple):
    policy = Policy.of(model, "fused", 0.8)
    opened = policy.openings(*asked)[:1]
    count = 600
    first = torch.tensor([row[0] for row in policy.draw(opened * count, 1, range(count))])
    logits = model.logits(model.language_model(inputs_embeds=opened[0][None]).last_hidden_state[:, -1]) / 0.8
    probs = logits.detach().softmax(-1)[0].double()
    found = torch.bincount(first, minlength=len(probs)) / count
    assert (found - probs).abs().max() < 5 * float((probs.max() / count) ** 0.5)
    ranked = probs.argsort(descending=True)[: len(probs) // 10]
    assert float(found[ranked].sum()) == pytest.approx(float(probs[ranked].sum()), abs=0.08)


def test_an_answer_ends_once_or_is_cut(model: QualityLMM, asked: tuple):
    policy = Policy.of(model, "fused", 1.0)
    opened = policy.openings(*asked)[:1] * 40
    end = end_of_turn(model)
    with torch.no_grad():
        before = model.vocabulary_head.weight[end].clone()
        model.vocabulary_head.weight[end] *= 3
    rows = policy.draw(opened, 12, range(40))
    with torch.no_grad():
        model.vocabulary_head.weight[end] = before
    assert all(end not in row[:-1] for row in rows)
    assert all(row[-1] == end or len(row) == 12 for row in rows)
    assert all(len(row) >= 1 for row in rows)
    assert all("im_end" not in text_of(model, row) for row in rows)
