"""Every statistic against an independent computation: SciPy on really replicated samples, and SciPy's own curve fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from scipy.stats import kendalltau, pearsonr, spearmanr

from models import correlation
from models.correlation import (
    Logistic,
    agreement,
    bootstrap,
    fit_logistic,
    interval,
    resamples,
    srcc_replicates,
    srcc_replicates_many,
)
from models.errors import ModelError

Samples = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture
def samples() -> Samples:
    """Sixty samples of twelve contents, with ties in both variables."""
    rng = np.random.default_rng(3)
    target = rng.uniform(0, 1, 60).round(1)
    score = (1 / (1 + np.exp(-(target - 0.5) * 6)) + rng.normal(0, 0.15, 60)).round(2)
    return score, target, np.repeat(np.arange(12), 5)


def test_point_estimates_equal_scipy(samples: Samples):
    score, target, _ = samples
    found = agreement(score, target)
    assert found.srcc == pytest.approx(spearmanr(score, target)[0], abs=1e-12)
    assert found.krcc == pytest.approx(kendalltau(score, target)[0], abs=1e-12)
    assert found.plcc == pytest.approx(pearsonr(score, target)[0], abs=1e-12)
    assert found.rmse == pytest.approx(np.sqrt(np.mean((score - target) ** 2)), abs=1e-12)
    assert found.note == ""


def test_the_logistic_fit_is_as_good_as_scipys_curve_fit(samples: Samples):
    score, target, _ = samples

    def curve(x: np.ndarray, low: float, high: float, centre: float, width: float) -> np.ndarray:
        return low + (high - low) / (1 + np.exp(-(x - centre) / abs(width)))

    best, _ = curve_fit(curve, score, target, p0=(0, 1, 0.5, 0.3), maxfev=20000)
    expected = np.sqrt(np.mean((curve(score, *best) - target) ** 2))
    fitted = fit_logistic(score, target)(score)
    assert np.sqrt(np.mean((fitted - target) ** 2)) <= expected + 1e-6
    assert agreement(score, target).plcc_fitted == pytest.approx(pearsonr(curve(score, *best), target)[0], abs=1e-4)


def test_a_logistic_relation_is_recovered_exactly():
    truth = Logistic(0.1, 0.8, 40.0, 9.0)
    score = np.linspace(0, 100, 200)
    found = fit_logistic(score, truth(score))
    assert (found.low, found.high, found.centre, found.width) == pytest.approx((0.1, 0.8, 40.0, 9.0), rel=1e-3)
    assert agreement(score, truth(score)).rmse_fitted == pytest.approx(0, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_replicates_equal_scipy_on_really_replicated_samples(seed: int):
    rng = np.random.default_rng(seed)
    contents = rng.integers(0, 7, 40)
    score, target = rng.uniform(0, 1, 40).round(1), rng.uniform(0, 1, 40).round(1)
    drawn = resamples(7, 4, seed)
    found = bootstrap(score, target, contents, drawn)
    for row, multiplicity in enumerate(drawn):
        index = np.repeat(np.arange(40), multiplicity[contents])
        x, y = score[index], target[index]
        if len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
            continue
        assert found["srcc"][row] == pytest.approx(spearmanr(x, y)[0], abs=1e-9)
        assert found["krcc"][row] == pytest.approx(kendalltau(x, y)[0], abs=1e-9)
        assert found["plcc"][row] == pytest.approx(pearsonr(x, y)[0], abs=1e-9)
        assert found["rmse"][row] == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 1, 2, 9]), st.sampled_from([1, 5]))
def test_rank_correlations_of_replicates_are_scipys_to_the_last_digits(seed: int, digits: int, per_content: int):
    """Few values with many ties (0 digits leave two values), and none; samples alone and in contents of several."""
    rng = np.random.default_rng(seed)
    contents = np.arange(150) if per_content == 1 else rng.integers(0, 30, 150)
    scores, target = rng.normal(0.5, 0.4, (3, 150)).clip(0, 1).round(digits), rng.uniform(0, 1, 150).round(digits)
    drawn = resamples(150 // per_content, 8, seed)
    found = srcc_replicates_many(scores, target, contents, drawn)
    for row, multiplicity in enumerate(drawn):
        index = np.repeat(np.arange(150), multiplicity[contents])
        expected = [spearmanr(score[index], target[index])[0] for score in scores]
        assert found[:, row] == pytest.approx(expected, abs=1e-12)
    assert (found[1] == srcc_replicates(scores[1], target, contents, drawn)).all()


def test_pieces_of_replicates_change_nothing(samples: Samples, monkeypatch: pytest.MonkeyPatch):
    score, target, groups = samples
    drawn = resamples(12, 50, 5)
    whole = srcc_replicates(score, target, groups, drawn)
    monkeypatch.setattr(correlation, "_PIECE", 3 * len(score))
    assert (srcc_replicates(score, target, groups, drawn) == whole).all()


def test_a_replicate_that_leaves_one_side_constant_has_no_rank_correlation():
    drawn = np.array([[1, 1, 1, 0], [0, 0, 2, 1]])
    found = srcc_replicates(np.array([0.3, 0.3, 0.3, 0.9]), np.array([0.1, 0.2, 0.3, 0.4]), np.arange(4), drawn)
    assert np.isnan(found[0])
    assert found[1] == 1


def test_fitted_replicates_agree_with_a_fit_of_the_replicated_samples(samples: Samples):
    score, target, groups = samples
    drawn = resamples(12, 6, 1)
    found = bootstrap(score, target, groups, drawn)
    for row, multiplicity in enumerate(drawn):
        index = np.repeat(np.arange(60), multiplicity[groups])
        expected = agreement(score[index], target[index])
        assert found["plcc_fitted"][row] == pytest.approx(expected.plcc_fitted, abs=2e-3)
        assert found["rmse_fitted"][row] == pytest.approx(expected.rmse_fitted, abs=2e-3)


def test_the_wrong_polarity_stays_visible(samples: Samples):
    score, target, groups = samples
    right, wrong = agreement(score, target), agreement(-score, target)
    assert right.plcc_fitted > 0.5
    assert wrong.plcc_fitted == pytest.approx(-right.plcc_fitted, abs=1e-4)
    assert wrong.srcc == pytest.approx(-right.srcc)
    assert np.nanmax(bootstrap(-score, target, groups, resamples(12, 50, 0))["plcc_fitted"]) < 0


@pytest.mark.parametrize(
    ("score", "target", "note"),
    [
        ([0.4] * 8, list(range(8)), "predictions are constant"),
        (list(range(8)), [0.4] * 8, "references are constant"),
        ([0.1, 0.2], [0.3, 0.4], "too few"),
    ],
)
def test_undefined_is_none_with_a_reason(score: list, target: list, note: str):
    found = agreement(score, target)
    assert note in found.note
    assert all(getattr(found, name) is None for name in correlation.STATISTICS)


def test_constant_predictions_bootstrap_to_nothing():
    found = bootstrap(np.full(10, 0.3), np.arange(10.0), np.arange(10), resamples(10, 20, 0))
    for name in ("srcc", "krcc", "plcc", "plcc_fitted", "rmse_fitted"):
        assert np.isnan(found[name]).all(), name
        assert interval(found[name], 0.95, 0.05) is None


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Contents of correlated samples: the interval by content covers rho; one by sample would be far too narrow."""
    rng = np.random.default_rng(11)
    covered = []
    for _ in range(120):
        level = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 40)
        x, y = (np.repeat(level[:, i], 6) + rng.normal(0, 0.1, 240) for i in (0, 1))
        low, high = interval(bootstrap(x, y, np.repeat(np.arange(40), 6), resamples(40, 300, 0))["plcc"], 0.95, 0.05)
        covered.append(low <= 0.6 / 1.01 <= high)
    assert 0.86 <= np.mean(covered) <= 1.0


def test_resampling_is_deterministic_and_keeps_the_number_of_contents():
    drawn = resamples(9, 500, 4)
    assert (drawn.sum(axis=1) == 9).all()
    assert (drawn == resamples(9, 500, 4)).all()
    assert drawn.mean() == pytest.approx(1.0)
    assert (drawn == 0).mean() == pytest.approx((8 / 9) ** 9, abs=0.03)


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2, 3]), ([1, np.nan, 2], [1, 2, 3]), ([[1, 2]], [[1, 2]])])
def test_unusable_input_is_refused(x: list, y: list):
    with pytest.raises(ModelError):
        agreement(x, y)
