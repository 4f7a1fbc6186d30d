"""What the spread of scorers may mean: ways to turn the scores of a sample into sigma, each fitted and applied apart.

The default of the plant is the population deviation of calibrated scores (``models.opinion.summarise``). The others
are offered by name: :data:`SPREADS` maps a name to a :class:`Method`, whose ``fit`` learns from one set of samples
what its result applies to another. Sigma is on the scale of the scores, which are in [0, 1], higher is better.
All but ``population`` divide by ``S - 1``. Shapes: ``N`` samples, ``S`` scorers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import digamma, polygamma

from models.errors import ModelError

Floats = NDArray[np.float64]

_PARABOLA_FLOOR: Final = 1e-4
"""Least ``mu (1 - mu)``: at the ends of the scale a ratio of variances would have no denominator."""
_DEVIATION_FLOOR: Final = 1e-3
"""Least deviation whose logarithm is taken (raters or scorers that agree to the last digit)."""
_NOISE_SHARE: Final = 0.05
"""Least noise variance of a scorer as a share of the mean one, so that a lucky estimate does not rule the mean."""
_OFFSET_FLOOR: Final = 1e-3
_FEWEST: Final = 8


class Needs(StrEnum):
    """What a method is fitted on besides scores."""

    SCORES = "scores"
    MOS = "mos"
    SD = "sd"


@dataclass(frozen=True)
class Rated:
    """Samples that a method is fitted on.

    Attributes:
        scores_NS: calibrated scores, [0, 1].
        mos_N: mean human scores, [0, 1], or None. sd_N: human standard deviations on the same scale, or None.
    """

    scores_NS: Floats
    mos_N: Floats | None = None
    sd_N: Floats | None = None


class Spread(Protocol):
    """A fitted method."""

    def __call__(self, scores_NS: ArrayLike) -> Floats:
        """Sigma ``[N]``, >= 0, of scores ``[N, S]`` in [0, 1]."""
        ...


@dataclass(frozen=True)
class Method:
    """A way to make sigma.

    Attributes:
        needs: what ``fit`` reads. says: one line for tables and help. fit: learns the parameters.
    """

    needs: Needs
    says: str
    fit: Callable[[Rated], Spread]


@dataclass(frozen=True)
class Population:
    """Population deviation ``sqrt(mean_s (x_s - mu)^2)``, the plant's default; nothing is fitted."""

    def __call__(self, scores_NS: ArrayLike) -> Floats:
        """Sigma ``[N]``, [0, .5]."""
        return _scores(scores_NS).std(axis=1)


@dataclass(frozen=True)
class Sos:
    """Mean-dependent deviation ``sqrt(a mu (1 - mu))``: the SOS hypothesis on [0, 1].

    Source: Hossfeld, Schatz and Egger, "SOS: the MOS is not enough!", QoMEX 2011, eq. for continuous scales
    ``SOS(x)^2 = a (-x^2 + (low + high) x - low high)``. It says nothing that mu does not say.

    Attributes:
        a: 0 (all agree) to 1 (all vote for the ends).
    """

    a: float

    def __call__(self, scores_NS: ArrayLike) -> Floats:
        """Sigma ``[N]``, [0, .5]."""
        return np.sqrt(self.a * parabola(_scores(scores_NS).mean(axis=1)))


@dataclass(frozen=True)
class Shrunk:
    """Sample variance drawn towards the SOS parabola: ``(d0 s0 mu(1 - mu) + d s^2) / (d0 + d)`` with ``d = S - 1``.

    Source: Smyth, "Linear models and empirical Bayes methods", Stat. Appl. Genet. Mol. Biol. 3(1), 2004, section 6.2
    (moderated variance), with a prior that depends on the mean as in limma-trend; our trend is the SOS parabola.

    Attributes:
        level: ``s0``, the prior's factor of ``mu (1 - mu)``.
        weight: ``d0``, the prior's degrees of freedom; infinite where the samples' variances differ no more than
            chance makes them.
    """

    level: float
    weight: float

    def __call__(self, scores_NS: ArrayLike) -> Floats:
        """Sigma ``[N]``, between the prior's and the sample's deviation."""
        scores = _scores(scores_NS)
        prior_N = self.level * np.maximum(parabola(scores.mean(axis=1)), _PARABOLA_FLOOR)
        if np.isinf(self.weight):
            return np.sqrt(prior_N)
        degrees = scores.shape[1] - 1
        return np.sqrt((self.weight * prior_N + degrees * _variance(scores)) / (self.weight + degrees))


