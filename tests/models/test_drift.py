"""Drift measures against numbers that were computed independently: by hand, and by SciPy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from models.drift import ks, level_indices, migration, moved_share, psi
from models.errors import ModelError
from models.levels import LEVELS, level_of

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(SCORES, SCORES)
def test_ks_is_scipys_statistic(before: list[float], after: list[float]):
    assert ks(before, after) == pytest.approx(ks_2samp(before, after, method="asymp").statistic, abs=1e-12)


def test_ks_by_hand():
    assert ks([0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.5, 0.6]) == 0.5
    assert ks([0.1], [0.2]) == 1.0
    assert ks([0.2, 0.2, 0.4], [0.2, 0.4, 0.4]) == pytest.approx(1 / 3)


def test_psi_by_hand():
    # two bins with the edge at the median .5: counts (2, 2) become (1, 5), smoothed by a half
    before, after = [0.1, 0.3, 0.7, 0.9], [0.2, 0.6, 0.6, 0.8, 0.9, 0.5]
    p, q = [2.5 / 5, 2.5 / 5], [1.5 / 7, 5.5 / 7]
    wanted = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert psi(before, after, bins=2) == pytest.approx(wanted, abs=1e-12)


def test_psi_by_a_histogram():
    rng = np.random.default_rng(3)
    before, after = rng.normal(0.5, 0.1, 500), rng.normal(0.53, 0.12, 700)
    edges = [-np.inf, *np.percentile(before, range(10, 100, 10)), np.inf]
    p, q = (np.histogram(x, edges)[0] + 0.5 for x in (before, after))
    p, q = p / p.sum(), q / q.sum()
    assert psi(before, after) == pytest.approx(float(((q - p) * (np.log(q) - np.log(p))).sum()), abs=1e-12)
    assert psi(before, after) > psi(before, before) == 0.0


@given(SCORES, SCORES)
def test_psi_is_never_negative_and_finite(before: list[float], after: list[float]):
    assert 0.0 <= psi(before, after) < 50.0


def test_psi_of_a_constant_sees_what_leaves_it():
    assert psi([0.5] * 20, [0.5] * 20) == 0.0
    assert psi([0.5] * 20, [0.4] * 20) > 1.0


def test_migration_counts_moves_and_shares():
    table = migration([0.95, 0.9, 0.5, 0.1], [0.95, 0.7, 0.1, 0.1])
    assert table.tolist() == [[1, 1, 0, 0, 0], [0] * 5, [0, 0, 0, 0, 1], [0] * 5, [0, 0, 0, 0, 1]]
    assert moved_share(table) == 0.5
    assert moved_share(table, 2) == 0.25
    assert moved_share(np.zeros((5, 5))) == 0.0


@given(st.lists(st.floats(0, 1), max_size=20))
def test_levels_are_those_of_the_house(qualities: list[float]):
    assert [LEVELS[i] for i in level_indices(qualities)] == [level_of(q) for q in qualities]


@pytest.mark.parametrize("bad", [[], [math.nan], [math.inf]])
def test_what_is_no_number_is_refused(bad: list[float]):
    with pytest.raises(ModelError, match="finite"):
        ks(bad, [0.5])
    with pytest.raises(ModelError, match="finite"):
        psi([0.5], bad)


def test_other_nonsense_is_refused():
    with pytest.raises(ModelError, match="two bins"):
        psi([0.5], [0.5], bins=1)
    with pytest.raises(ModelError, match="same samples"):
        migration([0.5], [0.5, 0.6])
