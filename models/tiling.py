"""How a picture becomes tiles: pure functions of its pixels.

Shape legend: ``T`` tiles, ``C`` channels, ``H`` and ``W`` pixels; pixels are uint8.

``dynamic`` is InternVL's tiling: the grid of tiles nearest in aspect ratio, then a thumbnail. ``fragments`` is for
small tiles: beside a thumbnail stand *native* tiles, each a mosaic of unresized fragments, one from every cell of a
grid over the whole picture (the sampling idea of FAST-VQA, arXiv 2207.02595).
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Nearness = Literal["aspect", "area"]


def choose_grid(height: int, width: int, tile_px: int, max_tiles: int, by: Nearness = "aspect") -> tuple[int, int]:
    """Columns and rows of the grid that a picture is resized to.

    Args:
        by: ``aspect`` is upstream InternVL's rule: the grid of at most ``max_tiles`` tiles whose aspect ratio is
            nearest; of equally near ones the last whose pixels are less than twice the picture's. ``area`` is the
            released VITAL code's, which compares pixel areas instead.
    """
    area, best, smallest = width * height, (1, 1), float("inf")
    for columns, rows in _grids(max_tiles, by):
        pixels = tile_px * tile_px * columns * rows
        distance = abs(width / height - columns / rows) if by == "aspect" else float(abs(pixels - area))
        if distance < smallest or (distance == smallest and area > 0.5 * pixels):
            best, smallest = (columns, rows), distance
    return best


def _grids(max_tiles: int, by: Nearness) -> list[tuple[int, int]]:
    """Grids of at most ``max_tiles`` tiles, small ones first.

    Grids of one size are always equally near in area, so there the order in which Python walks through a set decides,
    as in the released code.
    """
    sides = range(1, max_tiles + 1)
    grids = [(columns, rows) for columns in sides for rows in sides if columns * rows <= max_tiles]
    if by == "area":
        grids = list({(i, j) for n in sides for i in range(1, n + 1) for j in range(1, n + 1) if i * j <= max_tiles})
    return sorted(grids, key=lambda grid: grid[0] * grid[1])


def dynamic_tiles(image_CHW: Tensor, tile_px: int, max_tiles: int, by: Nearness = "aspect") -> Tensor:
    """Tiles ``[T, C, tile_px, tile_px]`` in reading order, and last a thumbnail if there is more than one."""
    height, width = image_CHW.shape[1:]
    columns, rows = choose_grid(height, width, tile_px, max_tiles, by)
    canvas_CHW = resize(image_CHW, tile_px * rows, tile_px * columns)
    grid = canvas_CHW.unfold(1, tile_px, tile_px).unfold(2, tile_px, tile_px)
    tiles = grid.permute(1, 2, 0, 3, 4).reshape(-1, len(image_CHW), tile_px, tile_px)
    if len(tiles) > 1:
        tiles = torch.cat([tiles, resize(image_CHW, tile_px, tile_px)[None]])
    return tiles


def fragment_tiles(
    image_CHW: Tensor, tile_px: int, fragment_px: int, native: int, rng: np.random.Generator | None
) -> Tensor:
    """A thumbnail, then ``native`` tiles of unresized fragments; ``[1 + native, C, tile_px, tile_px]``.

    Args:
        rng: draws the fragments' places; without it they are fixed.
    """
    thumbnail = resize(image_CHW, tile_px, tile_px)
    if min(image_CHW.shape[1:]) < fragment_px:  # smaller than one fragment: the smallest enlargement that fits
        scale = fragment_px / min(image_CHW.shape[1:])
        height, width = (max(fragment_px, round(side * scale)) for side in image_CHW.shape[1:])
        image_CHW = resize(image_CHW, height, width)
    cells = tile_px // fragment_px
    tiles = []
    for index in range(native):
        shares = np.full((2, cells, cells), (index + 0.5) / native) if rng is None else rng.random((2, cells, cells))
        tiles.append(_mosaic(image_CHW, fragment_px, shares))
    return torch.stack([thumbnail, *tiles])


def _mosaic(image_CHW: Tensor, size: int, shares_2RC: NDArray[np.float64]) -> Tensor:
    """One native tile: the fragment of every cell, placed in reading order.

    Args:
        shares_2RC: per cell, how far down and how far right its fragment lies in the room that the cell leaves.
    """
    cells = shares_2RC.shape[1]
    tile = torch.empty(len(image_CHW), size * cells, size * cells, dtype=torch.uint8)
    rows = _fragment_starts(image_CHW.shape[1], size, shares_2RC[0])
    columns = _fragment_starts(image_CHW.shape[2], size, shares_2RC[1].T).T
    for row in range(cells):
        for column in range(cells):
            top, left = int(rows[row, column]), int(columns[row, column])
            patch = image_CHW[:, top : top + size, left : left + size]
            tile[:, row * size : (row + 1) * size, column * size : (column + 1) * size] = patch
    return tile


def _fragment_starts(length: int, size: int, shares_RC: NDArray[np.float64]) -> NDArray[np.int64]:
    """First pixel of each cell's fragment along one axis; cells follow each other along the first axis."""
    edges = np.linspace(0, length, len(shares_RC) + 1)
    room = np.maximum(edges[1:] - edges[:-1] - size, 0)[:, None]
    return np.clip(np.floor(edges[:-1, None] + room * shares_RC), 0, length - size).astype(np.int64)


def resize(image_CHW: Tensor, height: int, width: int) -> Tensor:
    """Bicubic with antialiasing on bytes, as InternVL's processor does; a picture of the right size is not touched."""
    if image_CHW.shape[1:] == (height, width):
        return image_CHW
    bytes_1CHW = image_CHW[None].contiguous()
    return functional.interpolate(
        bytes_1CHW, size=(height, width), mode="bicubic", align_corners=False, antialias=True
    )[0]
