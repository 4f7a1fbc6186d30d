"""Noise types of KADIS: white (11), white in YCbCr (12), impulse (13), multiplicative (14), and denoise (15)."""

import math

import numpy as np
from scipy import ndimage
from skimage import color

from models.distortions.pixels import Floats, Pixels, to_bytes, to_unit

_WIENER_WINDOW = 7
_FLAT = 1e-8


def white_noise(pixels: Pixels, variance: float, generator: np.random.Generator) -> Pixels:
    """Add independent Gaussian noise to R, G and B."""
    return to_bytes((to_unit(pixels) + _gaussian(pixels, variance, generator)) * 255)


def white_noise_color(pixels: Pixels, variance: float, generator: np.random.Generator) -> Pixels:
    """Add independent Gaussian noise to Y, Cb and Cr."""
    planes = color.rgb2ycbcr(to_unit(pixels))
    return to_bytes(color.ycbcr2rgb(planes + 255 * _gaussian(pixels, variance, generator)) * 255)


def impulse_noise(pixels: Pixels, share: float, generator: np.random.Generator) -> Pixels:
    """Set ``share`` of the samples to 0 or 255, half each, every channel for itself."""
    draw = generator.random(pixels.shape, dtype=np.float32)
    noisy = pixels.copy()
    noisy[draw < share / 2] = 0
    noisy[draw > 1 - share / 2] = 255
    return noisy


def multiplicative_noise(pixels: Pixels, variance: float, generator: np.random.Generator) -> Pixels:
    """Multiply every sample by 1 + uniform noise of mean 0 (speckle)."""
    draw = generator.random(pixels.shape, dtype=np.float32) - np.float32(0.5)
    return to_bytes(pixels * (1 + np.float32(math.sqrt(12 * variance)) * draw))


def denoise(pixels: Pixels, variance: float, generator: np.random.Generator) -> Pixels:
    """Add white noise and remove it with an adaptive Wiener filter per channel: smeared detail, left-over blotches."""
    noisy = np.clip(to_unit(pixels) + _gaussian(pixels, variance, generator), 0, 1)
    return to_bytes(np.stack([_wiener(noisy[..., channel], variance) for channel in range(3)], axis=2) * 255)


def _wiener(plane: Floats, variance: float) -> Floats:
    """Lee's local Wiener filter with a known noise variance."""
    mean = ndimage.uniform_filter(plane, _WIENER_WINDOW, mode="reflect")
    power = ndimage.uniform_filter(plane * plane, _WIENER_WINDOW, mode="reflect") - mean * mean
    gain = np.maximum(power - variance, 0) / np.maximum(power, _FLAT)
    return (mean + gain * (plane - mean)).astype(np.float32)


def _gaussian(pixels: Pixels, variance: float, generator: np.random.Generator) -> Floats:
    return generator.standard_normal(pixels.shape, dtype=np.float32) * np.float32(math.sqrt(variance))
