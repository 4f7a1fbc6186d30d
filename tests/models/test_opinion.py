import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ModelError
from models.opinion import compatible_pmod, pmod, summarise

CENTRES = np.array([0.9, 0.7, 0.5, 0.3, 0.1])


def gaussian_mass(low: float, high: float, mu: float, sigma: float) -> float:
    """The Gaussian's mass between two points, from the standard library's error function alone."""

    def below(x: float) -> float:
        return 0.5 * (1 + math.erf((x - mu) / (sigma * math.sqrt(2))))

    return below(high) - below(low)


@given(st.floats(0, 1), st.floats(0, 3))
def test_pmod_is_a_distribution_that_keeps_the_mean(mu: float, sigma: float):
    probabilities = pmod(mu, sigma)
    assert probabilities.shape == (5,)
    assert (probabilities >= 0).all()
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert probabilities @ CENTRES == pytest.approx(min(max(mu, 0.1), 0.9), abs=1e-6)


@given(st.floats(0.15, 0.85), st.floats(0.03, 0.4))
def test_pmod_is_the_gaussian_mass_up_to_one_exponential_tilt(mu: float, sigma: float):
    probabilities = pmod(mu, sigma)
    mass = np.array([gaussian_mass(c - 0.1, c + 0.1, mu, sigma) for c in CENTRES])
    solid = (mass > 1e-12) & (probabilities > 1e-12)
    tilt = np.log(probabilities[solid] / mass[solid])
    slope, intercept = np.polyfit(CENTRES[solid], tilt, 1) if solid.sum() > 1 else (0.0, tilt[0])
    assert tilt == pytest.approx(slope * CENTRES[solid] + intercept, abs=1e-3)


@given(st.floats(0.1, 0.9))
def test_agreeing_scorers_give_two_neighbouring_levels(mu: float):
    probabilities = pmod(mu, 0.0)
    used = np.flatnonzero(probabilities > 1e-9)
    assert len(used) <= 2
    assert used[-1] - used[0] <= 1
    assert pmod(mu, 1.5e-3) == pytest.approx(probabilities, abs=2e-2)


def test_pmod_is_symmetric_and_vectorised():
    mu, sigma = np.array([[0.2, 0.5], [0.61, 0.87]]), 0.12
    together = pmod(mu, sigma)
    assert together.shape == (2, 2, 5)
    assert together[1, 0] == pytest.approx(pmod(0.61, 0.12), abs=1e-12)
    assert pmod(1 - mu, sigma) == pytest.approx(together[..., ::-1], abs=1e-9)


def test_the_summary_uses_the_population_deviation_and_reports_clamping():
    scores = [[0.2, 0.4, 0.6, 0.8, 0.5, 0.5], [0.97, 0.99, 0.98, 0.97, 0.99, 0.98]]
    opinion = summarise(scores)
    assert opinion.mu_N.tolist() == pytest.approx([0.5, 0.98])
    assert opinion.sigma_N[0] == pytest.approx(math.sqrt((0.09 + 0.01 + 0.01 + 0.09) / 6))
    assert opinion.clamped_N.tolist() == [False, True]
    assert opinion.pmod_N5[1].tolist() == pytest.approx([1, 0, 0, 0, 0])


@pytest.mark.parametrize("scores", [[[0.5, 1.2]], [[0.5, float("nan")]], [[-0.1, 0.3]], [[]]])
def test_scores_outside_the_scale_are_refused(scores: list[list[float]]):
    with pytest.raises(ModelError):
        summarise(scores)


def test_a_negative_spread_is_refused():
    with pytest.raises(ModelError, match="sigma"):
        pmod(0.5, -0.1)


def test_compatibility_mode_solves_the_two_affine_equations_before_clipping():
    mu, sigma = 61.0, 11.0
    low, high = 20.0, 90.0
    target = compatible_pmod(mu, sigma, low=low, high=high)
    mu5, sigma5 = 5 * (mu - low) / (high - low), 5 * sigma / (high - low)
    centres = np.array([4.5, 3.5, 2.5, 1.5, 0.5])
    mass = np.array([gaussian_mass(c - 0.5, c + 0.5, mu5, sigma5) for c in centres])
    alpha, beta = np.linalg.solve(
        [[mass.sum(), 5], [mass @ centres, centres.sum()]],
        [1, mu5],
    )
    assert target == pytest.approx(np.maximum(alpha * mass + beta, 0), abs=1e-12)


def test_compatibility_mode_is_defined_in_the_exact_middle():
    target = compatible_pmod(50.0, 10.0, low=0.0, high=100.0)
    assert target.sum() == pytest.approx(1)
    assert target @ np.array([4.5, 3.5, 2.5, 1.5, 0.5]) == pytest.approx(2.5)


def test_compatibility_mode_reproduces_the_published_record(shared_data: Path):
    (path,) = sorted((shared_data / "labels" / "vital_series").glob("*example*"))
    group = json.loads(path.read_text())[0]
    record = group[0] if isinstance(group, list) else group
    raw_mu, raw_sigma = np.mean(record["mos"]), np.std(record["mos"])
    scale = record["std_norm"] / raw_sigma
    low = raw_mu - record["gt_score_norm"] / scale
    target = compatible_pmod(raw_mu, raw_sigma, low=low, high=low + 5 / scale)
    assert target == pytest.approx(record["target_dist"], abs=1e-9)
    assert target.sum() == pytest.approx(1.0023665, abs=1e-6)
