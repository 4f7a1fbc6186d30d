"""Blur types of KADIS: Gaussian (1), lens (2), motion (3). Pixels are ``[H, W, 3]`` uint8."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from models.distortions.pixels import Floats, Pixels, to_bytes

_PATH_SAMPLES_PER_PIXEL = 16
_DISK_SUBPIXELS = 9


def gaussian_blur(pixels: Pixels, sigma: float, _generator: np.random.Generator) -> Pixels:
    """Blur with a Gaussian of ``sigma`` pixels, cut at ``ceil(2 sigma)``, edges mirrored."""
    radius = math.ceil(2 * sigma)
    smooth = pixels.astype(np.float32)
    for axis in (0, 1):
        smooth = ndimage.gaussian_filter1d(smooth, sigma, axis=axis, mode="reflect", radius=radius)
    return to_bytes(smooth)


def lens_blur(pixels: Pixels, radius: float, _generator: np.random.Generator) -> Pixels:
    """Blur with an antialiased disk, the point spread of a lens out of focus."""
    return _convolve(pixels, disk_kernel(radius))


def motion_blur(pixels: Pixels, length: float, generator: np.random.Generator) -> Pixels:
    """Blur along a straight path of ``length`` pixels in a random direction."""
    return _convolve(pixels, path_kernel(length, generator.uniform(0.0, math.pi)))


def disk_kernel(radius: float) -> Floats:
    """Area of a disk in each pixel, ``[2 ceil(r) + 1]`` squared, sum 1; by subpixel counting."""
    half = math.ceil(radius)
    offsets = (np.arange(_DISK_SUBPIXELS) + 0.5) / _DISK_SUBPIXELS - 0.5
    axis = (np.arange(-half, half + 1)[:, None] + offsets).ravel()
    inside = (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2).astype(np.float32)
    size = 2 * half + 1
    area = inside.reshape(size, _DISK_SUBPIXELS, size, _DISK_SUBPIXELS).sum(axis=(1, 3))
    return area / area.sum()


def path_kernel(length: float, angle: float) -> Floats:
    """Exposure along a straight path through the centre, shared between neighbouring pixels; sum 1."""
    steps = max(2, math.ceil(length * _PATH_SAMPLES_PER_PIXEL))
    along = (np.arange(steps) + 0.5) / steps * length - length / 2
    half = math.ceil(length / 2) + 1
    rows, columns = along * math.sin(angle) + half, along * math.cos(angle) + half
    kernel = np.zeros((2 * half + 1, 2 * half + 1), dtype=np.float32)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    for down in (0, 1):
        for right in (0, 1):
            share = np.abs(1 - down - (rows - top)) * np.abs(1 - right - (columns - left))
            np.add.at(kernel, (top + down, left + right), share)
    return kernel / kernel.sum()


def _convolve(pixels: Pixels, kernel: NDArray[np.float32]) -> Pixels:
    half = kernel.shape[0] // 2
    padded = np.pad(pixels, ((half, half), (half, half), (0, 0)), mode="symmetric").astype(np.float32)
    return to_bytes(signal.fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1)))
