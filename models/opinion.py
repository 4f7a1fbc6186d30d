"""Machine opinion and its proxy distribution (PMOD), as vectorised pure functions of numbers.

Six calibrated scores per sample become mu (mean) and sigma (population std); the Gaussian's mass in five equal bins
of [0, 1] is tilted exponentially until its expectation over the bin centres is mu again (DESIGN section 5).
``compatible_pmod`` is the released code's affine-and-clip recipe (VITAL section 3; DeQA-Score).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, ndtr, softmax

from models.errors import ModelError
from models.levels import CENTRES, EDGES

Floats = NDArray[np.float64]

MU_LOW: Final = 0.1
MU_HIGH: Final = 0.9
_SIGMA_FLOOR: Final = 1e-3
"""At and below this the tilted Gaussian is two-level interpolation to machine precision, and is computed as such."""
_COMPATIBLE_SIGMA_FLOOR: Final = 1e-9
_TILT_LIMIT: Final = 1e8
_TILT_STEPS: Final = 120
_MEAN_TOLERANCE: Final = 1e-12
_END_MARGIN: Final = 1e-9


@dataclass(frozen=True)
class Opinion:
    """Summary of the scorers' opinions of ``N`` samples.

    Attributes:
        mu_N: mean score, [0, 1].
        sigma_N: population standard deviation of the scores, [0, .5].
        pmod_N5: level probabilities, best first; rows sum to 1 and keep the clamped mean.
        clamped_N: True where mu lay outside [.1, .9], the range five bin centres can express.
    """

    mu_N: Floats
    sigma_N: Floats
    pmod_N5: Floats
    clamped_N: NDArray[np.bool_]


def summarise(scores_NS: ArrayLike) -> Opinion:
    """Summarise calibrated scores ``[N, S]`` in [0, 1].

    Raises:
        ModelError: a score is missing, not finite or outside [0, 1].
    """
    scores = np.atleast_2d(np.asarray(scores_NS, dtype=np.float64))
    if scores.ndim != 2 or scores.shape[1] == 0:
        msg = f"scores must have shape [N, S] with S >= 1, not {scores.shape}"
        raise ModelError(msg)
    if not np.isfinite(scores).all() or scores.min(initial=0.0) < 0.0 or scores.max(initial=1.0) > 1.0:
        msg = "every score must be a finite number in [0, 1]; calibrate scorers before summarising"
        raise ModelError(msg)
    mu, sigma = scores.mean(axis=1), scores.std(axis=1)
    return Opinion(mu, sigma, pmod(mu, sigma), (mu < MU_LOW) | (mu > MU_HIGH))


def pmod(mu: ArrayLike, sigma: ArrayLike) -> Floats:
    """Level probabilities ``[..., 5]`` of N(mu, sigma^2), best first, with sum 1 and expectation ``clip(mu, .1, .9)``.

    Args:
        mu: quality in [0, 1].
        sigma: standard deviation >= 0 on the same scale; 0 gives two-level interpolation.
    """
    mu_in, sigma_in = np.broadcast_arrays(np.asarray(mu, np.float64), np.asarray(sigma, np.float64))
    if not (np.isfinite(mu_in).all() and np.isfinite(sigma_in).all() and (sigma_in >= 0).all()):
        msg = "mu must be finite and sigma finite and >= 0"
        raise ModelError(msg)
    target = np.clip(mu_in, MU_LOW, MU_HIGH).reshape(-1)
    spread = np.maximum(sigma_in, _SIGMA_FLOOR).reshape(-1)
    probabilities = _tilt_to_mean(_log_bin_mass(target, spread), target)
    at_end = (target - MU_LOW < _END_MARGIN) | (MU_HIGH - target < _END_MARGIN)  # one level alone has that mean
    sharp = (spread <= _SIGMA_FLOOR) | at_end
    probabilities[sharp] = _two_level(target[sharp])
    return probabilities.reshape(*mu_in.shape, 5)


@dataclass(frozen=True)
class CompatibleOpinion:
    """What the released data states about one sample, in its own words and scale.

    Attributes:
        mu5: mean score on [0, 5] (``gt_score_norm``). sigma5: spread on that scale (``std_norm``).
        mass_5: Gaussian mass of the unit bins, best first (``level_probs_org``).
        alpha, beta: the affine step. target_5: ``max(alpha mass + beta, 0)`` (``target_dist``).
        raw_diff: distance of the mean of ``mass_5`` from ``mu5``. diff: that of ``target_5``.
    """

    mu5: float
    sigma5: float
    mass_5: Floats
    alpha: float
    beta: float
    target_5: Floats
    raw_diff: float
    diff: float


def compatible_opinion(mu: float, sigma: float, *, low: float, high: float) -> CompatibleOpinion:
    """The released data's recipe: min-max to [0, 5], Gaussian mass, affine step, and clip.

    Args:
        mu: mean of the raw scores. sigma: their population std; at 0 the mass falls into one bin.
        low, high: the corpus' extremes of the mean score, mapped to 0 and 5.

    Raises:
        ModelError: ``low`` is not below ``high``.
    """
    if not low < high:
        msg = f"low must be below high, not {low} and {high}"
        raise ModelError(msg)
    mu5, sigma5 = 5 * (mu - low) / (high - low), 5 * sigma / (high - low)
    centres, edges, width = 5 * CENTRES, 5 * EDGES, max(sigma5, _COMPATIBLE_SIGMA_FLOOR)
    mass = ndtr((edges[:-1] - mu5) / width) - ndtr((edges[1:] - mu5) / width)
    total, first, spread = mass.sum(), mass @ centres, centres.sum()
    determinant = total * spread - 5 * first
    if abs(determinant) < 1e-12:  # mu in the exact middle: the affine step is a pure rescaling
        alpha, beta = 1 / total, 0.0
    else:
        alpha = (spread - 5 * mu5) / determinant
        beta = (total * mu5 - first) / determinant
    target = np.maximum(alpha * mass + beta, 0.0)
    raw_diff, diff = abs(first - mu5), abs(target @ centres - mu5)
    return CompatibleOpinion(
        float(mu5), float(sigma5), mass, float(alpha), float(beta), target, float(raw_diff), float(diff)
    )


def compatible_pmod(mu: float, sigma: float, *, low: float, high: float) -> Floats:
    """The released data's target distribution ``[5]``; see :func:`compatible_opinion`.

    Rows may sum to other than 1 (1.00237 in the published record): use :func:`pmod` for training.
    """
    return compatible_opinion(mu, sigma, low=low, high=high).target_5


def _log_bin_mass(mu_N: Floats, sigma_N: Floats) -> Floats:
    """Log of the Gaussian mass ``[N, 5]`` of the five bins, exact far into the tails, where the mass itself is 0."""
    z = (EDGES[None, :] - mu_N[:, None]) / sigma_N[:, None]
    mirror = z[:, 1:] > 0  # compute each bin in the tail where the difference does not cancel
    log_upper = log_ndtr(np.where(mirror, -z[:, 1:], z[:, :-1]))
    log_lower = log_ndtr(np.where(mirror, -z[:, :-1], z[:, 1:]))
    return log_upper + np.log1p(-np.exp(log_lower - log_upper))


def _tilt_to_mean(log_mass_N5: Floats, target_N: Floats) -> Floats:
    """Solve ``sum c_i p_i exp(lambda c_i) / Z = target`` for lambda: Newton steps kept inside a shrinking bracket."""
    tilt = np.zeros_like(target_N)
    low, high = np.full_like(target_N, -_TILT_LIMIT), np.full_like(target_N, _TILT_LIMIT)
    active = np.arange(len(target_N))
    for _ in range(_TILT_STEPS):
        probabilities = softmax(log_mass_N5[active] + tilt[active, None] * CENTRES, axis=1)
        mean = probabilities @ CENTRES
        excess = mean - target_N[active]
        unsolved = np.abs(excess) > _MEAN_TOLERANCE
        if not unsolved.any():
            break
        active, probabilities = active[unsolved], probabilities[unsolved]
        mean, excess = mean[unsolved], excess[unsolved]
        variance = np.maximum(probabilities @ CENTRES**2 - mean**2, 0.0)
        high[active] = np.where(excess > 0, tilt[active], high[active])
        low[active] = np.where(excess > 0, low[active], tilt[active])
        with np.errstate(divide="ignore", invalid="ignore"):
            step = tilt[active] - excess / variance
        inside = (step > low[active]) & (step < high[active])
        tilt[active] = np.where(inside, step, 0.5 * (low[active] + high[active]))
    return softmax(log_mass_N5 + tilt[:, None] * CENTRES, axis=1)


def _two_level(target_N: Floats) -> Floats:
    """Mass on the two levels next to each target so that the expectation is exact."""
    position = np.clip((0.9 - target_N) / 0.2, 0.0, 4.0)
    upper = np.minimum(np.floor(position).astype(int), 3)
    share = position - upper
    probabilities = np.zeros((len(target_N), 5))
    rows = np.arange(len(target_N))
    probabilities[rows, upper] = 1 - share
    probabilities[rows, upper + 1] = share
    return probabilities
