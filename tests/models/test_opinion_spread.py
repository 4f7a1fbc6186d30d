"""Every way to make sigma against numbers computed by hand, by simulation, or by another optimiser."""

import math
from statistics import mean, stdev, variance

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq, minimize
from scipy.special import digamma, polygamma
from scipy.stats import norm

from models.errors import ModelError
from models.opinion import summarise
from models.opinion_spread import (
    POPULATION,
    SPREADS,
    Needs,
    NoiseWeighted,
    Predictive,
    Rated,
    Shrunk,
    Sos,
    VarianceFunction,
    grubbs_noise,
    inverse_trigamma,
    sos_parameter,
)

SCORES = arrays(np.float64, (12, 5), elements=st.floats(0.01, 0.99).map(lambda x: round(x, 3)))


def draw(seed: int = 0, samples: int = 60, scorers: int = 6) -> Rated:
    """Scores of a hidden quality with scorers of different noise, and people who spread as the parabola says."""
    rng = np.random.default_rng(seed)
    quality = rng.uniform(0.1, 0.9, samples)
    noise = rng.normal(0, 1, (samples, scorers)) * np.linspace(0.03, 0.12, scorers)
    scores = np.clip(quality[:, None] + noise, 0, 1)
    return Rated(scores, np.clip(quality + rng.normal(0, 0.03, samples), 0, 1), np.sqrt(0.1 * quality * (1 - quality)))


def test_population_is_the_default_of_the_plant():
    rated = draw()
    assert SPREADS[POPULATION].fit(rated)(rated.scores_NS) == pytest.approx(summarise(rated.scores_NS).sigma_N)
    assert next(iter(SPREADS)) == POPULATION


def test_the_sos_parameter_is_the_least_squares_one():
    # (.25 * .05 + .16 * .04) / (.25^2 + .16^2) = .0189 / .0881
    assert sos_parameter([0.5, 0.2], [0.05, 0.04]) == pytest.approx(0.0189 / 0.0881)
    assert sos_parameter([0.5], [0.3]) == 1.0
    assert Sos(0.25)([[0.3, 0.5]]) == pytest.approx([math.sqrt(0.25 * 0.4 * 0.6)])
    with pytest.raises(ModelError, match="end of the scale"):
        sos_parameter([0.0, 1.0], [0.1, 0.1])


@given(st.floats(1e-4, 1e6))
def test_the_inverse_trigamma_is_one(value: float):
    assert float(polygamma(1, inverse_trigamma(value))) == pytest.approx(value, rel=1e-8)


def test_the_inverse_trigamma_knows_eulers_series():
    assert inverse_trigamma(math.pi**2 / 6) == pytest.approx(1.0)
    assert inverse_trigamma(math.pi**2 / 2) == pytest.approx(0.5)
    with pytest.raises(ModelError, match="positive"):
        inverse_trigamma(0.0)


def test_shrinkage_has_smyths_moments():
    """The same estimates from the standard library and a root finder."""
    rows = [[0.5, 0.52, 0.48, 0.51], [0.3, 0.7, 0.5, 0.2], [0.61, 0.6, 0.62, 0.59], [0.2, 0.3, 0.25, 0.7]] * 3
    rows = [[x + 0.01 * k * (j % 2) for j, x in enumerate(row)] for k, row in enumerate(rows)]
    e = [math.log(variance(row) / (mean(row) * (1 - mean(row)))) - float(digamma(1.5)) + math.log(1.5) for row in rows]
    half = brentq(lambda y: float(polygamma(1, y)) - (stdev(e) ** 2 - float(polygamma(1, 1.5))), 1e-3, 1e3)
    level = math.exp(mean(e) + float(digamma(half)) - math.log(half))
    found = SPREADS["shrunk"].fit(Rated(np.array(rows)))
    assert found == Shrunk(pytest.approx(level), pytest.approx(2 * half, rel=1e-6))
    first = mean(rows[0]) * (1 - mean(rows[0])) * level
    expected = math.sqrt((2 * half * first + 3 * variance(rows[0])) / (2 * half + 3))
    assert found(rows)[0] == pytest.approx(expected)


