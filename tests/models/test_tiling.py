"""Tiles: the grid and every pixel against transformers' InternVL processor, and the released code's grid."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor, get_optimal_tiled_canvas

from models.tiling import choose_grid, dynamic_tiles, fragment_tiles, resize

SIDES = st.integers(1, 6000)


def processor(tile: int, most: int) -> GotOcr2ImageProcessor:
    """InternVL's image processor without normalisation: pixels stay bytes."""
    return GotOcr2ImageProcessor(
        size={"height": tile, "width": tile},
        crop_to_patches=True,
        min_patches=1,
        max_patches=most,
        do_rescale=False,
        do_normalize=False,
    )


@given(height=SIDES, width=SIDES, tile=st.sampled_from([28, 112, 448]), most=st.integers(1, 12))
def test_the_grid_is_internvls(height: int, width: int, tile: int, most: int):
    assert choose_grid(height, width, tile, most) == get_optimal_tiled_canvas((height, width), (tile, tile), 1, most)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(2, 400),
    width=st.integers(2, 400),
    tile=st.sampled_from([28, 56]),
    most=st.integers(1, 12),
    seed=st.integers(0, 9),
)
def test_every_pixel_is_internvls(height: int, width: int, tile: int, most: int, seed: int):
    """Tolerance: none. Both resize bytes by the same kernel, so the tiles are equal to the bit."""
    pixels = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))
    theirs = processor(tile, most)(pixels, return_tensors="pt").pixel_values
    ours = dynamic_tiles(pixels, tile, most)
    assert ours.shape == theirs.shape
    assert torch.equal(ours.float(), theirs.float())


def test_tiles_are_in_reading_order_and_the_thumbnail_is_last():
    columns, rows = torch.arange(3) * 10, torch.arange(2) * 100
    pixels = (rows[:, None] + columns[None]).repeat_interleave(4, 0).repeat_interleave(4, 1)
    tiles = dynamic_tiles(pixels.to(torch.uint8).expand(3, -1, -1).contiguous(), 4, 6)
    assert tiles[:-1, 0, 0, 0].tolist() == [0, 10, 20, 100, 110, 120]
    assert all(len(tile.unique()) == 1 for tile in tiles[:-1])
    assert len(tiles[-1].unique()) > 3


@pytest.mark.parametrize(
    ("size", "grid"),
    [  # height and width; computed by the authors' find_closest_aspect_ratio (448 px, at most 12 tiles)
        ((448, 448), (1, 1)),
        ((384, 512), (1, 1)),
        ((480, 640), (2, 1)),
        ((768, 1024), (1, 4)),
        ((720, 1280), (1, 5)),
        ((1280, 720), (1, 5)),
        ((1080, 1920), (1, 10)),
        ((2160, 3840), (2, 6)),
        ((1200, 300), (2, 1)),
        ((700, 900), (1, 3)),
    ],
)
def test_by_area_the_grid_is_the_released_codes(size: tuple[int, int], grid: tuple[int, int]):
    assert choose_grid(*size, 448, 12, "area") == grid


@given(height=SIDES, width=SIDES, most=st.integers(1, 12))
def test_by_area_no_grid_is_nearer(height: int, width: int, most: int):
    columns, rows = choose_grid(height, width, 448, most, "area")
    chosen = abs(448 * 448 * columns * rows - height * width)
    assert columns * rows <= most
    assert all(chosen <= abs(448 * 448 * count - height * width) for count in range(1, most + 1))


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 200), width=st.integers(1, 200), native=st.integers(0, 3))
def test_fragments_come_from_pictures_of_any_size(height: int, width: int, native: int):
    pixels = torch.full((3, height, width), 77, dtype=torch.uint8)
    for rng in (None, np.random.default_rng(0)):
        tiles = fragment_tiles(pixels, 56, 28, native, rng)
        assert tiles.shape == (1 + native, 3, 56, 56)
        assert bool((tiles == 77).all())


def test_a_picture_of_the_right_size_is_not_touched():
    pixels: Any = torch.zeros(3, 5, 7, dtype=torch.uint8)
    assert resize(pixels, 5, 7) is pixels
    assert resize(pixels, 7, 5).shape == (3, 7, 5)
