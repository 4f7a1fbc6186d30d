"""Agreement of predicted with reference quality: SRCC, KRCC, PLCC and RMSE, raw and after the logistic fit.

Polarity is the caller's to declare: both arguments are "higher is better" here, and a predictor that ranks the wrong
way round gets negative numbers everywhere, the fitted PLCC included.

Intervals are bootstrapped over *groups* (contents), since samples that show one content are not independent. A
replicate is a row of group multiplicities, so every statistic is computed for all replicates at once, without copying
samples: moments and pair counts are summed per group beforehand (``K`` curves, ``G`` groups, ``B`` replicates, ``N``
samples).
"""

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import kendalltau, pearsonr, spearmanr

from models.errors import ModelError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_CENTRES: Final = np.linspace(-0.5, 1.5, 33)
_WIDTHS: Final = np.geomspace(0.02, 2.0, 15)
"""Search box of the logistic's centre and width, in units of the predictions' range: from a step to a straight line."""
_MIN_SAMPLES: Final = 3
_CHUNK: Final = 4_000_000
"""Elements of the largest temporary array."""
_PIECE: Final = 100_000
"""Elements of a temporary array that stays in a processor's cache."""


@dataclass(frozen=True)
class Agreement:
    """The statistics of one set of predictions; None where a statistic is undefined (``note`` says why)."""

    srcc: float | None
    krcc: float | None
    plcc: float | None
    plcc_fitted: float | None
    rmse: float | None
    rmse_fitted: float | None
    note: str = ""


STATISTICS: Final = tuple(field.name for field in fields(Agreement) if field.name != "note")


@dataclass(frozen=True)
class Logistic:
    """The 4-parameter logistic ``low + (high - low) / (1 + exp(-(x - centre) / width))`` of the VQEG, width > 0."""

    low: float
    high: float
    centre: float
    width: float

    def __call__(self, score: ArrayLike) -> Floats:
        """Map predictions to the reference scale."""
        return self.low + (self.high - self.low) * expit((np.asarray(score) - self.centre) / self.width)


def agreement(scores: ArrayLike, targets: ArrayLike) -> Agreement:
    """Compute every statistic of predictions ``[N]`` against references ``[N]``, both higher-is-better.

    Raises:
        ModelError: the arrays differ in length or hold a value that is not finite.
    """
    score_N, target_N = _pair(scores, targets)
    if len(score_N) < _MIN_SAMPLES:
        return _undefined(f"{len(score_N)} samples are too few")
    for name, values in (("predictions", score_N), ("references", target_N)):
        if _constant(values):
            return _undefined(f"the {name} are constant")
    curve = fit_logistic(score_N, target_N)
    fitted_N = curve(score_N)
    sign = 1.0 if curve.high >= curve.low else -1.0
    return Agreement(
        srcc=_value(spearmanr(score_N, target_N)),
        krcc=_value(kendalltau(score_N, target_N)),
        plcc=_value(pearsonr(score_N, target_N)),
        plcc_fitted=sign * _value(pearsonr(fitted_N, target_N)),
        rmse=float(np.sqrt(np.mean((score_N - target_N) ** 2))),
        rmse_fitted=float(np.sqrt(np.mean((fitted_N - target_N) ** 2))),
    )


def srcc(scores: ArrayLike, targets: ArrayLike) -> float | None:
    """Spearman's rank correlation alone; None where :func:`agreement` would have a note."""
    score_N, target_N = _pair(scores, targets)
    if len(score_N) < _MIN_SAMPLES or _constant(score_N) or _constant(target_N):
        return None
    return _value(spearmanr(score_N, target_N))