def test_shrinkage_recovers_the_weight_of_a_simulated_prior():
    rng = np.random.default_rng(1)
    width = np.sqrt(0.02 * 0.25 * 8 / rng.chisquare(8, 20_000))
    scores = np.clip(0.5 + width[:, None] * rng.normal(0, 1, (20_000, 6)), 0, 1)
    found = SPREADS["shrunk"].fit(Rated(scores))
    assert found.weight == pytest.approx(8, rel=0.1)
    assert found.level == pytest.approx(0.02, rel=0.03)


def test_variances_that_differ_by_chance_alone_leave_the_prior():
    scores = np.tile([0.4, 0.5, 0.6], (9, 1))
    found = SPREADS["shrunk"].fit(Rated(scores))
    assert found.weight == math.inf
    assert np.ptp(found(scores)) == pytest.approx(0)


def test_the_noise_of_three_scorers_is_grubbs_formula():
    scores = draw(3, scorers=3).scores_NS
    d12, d13, d23 = (variance((scores[:, i] - scores[:, j]).tolist()) for i, j in ((0, 1), (0, 2), (1, 2)))
    expected = [(d12 + d13 - d23) / 2, (d12 + d23 - d13) / 2, (d13 + d23 - d12) / 2]
    least = 0.05 * sum(expected) / 3
    assert grubbs_noise(scores) == pytest.approx([max(value, least) for value in expected])


def test_the_noise_of_many_scorers_is_recovered():
    rng = np.random.default_rng(0)
    true = np.linspace(0.02, 0.08, 6)
    scores = rng.uniform(0.3, 0.7, 20_000)[:, None] + true * rng.normal(0, 1, (20_000, 6))
    assert np.sqrt(grubbs_noise(scores)) == pytest.approx(true, rel=0.05)


def test_noise_weighting_by_hand():
    # weights 100, 100, 25; the centred scores .4 .6 .3 have the mean (40 + 60 + 7.5) / 225
    spread = NoiseWeighted(np.array([0.0, 0.1, -0.1]), np.array([0.01, 0.01, 0.04]))
    middle = 107.5 / 225
    excess = 100 * (0.4 - middle) ** 2 + 100 * (0.6 - middle) ** 2 + 25 * (0.3 - middle) ** 2
    assert spread([[0.4, 0.7, 0.2]]) == pytest.approx([math.sqrt(0.02 * excess / 2)])
    with pytest.raises(ModelError, match="fitted on 3 scorers, applied to 2"):
        spread([[0.4, 0.7]])


@given(SCORES)
def test_noise_weighting_with_equal_noise_is_the_sample_deviation(scores: np.ndarray):
    spread = NoiseWeighted(np.zeros(5), np.full(5, 0.02))
    assert spread(scores) == pytest.approx(scores.std(axis=1, ddof=1), abs=1e-9)


def test_an_offset_of_a_scorer_is_no_disagreement():
    rated = draw(2)
    shifted = rated.scores_NS * 0.5
    moved = shifted + np.array([0.3, 0, 0, 0, 0, 0])
    one, two = (SPREADS["noise_weighted"].fit(Rated(scores))(scores) for scores in (shifted, moved))
    assert two == pytest.approx(one, abs=1e-9)
    assert moved.std(axis=1) != pytest.approx(shifted.std(axis=1), abs=1e-3)


def test_the_predictive_fit_is_as_likely_as_a_general_optimisers():
    rng = np.random.default_rng(5)
    rated = draw(5, samples=400)
    s2 = rated.scores_NS.var(axis=1, ddof=1)
    mos = np.clip(0.1 + 0.8 * rated.scores_NS.mean(axis=1) + np.sqrt(0.001 + 0.5 * s2) * rng.normal(0, 1, 400), 0, 1)
    found = SPREADS["predictive"].fit(Rated(rated.scores_NS, mos))

    def loss(p: np.ndarray) -> float:
        width = np.sqrt(np.exp(p[2]) + np.exp(p[3]) * s2)
        return -float(norm.logpdf(mos, p[0] + p[1] * rated.scores_NS.mean(axis=1), width).mean())

    best = minimize(loss, [0, 1, -6, -1], method="Nelder-Mead", options={"maxiter": 8000, "fatol": 1e-12})
    assert isinstance(found, Predictive)
    ours = loss(np.array([found.alpha, found.beta, math.log(found.c), math.log(found.d)]))
    assert ours <= best.fun + 1e-6
    assert found(rated.scores_NS) == pytest.approx(np.sqrt(found.c + found.d * s2))


