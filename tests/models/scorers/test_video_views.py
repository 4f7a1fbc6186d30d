"""Frames, fragments and sizes as the official code has them, with what it draws at random held fixed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seeded import digest, frames, offset, sample

from models.errors import ModelError
from models.scorers.video_views import FragmentClips, Runs, draw_offsets, enlarge, fragments, normalised, squeeze

REFERENCE = Path(__file__).parents[2] / "reference"
CLIPS = {"fast_vqa": FragmentClips(Runs(4, 32, 2), 7, 32), "fast_vqa_m": FragmentClips(Runs(4, 16, 2), 4, 8)}


def golden(name: str) -> dict[str, Any]:
    return json.loads((REFERENCE / f"{name}.json").read_text())


def close(frame_HWC: np.ndarray, pixels: list[Any]) -> bool:
    """Equal, but for last bits that differ from one processor to another."""
    difference = np.abs(np.array(sample(frame_HWC)) - np.array(pixels))
    return difference.max() <= 1 and (difference == 0).mean() > 0.95


def size_of(text: str) -> tuple[int, int]:
    height, width = map(int, text.split("x"))
    return height, width


def test_runs_are_the_official_ones_where_draws_are_the_middle_of_their_range() -> None:
    cases = [(CLIPS[name].clips, golden(name)["indices_of"]) for name in CLIPS]
    dover = golden("dover")["indices_of"]
    cases += [(Runs(3, 32, 2), dover["technical"]), (Runs(32, 1, 2), dover["aesthetic"])]
    for runs, expected in cases:
        assert len(expected) == 7
        for total, indices in expected.items():
            assert [index for run in runs.indices(int(total)) for index in run] == indices


@given(st.integers(1, 10**9))
def test_runs_stay_inside_a_video_of_any_length(total: int) -> None:
    for runs in (Runs(4, 32, 2), Runs(32, 1, 2)):
        chosen = runs.indices(total)
        assert [len(run) for run in chosen] == [runs.length] * runs.runs
        assert all(0 <= index < total for run in chosen for index in run)


@pytest.mark.parametrize("name", CLIPS)
def test_fragments_are_the_official_ones_at_the_same_offsets(name: str) -> None:
    cells, aligned = CLIPS[name].cells, CLIPS[name].aligned
    expected = golden(name)["views"]["fragments"]
    assert len(expected) == 3
    for text, hashed in expected.items():
        size = size_of(text)
        turns, free = 0, [extent // cells - 32 for extent in size]
        pieces: list[list[np.ndarray]] = []
        for room in free:  # rows, then columns; the official code draws only where there is room
            places = [[[offset(i, j, t + turns, room) if room > 0 else 0 for j in range(cells)] for i in range(cells)]
                      for t in range(2)]  # fmt: skip
            pieces.append([np.array(place) for place in places])
            turns += room > 0
        video = frames(text, 2 * aligned, *size)
        cut = [
            fragments(frame, cells, (pieces[0][t // aligned], pieces[1][t // aligned])) for t, frame in enumerate(video)
        ]
        assert digest(np.stack(cut)) == hashed


@pytest.mark.parametrize("name", CLIPS)
def test_small_frames_are_enlarged_like_the_official_ones(name: str) -> None:
    side = CLIPS[name].cells * 32
    expected = golden(name)["views"]["enlarged"]
    assert len(expected) == 4
    for text, pixels in expected.items():
        enlarged = enlarge(frames(text, 1, *size_of(text))[0], side)
        assert min(enlarged.shape[:2]) == side
        assert close(enlarged, pixels)


def test_whole_frames_are_resized_like_the_official_ones() -> None:
    expected = golden("dover")["resized"]
    assert len(expected) == 3
    for text, pixels in expected.items():
        assert close(squeeze(frames(text, 1, *size_of(text))[0], 224), pixels)


def test_every_short_side_is_enlarged_to_the_grid_and_no_other() -> None:
    for side in (128, 224):
        for shorter in range(16, side):
            assert min(enlarge(np.zeros((shorter, shorter + 3, 3), np.uint8), side).shape[:2]) == side
        frame = np.zeros((side, side + 9, 3), np.uint8)
        assert enlarge(frame, side) is frame


@pytest.mark.parametrize("size", [(500, 1), (1, 500), (15, 200), (20, 400), (3400, 200)])
def test_strips_are_refused_with_their_size(size: tuple[int, int]) -> None:
    with pytest.raises(ModelError, match=f"{size[1]}x{size[0]} is too (small|elongated)"):
        enlarge(np.zeros((*size, 3), np.uint8), 224)


def test_a_frame_without_room_for_the_grid_is_refused() -> None:
    with pytest.raises(ModelError, match="no room for 7 x 7"):
        fragments(np.zeros((223, 400, 3), np.uint8), 7, draw_offsets(223, 400, 7, 1))


@settings(max_examples=50)
@given(st.integers(224, 5000), st.integers(224, 5000), st.integers(0, 2**64))
def test_offsets_keep_fragments_inside_their_cells(height: int, width: int, seed: int) -> None:
    for extent, places in zip((height, width), draw_offsets(height, width, 7, seed), strict=True):
        assert places.shape == (7, 7)
        assert places.min() >= 0
        assert places.max() + 32 <= max(extent // 7, 32)


def test_pixels_are_normalised_in_single_precision() -> None:
    pixels = frames("normal", 4, 32, 32)
    clips = normalised(pixels, 2)
    assert clips.shape == (2, 3, 2, 32, 32)
    mean, std = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])
    expected = ((pixels.astype(np.float32) - mean) / std).reshape(2, 2, 32, 32, 3).transpose(0, 4, 1, 2, 3)
    assert (clips.numpy() == expected).all()


def test_offsets_are_shared_within_a_strip_and_differ_between_strips_and_media() -> None:
    strips = CLIPS["fast_vqa_m"].strips(1000)
    assert [len(strip.indices) for strip in strips] == [8] * 8
    frame = frames("one", 1, 300, 400)[0]
    views = [strip.reduce(frame, 5) for strip in strips]
    assert all((strip.reduce(frame, 5) == view).all() for strip, view in zip(strips, views, strict=True))
    assert len({view.tobytes() for view in views}) == 8
    assert (strips[0].reduce(frame, 6) != views[0]).any()
    assert views[0].shape == (128, 128, 3)


def test_a_single_frame_is_one_static_clip() -> None:
    assert [strip.indices for strip in CLIPS["fast_vqa"].strips(1)] == [(0,) * 32]
    assert [strip.indices for strip in CLIPS["fast_vqa_m"].strips(1)] == [(0,) * 8, (0,) * 8]