def fit_logistic(scores: ArrayLike, targets: ArrayLike) -> Logistic:
    """Least-squares 4-parameter logistic; centre and width stay within the search box around the predictions.

    For a given centre and width the levels are a linear regression, so only two parameters are searched: a grid, then
    a simplex from its best point. Constant predictions are mapped to the references' mean.
    """
    score_N, target_N = _pair(scores, targets)
    if _constant(score_N):
        return Logistic(float(target_N.mean()), float(target_N.mean()), float(score_N.mean()), 1.0)
    low, span = score_N.min(), np.ptp(score_N)
    unit_N = (score_N - low) / span

    def shape(centre: float, width: float) -> Floats:
        return expit((unit_N - centre) / width)

    def loss(parameters: Floats) -> float:
        return -(_correlation(shape(parameters[0], np.exp(parameters[1])), target_N) ** 2)

    centre_K, width_K, curve_NK = _grid(unit_N)
    best_k = int(np.argmax(np.abs(_correlations(curve_NK, target_N))))
    start = np.array([centre_K[best_k], np.log(width_K[best_k])])
    box = [(_CENTRES[0], _CENTRES[-1]), (np.log(_WIDTHS[0]), np.log(_WIDTHS[-1]))]
    best = minimize(loss, start, method="Nelder-Mead", bounds=box, options={"xatol": 1e-6, "fatol": 1e-12})
    centre, width = float(best.x[0]), float(np.exp(best.x[1]))
    curve_N = shape(centre, width)
    slope, offset = np.polyfit(curve_N, target_N, 1)
    return Logistic(float(offset), float(offset + slope), float(low + centre * span), float(width * span))


def resamples(groups: int, replicates: int, seed: int) -> Integers:
    """Multiplicities ``[B, G]`` of ``groups`` drawn with replacement, ``groups`` draws per replicate."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(groups, np.full(groups, 1 / groups), size=replicates)


def bootstrap(
    scores: ArrayLike, targets: ArrayLike, groups: ArrayLike, multiplicities_BG: Integers
) -> dict[str, Floats]:
    """Every statistic on every replicate: name -> ``[B]``, NaN where a replicate leaves it undefined.

    Args:
        groups: group number of each sample, in ``range(G)``.
        multiplicities_BG: from :func:`resamples`; the same rows for two models give paired replicates.
    """
    score_N, target_N = _pair(scores, targets)
    group_N = np.asarray(groups, dtype=np.int64)
    weights_BG = multiplicities_BG.astype(np.float64)
    fitted_B, fitted_error_B = _fitted_replicates(score_N, target_N, group_N, weights_BG)
    squares_G = _sum_by_group((score_N - target_N)[:, None] ** 2, group_N, weights_BG.shape[1])[:, 0]
    count_B = weights_BG @ np.bincount(group_N, minlength=weights_BG.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        rmse_B = np.sqrt(weights_BG @ squares_G / count_B)
    return {
        "srcc": srcc_replicates(score_N, target_N, group_N, multiplicities_BG),
        "krcc": _krcc_replicates(score_N, target_N, group_N, weights_BG),
        "plcc": _plcc_replicates(score_N, target_N, group_N, weights_BG),
        "plcc_fitted": fitted_B,
        "rmse": rmse_B,
        "rmse_fitted": fitted_error_B,
    }


def interval(values_B: ArrayLike, confidence: float, max_undefined: float) -> tuple[float, float] | None:
    """Percentile interval of replicates; None if more than ``max_undefined`` of them are undefined."""
    values = np.asarray(values_B, dtype=np.float64)
    defined = values[np.isfinite(values)]
    if len(defined) == 0 or 1 - len(defined) / len(values) > max_undefined:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def srcc_replicates(score_N: Floats, target_N: Floats, group_N: Integers, multiplicities_BG: Integers) -> Floats:
    """SRCC ``[B]`` with mid-ranks of the replicated samples; arguments as :func:`bootstrap`."""
    return srcc_replicates_many(score_N[None], target_N, group_N, multiplicities_BG)[0]


def srcc_replicates_many(scores_KN: Floats, target_N: Floats, group_N: Integers, multiplicities_BG: Integers) -> Floats:
    """SRCC ``[K, B]`` of K predictions with one target, whose ranks are computed once for all of them.

    No replicate is ever sorted: the values are, once, and the ranks of a replicate are running sums of multiplicities
    in that order. Twice a mid-rank less its mean, ``before + up to - total``, is a whole number, so moments are exact
    as long as they stay below 2^53 (some 100,000 samples).
    """
    orders, target = [_Order.of(score_N, group_N) for score_N in scores_KN], _Order.of(target_N, group_N)
    weights_BG = multiplicities_BG.astype(np.int32)
    found_KB = np.empty((len(orders), len(weights_BG)))
    step = max(1, _PIECE // max(1, len(target_N)))
    for start in range(0, len(weights_BG), step):
        weights_bG = weights_BG[start : start + step]
        target_bN, target_variance_b = target.ranks(weights_bG)
        target_bN *= np.take(weights_bG, group_N, axis=1)
        for k, order in enumerate(orders):
            rank_bN, variance_b = order.ranks(weights_bG)
            with np.errstate(invalid="ignore"):  # 0 / 0 where one side is constant
                found_b = _dot(rank_bN, target_bN) / np.sqrt(variance_b * target_variance_b)
            found_KB[k, start : start + step] = found_b
    return found_KB


@dataclass(frozen=True)
class _Order:
    """Values in rising order: what ranks of any replicate are made of (``T`` runs of equal values).

    Attributes:
        group_N: group of each sample, in the order of the values.
        edge_T: where the runs begin in that order, and where the last one ends, ``T + 1`` places.
        tie_N: run of each sample, in the order of the samples.
    """

    group_N: Integers
    edge_T: Integers
    tie_N: Integers

    @classmethod
    def of(cls, values_N: Floats, group_N: Integers) -> "_Order":
        _, tie_N, size_T = np.unique(values_N, return_inverse=True, return_counts=True)
        return cls(group_N[np.argsort(values_N)], np.append(0, np.cumsum(size_T)), tie_N)

    def ranks(self, weights_bG: NDArray[np.int32]) -> tuple[Floats, Floats]:
        """Twice the centred mid-rank of each sample ``[b, N]`` and its sum of squares over the replicate ``[b]``."""
        running = np.zeros((len(weights_bG), len(self.group_N) + 1), dtype=np.int32)
        np.cumsum(np.take(weights_bG, self.group_N, axis=1), axis=1, out=running[:, 1:])
        edge_bT = np.take(running, self.edge_T, axis=1) if len(self.edge_T) < running.shape[1] else running
        before_bT, upto_bT = edge_bT[:, :-1], edge_bT[:, 1:]
        rank_bT = (before_bT + upto_bT - running[:, -1:]).astype(np.float64)
        return np.take(rank_bT, self.tie_N, axis=1), _dot((upto_bT - before_bT) * rank_bT, rank_bT)


def _dot(x_bN: Floats, y_bN: Floats) -> Floats:
    """Products of rows ``[b]``, not by BLAS: its threads wait for each other longer than such short rows take."""
    return np.einsum("bn,bn->b", x_bN, y_bN)


def _krcc_replicates(score_N: Floats, target_N: Floats, group_N: Integers, weights_BG: Floats) -> Floats:
    """Kendall's tau-b ``[B]``: pair counts are quadratic forms in the multiplicities."""
    groups = weights_BG.shape[1]
    member_GN = (np.arange(groups)[:, None] == group_N[None, :]).astype(np.float64)

    def pairs(matrix_NN: Floats) -> Floats:
        form_GG = member_GN @ matrix_NN @ member_GN.T
        return ((weights_BG @ form_GG) * weights_BG).sum(axis=1)

    score_sign = np.sign(score_N[:, None] - score_N[None, :])
    target_sign = np.sign(target_N[:, None] - target_N[None, :])
    with np.errstate(invalid="ignore", divide="ignore"):
        return pairs(score_sign * target_sign) / np.sqrt(pairs(np.abs(score_sign)) * pairs(np.abs(target_sign)))


