"""Tone types of KADIS: brighten (16), darken (17), mean shift (18), contrast change (25)."""

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from models.distortions.pixels import Pixels, from_lab, to_bytes, to_lab

_CODES = np.arange(256) / 255


def brighten(pixels: Pixels, amount: float, _generator: np.random.Generator) -> Pixels:
    """Lift mid grey by ``amount / 2`` with black and white fixed."""
    return _bend(pixels, amount / 2)


def darken(pixels: Pixels, amount: float, _generator: np.random.Generator) -> Pixels:
    """Lower mid grey by ``amount / 2`` with black and white fixed."""
    return _bend(pixels, -amount / 2)


def _bend(pixels: Pixels, lift: float) -> Pixels:
    """Two parts the curve on R, G, B and one part the curve on Lab lightness, which keeps the hue."""
    lab = to_lab(pixels)
    lab[..., 0] = np.clip(_parabola(lab[..., 0] / 100, lift), 0, 1) * 100
    per_channel = np.clip(_parabola(_CODES, lift), 0, 1)[pixels]
    return to_bytes((2 * per_channel + from_lab(lab)) / 3 * 255)


def _parabola(values: NDArray[np.floating], lift: float) -> NDArray[np.floating]:
    """Curve through (0, 0), (.5, .5 + lift) and (1, 1)."""
    return values + 4 * lift * values * (1 - values)


def mean_shift(pixels: Pixels, shift: float, _generator: np.random.Generator) -> Pixels:
    """Add ``shift`` (of [0, 1]) to every sample, clipped."""
    return to_bytes((_CODES + shift) * 255)[pixels]


def contrast_change(pixels: Pixels, amount: float, _generator: np.random.Generator) -> Pixels:
    """Bend the tone curve at the quartiles by ``amount / 4``: steeper for positive amounts, flatter for negative."""
    curve = PchipInterpolator([0, 0.25, 0.5, 0.75, 1], [0, 0.25 - amount / 4, 0.5, 0.75 + amount / 4, 1])
    return to_bytes(curve(_CODES) * 255)[pixels]
