"""Conversions that the distortions share: 8-bit RGB to float, to CIE Lab, and back."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from skimage import color

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

_WHITE_D65: Final = np.array([0.95047, 1.0, 1.08883], dtype=np.float32)
_LAB_KNEE: Final = 6 / 29


def to_bytes(values: NDArray[np.floating]) -> Pixels:
    """Round values of 0 to 255 to uint8, clipping what lies outside."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def to_unit(pixels: Pixels) -> Floats:
    """Scale uint8 to float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(255)


def to_lab(pixels: Pixels) -> Floats:
    """Convert sRGB to CIE Lab (D65): L in [0, 100]."""
    return color.rgb2lab(to_unit(pixels))


def from_lab(lab: Floats) -> Floats:
    """Convert CIE Lab (D65) to sRGB in [0, 1]; colours outside the gamut are clipped.

    scikit-image's ``lab2xyz`` is not used because it warns about every colour outside the gamut, which is the normal
    case here, and silencing warnings is not safe in threads.
    """
    mid = (lab[..., 0] + 16) / 116
    curve = np.stack([mid + lab[..., 1] / 500, mid, mid - lab[..., 2] / 200], axis=-1).astype(np.float32)
    linear = np.where(curve > _LAB_KNEE, curve**3, 3 * _LAB_KNEE**2 * (curve - 4 / 29)).astype(np.float32)
    return np.clip(color.xyz2rgb(np.maximum(linear, 0) * _WHITE_D65), 0, 1)
