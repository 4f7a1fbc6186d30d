"""What each distortion moves: one measured signal per type, which rises with the strength of the distortion.

The signals are computed from pixels alone and know nothing of the generator's parameters; the distance to the original
is not among them where a type has an effect of its own. ``python benchmarks/distortion_signals.py`` prints them.

Shapes: ``[H, W, 3]`` of images, ``[T, H, W, 3]`` of clips, RGB; the original first. Differences are in units of 255.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from skimage import color
from skimage.registration import phase_cross_correlation

from models.distortions.catalogue import VIDEO_TYPES
from models.errors import ModelError

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Measure = Callable[[Floats, Floats], float]

_LUMA: Final = np.array([0.299, 0.587, 0.114])
_REPEATED: Final = 0.5
"""A frame repeats the one before it if they differ by less than this share of what the original's frames differ."""


@dataclass(frozen=True)
class Signal:
    """A signal: what it is called, and how it is measured from original and distorted pixels."""

    words: str
    measure: Measure


def signal(original: Pixels, distorted: Pixels, kind: str) -> float:
    """The signal of a type, measured on an image or a clip and its distorted child.

    Raises:
        ModelError: the type is unknown, or the two differ in shape.
    """
    if kind not in SIGNALS:
        msg = f"unknown distortion {kind!r}; known are {', '.join(SIGNALS)}"
        raise ModelError(msg)
    if original.shape != distorted.shape or original.ndim != (4 if kind in VIDEO_TYPES else 3):
        msg = f"{kind} is measured on two of one shape, not on {original.shape} and {distorted.shape}"
        raise ModelError(msg)
    return SIGNALS[kind].measure(original.astype(np.float64), distorted.astype(np.float64))


def _luma(pixels: Floats) -> Floats:
    return pixels @ _LUMA


def _detail(pixels: Floats) -> float:
    """Mean squared difference of neighbouring luma."""
    luma = _luma(pixels)
    return float((np.diff(luma, axis=-1) ** 2).mean() + (np.diff(luma, axis=-2) ** 2).mean())


def _detail_lost(original: Floats, distorted: Floats) -> float:
    return 1 - _detail(distorted) / _detail(original)


def _detail_gained(original: Floats, distorted: Floats) -> float:
    return _detail(distorted) / _detail(original) - 1


def _luma_error(original: Floats, distorted: Floats) -> float:
    return float(np.sqrt(((_luma(distorted) - _luma(original)) ** 2).mean()))


def _chroma_estranged(original: Floats, distorted: Floats) -> float:
    """One minus the correlation of Lab chroma with the original's."""
    one, two = (color.rgb2lab(pixels / 255)[..., 1:].ravel() for pixels in (original, distorted))
    return float(1 - np.corrcoef(one, two)[0, 1])


def _green_displaced(original: Floats, distorted: Floats) -> float:
    """Pixels by which green has moved where it has changed: flat areas keep theirs, and edges blend.

    Of all displacements within a sixteenth of the sides, the one along which the change of green is explained best by
    the difference of displaced and original green; sums over all displacements at once are correlations.
    """
    green, change = original[..., 1], (distorted - original)[..., 1]
    changed = (change != 0).astype(np.float64)
    along = _correlated(change, green) - float((change * green).sum())
    power = _correlated(changed, green**2) - 2 * _correlated(changed * green, green) + float((changed * green**2).sum())
    explained = np.maximum(along, 0.0) ** 2 / np.maximum(power, 1.0)
    height, width = green.shape
    rows, columns = (np.fft.fftfreq(side, 1 / side) for side in (height, width))
    near = (np.abs(rows)[:, None] <= height / 16) & (np.abs(columns)[None] <= width / 16)
    row, column = np.unravel_index(np.argmax(np.where(near, explained, -1.0)), green.shape)
    return float(np.hypot(rows[row], columns[column]))


def _correlated(one: Floats, other: Floats) -> Floats:
    """Sum over all pixels of ``one`` times ``other`` displaced by each ``[rows, columns]``, wrapped around."""
    return np.fft.irfft2(np.fft.rfft2(one) * np.conj(np.fft.rfft2(other)), one.shape)


def _colour_error(original: Floats, distorted: Floats) -> float:
    """Of what is left of RGB without its luma."""
    one, two = (pixels - _luma(pixels)[..., None] for pixels in (original, distorted))
    return float(np.sqrt(((two - one) ** 2).mean()))


def _colours_lost(original: Floats, distorted: Floats) -> float:
    counts = [len(np.unique(pixels.reshape(-1, 3), axis=0)) for pixels in (original, distorted)]
    return float(np.log2(counts[0] / counts[1]))


def _values_lost(original: Floats, distorted: Floats) -> float:
    return float(np.log2(len(np.unique(original)) / len(np.unique(distorted))))


def _saturation_lost(original: Floats, distorted: Floats) -> float:
    """One minus the slope of the distorted colour differences over the original's: above 1 hues are turned round."""
    one, two = (pixels - pixels.mean(axis=-1, keepdims=True) for pixels in (original, distorted))
    return float(1 - (one * two).sum() / (one**2).sum())


def _blocked(original: Floats, distorted: Floats) -> float:
    """How much larger luma steps are across an 8-pixel grid than inside it, above the original's."""
    return _grid_steps(distorted) - _grid_steps(original)


