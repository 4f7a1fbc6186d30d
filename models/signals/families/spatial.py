"""Estimators in the pixel domain: derivatives, moments and block borders. The describer's family."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from models.signals.claims import Attribute
from models.signals.evidence import Evidence

Floats = NDArray[np.float32]

_TINY: Final = 1e-3
_PERIOD: Final = 8
_EDGE_SHARE: Final = 0.9
_STILL: Final = 0.1


def acutance(evidence: Evidence) -> float:
    """Log ratio of second to first differences on the strongest tenth of gradients: how abrupt edges are."""
    luma = evidence.luma_NHW
    centre = luma[:, 1:-1, 1:-1]
    down = (luma[:, 2:, 1:-1] - luma[:, :-2, 1:-1]) / 2
    right = (luma[:, 1:-1, 2:] - luma[:, 1:-1, :-2]) / 2
    bend = luma[:, 2:, 1:-1] + luma[:, :-2, 1:-1] + luma[:, 1:-1, 2:] + luma[:, 1:-1, :-2] - 4 * centre
    slope = np.hypot(down, right)
    edges = slope >= max(np.quantile(slope, _EDGE_SHARE), 1.0)
    if not edges.any():
        return float(np.log(_TINY))
    return float(np.log(np.abs(bend[edges]).mean() / slope[edges].mean() + _TINY))


def immerkaer_noise(evidence: Evidence) -> float:
    """Log standard deviation of noise by Immerkaer's Laplacian difference mask, edges left out (Tai and Yang)."""
    luma = evidence.luma_NHW
    rows = luma[:, 2:] - 2 * luma[:, 1:-1] + luma[:, :-2]
    response = rows[:, :, 2:] - 2 * rows[:, :, 1:-1] + rows[:, :, :-2]
    slope = np.abs(luma[:, 2:, 1:-1] - luma[:, :-2, 1:-1]) + np.abs(luma[:, 1:-1, 2:] - luma[:, 1:-1, :-2])
    smooth = slope <= np.quantile(slope, 1 - _EDGE_SHARE / 2)
    sigma = np.sqrt(np.pi / 2) / 6 * np.abs(response[smooth]).mean()
    return float(np.log(sigma + 0.05))


def mean_luma(evidence: Evidence) -> float:
    """Mean luma, [0, 1]."""
    return float(evidence.tone_luma_P.mean() / 255)


def rms_contrast(evidence: Evidence) -> float:
    """Standard deviation of luma, [0, .5]."""
    return float(evidence.tone_luma_P.std() / 255)


def hasler_colourfulness(evidence: Evidence) -> float:
    """Log of Hasler and Suesstrunk's colourfulness (spread and mean of two opponent channels)."""
    red, green, blue = evidence.tones_PC.astype(np.float32).T
    one, two = red - green, (red + green) / 2 - blue
    spread, mean = np.hypot(one.std(), two.std()), np.hypot(one.mean(), two.mean())
    return float(np.log(spread + 0.3 * mean + 1))


def border_blockiness(evidence: Evidence) -> float:
    """Log excess of luma steps at the borders of an 8-pixel grid over the other columns and rows, best phase."""
    excess = []
    for axis in (1, 2):
        luma = np.swapaxes(evidence.luma_NHW, 1, axis)
        # A border is where the step exceeds the slopes on both sides of it; texture raises all three alike.
        step = np.abs(luma[:, 2:-1] - luma[:, 1:-2])
        around = (np.abs(luma[:, 1:-2] - luma[:, :-3]) + np.abs(luma[:, 3:] - luma[:, 2:-1])) / 2
        profile = np.clip(step - around, -16, 16).mean(axis=2)
        phases = np.stack([profile[:, phase::_PERIOD].mean(axis=1) for phase in range(_PERIOD)])
        scale = step.mean() + 1
        excess.append((phases.max(axis=0) - np.median(phases, axis=0)).mean() / scale)
    return float(np.log(np.mean(excess) + 0.01))


def phase_correlation_shake(evidence: Evidence) -> float:
    """Log jerkiness of the path of global shifts found by phase correlation, in shares of the shorter side."""
    run = evidence.run_THW
    if len(run) < 4:
        return float(np.log(_TINY))
    height, width = run.shape[1:]
    window = np.hanning(height)[:, None] * np.hanning(width)[None]
    spectra = np.asarray(fft.rfft2((run - run.mean(axis=(1, 2), keepdims=True)) * window))
    cross = spectra[1:] * np.conj(spectra[:-1])
    surface = np.asarray(fft.irfft2(cross / (np.abs(cross) + 1e-3), s=(height, width)))
    peak = surface.reshape(len(surface), -1).argmax(axis=1)
    down, right = np.unravel_index(peak, (height, width))
    steps = np.stack([(down + height // 2) % height - height // 2, (right + width // 2) % width - width // 2], axis=1)
    jerk = np.diff(steps.astype(np.float64), axis=0)
    return float(np.log(np.sqrt((jerk**2).mean()) / min(height, width) + _TINY))


def still_share(evidence: Evidence) -> float:
    """Share of frame changes that are next to nothing beside the clip's larger changes, [0, 1]."""
    run = evidence.run_THW
    if len(run) < 4:
        return 0.0
    change = np.abs(np.diff(run, axis=0)).mean(axis=(1, 2))
    return float((change < _STILL * np.quantile(change, 0.95)).mean())


ESTIMATORS: Final[Mapping[Attribute, Callable[[Evidence], float]]] = {
    Attribute.SHARPNESS: acutance,
    Attribute.NOISE: immerkaer_noise,
    Attribute.EXPOSURE: mean_luma,
    Attribute.CONTRAST: rms_contrast,
    Attribute.COLOUR: hasler_colourfulness,
    Attribute.COMPRESSION: border_blockiness,
    Attribute.STABILITY: phase_correlation_shake,
    Attribute.SMOOTHNESS: still_share,
}
