"""Three ways to count unstable answers, against chances that are known and sums that are written out."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.correlation import resamples
from models.errors import ModelError
from models.instruments.instability import (
    ESTIMATORS,
    FAILED,
    instability,
    instability_difference,
    score_gap,
    unstable_shares,
)
from models.instruments.replicates import Replicates

TABLES = st.integers(2, 6).flatmap(
    lambda answers: st.lists(
        st.lists(st.integers(FAILED, 4), min_size=answers, max_size=answers), min_size=1, max_size=8
    )
)


def replicates(samples: int, groups: int | None = None) -> Replicates:
    groups = groups or samples
    return Replicates(np.arange(samples) % groups, resamples(groups, 200, 0), 0.95, 0.05)


def sampled(probabilities: list[float], samples: int, answers: int) -> np.ndarray:
    generator = np.random.default_rng(1)
    return generator.choice(len(probabilities), p=probabilities, size=(samples, answers))


def test_a_sampler_with_known_chances_is_measured_right():
    answers = sampled([0.9, 0.1], 2000, 10)
    found = instability(answers, "own_class", replicates(2000))
    assert found["pairwise"].value == pytest.approx(2 * 0.9 * 0.1, abs=0.01)
    assert found["any_change"].value == pytest.approx(1 - 0.9**10 - 0.1**10, abs=0.02)
    low, high = found["pairwise"].low, found["pairwise"].high
    assert low is not None
    assert high is not None
    assert low < 0.18 < high
    assert high - low == pytest.approx(
        2 * 1.96 * unstable_shares(answers, "own_class")["pairwise"].std() / 2000**0.5, rel=0.2
    )


def test_five_equally_likely_answers_differ_four_times_out_of_five():
    found = instability(sampled([0.2] * 5, 4000, 6), "own_class", replicates(4000))
    assert found["pairwise"].value == pytest.approx(0.8, abs=0.01)


def test_equal_answers_are_exactly_stable():
    found = instability(np.full((5, 7), 3), "own_class", replicates(5))
    assert all((share.value, share.low, share.high) == (0.0, 0.0, 0.0) for share in found.values())


@given(TABLES)
def test_pairwise_is_the_share_of_unequal_pairs(table: list[list[int]]):
    found = unstable_shares(np.array(table), "left_out")
    for row, pairwise, any_change, modal in zip(table, *(found[name] for name in ESTIMATORS), strict=True):
        kept = [answer for answer in row if answer != FAILED]
        if len(kept) < 2:
            assert np.isnan([pairwise, any_change, modal]).all()
            continue
        pairs = list(itertools.combinations(kept, 2))
        assert pairwise == pytest.approx(sum(a != b for a, b in pairs) / len(pairs))
        assert any_change == (len(set(kept)) > 1)
        assert modal == pytest.approx(1 - max(map(kept.count, kept)) / len(kept))


@given(TABLES)
def test_with_two_answers_pairwise_is_any_change(table: list[list[int]]):
    found = unstable_shares(np.array(table)[:, :2], "own_class")
    assert found["pairwise"] == pytest.approx(found["any_change"])


def test_failed_answers_are_a_class_of_their_own_or_left_out():
    table = np.array([[1, 1, FAILED], [1, FAILED, FAILED]])
    own, out = unstable_shares(table, "own_class"), unstable_shares(table, "left_out")
    assert own["pairwise"] == pytest.approx([2 / 3, 2 / 3])
    assert out["pairwise"][0] == 0.0
    assert np.isnan(out["pairwise"][1])
    assert instability(table, "left_out", replicates(2))["pairwise"].samples == 1
    nothing = instability(np.full((2, 3), FAILED), "left_out", replicates(2))["modal"]
    assert (nothing.value, nothing.samples) == (None, 0)


def test_a_difference_is_paired_by_sample():
    steady, shaky = np.zeros((300, 8), dtype=int), sampled([0.7, 0.3], 300, 8)
    found = instability_difference(shaky, steady, "own_class", replicates(300))["pairwise"]
    alone = instability(shaky, "own_class", replicates(300))["pairwise"]
    assert (found.value, found.low, found.high) == (alone.value, alone.low, alone.high)
    same = instability_difference(shaky, shaky, "own_class", replicates(300))["any_change"]
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    with pytest.raises(ModelError, match="300 and 2 samples"):
        instability_difference(shaky, steady[:2], "own_class", replicates(300))


def test_intervals_are_over_contents():
    answers = np.repeat(sampled([0.8, 0.2], 50, 4), 20, axis=0)  # 50 contents, each shown 20 times
    group = np.repeat(np.arange(50), 20)
    grouped = Replicates(group, resamples(50, 400, 0), 0.95, 0.05)
    by_content = instability(answers, "own_class", grouped)["pairwise"]
    by_sample = instability(answers, "own_class", replicates(1000))["pairwise"]
    assert by_content.high is not None
    assert by_content.low is not None
    assert by_sample.high is not None
    assert by_sample.low is not None
    assert by_content.high - by_content.low > 3 * (by_sample.high - by_sample.low)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=7))
def test_a_score_gap_is_the_mean_over_all_pairs(scores: list[float]):
    wanted = np.mean([abs(a - b) for a, b in itertools.combinations(scores, 2)])
    assert score_gap(np.array([[*scores, np.nan]]))[0] == pytest.approx(wanted, abs=1e-12)
    assert np.isnan(score_gap(np.array([[0.5, np.nan]]))[0])


def test_what_is_no_table_of_classes_is_refused():
    with pytest.raises(ModelError, match="table of classes"):
        unstable_shares(np.array([0, 1]), "own_class")
    with pytest.raises(ModelError, match="table of classes"):
        unstable_shares(np.array([[0, -2]]), "own_class")
