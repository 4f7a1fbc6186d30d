"""What scorers look at: fixed shapes for any picture, the same bytes every time, native pixels where promised."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.scorers import BUILT_INS, CLIP_FRAMES
from models.scorers.screen import on_screen
from models.scorers.views import fragments

SHAPES = {
    "fragments": [(2, 192, 192, 3)],
    "two_branch": [(6, 128, 128, 3), (128, 128, 3)],
    "multi_task": [(9, 96, 96, 3)],
    "ranking": [(6, 160, 160, 3)],
}


def _picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), dtype=np.uint8)


@settings(max_examples=15, deadline=None)
@given(height=st.integers(16, 700), width=st.integers(16, 700))
def test_every_size_gives_the_same_shapes(height: int, width: int) -> None:
    picture = _picture(height, width)
    for name, shapes in SHAPES.items():
        assert [part.shape[1:] for part in BUILT_INS[name].view(on_screen(picture))] == shapes


@pytest.mark.parametrize("size", [(16, 900), (3000, 40), (2400, 3200)])
def test_extreme_shapes_are_seen_too(size: tuple[int, int]) -> None:
    for built_in in BUILT_INS.values():
        assert all(part.dtype == np.uint8 and part.size for part in built_in.view(on_screen(_picture(*size))))


def test_fragments_are_native_pixels_at_the_same_place_in_every_frame() -> None:
    height, width = 480, 640
    rows, columns = np.mgrid[:height, :width]
    frame = np.stack([rows % 256, columns % 256, (rows // 256) * 16 + columns // 256], axis=2).astype(np.uint8)
    clip = np.stack([frame] * CLIP_FRAMES)
    spliced = fragments(clip)[0]
    assert spliced.shape == (1, CLIP_FRAMES, 192, 192, 3)
    first = spliced[0, 0, :32, :32]
    assert (np.diff(first[:, 0, 0].astype(int)) % 256 == 1).all()  # consecutive rows: nothing was resized
    assert (np.diff(first[0, :, 1].astype(int)) % 256 == 1).all()
    assert (spliced[0] == spliced[0, :1]).all()


def test_long_inputs_are_cut_into_runs_and_a_still_is_shown_twice() -> None:
    assert fragments(np.repeat(_picture(400, 400), 3 * CLIP_FRAMES, axis=0))[0].shape[:2] == (3, CLIP_FRAMES)
    assert fragments(np.repeat(_picture(400, 400), 5, axis=0))[0].shape[:2] == (1, 5)
    still = fragments(_picture(400, 400))[0]
    assert (still[:, 0] == still[:, 1]).all()


def test_whole_pictures_lose_less_than_a_cell() -> None:
    (pixels,) = BUILT_INS["level_probs"].view(_picture(735, 1001))
    assert pixels.shape == (1, 704, 992, 3)
