import base64
import io

import numpy as np
import pytest
from PIL import Image

from models.signals.evidence import Medium
from tasks.annotation.exhibits import Exhibits, Pictures, data_url, reduced_frame, shown_frames


def opened(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_a_small_picture_travels_without_loss():
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    url = data_url(picture, Pictures(max_side=64))
    assert url.startswith("data:image/png;base64,")
    assert (np.asarray(opened(url)) == picture).all()


def test_a_large_picture_is_reduced_by_averaging_and_bounded_in_bytes():
    picture = np.random.default_rng(0).integers(0, 255, (400, 600, 3)).astype(np.uint8)
    assert opened(data_url(picture, Pictures(max_side=300))).size == (300, 200)
    small = Pictures(max_side=600, max_bytes=20_000)
    url = data_url(picture, small)
    assert url.startswith("data:image/jpeg")
    assert len(base64.b64decode(url.partition(",")[2])) <= 20_000
    flat = np.full((10, 500, 3), 77, np.uint8)
    assert (reduced_frame(flat, 100) == 77).all()
    assert reduced_frame(flat, 100).shape == (2, 100, 3)


@pytest.mark.parametrize(("total", "frames", "shown"), [(1, 8, [0]), (10, 3, [1, 5, 8]), (8, 8, list(range(8)))])
def test_frames_are_spread_evenly(total: int, frames: int, shown: list[int]):
    clip = np.arange(total, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    assert [int(frame[0, 0, 0]) for frame in shown_frames(Medium(clip), frames)] == shown


def test_a_medium_is_encoded_once():
    exhibits, medium = Exhibits(Pictures()), Medium(np.zeros((2, 32, 32, 3), np.uint8))
    assert exhibits.of(medium) is exhibits.of(medium)
    assert len(exhibits.of(medium)) == 2