@dataclass(frozen=True)
class NoiseWeighted:
    """Birge's ratio times the scorers' noise: how far a sample is beyond what offsets and noise of scorers explain.

    ``x_is = psi_i + offset_s + e_is`` with ``Var(e_is) = v_s`` (the subject model of ITU-T P.910 and of Li and
    Bampis, "Recover subjective quality scores from noisy measurements", DCC 2017). ``psi_i`` is the generalised
    least-squares mean with weights ``1 / v_s``, ``Q_i`` Cochran's heterogeneity, and
    ``sigma_i^2 = mean(v) Q_i / (S - 1)`` (Birge, Phys. Rev. 40, 1932). Noise comes from :func:`grubbs_noise`, which
    has a closed form and, unlike the likelihood, cannot give all weight to one scorer.

    Attributes:
        offset_S: mean deviation of a scorer from the others, summing to 0. noise_S: its noise variance.
    """

    offset_S: Floats
    noise_S: Floats

    def __call__(self, scores_NS: ArrayLike) -> Floats:
        """Sigma ``[N]``; with equal noise and no offsets the sample deviation (``S - 1``)."""
        scores = _scores(scores_NS)
        if scores.shape[1] != len(self.offset_S):
            msg = f"fitted on {len(self.offset_S)} scorers, applied to {scores.shape[1]}"
            raise ModelError(msg)
        centred = scores - self.offset_S
        weight_S = 1 / self.noise_S
        mean_N1 = (centred @ weight_S / weight_S.sum())[:, None]
        excess_N = ((centred - mean_N1) ** 2) @ weight_S
        return np.sqrt(self.noise_S.mean() * excess_N / (len(weight_S) - 1))


@dataclass(frozen=True)
class Predictive:
    """Deviation of the human mean score around what mu predicts: ``MOS_i ~ N(alpha + beta mu_i, c + d s_i^2)``.

    Source: non-homogeneous Gaussian regression of ensemble forecasts, Gneiting, Raftery, Westveld and Goldman,
    Monthly Weather Review 133, 2005, eq. 4-5; fitted by maximum likelihood. This sigma is the expected *error of
    mu*, not the spread of people; its order is the sample deviation's own.

    Attributes:
        alpha, beta: line from mu to MOS. c, d: variance without and per unit of the scorers' variance, both >= 0.
    """

    alpha: float
    beta: float
    c: float
    d: float

    def __call__(self, scores_NS: ArrayLike) -> Floats:
        """Sigma ``[N]``, > 0."""
        return np.sqrt(self.c + self.d * _variance(_scores(scores_NS)))


@dataclass(frozen=True)
class VarianceFunction:
    """Human deviation learnt from mu and spread: ``log sd^2 = g0 + g1 log mu(1 - mu) + g2 mu + g3 log s^2``.

    Source: multiplicative heteroscedasticity, Harvey, Econometrica 44(3), 1976, fitted by least squares on the
    logarithms. ``g3`` is what the scorers' spread adds to their mean.

    Attributes:
        g_4: the coefficients.
    """

    g_4: Floats

    def __call__(self, scores_NS: ArrayLike) -> Floats:
        """Sigma ``[N]``, > 0 (a geometric mean)."""
        return np.exp(_design(_scores(scores_NS)) @ self.g_4 / 2)


def parabola(mean_N: ArrayLike) -> Floats:
    """``mu (1 - mu)``: the largest variance that scores in [0, 1] of mean mu can have."""
    mean = np.asarray(mean_N, dtype=np.float64)
    return mean * (1 - mean)


def sos_parameter(mean_N: ArrayLike, variance_N: ArrayLike) -> float:
    """Least-squares ``a`` of ``variance = a mean (1 - mean)``, clipped to [0, 1] (Hossfeld et al. 2011).

    Raises:
        ModelError: every mean lies at an end of the scale, where the hypothesis says 0.
    """
    most_N = parabola(mean_N)
    total = float(most_N @ most_N)
    if total <= 0:
        raise ModelError("every mean lies at an end of the scale: the SOS parameter is undefined")
    return float(np.clip(most_N @ np.asarray(variance_N, dtype=np.float64) / total, 0.0, 1.0))


