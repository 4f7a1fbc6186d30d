"""Tiles of frames: CLIP's own view, and fragments that are the picture's own pixels."""

import numpy as np
import pytest
from transformers import CLIPImageProcessor

from models.errors import ModelError
from models.rali.views import TileView

FRAGMENTS = TileView("fragments", 112, 28, 2)


def _frames(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(48, 80), (101, 67), (32, 32)])
def test_clips_view_is_that_of_its_processor(size: tuple[int, int]):
    frames = _frames(1, *size)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels = processor(frames[0], do_normalize=False, do_rescale=False, return_tensors="np")["pixel_values"][0]
    found = TileView("clip", 32).of(frames)
    assert found.shape == (1, 32, 32, 3)
    assert np.abs(found[0].astype(int) - pixels.transpose(1, 2, 0)).max() <= 1  # it may resize with another library


def test_a_frame_has_a_thumbnail_and_native_tiles_of_its_own_pixels():
    frames = _frames(2, 300, 400)
    tiles = FRAGMENTS.of(frames)
    assert tiles.shape == (6, 112, 112, 3)
    windows = np.lib.stride_tricks.sliding_window_view(frames[0], (28, 28), axis=(0, 1))
    for tile in tiles[1:3]:
        for row in range(4):
            for column in range(4):
                patch = tile[row * 28 : row * 28 + 28, column * 28 : column * 28 + 28]
                cell = windows[row * 75 : row * 75 + 75, column * 100 : column * 100 + 100]
                assert (cell[:, :, :, 0, 0] == patch[0, 0]).all(axis=2).any()
                tops, lefts = np.nonzero((cell[:, :, :, 0, 0] == patch[0, 0]).all(axis=2))
                spots = zip(tops.tolist(), lefts.tolist(), strict=True)
                assert any(np.array_equal(cell[top, left].transpose(1, 2, 0), patch) for top, left in spots)


def test_scoring_is_fixed_and_training_draws():
    frames = _frames(1, 200, 300)
    assert np.array_equal(FRAGMENTS.of(frames), FRAGMENTS.of(frames))
    drawn = [FRAGMENTS.of(frames, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_frames_of_a_clip_are_cut_at_the_same_places():
    frames = np.repeat(_frames(1, 200, 300), 2, axis=0)
    tiles = FRAGMENTS.of(frames, np.random.default_rng(3))
    assert np.array_equal(tiles[:3], tiles[3:])


@pytest.mark.parametrize("size", [(1, 1), (5, 900), (27, 28), (112, 112)])
def test_every_size_gives_tiles(size: tuple[int, int]):
    frames = np.full((1, *size, 3), 77, dtype=np.uint8)
    for view in (FRAGMENTS, TileView("clip", 28)):
        tiles = view.of(frames)
        assert tiles.shape == (view.tiles, view.side, view.side, 3)
        assert (tiles == 77).all()


def test_what_is_no_frame_is_refused():
    with pytest.raises(ModelError, match="uint8"):
        FRAGMENTS.of(np.zeros((1, 8, 8, 3), dtype=np.float32))
    with pytest.raises(ModelError, match="divides"):
        TileView("fragments", 112, 30, 1)
    with pytest.raises(ModelError, match="does not fit this version"):
        TileView.from_json({"kind": "clip", "side": 32, "zoom": 2})