def test_scorers_without_information_on_the_error_leave_a_constant():
    rng = np.random.default_rng(6)
    scores = np.clip(rng.uniform(0.2, 0.8, 3000)[:, None] + rng.normal(0, 0.05, (3000, 6)), 0, 1)
    mos = np.clip(scores.mean(axis=1) + rng.normal(0, 0.1, 3000), 0, 1)
    found = SPREADS["predictive"].fit(Rated(scores, mos))
    assert found(scores).mean() == pytest.approx(0.1, rel=0.05)
    assert found.d * scores.var(axis=1, ddof=1).mean() < 0.1 * found.c


def test_a_variance_function_is_recovered():
    rated = draw(7)
    mu, s2 = rated.scores_NS.mean(axis=1), rated.scores_NS.var(axis=1, ddof=1)
    truth = [-1.5, 0.8, -0.4, 0.3]
    sd = np.exp((truth[0] + truth[1] * np.log(mu * (1 - mu)) + truth[2] * mu + truth[3] * np.log(s2)) / 2)
    found = SPREADS["variance_function"].fit(Rated(rated.scores_NS, None, sd))
    assert isinstance(found, VarianceFunction)
    assert found.g_4 == pytest.approx(truth)
    assert found(rated.scores_NS) == pytest.approx(sd)


@pytest.mark.parametrize("name", SPREADS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_of_scorers_and_samples_means_nothing(name: str, seed: int):
    rated = draw(seed, samples=30)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(30), rng.permutation(6)
    turned = Rated(rated.scores_NS[rows][:, columns], rated.mos_N[rows], rated.sd_N[rows])
    sigma = SPREADS[name].fit(rated)(rated.scores_NS)
    assert sigma.shape == (30,)
    assert np.isfinite(sigma).all()
    assert (sigma >= 0).all()
    assert SPREADS[name].fit(turned)(turned.scores_NS) == pytest.approx(sigma[rows], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", [name for name, method in SPREADS.items() if method.needs is Needs.SCORES])
@given(SCORES)
def test_a_mirrored_scale_has_the_same_spread(name: str, scores: np.ndarray):
    fit = SPREADS[name].fit
    try:
        sigma = fit(Rated(scores))(scores)
    except ModelError:
        return  # scorers that agree exactly have nothing to fit on; told below
    assert fit(Rated(1 - scores))(1 - scores) == pytest.approx(sigma, rel=1e-6, abs=1e-7)


@given(SCORES, st.floats(1e-3, 1.0), st.floats(0.1, 1e4))
def test_shrinkage_lies_between_the_prior_and_the_sample(scores: np.ndarray, level: float, weight: float):
    sigma, sample = Shrunk(level, weight)(scores), scores.std(axis=1, ddof=1)
    prior = Shrunk(level, math.inf)(scores)
    assert (sigma >= np.minimum(prior, sample) - 1e-12).all()
    assert (sigma <= np.maximum(prior, sample) + 1e-12).all()


@pytest.mark.parametrize(
    ("name", "rated", "told"),
    [
        ("population", Rated(np.full((9, 1), 0.5)), "two or more scorers"),
        ("population", Rated(np.full((9, 2), 1.5)), "calibrate scorers"),
        ("sos", Rated(np.full((9, 2), np.nan)), "finite number"),
        ("shrunk", Rated(np.full((9, 3), 0.5)), "agree exactly"),
        ("shrunk", Rated(np.full((7, 3), 0.5)), "7 samples are too few"),
        ("noise_weighted", Rated(np.full((9, 3), 0.5)), "never differ"),
        ("noise_weighted", Rated(np.full((9, 2), 0.5)), "needs three scorers"),
        ("predictive", Rated(np.full((9, 3), 0.5)), "fitted on human scores, and there are none"),
        ("predictive", Rated(np.full((9, 3), 0.5), np.full(8, 0.5)), "must be 9 finite numbers"),
        ("variance_function", Rated(np.full((9, 3), 0.5), np.full(9, 0.5)), "human standard deviations"),
    ],
)
def test_what_cannot_be_fitted_is_told(name: str, rated: Rated, told: str):
    with pytest.raises(ModelError, match=told):
        SPREADS[name].fit(rated)