def grubbs_noise(scores_NS: ArrayLike) -> Floats:
    """Noise variance ``[S]`` of each scorer from variances of differences between scorers.

    With independent errors ``Var(x_s - x_t) = v_s + v_t``; solved for ``v`` by least squares, which is closed:
    ``sum v = T / (S - 1)`` and ``v_s = (sum_t D_st - sum v) / (S - 2)``, ``T`` the sum over pairs. Source: Grubbs, "On
    estimating precision of measuring instruments", J. Am. Stat. Assoc. 43, 1948. Estimates below 5 % of the mean
    (correlated errors make them, even negative ones) are raised to it: that floor is ours.

    Raises:
        ModelError: fewer than three scorers or two samples, or scorers that never differ.
    """
    scores = _scores(scores_NS)
    samples, scorers = scores.shape
    if scorers < 3 or samples < 2:
        msg = f"the noise of a scorer needs three scorers and two samples, not {scorers} and {samples}"
        raise ModelError(msg)
    covariance_SS = np.atleast_2d(np.cov(scores, rowvar=False))
    own_S = np.diag(covariance_SS)
    difference_SS = own_S[:, None] + own_S[None, :] - 2 * covariance_SS
    total = difference_SS.sum() / 2 / (scorers - 1)
    if total <= 1e-15:
        raise ModelError("the scorers never differ: their noise is undefined")
    return np.maximum((difference_SS.sum(axis=1) - total) / (scorers - 2), _NOISE_SHARE * total / scorers)


def inverse_trigamma(value: float) -> float:
    """Solve ``trigamma(y) = value`` for ``y > 0`` by Newton steps on ``1 / trigamma``, as limma does (Smyth 2004)."""
    if not value > 0:
        msg = f"trigamma takes positive values only, not {value}"
        raise ModelError(msg)
    y = 0.5 + 1 / value
    for _ in range(50):
        found = float(polygamma(1, y))
        step = found * (1 - found / value) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-10:
            break
    return y


def _fit_sos(rated: Rated) -> Sos:
    scores = _scores(rated.scores_NS)
    return Sos(sos_parameter(scores.mean(axis=1), _variance(scores)))


def _fit_shrunk(rated: Rated) -> Shrunk:
    """Moment estimates of Smyth (2004), section 6.2, on log variances relative to the parabola."""
    scores = _enough(rated)
    variance_N, half = _variance(scores), (scores.shape[1] - 1) / 2
    middle = float(np.median(variance_N))
    if middle <= 0:
        raise ModelError("more than half of the samples have scorers that agree exactly: no prior can be fitted")
    most_N = np.maximum(parabola(scores.mean(axis=1)), _PARABOLA_FLOOR)
    # limma's fitFDist keeps zero variances away from the logarithm by the same share of the median
    e_N = np.log(np.maximum(variance_N, 1e-5 * middle) / most_N) - digamma(half) + np.log(half)
    excess = float(e_N.var(ddof=1) - polygamma(1, half))
    if excess <= 0:
        return Shrunk(float(np.exp(e_N.mean())), np.inf)
    half_prior = inverse_trigamma(excess)
    level = float(np.exp(e_N.mean() + digamma(half_prior) - np.log(half_prior)))
    return Shrunk(level, 2 * half_prior)


def _fit_noise_weighted(rated: Rated) -> NoiseWeighted:
    scores = _enough(rated)
    return NoiseWeighted(scores.mean(axis=0) - scores.mean(), grubbs_noise(scores))


