"""Calibration is a strictly rising map into [0, 1]; excerpts are gathered frame by frame and keep no frame."""

import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ModelError
from models.scorers import Calibration, Excerpt, Gathering, Strip
from models.scorers.protocol import Pixels

CALIBRATION = Calibration((-1.0, 0.0, 2.0), (0.0, 0.75, 1.0))


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20))
def test_calibration_never_reverses_an_order_and_stays_in_range(raws: list[float]) -> None:
    qualities = [CALIBRATION(raw) for raw in sorted(raws)]
    assert qualities == sorted(qualities)
    assert all(0.0 <= quality <= 1.0 for quality in qualities)


def test_calibration_interpolates_and_ends() -> None:
    assert [CALIBRATION(raw) for raw in (-9, -0.5, 0, 1, 9)] == pytest.approx([0, 0.375, 0.75, 0.875, 1])


@pytest.mark.parametrize(
    ("raw", "quality"),
    [
        ((0.0,), (0.5,)),
        ((0.0, 0.0), (0.1, 0.2)),
        ((0.0, 1.0), (0.2, 0.2)),
        ((0.0, 1.0), (0.2, 1.2)),
        ((0.0, 1.0), (0.2,)),
    ],
)
def test_knots_that_are_no_calibration_are_refused(raw: tuple[float, ...], quality: tuple[float, ...]) -> None:
    with pytest.raises(ModelError, match="calibration"):
        Calibration(raw, quality)


def test_a_raw_score_that_is_no_number_is_an_error() -> None:
    with pytest.raises(ModelError, match="number"):
        CALIBRATION(float(np.nan))


def _corner(frame_HWC: Pixels, seed: int) -> Pixels:
    return np.concatenate([frame_HWC[:1, :1], np.full((1, 1, 3), seed % 256, np.uint8)], axis=1)


EXCERPT = Excerpt(lambda total: (Strip((total - 1, 0, 0), _corner), Strip((2 % total,), _corner)))


def _numbered(count: int) -> Pixels:
    return np.repeat(np.arange(count, dtype=np.uint8), 4 * 5 * 3).reshape(count, 4, 5, 3)


def test_an_excerpt_comes_in_its_own_order_with_repeats() -> None:
    assert EXCERPT.of(_numbered(7))[:, 0, 0, 0].tolist() == [6, 0, 0, 2]
    assert EXCERPT.of(_numbered(1))[:, 0, 0, 0].tolist() == [0, 0, 0, 0]
    with pytest.raises(ModelError, match="uint8"):
        EXCERPT.of(np.zeros((0, 4, 5, 3), np.uint8))


def test_the_seed_is_that_of_the_first_frame_wanted() -> None:
    seeds = [EXCERPT.of(frames)[:, 0, 1, 0] for frames in (_numbered(7), _numbered(9), _numbered(7) + 1)]
    assert all(len(set(found.tolist())) == 1 for found in seeds)
    assert seeds[0][0] == seeds[1][0] != seeds[2][0]


def test_a_very_long_video_is_gathered_without_keeping_its_frames() -> None:
    total = 200_000
    gathering = Gathering(EXCERPT.strips(total))
    assert gathering.wanted == {0, 2, total - 1}
    alive: list[weakref.ref[Pixels]] = []
    for index in range(total):
        if index in gathering.wanted:
            frame = np.full((4, 5, 3), index % 251, np.uint8)
            alive.append(weakref.ref(frame))
            gathering.see(index, frame)
            del frame
    assert [reference() for reference in alive] == [None] * 3
    assert gathering.gathered()[:, 0, 0, 0].tolist() == [(total - 1) % 251, 0, 0, 2]
