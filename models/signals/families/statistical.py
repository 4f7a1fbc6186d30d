"""Estimators by statistics: re-blur loss, patch eigenvalues, dispersion indices, autocorrelation, optical flow."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.signals.claims import Attribute
from models.signals.evidence import Evidence

Floats = NDArray[np.float32]

_REBLUR: Final = 9
_PATCH: Final = 5
_CALM_SHARE: Final = 0.3
_LAG: Final = 8
_MOVING: Final = 0.98


def reblur_loss(evidence: Evidence) -> float:
    """Crete's blur measure, [0, 1]: how little of the local variation a second blur takes away; 1 is blurred."""
    luma, values = evidence.luma_NHW, []
    for axis in (1, 2):
        smooth = ndimage.uniform_filter1d(luma, _REBLUR, axis=axis)
        before, after = np.abs(np.diff(luma, axis=axis)), np.abs(np.diff(smooth, axis=axis))
        lost = np.maximum(before - after, 0).sum()
        total = before.sum()
        values.append(float((total - lost) / total) if total > 0 else 1.0)
    return max(values)


def patch_eigenvalue_noise(evidence: Evidence) -> float:
    """Log of the root of the smallest eigenvalue of the covariance of calm patches (Pyatykh and colleagues)."""
    luma = evidence.luma_NHW
    windows = np.lib.stride_tricks.sliding_window_view(luma, (_PATCH, _PATCH), axis=(1, 2))[:, ::2, ::2]
    patches = windows.reshape(-1, _PATCH * _PATCH)
    spread, mean = patches.var(axis=1), patches.mean(axis=1)
    patches, spread = (values[(mean > 8) & (mean < 247)] for values in (patches, spread))
    if len(patches) < 4 * _PATCH**2:
        return float(np.log(0.05))
    calm = patches[spread <= np.quantile(spread, _CALM_SHARE)]
    covariance = np.cov(calm, rowvar=False)
    eigenvalues = np.linalg.eigvalsh(covariance)
    # The mean of the lowest third resists quantisation, which can null the very smallest.
    return float(np.log(np.sqrt(np.maximum(eigenvalues[: _PATCH**2 // 3], 0).mean()) + 0.05))


def shadow_highlight_balance(evidence: Evidence) -> float:
    """Share of bright minus share of dark tones, smooth at the limits, [-1, 1]."""
    luma = evidence.tone_luma_P / 255
    bright, dark = 1 / (1 + np.exp((0.7 - luma) * 20)), 1 / (1 + np.exp((luma - 0.3) * 20))
    return float((bright - dark).mean())


def gini_difference(evidence: Evidence) -> float:
    """Gini's mean difference of luma: expected distance of two random pixels, [0, .5]."""
    luma = np.sort(evidence.tone_luma_P.astype(np.float64)) / 255
    count = len(luma)
    rank = 2 * np.arange(1, count + 1) - count - 1
    return float(2 * (rank * luma).sum() / (count * max(count - 1, 1)))


def grey_axis_distance(evidence: Evidence) -> float:
    """Log of the root mean square log-chromaticity: how far pixels lie from the grey axis, whatever their light."""
    red, green, blue = np.log(evidence.tones_PC.astype(np.float32) + 16).T
    return float(np.log(np.sqrt(((red - green) ** 2 + (blue - green) ** 2 + (red - blue) ** 2).mean()) + 0.01))


def lag_autocorrelation(evidence: Evidence) -> float:
    """Excess of the autocorrelation of step profiles at a lag of 8 pixels over lags next to it."""
    values = []
    for axis in (1, 2):
        luma = np.swapaxes(evidence.luma_NHW, 1, axis)
        step = np.abs(np.diff(luma, axis=1))
        kink = np.maximum(step[:, 1:-1] - np.maximum(step[:, :-2], step[:, 2:]), 0)  # a step that stands alone
        profile = np.minimum(kink, 8).mean(axis=2)
        profile = profile - profile.mean(axis=1, keepdims=True)
        scale = (profile**2).mean(axis=1) + 1e-4
        at = [(profile[:, lag:] * profile[:, :-lag]).mean(axis=1) / scale for lag in (_LAG - 1, _LAG, _LAG + 1)]
        values.append(float((at[1] - (at[0] + at[2]) / 2).mean()))
    return float(np.mean(values))


def flow_shake(evidence: Evidence) -> float:
    """Log jerkiness of the global translation that least squares on the optical-flow constraint gives, two scales."""
    run = evidence.run_THW
    if len(run) < 4:
        return float(np.log(1e-3))
    smooth = ndimage.gaussian_filter(run, (0, 3.0, 3.0), truncate=2.0)[:, ::2, ::2]
    down, right = (np.asarray(np.gradient(smooth, axis=axis)) for axis in (1, 2))
    change = np.diff(smooth, axis=0)
    down, right = (down[1:] + down[:-1]) / 2, (right[1:] + right[:-1]) / 2
    weight = 1 / (1 + np.abs(change) / (np.median(np.abs(change), axis=(1, 2), keepdims=True) + 1))
    yy, xx, xy = ((weight * a * b).sum(axis=(1, 2)) for a, b in ((down, down), (right, right), (down, right)))
    yt, xt = (-(weight * a * change).sum(axis=(1, 2)) for a in (down, right))
    determinant = yy * xx - xy**2 + 1e-3 * (yy + xx) + 1e-6
    path = np.stack([xx * yt - xy * xt, yy * xt - xy * yt], axis=1) / determinant[:, None]
    jerk = np.diff(path, axis=0)
    return float(np.log(np.sqrt((jerk**2).mean()) / min(smooth.shape[1:]) + 1e-3))


def change_clusters(evidence: Evidence) -> float:
    """Share of frames in the lower of two clusters of log change (Otsu), if the clusters are apart.

    A frame's change is that of its most changed pixels, so that a still background hides no movement.
    """
    run = evidence.run_THW
    if len(run) < 4:
        return 0.0
    difference = np.abs(np.diff(run, axis=0)).reshape(len(run) - 1, -1)
    change = np.sort(np.log(np.quantile(difference, _MOVING, axis=1) + 0.5))
    sizes = np.arange(1, len(change))
    low = np.cumsum(change)[:-1] / sizes
    high = (change.sum() - np.cumsum(change)[:-1]) / (len(change) - sizes)
    best = int(np.argmax(sizes * (len(change) - sizes) * (high - low) ** 2))
    gap = high[best] - low[best]
    return float(sizes[best] / len(change) * np.clip(gap - 0.5, 0, 1))


ESTIMATORS: Final[Mapping[Attribute, Callable[[Evidence], float]]] = {
    Attribute.SHARPNESS: reblur_loss,
    Attribute.NOISE: patch_eigenvalue_noise,
    Attribute.EXPOSURE: shadow_highlight_balance,
    Attribute.CONTRAST: gini_difference,
    Attribute.COLOUR: grey_axis_distance,
    Attribute.COMPRESSION: lag_autocorrelation,
    Attribute.STABILITY: flow_shake,
    Attribute.SMOOTHNESS: change_clusters,
}
