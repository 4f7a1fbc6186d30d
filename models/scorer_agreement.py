"""How scorers agree: each with the mean of the others, who is an outlier by a stated rule, and calibration curves.

Scores are ``[N, S]``, ``N`` samples of ``S`` scorers, higher is better for all of them.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.correlation import srcc
from models.errors import ModelError

Floats = NDArray[np.float64]

Z_LIMIT: Final = -3.5
"""Iglewicz and Hoaglin, "How to detect and handle outliers" (1993): modified z beyond 3.5; here the low side alone."""
BT500_SHARE: Final = 0.05
BT500_BALANCE: Final = 0.3
"""ITU-R BT.500, screening of observers: rejected if more than 5 % of the scores are far out, to both sides alike."""
_FEWEST_SCORERS: Final = 4
"""Fewer agreements have no deviation that means something."""
_LARGEST_SRCC: Final = 1 - 1e-9


@dataclass(frozen=True)
class Screening:
    """What the two rules say about one scorer.

    Attributes:
        with_others: SRCC with the mean of the others; None where it is undefined.
        robust_z: modified z of its Fisher-transformed agreement among all scorers; None with fewer than four.
        far_share: share of the samples on which BT.500 counts its score as far out.
        balance: ``|P - Q| / (P + Q)`` of those above and below; None if there are none.
        reasons: the rules that call it an outlier; empty if none does.
    """

    with_others: float | None
    robust_z: float | None
    far_share: float
    balance: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Curve:
    """Means of equally filled bins of a score.

    Attributes:
        score_K, reference_K: mean score and mean reference of each bin, by rising score.
        count_K: samples of each.
        error: mean over samples of ``|score_K - reference_K|``, the expected calibration error.
    """

    score_K: Floats
    reference_K: Floats
    count_K: NDArray[np.int64]
    error: float


def others_mean(scores_NS: ArrayLike) -> Floats:
    """Mean ``[N, S]`` of all scorers but the one of the column.

    Raises:
        ModelError: there are fewer than two scorers.
    """
    scores = np.asarray(scores_NS, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2:
        msg = f"agreement needs scores [N, S] of two or more scorers, not {scores.shape}"
        raise ModelError(msg)
    return (scores.sum(axis=1, keepdims=True) - scores) / (scores.shape[1] - 1)


def modified_z(values: ArrayLike) -> Floats:
    """``0.6745 (x - median) / MAD`` of each value (Iglewicz and Hoaglin 1993).

    Where more than half of the values are equal the MAD is 0 and ``(x - median) / (1.2533 mean |x - median|)`` takes
    its place; equal values have 0.
    """
    x = np.asarray(values, dtype=np.float64)
    away = x - np.median(x)
    scale = float(np.median(np.abs(away))) / 0.6745
    if scale == 0:
        scale = 1.253314 * float(np.abs(away).mean())
    return away / scale if scale > 0 else np.zeros_like(x)


def far_counts(scores_NS: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often each scorer is far above and far below the rest: ``P [S]`` and ``Q [S]`` of ITU-R BT.500.

    Per sample, far means 2 standard deviations (``S - 1``) where the kurtosis ``m4 / m2^2`` of its scores lies in
    [2, 4] (near a Gaussian), else sqrt(20). Samples on which all agree have nobody far out. With ``S`` scorers no
    deviation exceeds ``(S - 1) / sqrt(S)``: 2.04 for six, so the rule can hardly speak there; it is made for the 15 or
    more observers of a test.
    """
    scores = np.asarray(scores_NS, dtype=np.float64)
    away = scores - scores.mean(axis=1, keepdims=True)
    second_N, fourth_N = (away**2).mean(axis=1), (away**4).mean(axis=1)
    differ_N = second_N > 1e-18
    kurtosis_N = np.divide(fourth_N, second_N**2, out=np.zeros_like(second_N), where=differ_N)
    factor_N = np.where((kurtosis_N >= 2) & (kurtosis_N <= 4), 2.0, np.sqrt(20.0))
    limit_N1 = (factor_N * scores.std(axis=1, ddof=1))[:, None]
    seen_N1 = differ_N[:, None]
    above_S = ((away >= limit_N1) & seen_N1).sum(axis=0)
    return above_S, ((away <= -limit_N1) & seen_N1).sum(axis=0)


def screen(scores_NS: ArrayLike) -> list[Screening]:
    """Look for outliers among scorers by two rules, in the order of the columns.

    ``agreement``: the modified z of ``atanh`` of the SRCC with the others' mean is below -3.5 (four or more scorers).
    ``bt500``: ITU-R BT.500's screening, with scorers as observers: ``(P + Q) / N > .05`` and
    ``|P - Q| / (P + Q) < .3``. A scorer that is constant is an outlier as ``constant``.

    Raises:
        ModelError: there are fewer than two scorers.
    """
    scores, others = np.asarray(scores_NS, dtype=np.float64), others_mean(scores_NS)
    found = [srcc(scores[:, s], others[:, s]) for s in range(scores.shape[1])]
    z_of = _robust(found)
    return [
        _screening(found[s], z_of.get(s), int(above), int(below), len(scores))
        for s, (above, below) in enumerate(zip(*far_counts(scores), strict=True))
    ]


def _robust(found: list[float | None]) -> dict[int, float]:
    known = {
        s: float(np.arctanh(np.clip(r, -_LARGEST_SRCC, _LARGEST_SRCC))) for s, r in enumerate(found) if r is not None
    }
    if len(known) < _FEWEST_SCORERS:
        return {}
    return dict(zip(known, map(float, modified_z(list(known.values()))), strict=True))


def _screening(with_others: float | None, z: float | None, above: int, below: int, samples: int) -> Screening:
    far = above + below
    share, balance = far / max(samples, 1), abs(above - below) / far if far else None
    rules = {
        "constant": with_others is None,
        "agreement": z is not None and z < Z_LIMIT,
        "bt500": share > BT500_SHARE and balance is not None and balance < BT500_BALANCE,
    }
    return Screening(with_others, z, share, balance, tuple(name for name, holds in rules.items() if holds))


def calibration_curve(score_N: ArrayLike, reference_N: ArrayLike, bins: int) -> Curve:
    """Compare a score with a reference on the same scale in at most ``bins`` equally filled bins.

    Equal scores stay in one bin, so ties may leave fewer bins.

    Raises:
        ModelError: the arrays differ in length, are empty, or ``bins`` is not positive.
    """
    score, reference = np.asarray(score_N, dtype=np.float64), np.asarray(reference_N, dtype=np.float64)
    if score.shape != reference.shape or score.ndim != 1 or len(score) == 0 or bins < 1:
        msg = f"a curve needs two lists of one length and a bin, not {score.shape}, {reference.shape} and {bins}"
        raise ModelError(msg)
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1]))
    number_N = np.searchsorted(edges, score, side="left")
    count_K = np.bincount(number_N, minlength=len(edges) + 1)
    kept = count_K > 0
    score_K, reference_K = (
        np.bincount(number_N, values, len(count_K))[kept] / count_K[kept] for values in (score, reference)
    )
    error = float((np.abs(score_K - reference_K) * count_K[kept]).sum() / len(score))
    return Curve(score_K, reference_K, count_K[kept], error)