def _fit_predictive(rated: Rated) -> Predictive:
    """Maximum likelihood: for given ``c, d`` the line is weighted least squares, so two parameters are searched."""
    scores = _enough(rated)
    mos_N = _column(rated.mos_N, len(scores), "human scores")
    mean_N, variance_N = scores.mean(axis=1), _variance(scores)

    def line(c: float, d: float) -> tuple[Floats, Floats]:
        width_N = c + d * variance_N
        design_N2 = np.stack([np.ones_like(mean_N), mean_N], axis=1)
        root_N1 = 1 / np.sqrt(width_N)[:, None]
        return _least_squares(design_N2 * root_N1, mos_N * root_N1[:, 0]), width_N

    def loss(roots_2: Floats) -> float:
        (alpha, beta), width_N = line(*_squares(roots_2))
        return float(np.mean(np.log(width_N) + (mos_N - alpha - beta * mean_N) ** 2 / width_N) / 2)

    (alpha, beta), _ = line(1.0, 0.0)
    error = max(float(np.std(mos_N - alpha - beta * mean_N)), _OFFSET_FLOOR)
    starts = [np.array([error, 0.0]), np.array([error / 2, 0.5]), np.array([error / 4, 1.0])]
    best = min((minimize(loss, start, method="Nelder-Mead") for start in starts), key=lambda found: float(found.fun))
    c, d = _squares(best.x)
    (alpha, beta), _ = line(c, d)
    return Predictive(float(alpha), float(beta), c, d)


def _squares(roots_2: Floats) -> tuple[float, float]:
    """``c > 0`` and ``d >= 0`` of free parameters."""
    return float(roots_2[0] ** 2 + _OFFSET_FLOOR**2), float(roots_2[1] ** 2)


def _fit_variance_function(rated: Rated) -> VarianceFunction:
    scores = _enough(rated)
    sd_N = np.maximum(_column(rated.sd_N, len(scores), "human standard deviations"), _DEVIATION_FLOOR)
    return VarianceFunction(_least_squares(_design(scores), 2 * np.log(sd_N)))


def _least_squares(design_NK: Floats, target_N: Floats) -> Floats:
    return np.asarray(np.linalg.lstsq(design_NK, target_N, rcond=None)[0], dtype=np.float64)


def _design(scores: Floats) -> Floats:
    mean_N = scores.mean(axis=1)
    most_N = np.maximum(parabola(mean_N), _PARABOLA_FLOOR)
    spread_N = np.maximum(_variance(scores), _DEVIATION_FLOOR**2)
    return np.stack([np.ones_like(mean_N), np.log(most_N), mean_N, np.log(spread_N)], axis=1)


def _enough(rated: Rated) -> Floats:
    scores = _scores(rated.scores_NS)
    if len(scores) < _FEWEST:
        msg = f"{len(scores)} samples are too few to fit a spread on; {_FEWEST} are needed"
        raise ModelError(msg)
    return scores


def _column(values_N: Any, count: int, name: str) -> Floats:
    if values_N is None:
        msg = f"this spread is fitted on {name}, and there are none"
        raise ModelError(msg)
    values = np.asarray(values_N, dtype=np.float64)
    if values.shape != (count,) or not np.isfinite(values).all():
        msg = f"{name} must be {count} finite numbers"
        raise ModelError(msg)
    return values


def _variance(scores: Floats) -> Floats:
    """Unbiased variance ``[N]`` over scorers."""
    return scores.var(axis=1, ddof=1)


def _scores(scores_NS: ArrayLike) -> Floats:
    scores = np.asarray(scores_NS, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2:
        msg = f"a spread needs scores [N, S] of two or more scorers, not {scores.shape}"
        raise ModelError(msg)
    if not np.isfinite(scores).all() or scores.min(initial=0.0) < 0 or scores.max(initial=1.0) > 1:
        raise ModelError("every score must be a finite number in [0, 1]: calibrate scorers before taking a spread")
    return scores


def _fit_population(rated: Rated) -> Population:
    _scores(rated.scores_NS)
    return Population()


POPULATION: Final = "population"

SPREADS: Final[dict[str, Method]] = {
    POPULATION: Method(Needs.SCORES, "population deviation of the scores (the default of score)", _fit_population),
    "sos": Method(Needs.SCORES, "sqrt(a mu (1 - mu)), a fitted to the scorers' variances", _fit_sos),
    "shrunk": Method(Needs.SCORES, "sample variance drawn towards the SOS parabola by empirical Bayes", _fit_shrunk),
    "noise_weighted": Method(
        Needs.SCORES, "scorers without their offsets, weighted by the inverse of their noise", _fit_noise_weighted
    ),
    "predictive": Method(Needs.MOS, "error of mu, c + d s^2 fitted to human scores", _fit_predictive),
    "variance_function": Method(
        Needs.SD, "human deviation as a function of mu and spread, fitted to human deviations", _fit_variance_function
    ),
}
"""Name -> method, in the order of tables."""
