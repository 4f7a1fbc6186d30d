"""Spatial types of KADIS: jitter (19), non-eccentricity patch (20), pixelate (21), block (23), sharpen (24)."""

import math

import numpy as np
from PIL import Image
from scipy import ndimage

from models.distortions.pixels import Pixels, from_lab, to_bytes, to_lab

_WARPS = 5
_PATCH = 16
_PATCH_REACH = 8
_BLOCK = 32


def jitter(pixels: Pixels, deviation: float, generator: np.random.Generator) -> Pixels:
    """Fetch every pixel from a place displaced at random: five independent warps, composed into one."""
    height, width = pixels.shape[:2]
    spread = np.float32(deviation * math.sqrt(_WARPS))
    shift = generator.standard_normal((2, height, width), dtype=np.float32) * spread
    rows = np.clip(np.arange(height, dtype=np.float32)[:, None] + shift[0], 0, height - 1)
    columns = np.clip(np.arange(width, dtype=np.float32)[None, :] + shift[1], 0, width - 1)
    top, left = np.minimum(rows.astype(np.intp), height - 2), np.minimum(columns.astype(np.intp), width - 2)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    corner = (top * width + left).ravel()
    flat = pixels.reshape(-1, 3)

    def fetch(offset: int) -> np.ndarray:
        return np.take(flat, corner + offset, axis=0).reshape(pixels.shape).astype(np.float32)

    upper = fetch(0) * (1 - right) + fetch(1) * right
    lower = fetch(width) * (1 - right) + fetch(width + 1) * right
    return to_bytes(upper * (1 - down) + lower * down)


def non_eccentricity_patch(pixels: Pixels, patches: float, generator: np.random.Generator) -> Pixels:
    """Copy ``patches`` squares of 16 pixels to places up to 8 pixels away."""
    height, width = pixels.shape[:2]
    result = pixels.copy()
    for _ in range(int(patches)):
        row = int(generator.integers(_PATCH_REACH, height - _PATCH - _PATCH_REACH + 1))
        column = int(generator.integers(_PATCH_REACH, width - _PATCH - _PATCH_REACH + 1))
        down, right = (int(step) for step in generator.integers(-_PATCH_REACH, _PATCH_REACH + 1, size=2))
        patch = pixels[row : row + _PATCH, column : column + _PATCH]
        result[row + down : row + down + _PATCH, column + right : column + right + _PATCH] = patch
    return result


def pixelate(pixels: Pixels, amount: float, _generator: np.random.Generator) -> Pixels:
    """Shrink to ``.95 - amount ** .6`` of the size and enlarge again, nearest neighbour both ways."""
    height, width = pixels.shape[:2]
    scale = 0.95 - amount**0.6
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk = Image.fromarray(pixels).resize(small, Image.Resampling.NEAREST)
    return np.asarray(shrunk.resize((width, height), Image.Resampling.NEAREST))


def color_block(pixels: Pixels, blocks: float, generator: np.random.Generator) -> Pixels:
    """Paint ``blocks`` squares of 32 pixels in random colours at random places."""
    height, width = pixels.shape[:2]
    result = pixels.copy()
    for _ in range(int(blocks)):
        row, column = int(generator.integers(0, height - _BLOCK + 1)), int(generator.integers(0, width - _BLOCK + 1))
        result[row : row + _BLOCK, column : column + _BLOCK] = generator.integers(0, 256, size=3)
    return result


def high_sharpen(pixels: Pixels, amount: float, _generator: np.random.Generator) -> Pixels:
    """Subtract ``amount`` times the Laplacian (central differences taken twice) from the Lab lightness."""
    lab = to_lab(pixels)
    second = np.array([0.25, 0, -0.5, 0, 0.25], dtype=np.float32)
    laplacian = sum(ndimage.correlate1d(lab[..., 0], second, axis=axis, mode="nearest") for axis in (0, 1))
    lab[..., 0] = np.clip(lab[..., 0] - amount * laplacian, 0, 100)
    return to_bytes(from_lab(lab) * 255)
