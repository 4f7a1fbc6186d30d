"""Estimators on image structure: edge profiles, flat patches, tone ranges, transform blocks, block matching."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from models.signals.claims import Attribute
from models.signals.evidence import Evidence

Floats = NDArray[np.float32]

_PATCH: Final = 6
_FLAT_SHARE: Final = 0.1
_BLACK, _WHITE = 6.0, 249.0
_BLOCK: Final = 8
_REACH: Final = 6
_LOW_DELTA: Final = 1e-3


def edge_width(evidence: Evidence) -> float:
    """Log mean width, pixels, of strong edges along rows and columns: from start to end of their rise (Marziliano)."""
    widths = []
    for axis in (1, 2):
        step = np.diff(np.swapaxes(evidence.luma_NHW, 2, axis), axis=2)
        sign = np.sign(step).astype(np.int8)
        starts = np.ones(sign.shape, bool)
        starts[:, :, 1:] = sign[:, :, 1:] != sign[:, :, :-1]
        first = np.flatnonzero(starts)
        length = np.diff(np.append(first, starts.size))
        rise = np.abs(np.add.reduceat(step.ravel(), first))
        strong = rise >= max(np.quantile(rise, 0.95), 8.0)
        if strong.any():
            widths.append(np.average(length[strong], weights=np.minimum(rise[strong], 64)))
    return float(np.log(np.mean(widths))) if widths else float(np.log(evidence.luma_NHW.shape[1]))


def flat_patch_noise(evidence: Evidence) -> float:
    """Log standard deviation in the flattest tenth of small patches (clipped black and white left out)."""
    luma = evidence.luma_NHW
    rows, columns = luma.shape[1] // _PATCH, luma.shape[2] // _PATCH
    cut = luma[:, : rows * _PATCH, : columns * _PATCH].reshape(-1, rows, _PATCH, columns, _PATCH)
    patches = cut.transpose(0, 1, 3, 2, 4).reshape(-1, _PATCH, _PATCH)
    mean = patches.mean(axis=(1, 2))
    patches = patches[(mean > _BLACK) & (mean < _WHITE)]
    if not len(patches):
        return float(np.log(0.05))
    ramp = np.arange(_PATCH, dtype=np.float32) - (_PATCH - 1) / 2
    norm = _PATCH * (ramp**2).sum()
    level = patches - patches.mean(axis=(1, 2), keepdims=True)
    down, right = (level * ramp[:, None]).sum(axis=(1, 2)) / norm, (level * ramp).sum(axis=(1, 2)) / norm
    residual = level - down[:, None, None] * ramp[:, None] - right[:, None, None] * ramp
    return float(np.log(np.quantile(np.sqrt((residual**2).sum(axis=(1, 2)) / (_PATCH**2 - 3)), _FLAT_SHARE) + 0.05))


def log_average_luminance(evidence: Evidence) -> float:
    """Log of the scene's key: geometric mean of linear light (Reinhard)."""
    linear = (evidence.tones_PC.astype(np.float32) / 255) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    return float(np.log(linear + 0.005).mean())


def tone_range(evidence: Evidence) -> float:
    """Distance between the 10th and the 90th percentile of luma, [0, 1]."""
    low, high = np.quantile(evidence.tone_luma_P, (0.1, 0.9))
    return float((high - low) / 255)


def channel_spread(evidence: Evidence) -> float:
    """Log mean difference between the largest and the smallest channel of a pixel (chroma of the HSV hexcone)."""
    rgb = evidence.tones_PC.astype(np.float32)
    return float(np.log((rgb.max(axis=1) - rgb.min(axis=1)).mean() + 1))


def transform_sparsity(evidence: Evidence) -> float:
    """Log ratio of small DCT detail off the 8-pixel grid to detail on it: what a block codec has rounded to zero."""
    ratios = []
    for axis in (1, 2):
        luma = np.swapaxes(evidence.luma_NHW, 2, axis)
        count = (luma.shape[2] - _BLOCK + 1) // _BLOCK
        energy = []
        for phase in range(_BLOCK):
            blocks = luma[:, :, phase : phase + count * _BLOCK].reshape(*luma.shape[:2], count, _BLOCK)
            detail = np.abs(np.asarray(fft.dct(blocks, axis=3, norm="ortho")))[..., 4:]
            energy.append(np.minimum(detail, 6).mean(axis=(1, 2, 3)))
        by_phase = np.stack(energy) + 0.1
        ratios.append(np.median(by_phase, axis=0) / by_phase.min(axis=0))
    return float(np.log(np.mean(ratios) - 1 + 0.02))


def block_match_shake(evidence: Evidence) -> float:
    """Log jerkiness of the median displacement of blocks between consecutive frames (exhaustive block matching)."""
    run = evidence.run_THW
    if len(run) < 4:
        return float(np.log(_LOW_DELTA))
    reduced = run[:, : run.shape[1] // 2 * 2, : run.shape[2] // 2 * 2]
    reduced = reduced.reshape(len(run), reduced.shape[1] // 2, 2, reduced.shape[2] // 2, 2).mean(axis=(2, 4))
    height, width = reduced.shape[1:]
    reach = min(_REACH, height // 4, width // 4)
    side = max(8, min(height, width) // 5)
    tops = np.linspace(reach, height - side - reach, 3).astype(int)
    lefts = np.linspace(reach, width - side - reach, 4).astype(int)
    steps = []
    for now, before in zip(reduced[1:], reduced[:-1], strict=True):
        vectors = [_match(before, now, (top, left, side), reach) for top in tops for left in lefts]
        steps.append(np.median(vectors, axis=0))
    jerk = np.diff(np.array(steps, dtype=np.float64), axis=0)
    return float(np.log(np.sqrt((jerk**2).mean()) / min(height, width) + _LOW_DELTA))


def _match(before: Floats, now: Floats, place: tuple[int, int, int], reach: int) -> tuple[int, int]:
    """Displacement (down, right) of the block at ``place`` (top, left, side) that costs least."""
    top, left, side = place
    block = before[top : top + side : 2, left : left + side : 2]
    area = now[top - reach : top + side + reach, left - reach : left + side + reach]
    windows = np.lib.stride_tricks.sliding_window_view(area, (side, side))
    cost = np.abs(windows[:, :, ::2, ::2] - block).mean(axis=(2, 3))
    down, right = np.unravel_index(int(cost.argmin()), cost.shape)
    return int(down) - reach, int(right) - reach


def unchanged_share(evidence: Evidence) -> float:
    """Share of frames whose fine structure repeats the frame before far better than the clip's moving frames do."""
    run = evidence.run_THW
    if len(run) < 4:
        return 0.0
    fine = np.diff(run, axis=2)
    fine = (fine - fine.mean(axis=(1, 2), keepdims=True)).reshape(len(run), -1)
    norm = np.sqrt((fine**2).sum(axis=1)) + _LOW_DELTA
    distance = 1 - (fine[1:] * fine[:-1]).sum(axis=1) / (norm[1:] * norm[:-1])
    return float((distance < 0.04 * np.quantile(distance, 0.95)).mean())


ESTIMATORS: Final[Mapping[Attribute, Callable[[Evidence], float]]] = {
    Attribute.SHARPNESS: edge_width,
    Attribute.NOISE: flat_patch_noise,
    Attribute.EXPOSURE: log_average_luminance,
    Attribute.CONTRAST: tone_range,
    Attribute.COLOUR: channel_spread,
    Attribute.COMPRESSION: transform_sparsity,
    Attribute.STABILITY: block_match_shake,
    Attribute.SMOOTHNESS: unchanged_share,
}