def _plcc_replicates(score_N: Floats, target_N: Floats, group_N: Integers, weights_BG: Floats) -> Floats:
    curve_NK = (score_N - score_N.mean())[:, None]
    return _correlate_curves(curve_NK, target_N - target_N.mean(), group_N, weights_BG)[:, 0]


def _fitted_replicates(
    score_N: Floats, target_N: Floats, group_N: Integers, weights_BG: Floats
) -> tuple[Floats, Floats]:
    """PLCC (signed) and RMSE after the best logistic of each replicate, searched on the grid of centres and widths."""
    span = np.ptp(score_N)
    undefined = np.full(len(weights_BG), np.nan)
    if span == 0 or np.ptp(target_N) == 0:
        return undefined, undefined
    unit_N = (score_N - score_N.min()) / span
    _, _, curve_NK = _grid(unit_N)
    centred_N = target_N - target_N.mean()
    moments_G2 = _sum_by_group(np.stack([centred_N, centred_N**2], axis=1), group_N, weights_BG.shape[1])
    count_B = weights_BG @ np.bincount(group_N, minlength=weights_BG.shape[1])
    correlation_B = np.empty(len(weights_BG))
    step = max(1, _CHUNK // curve_NK.shape[1])
    for start in range(0, len(weights_BG), step):
        rows = slice(start, start + step)
        correlation_bK = _correlate_curves(curve_NK, centred_N, group_N, weights_BG[rows])
        best_b = np.argmax(np.nan_to_num(np.abs(correlation_bK)), axis=1)
        correlation_B[rows] = correlation_bK[np.arange(len(best_b)), best_b]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_B2 = (weights_BG @ moments_G2) / count_B[:, None]
        variance_B = mean_B2[:, 1] - mean_B2[:, 0] ** 2
    return correlation_B, np.sqrt(np.maximum(variance_B * (1 - correlation_B**2), 0.0))


def _grid(unit_N: Floats) -> tuple[Floats, Floats, Floats]:
    """Centres ``[K]``, widths ``[K]`` and logistic curves ``[N, K]`` of the search box."""
    centre_K, width_K = (axis.ravel() for axis in np.meshgrid(_CENTRES, _WIDTHS, indexing="ij"))
    return centre_K, width_K, expit((unit_N[:, None] - centre_K) / width_K)


def _correlate_curves(curve_NK: Floats, target_N: Floats, group_N: Integers, weights_BG: Floats) -> Floats:
    """Pearson correlation ``[B, K]`` of K transformed predictions with the (centred) target."""
    groups = weights_BG.shape[1]
    curve_NK = curve_NK - curve_NK.mean(axis=0)
    count_B1 = (weights_BG @ np.bincount(group_N, minlength=groups))[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        target_B2 = weights_BG @ _sum_by_group(np.stack([target_N, target_N**2], axis=1), group_N, groups) / count_B1
        curve_BK = weights_BG @ _sum_by_group(curve_NK, group_N, groups) / count_B1
        square_BK = weights_BG @ _sum_by_group(curve_NK**2, group_N, groups) / count_B1
        cross_BK = weights_BG @ _sum_by_group(curve_NK * target_N[:, None], group_N, groups) / count_B1
        variance_BK = _positive(square_BK - curve_BK**2, square_BK)
        target_variance_B = _positive(target_B2[:, 1] - target_B2[:, 0] ** 2, target_B2[:, 1])
        return (cross_BK - curve_BK * target_B2[:, :1]) / np.sqrt(variance_BK * target_variance_B[:, None])


def _positive(variance: Floats, scale: Floats) -> Floats:
    """Variance, NaN where it is nothing but rounding."""
    return np.where(variance > 1e-12 * scale, variance, np.nan)


def _sum_by_group(values_NK: Floats, group_N: Integers, groups: int) -> Floats:
    sums_GK = np.zeros((groups, values_NK.shape[1]))
    np.add.at(sums_GK, group_N, values_NK)
    return sums_GK


def _pair(scores: ArrayLike, targets: ArrayLike) -> tuple[Floats, Floats]:
    score_N, target_N = np.asarray(scores, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if score_N.shape != target_N.shape or score_N.ndim != 1:
        msg = f"predictions {score_N.shape} and references {target_N.shape} must be two lists of one length"
        raise ModelError(msg)
    if not (np.isfinite(score_N).all() and np.isfinite(target_N).all()):
        raise ModelError("predictions and references must be finite numbers")
    return score_N, target_N


def _value(result: Any) -> float:
    """The statistic of a SciPy test result (whose type SciPy does not publish)."""
    return float(result.statistic)


def _correlation(x_N: Floats, y_N: Floats) -> float:
    return float(_correlations(x_N[:, None], y_N)[0])


def _correlations(x_NK: Floats, y_N: Floats) -> Floats:
    """Pearson correlation ``[K]`` of each column with ``y``; 0 for a constant."""
    x_NK, y_N = x_NK - x_NK.mean(axis=0), y_N - y_N.mean()
    norm_K = np.sqrt((x_NK**2).sum(axis=0) * (y_N @ y_N))
    return np.divide(y_N @ x_NK, norm_K, out=np.zeros(x_NK.shape[1]), where=norm_K > 0)


def _constant(values_N: Floats) -> bool:
    return bool(np.ptp(values_N) <= 1e-12 * max(1.0, float(np.abs(values_N).max())))


def _undefined(note: str) -> Agreement:
    return Agreement(None, None, None, None, None, None, note)
