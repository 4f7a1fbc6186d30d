"""Agreement of scorers against hand-made tables and SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kurtosis, spearmanr

from models.errors import ModelError
from models.scorer_agreement import calibration_curve, far_counts, modified_z, others_mean, screen


def crowd(seed: int = 0, samples: int = 200, scorers: int = 15) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.2, 0.8, samples)[:, None] + rng.normal(0, 0.08, (samples, scorers))


def test_the_mean_of_the_others_leaves_oneself_out():
    assert others_mean([[0.1, 0.5, 0.9]]).tolist() == [pytest.approx([0.7, 0.5, 0.3])]
    with pytest.raises(ModelError, match="two or more scorers"):
        others_mean([[0.1]])


def test_modified_z_by_hand():
    # median 3, distances 2 1 0 1 7, MAD 1
    assert modified_z([1, 2, 3, 4, 10]).tolist() == pytest.approx([-1.349, -0.6745, 0, 0.6745, 4.7215])
    # MAD 0: mean distance 2, scale 2.506628
    assert modified_z([1, 1, 1, 1, 11]).tolist() == pytest.approx([0, 0, 0, 0, 10 / 2.506628])
    assert modified_z([2, 2, 2]).tolist() == [0, 0, 0]


def test_far_scores_are_counted_as_bt500_does():
    """Sample by sample, with SciPy's kurtosis."""
    scores = crowd(1)
    scores[::7, 3] += 0.5
    scores[1::9, 4] -= 0.5
    above, below = np.zeros(15, int), np.zeros(15, int)
    for row in scores:
        limit = (2.0 if 2 <= kurtosis(row, fisher=False) <= 4 else 20**0.5) * np.std(row, ddof=1)
        above += row >= row.mean() + limit
        below += row <= row.mean() - limit
    found = far_counts(scores)
    assert found[0].tolist() == above.tolist()
    assert found[1].tolist() == below.tolist()
    assert above.sum() > 0
    assert below.sum() > 0


def test_samples_on_which_all_agree_have_nobody_far_out():
    assert [counts.tolist() for counts in far_counts([[0.5] * 6] * 3)] == [[0] * 6] * 2


def test_a_scorer_that_ranks_by_chance_is_an_outlier_by_agreement():
    scores = crowd(2)
    scores[:, 5] = np.random.default_rng(9).uniform(0.2, 0.8, 200)
    found = screen(scores)
    assert found[5].with_others == pytest.approx(
        spearmanr(scores[:, 5], np.delete(scores, 5, axis=1).mean(axis=1)).statistic
    )
    assert "agreement" in found[5].reasons
    assert [one.reasons for i, one in enumerate(found) if i != 5] == [()] * 14


def test_an_erratic_scorer_is_rejected_by_bt500_and_a_biased_one_is_not():
    scores = crowd(3)
    scores[::4, 2] += 0.2
    scores[2::4, 2] -= 0.2
    scores[1::4, 7] += 0.25
    found = screen(scores)
    assert "bt500" in found[2].reasons
    assert found[2].balance < 0.3
    assert "bt500" not in found[7].reasons
    assert found[7].balance > 0.8
    assert found[7].far_share > 0.05


def test_one_scorer_very_far_from_few_others_is_beyond_bt500():
    """Its own share of the kurtosis calls for sqrt(20) = 4.5 deviations; (S - 1) / sqrt(S) is 3.6 for 15."""
    assert far_counts([[0.5] * 7 + [0.52] * 7 + [0.9]])[0].sum() == 0


def test_a_constant_scorer_is_told_and_few_scorers_have_no_robust_z():
    scores = crowd(4, scorers=3)
    scores[:, 1] = 0.5
    found = screen(scores)
    assert [one.reasons for one in found] == [(), ("constant",), ()]
    assert [one.robust_z for one in found] == [None] * 3


def test_identical_scorers_are_no_outliers():
    scores = np.repeat(np.linspace(0.1, 0.9, 20)[:, None], 6, axis=1)
    assert [one.reasons for one in screen(scores)] == [()] * 6


def test_a_curve_by_hand():
    curve = calibration_curve([0.1, 0.2, 0.3, 0.4], [0.2, 0.2, 0.6, 0.4], 2)
    assert curve.score_K == pytest.approx([0.15, 0.35])
    assert curve.reference_K == pytest.approx([0.2, 0.5])
    assert curve.count_K.tolist() == [2, 2]
    assert curve.error == pytest.approx((0.05 * 2 + 0.15 * 2) / 4)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.integers(1, 12))
def test_a_curve_keeps_every_sample_and_ties_together(values: list[int], bins: int):
    score = np.array(values) / 8
    curve = calibration_curve(score, 1 - score, bins)
    assert curve.count_K.sum() == len(score)
    assert (np.diff(curve.score_K) > 0).all()
    assert len(curve.score_K) <= bins
    assert curve.reference_K == pytest.approx(1 - curve.score_K)
    assert calibration_curve(score, score, bins).error == pytest.approx(0)


def test_a_curve_needs_pairs():
    with pytest.raises(ModelError, match="two lists"):
        calibration_curve([0.1], [0.1, 0.2], 3)
    with pytest.raises(ModelError, match="two lists"):
        calibration_curve([], [], 3)
