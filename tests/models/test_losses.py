"""Losses against numbers worked out by hand or with scipy, never with torch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import norm

from models import losses
from models.levels import CENTRES
from models.opinion import pmod

IDS = torch.tensor([7, 2, 9, 4, 0])
QUALITIES = st.floats(0.1, 0.9)
LOGITS = st.lists(st.floats(-8, 8), min_size=12, max_size=12)


def _rows(*quality: float) -> torch.Tensor:
    return torch.tensor(pmod(list(quality), [0.1] * len(quality)))


@settings(deadline=None, max_examples=60)
@given(LOGITS)
def test_level_probabilities_agree_with_scipy_in_both_spaces(values: list[float]):
    logits = torch.tensor([values])
    over_all = log_softmax(np.array(values))[IDS.numpy()]
    over_levels = log_softmax(np.array(values)[IDS.numpy()])
    assert np.allclose(losses.level_log_probabilities(logits, IDS, "vocabulary")[0], over_all, atol=1e-5)
    assert np.allclose(losses.level_log_probabilities(logits, IDS, "levels")[0], over_levels, atol=1e-5)


def test_the_divergence_of_a_hand_computed_row():
    target = torch.tensor([[0.5, 0.5, 0.0, 0.0, 0.0]])
    probs = torch.tensor([[0.25, 0.5, 0.125, 0.0625, 0.0625]])
    # .5 ln(.5 / .25) + .5 ln(.5 / .5) = .5 ln 2
    assert losses.level_divergence(probs.log(), target).item() == pytest.approx(0.5 * math.log(2), abs=1e-7)
    assert losses.level_divergence(target.log().clamp_min(-1e3), target).item() == pytest.approx(0.0, abs=1e-7)


@settings(deadline=None, max_examples=60)
@given(QUALITIES, LOGITS)
def test_the_divergence_is_a_divergence_and_its_gradient_is_q_minus_p(quality: float, values: list[float]):
    logits = torch.tensor([values], dtype=torch.float32, requires_grad=True)
    target = _rows(quality)
    loss = losses.level_divergence(losses.level_log_probabilities(logits, IDS, "levels"), target)
    loss.sum().backward()
    assert loss.item() >= -1e-6
    expected = np.zeros(12)
    expected[IDS.numpy()] = np.exp(log_softmax(np.array(values)[IDS.numpy()])) - target[0].numpy()
    assert logits.grad is not None
    assert np.allclose(logits.grad[0].numpy(), expected, atol=1e-5)


def test_moments_on_the_scale_of_level_steps():
    probs = torch.tensor([[0.5, 0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]).clamp_min(1e-30)
    mean, variance = losses.level_moments(probs.log())
    assert mean.tolist() == pytest.approx([4.0, 0.5])  # weights 4.5 3.5 2.5 1.5 .5, as in the released code
    assert variance.tolist() == pytest.approx([0.25, 0.0], abs=1e-6)
    assert np.allclose(CENTRES * losses.PAIR_SCALE, [4.5, 3.5, 2.5, 1.5, 0.5])


@settings(deadline=None, max_examples=60)
@given(st.floats(0.5, 4.5), st.floats(0.5, 4.5), st.sampled_from([0.0, 0.5, 1.0]))
def test_thurstone_is_the_kl_divergence_of_two_outcomes(first: float, second: float, preference: float):
    probability = norm.cdf((first - second) / math.sqrt(2))
    expected = sum(
        t * math.log(t / q) for t, q in ((preference, probability), (1 - preference, 1 - probability)) if t > 0
    )
    a, b, t = (torch.tensor([value], dtype=torch.float64) for value in (first, second, preference))
    assert losses.thurstone(a, b, t).item() == pytest.approx(expected, abs=1e-9)
    swapped = losses.thurstone(b, a, 1 - t).item()
    assert swapped == pytest.approx(expected, abs=1e-9)


def test_thurstone_by_hand():
    one = torch.tensor([2.0])
    # Phi(1 / sqrt 2) = .7602499; -ln of it is .2741081; a tie at equal means costs nothing
    assert losses.thurstone(one, one - 1, torch.tensor([1.0])).item() == pytest.approx(0.2741081, abs=1e-6)
    assert losses.thurstone(one, one, torch.tensor([0.5])).item() == pytest.approx(0.0, abs=1e-7)
    assert losses.thurstone(one, one, torch.tensor([1.0])).item() == pytest.approx(math.log(2), abs=1e-6)


def test_thurstone_stays_finite_where_a_probability_underflows():
    first = torch.tensor([60.0], requires_grad=True)
    loss = losses.thurstone(first, torch.tensor([0.0]), torch.tensor([0.0]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()


@pytest.mark.parametrize(("preference", "share"), [(1.0, math.e), (0.0, 1.0), (0.5, 2 * math.sqrt(math.e))])
def test_davidson_by_hand(preference: float, share: float):
    # worths e and 1, nu 2: e + 1 + 2 sqrt(e) in all
    total = math.e + 1 + 2 * math.sqrt(math.e)
    loss = losses.davidson(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([preference]), tie=2.0)
    assert loss.item() == pytest.approx(-math.log(share / total), abs=1e-6)


def test_fidelity_is_the_released_formula_and_its_spread_carries_no_gradient():
    means = torch.tensor([3.0], requires_grad=True), torch.tensor([2.0])
    variances = torch.tensor([0.5], requires_grad=True), torch.tensor([0.25])
    loss = losses.fidelity((means[0], variances[0]), (means[1], variances[1]), torch.tensor([1.0]))
    probability = norm.cdf(1.0 / math.sqrt(0.75))
    assert loss.item() == pytest.approx(1 - math.sqrt(probability), abs=2e-4)  # sqrt(1e-8) = 1e-4 of guard
    loss.sum().backward()
    assert means[0].grad is not None
    assert means[0].grad.item() < 0
    assert variances[0].grad is None


@settings(deadline=None, max_examples=60)
@given(LOGITS, st.integers(0, 11), st.floats(0.5, 3.0))
def test_focal_is_alpha_times_one_minus_p_to_beta_times_cross_entropy(values: list[float], token: int, beta: float):
    log_p = log_softmax(np.array(values))[token]
    expected = -0.5 * (1 - np.exp(log_p)) ** beta * log_p
    found = losses.focal(torch.tensor([values]), torch.tensor([token]), alpha=0.5, beta=beta).item()
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_focal_by_hand_and_its_limit():
    logits = torch.log(torch.tensor([[0.25, 0.75]]))
    # p = .25: .75^2 * ln 4 = .7797905
    assert losses.focal(logits, torch.tensor([0])).item() == pytest.approx(0.7797905, abs=1e-6)
    assert losses.focal(logits, torch.tensor([0]), beta=0.0).item() == pytest.approx(math.log(4), abs=1e-6)
    sure = torch.tensor([[40.0, 0.0]], requires_grad=True)
    losses.focal(sure, torch.tensor([0])).sum().backward()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


def test_answer_means_divide_by_the_answers_own_length():
    found = losses.answer_means(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0, 0, 2]), torch.tensor([4, 3, 5]))
    assert found.tolist() == pytest.approx([0.75, 0.0, 1.0])