def _grid_steps(pixels: Floats) -> float:
    luma = _luma(pixels)
    ratios = []
    for steps in (np.abs(np.diff(luma, axis=1)), np.abs(np.diff(luma, axis=0)).T):
        across = np.arange(steps.shape[1]) % 8 == 7
        ratios.append(steps[:, across].mean() / steps[:, ~across].mean())
    return float(np.log(np.mean(ratios)))


def _noise(original: Floats, distorted: Floats) -> float:
    """Deviation of the luma difference from its surroundings."""
    return _fine_deviation(_luma(distorted) - _luma(original))


def _chroma_noise(original: Floats, distorted: Floats) -> float:
    difference = distorted - original
    return _fine_deviation(difference[..., 2] - _luma(difference)) + _fine_deviation(
        difference[..., 0] - _luma(difference)
    )


def _relative_noise(original: Floats, distorted: Floats) -> float:
    inside = (original > 16) & (distorted < 255) & (distorted > 0)
    return float((distorted[inside] / original[inside]).std())


def _fine_deviation(plane: Floats) -> float:
    """Root mean square of differences of neighbours, by the square root of 2: the deviation of white noise."""
    steps = (np.diff(plane, axis=0) ** 2).mean() + (np.diff(plane, axis=1) ** 2).mean()
    return float(np.sqrt(steps / 4))


def _extremes_gained(original: Floats, distorted: Floats) -> float:
    extreme = ((distorted == 0) | (distorted == 255)) & (distorted != original)
    return float(extreme.mean())


def _brighter(original: Floats, distorted: Floats) -> float:
    return float((_luma(distorted) - _luma(original)).mean())


def _darker(original: Floats, distorted: Floats) -> float:
    return -_brighter(original, distorted)


def _mean_moved(original: Floats, distorted: Floats) -> float:
    return abs(_brighter(original, distorted))


def _contrast_moved(original: Floats, distorted: Floats) -> float:
    return float(abs(_luma(distorted).std() / _luma(original).std() - 1))


def _displaced(original: Floats, distorted: Floats) -> float:
    """Luma difference over the local slope of the original: pixels by which edges moved, where there are edges."""
    one, two = _luma(original), _luma(distorted)
    down, across = np.gradient(one)
    slope = np.hypot(down, across)
    steep = slope >= np.quantile(slope, 0.9)
    return float((np.abs(two - one)[steep] / slope[steep]).mean())


def _changed(original: Floats, distorted: Floats) -> float:
    return float((original != distorted).any(axis=-1).mean())


def _equal_neighbours(original: Floats, distorted: Floats) -> float:
    shares = [float((np.diff(pixels, axis=1) == 0).all(axis=-1).mean()) for pixels in (original, distorted)]
    return shares[1] - shares[0]


def _repeats(original: Floats, distorted: Floats) -> float:
    steps, usual = (np.abs(np.diff(clip, axis=0)).mean(axis=(1, 2, 3)) for clip in (distorted, original))
    return float((steps < _REPEATED * np.median(usual)).mean())


def _shaken(original: Floats, distorted: Floats) -> float:
    """Mean distance, in pixels, by which frames were moved against the original's."""
    pairs = zip(_luma(original), _luma(distorted), strict=True)
    moves = [phase_cross_correlation(one, two, upsample_factor=4)[0] for one, two in pairs]
    return float(np.linalg.norm(np.array(moves), axis=1).mean())


_BLUR: Final = Signal("share of luma detail lost", _detail_lost)
_CODED: Final = Signal("root mean square error of luma", _luma_error)

SIGNALS: Final[dict[str, Signal]] = {
    "gaussian_blur": _BLUR,
    "lens_blur": _BLUR,
    "motion_blur": _BLUR,
    "color_diffusion": Signal("1 - correlation of Lab chroma with the original's", _chroma_estranged),
    "color_shift": Signal("displacement of green, pixels", _green_displaced),
    "color_quantization": Signal("halvings of the number of colours", _colours_lost),
    "color_saturation_1": Signal("share of colour differences lost", _saturation_lost),
    "color_saturation_2": Signal("root mean square error of RGB without luma", _colour_error),
    "jpeg2000": _CODED,
    "jpeg": Signal("log ratio of luma steps across and inside 8-pixel blocks, above the original's", _blocked),
    "white_noise": Signal("deviation of fine luma noise", _noise),
    "white_noise_color": Signal("deviation of fine chroma noise", _chroma_noise),
    "impulse_noise": Signal("share of samples driven to 0 or 255", _extremes_gained),
    "multiplicative_noise": Signal("deviation of the ratio to the original", _relative_noise),
    "denoise": Signal("root mean square error of luma", _luma_error),
    "brighten": Signal("rise of mean luma", _brighter),
    "darken": Signal("fall of mean luma", _darker),
    "mean_shift": Signal("change of mean luma, either way", _mean_moved),
    "jitter": Signal("displacement of edges, pixels", _displaced),
    "non_eccentricity_patch": Signal("share of pixels changed", _changed),
    "pixelate": Signal("gain in the share of equal neighbours", _equal_neighbours),
    "quantization": Signal("halvings of the number of values", _values_lost),
    "color_block": Signal("share of pixels changed", _changed),
    "high_sharpen": Signal("gain of luma detail", _detail_gained),
    "contrast_change": Signal("relative change of the deviation of luma, either way", _contrast_moved),
    "h264_compression": _CODED,
    "h265_compression": _CODED,
    "frame_stutter": Signal("share of frames that repeat the one before", _repeats),
    "camera_shake": Signal("shift of frames, pixels", _shaken),
}
"""Type -> its signal, in the order of the catalogue."""
