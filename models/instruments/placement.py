"""Where in a picture the visual tokens of a quality LMM lie, so that what falls on them can be drawn over it.

A picture becomes tiles (``models.tiling``), and each tile a square of tokens in reading order. Tiles that show the
picture at one scale form a view, whose tokens follow each other.

Shape legend: ``K`` tokens of a view, ``H`` and ``W`` pixels, ``R`` and ``C`` rows and columns of tiles, ``S`` tokens
along a tile's side.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.tiling import choose_grid, fragment_tiles
from models.vision_encoder import VisualSpec

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """Tiles that show a picture at one scale.

    Attributes:
        name: for people.
        boxes_K4: top, left, bottom and right of each token, as shares of the picture's height and width.
    """

    name: str
    boxes_K4: Floats


def image_views(spec: VisualSpec, height: int, width: int, side: int) -> list[View] | None:
    """Views of an image in evaluation, in the order of their tokens.

    Args:
        height, width: of the picture in pixels. side: tokens along a side of a tile.

    Returns:
        None where a token shows several places at once, so that it lies nowhere: tiles whose fragments are smaller
        than what a token covers.
    """
    if spec.tiling == "dynamic":
        return _dynamic_views(spec, height, width, side)
    token_px = spec.tile_px // side
    if spec.tile_px % side or spec.fragment_px % token_px:
        return None
    return [View("whole picture", _grid(side, side)), *_fragment_views(spec, height, width, token_px)]


def _grid(rows: int, columns: int) -> Floats:
    """Boxes of an even grid over the picture, in reading order."""
    row_K, column_K = (index.ravel() for index in np.indices((rows, columns)))
    return np.stack([row_K / rows, column_K / columns, (row_K + 1) / rows, (column_K + 1) / columns], axis=1)


def _dynamic_views(spec: VisualSpec, height: int, width: int, side: int) -> list[View]:
    flags = spec.compatibility
    columns, rows = choose_grid(height, width, spec.tile_px, spec.max_tiles, "area" if flags.area_tiling else "aspect")
    whole = View("whole picture", _grid(side, side))
    if columns * rows == 1:
        return [whole, whole] if flags.doubled_single_tile else [whole]
    boxes_RSCS4 = _grid(rows * side, columns * side).reshape(rows, side, columns, side, 4).transpose(0, 2, 1, 3, 4)
    return [View(f"{columns} x {rows} tiles", boxes_RSCS4.reshape(-1, 4)), whole]


def _fragment_views(spec: VisualSpec, height: int, width: int, token_px: int) -> list[View]:
    """Tiles whose pixels tell where they come from, cut from a picture of coordinates as from any other."""
    scale = max(1.0, spec.fragment_px / min(height, width))  # smaller pictures are enlarged to one fragment
    if scale > 1.0:
        height, width = (max(spec.fragment_px, round(length * scale)) for length in (height, width))
    tiles = fragment_tiles(_coordinates(height, width), spec.tile_px, spec.fragment_px, spec.native_tiles, None)[1:]
    views = []
    for number, tile_4HW in enumerate(tiles.numpy().astype(np.int64), 1):
        row_HW, column_HW = tile_4HW[0] * 256 + tile_4HW[1], tile_4HW[2] * 256 + tile_4HW[3]
        top_K, left_K = (place[::token_px, ::token_px].ravel() for place in (row_HW, column_HW))
        boxes_4K = [top_K / height, left_K / width, (top_K + token_px) / height, (left_K + token_px) / width]
        views.append(View(f"fragments {number}", np.stack(boxes_4K, axis=1)))
    return views


def _coordinates(height: int, width: int) -> Tensor:
    """A picture ``[4, H, W]`` of bytes whose pixels hold their row and column, high byte first."""
    row_HW, column_HW = np.indices((height, width))
    return torch.from_numpy(np.stack([row_HW >> 8, row_HW & 255, column_HW >> 8, column_HW & 255]).astype(np.uint8))
