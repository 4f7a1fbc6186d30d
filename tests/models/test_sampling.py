"""Drawn tokens: their frequencies, the nucleus, and that company changes nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_lmm import SPEC, make_model

from models.errors import ModelError
from models.sampling import Draws, Sampling, greedy
from models.vision_encoder import prepare_image


def frequencies(logits: list[float], sampling: Sampling, draws: int = 20_000) -> np.ndarray:
    rows = torch.tensor([logits]).expand(draws, -1)
    tokens = Draws(sampling, range(draws)).of(range(draws), draws)(rows)
    return np.bincount(tokens.numpy(), minlength=len(logits)) / draws


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_the_softmax_says(temperature: float):
    logits = np.array([0.3, 1.9, -1.0, 0.9])
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    found = frequencies(logits.tolist(), Sampling(temperature))
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / 20_000)


def test_the_nucleus_is_the_fewest_tokens_that_reach_top_p():
    probs = np.array([0.1, 0.5, 0.15, 0.25])
    found = frequencies(np.log(probs).tolist(), Sampling(1.0, top_p=0.7))
    assert found[[0, 2]].tolist() == [0.0, 0.0]
    assert found[1] == pytest.approx(2 / 3, abs=0.015)
    assert frequencies(np.log(probs).tolist(), Sampling(1.0, top_p=1e-9))[1] == 1.0


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=9), st.floats(0.05, 5), st.floats(0.01, 1), st.integers(0, 99))
def test_a_drawn_token_is_always_one_of_the_nucleus(logits: list[float], temperature: float, top_p: float, seed: int):
    row = torch.tensor([logits], dtype=torch.float64)
    token = int(Draws(Sampling(temperature, top_p), [seed]).of([0], 1)(row))
    probs = (row[0] / temperature).softmax(-1)
    more_probable = float(probs[probs > probs[token] * (1 + 1e-9)].sum())
    assert more_probable < top_p + 1e-9


def test_temperature_nothing_is_greedy():
    rows = torch.randn(5, 11, generator=torch.Generator().manual_seed(3))
    assert Draws().of(range(5), 5)(rows).tolist() == greedy(rows).tolist() == rows.argmax(-1).tolist()


@pytest.mark.parametrize(("temperature", "top_p"), [(-0.1, 1.0), (float("nan"), 1.0), (float("inf"), 1.0), (1.0, 0.0)])
def test_parameters_outside_their_range_are_refused(temperature: float, top_p: float):
    with pytest.raises(ModelError, match=r"temperature must|top_p must"):
        Sampling(temperature, top_p)


def test_an_answer_is_the_same_in_any_company():
    model = make_model()
    rng = np.random.default_rng(5)
    media = [prepare_image(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), SPEC) for _ in range(3)]
    hot = Sampling(1.5, 0.95)
    together = model.generate(media * 2, max_new_tokens=6, draws=Draws(hot, range(6)))
    alone = [model.generate([media[i % 3]], max_new_tokens=6, draws=Draws(hot, [i]))[0] for i in range(6)]
    assert together == alone
    assert len(set(together)) == 6  # a random model at this temperature repeats nothing
    with pytest.raises(ModelError, match="give one for each"):
        model.generate(media, draws=Draws(hot, [1]))
