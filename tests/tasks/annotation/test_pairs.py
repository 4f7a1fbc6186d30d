from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from tasks.annotation.pairs import BETTER, TIE, WORSE, PairRule, choose_pairs, probability_better

RULE = PairRule(per_sample=1.0, draws_per_sample=8, decisive_at=0.8, tie_within=0.1)


def test_probability_is_thurstones():
    found = probability_better(np.array([0.7]), np.array([0.5]), np.array([0.1]), np.array([0.15]))
    assert found[0] == pytest.approx(norm.cdf(0.2 / np.sqrt(0.1**2 + 0.15**2)))


def test_without_spread_the_larger_mean_wins_for_certain():
    mu_one, mu_two, none = np.array([0.7, 0.5, 0.5]), np.array([0.5, 0.7, 0.5]), np.zeros(3)
    assert probability_better(mu_one, mu_two, none, none).tolist() == [1.0, 0.0, 0.5]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.integers(0, 10_000))
def test_the_ratio_is_exactly_4_4_2_and_every_pair_obeys_the_rule(count: int, seed: int):
    generator = np.random.default_rng(seed)
    mu, sigma = generator.uniform(0, 1, count), generator.uniform(0.02, 0.15, count)
    chosen = choose_pairs(mu, sigma, RULE, (1, seed))
    counts = Counter(preference for _, _, preference in chosen)
    assert counts[BETTER] == counts[WORSE] == 2 * counts[TIE]
    assert len(chosen) <= count
    assert len({frozenset(pair[:2]) for pair in chosen}) == len(chosen)
    for one, two, preference in chosen:
        p = probability_better(mu[[one]], mu[[two]], sigma[[one]], sigma[[two]])[0]
        assert one != two
        if preference == TIE:
            assert abs(p - 0.5) <= 0.1
        else:
            assert (p if preference == BETTER else 1 - p) >= 0.8
    assert chosen == choose_pairs(mu, sigma, RULE, (1, seed))


def test_a_large_group_fills_its_quota():
    generator = np.random.default_rng(0)
    chosen = choose_pairs(generator.uniform(0.2, 0.9, 500), np.full(500, 0.07), RULE, (3,))
    assert len(chosen) == 500


@pytest.mark.parametrize(("sigma", "expected"), [(0.05, {1.0, 0.0}), (0.115, set()), (0.4, {0.5})])
def test_the_same_means_are_decided_between_or_tied_by_the_spreads(sigma: float, expected: set[float]):
    """mu .5 and .6: p = .92 with spreads of .05, .73 with .115 (neither), .57 with .4."""
    mu = np.array([0.5, 0.6])
    p = probability_better(mu[1:], mu[:1], np.array([sigma]), np.array([sigma]))[0]
    assert p == pytest.approx(norm.cdf(0.1 / (sigma * np.sqrt(2))))
    told = {1.0, 0.0} if p >= RULE.decisive_at else {0.5} if abs(p - 0.5) <= RULE.tie_within else set()
    assert told == expected
    # In a group where the other class is there as well, the pair gets what the rule says, or is not chosen.
    pool_mu, pool_sigma = np.r_[mu, 0.05, 0.95, 0.05, 0.95, 0.3, 0.3], np.r_[sigma, sigma, [1e-3] * 4, 0.4, 0.4]
    many = PairRule(per_sample=5.0, draws_per_sample=60, decisive_at=0.8, tie_within=0.1)
    chosen = choose_pairs(pool_mu, pool_sigma, many, (0,))
    assert chosen
    assert {preference for one, two, preference in chosen if {one, two} == {0, 1}} <= expected


def test_bad_rules_are_refused():
    for changes in ({"decisive_at": 0.55}, {"tie_within": 0.4}, {"draws_per_sample": 0}, {"per_sample": -1.0}):
        with pytest.raises(ValueError, match="pairs need"):
            PairRule(**({"per_sample": 1.0, "draws_per_sample": 8, "decisive_at": 0.8, "tie_within": 0.1} | changes))
