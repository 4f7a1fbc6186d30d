"""Colour types of KADIS: diffusion (4), shift (5), quantization (6, 22), saturation (7, 8)."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from models.distortions.pixels import Floats, Pixels, from_lab, to_bytes, to_lab, to_unit

_LUMA = np.array([0.2989, 0.587, 0.114], dtype=np.float32)
_MASK_BLUR = 4.0
_MASK_FLOOR = 0.1
_MASK_TAILS = (1.0, 99.0)
_LLOYD_STEPS = 60
_PALETTE_SIDE = 64


def color_diffusion(pixels: Pixels, amount: float, _generator: np.random.Generator) -> Pixels:
    """Blur the Lab chroma with sigma ``1.5 amount + 2`` pixels and multiply it by ``amount``."""
    lab = to_lab(pixels)
    for channel in (1, 2):
        lab[..., channel] = ndimage.gaussian_filter(lab[..., channel], 1.5 * amount + 2, truncate=3.0) * amount
    return to_bytes(from_lab(lab) * 255)


def color_shift(pixels: Pixels, amount: float, generator: np.random.Generator) -> Pixels:
    """Displace green by ``amount`` pixels in a random direction where the image has edges."""
    angle = generator.uniform(0.0, 2 * math.pi)
    down, right = round(amount * math.sin(angle)), round(amount * math.cos(angle))
    margin = math.ceil(amount)
    green = pixels[..., 1].astype(np.float32)
    height, width = green.shape
    padded = np.pad(green, margin, mode="symmetric")
    moved = padded[margin - down : margin - down + height, margin - right : margin - right + width]
    mask = _edge_mask(to_unit(pixels) @ _LUMA)
    shifted = pixels.astype(np.float32)
    shifted[..., 1] = moved * mask + green * (1 - mask)
    return to_bytes(shifted)


def _edge_mask(luma: Floats) -> Floats:
    down, right = np.gradient(luma)
    slope: Floats = np.hypot(down, right).astype(np.float32)
    edges = _stretched(np.asarray(ndimage.gaussian_filter(slope, _MASK_BLUR), dtype=np.float32))
    edges = _stretched(np.maximum(edges, _MASK_FLOOR))
    low, high = np.percentile(edges, _MASK_TAILS)
    clipped: Floats = np.clip(edges, np.float32(low), np.float32(high))
    return _stretched(clipped)


def _stretched(values: Floats) -> Floats:
    low, high = float(values.min()), float(values.max())
    return ((values - low) / (high - low)).astype(np.float32) if high > low else np.zeros_like(values)


def color_quantization(pixels: Pixels, colours: float, generator: np.random.Generator) -> Pixels:
    """Reduce to a palette of ``colours`` that k-means finds in a sample of the pixels, dithered."""
    flat = pixels.reshape(-1, 3)
    sample = flat[generator.integers(0, len(flat), size=_PALETTE_SIDE**2)].reshape(_PALETTE_SIDE, _PALETTE_SIDE, 3)
    palette = Image.fromarray(sample).quantize(int(colours), method=Image.Quantize.MEDIANCUT, kmeans=1)
    reduced = Image.fromarray(pixels).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    return np.asarray(reduced.convert("RGB"))


def color_saturation_hsv(pixels: Pixels, factor: float, _generator: np.random.Generator) -> Pixels:
    """Multiply HSV saturation: each channel's distance from the value (the largest channel) is scaled.

    That is HSV to RGB with S replaced by ``factor`` S, written out; a negative factor gives complementary hues.
    """
    values = pixels.astype(np.float32)
    top = values.max(axis=2, keepdims=True)
    return to_bytes(top - (top - values) * np.float32(factor))


def color_saturation_lab(pixels: Pixels, factor: float, _generator: np.random.Generator) -> Pixels:
    """Multiply the Lab chroma."""
    lab = to_lab(pixels)
    lab[..., 1:] *= np.float32(factor)
    return to_bytes(from_lab(lab) * 255)


def quantization(pixels: Pixels, levels: float, _generator: np.random.Generator) -> Pixels:
    """Quantise all samples to ``levels`` values that minimise the squared error over the image's histogram."""
    counts = np.bincount(pixels.ravel(), minlength=256).astype(np.float64)
    return _lloyd(counts, int(levels))[pixels]


def _lloyd(counts_256: NDArray[np.float64], levels: int) -> Pixels:
    values = np.arange(256, dtype=np.float64)
    used = np.flatnonzero(counts_256)
    centres = np.linspace(used[0], used[-1], levels)
    for _ in range(_LLOYD_STEPS):
        nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
        weight = np.bincount(nearest, counts_256, minlength=levels)
        total = np.bincount(nearest, counts_256 * values, minlength=levels)
        centres = np.where(weight > 0, total / np.maximum(weight, 1.0), centres)
    return to_bytes(centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, values)])
