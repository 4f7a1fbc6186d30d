"""LMMs see the whole of a clip, measurement a run from its middle."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import told_pool
from hypothesis import given
from hypothesis import strategies as st

from models.distortions.clips import encode
from tasks.annotation.sample_pixels import load_pixels, made_of_pictures, spread
from tasks.errors import MediaError
from tasks.pool import load_candidates
from tasks.stage import Place


def rows(root: Path) -> list[dict[str, Any]]:
    told = load_candidates(Place(root, root, root)).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in told]


def rising(root: Path, monkeypatch: pytest.MonkeyPatch, frames: int = 90) -> tuple[Place, dict[str, Any]]:
    """A clip that gets brighter by 2 a frame, as the only sample of a pool."""
    shown = [np.full((48, 64, 3), 20 + 2 * number, np.uint8) for number in range(frames)]
    monkeypatch.setattr(told_pool, "encode", lambda _frames, rate: encode(shown, rate))
    told_pool.build(root, images=0)
    return Place(root, root, root), rows(root)[0]


@given(st.integers(1, 2000), st.integers(1, 64))
def test_frames_are_the_centres_of_equal_spans_of_the_whole_clip(total: int, count: int):
    chosen = spread(total, count)
    assert len(chosen) == min(total, count)
    assert chosen == sorted(set(chosen))
    width = Fraction(total, len(chosen))
    for number, index in enumerate(chosen):
        assert index <= (number + Fraction(1, 2)) * width < index + 1


def test_pictures_come_from_all_of_a_clip_and_not_from_its_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place, row = rising(tmp_path, monkeypatch)
    levels = made_of_pictures(place, row, 3, lambda pixels: float(pixels.mean()))
    assert levels == pytest.approx([20 + 2 * index for index in (15, 45, 75)], abs=3)
    assert len(made_of_pictures(place, row, 500, np.shape)) == 90
    middle = load_pixels(place, row, 4)
    assert middle.mean(axis=(1, 2, 3)) == pytest.approx([20 + 2 * index for index in (43, 44, 45, 46)], abs=3)


def test_an_image_is_one_picture_and_a_broken_file_is_told(tmp_path: Path):
    told_pool.build(tmp_path, images=1, clip=False)
    place, row = Place(tmp_path, tmp_path, tmp_path), rows(tmp_path)[0]
    assert made_of_pictures(place, row, 8, np.shape) == ((48, 64, 3),)
    with pytest.raises(MediaError):
        made_of_pictures(place, row | {"length": 100}, 8, np.shape)
