"""Pairs of samples and which is better: Thurstone's probability from the machine opinions of both.

The rule of ties rests on both means and both spreads: with ``p = Phi((mu1 - mu2) / sqrt(s1^2 + s2^2))`` a pair is a tie
if ``|p - .5| <= tie_within``, decided if ``max(p, 1 - p) >= decisive_at``, and no pair at all in between.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]

BETTER, WORSE, TIE = 1.0, 0.0, 0.5
"""Preference of the first of a pair."""


@dataclass(frozen=True)
class PairRule:
    """How pairs are chosen.

    Attributes:
        per_sample: pairs per sample of a split and modality, at most.
        draws_per_sample: random partners tried per sample.
        decisive_at: probability from which one of a pair counts as better; the paper states no threshold, this is ours.
        tie_within: distance from one half within which a pair is a tie; ours likewise.
    """

    per_sample: float
    draws_per_sample: int
    decisive_at: float
    tie_within: float

    def __post_init__(self) -> None:
        if not (0.5 + self.tie_within < self.decisive_at <= 1 and self.tie_within >= 0):
            raise ValueError("pairs need .5 + tie_within < decisive_at <= 1")
        if self.per_sample < 0 or self.draws_per_sample < 1:
            raise ValueError("pairs need per_sample >= 0 and draws_per_sample >= 1")


def probability_better(mu_one: Floats, mu_two: Floats, sigma_one: Floats, sigma_two: Floats) -> Floats:
    """``Phi((mu1 - mu2) / sqrt(s1^2 + s2^2))``, ``[N]``; without any spread 1, 0, or one half at equality."""
    difference = np.asarray(mu_one, np.float64) - np.asarray(mu_two, np.float64)
    spread = np.hypot(sigma_one, sigma_two)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(spread > 0, difference / spread, np.sign(difference) * np.inf)
    return ndtr(np.where(np.isnan(z), 0.0, z))


def choose_pairs(mu: Floats, sigma: Floats, rule: PairRule, seed: tuple[int, ...]) -> list[tuple[int, int, float]]:
    """Pairs of one group: (first, second, preference), better : worse : tie = 4 : 4 : 2 exactly.

    The number is a multiple of five: as many as ``per_sample`` allows and as the rarer class can fill.
    """
    count = len(mu)
    if count < 2:
        return []
    generator = np.random.default_rng(seed)
    drawn = np.concatenate(
        [np.stack([np.arange(count), generator.permutation(count)], axis=1) for _ in range(rule.draws_per_sample)]
    )
    drawn = np.sort(drawn[drawn[:, 0] != drawn[:, 1]], axis=1)
    _, first_seen = np.unique(drawn, axis=0, return_index=True)
    pairs = drawn[np.sort(first_seen)]
    one, two = pairs.T
    p = probability_better(mu[one], mu[two], sigma[one], sigma[two])
    ties, decisive = np.abs(p - 0.5) <= rule.tie_within, np.maximum(p, 1 - p) >= rule.decisive_at
    unit = min(int(rule.per_sample * count) // 5, int(ties.sum()), int(decisive.sum()) // 4)
    chosen: list[tuple[int, int, float]] = []
    for rank, index in enumerate(np.flatnonzero(decisive)[: 4 * unit]):
        best, other = (one[index], two[index]) if p[index] > 0.5 else (two[index], one[index])
        preference = BETTER if rank % 2 == 0 else WORSE
        chosen.append((int(best), int(other), BETTER) if preference == BETTER else (int(other), int(best), WORSE))
    chosen += [(int(one[index]), int(two[index]), TIE) for index in np.flatnonzero(ties)[:unit]]
    return chosen
