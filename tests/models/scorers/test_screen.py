"""The size of a screen: shapes are kept, bounds hold, and twice is once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.scorers.screen import LEAST, LONGEST, SHORTEST, on_screen, size_on_screen


def _picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), dtype=np.uint8)


@settings(max_examples=50, deadline=None)
@given(height=st.integers(16, 6000), width=st.integers(16, 6000))
def test_pictures_fill_the_screen_and_keep_their_shape(height: int, width: int) -> None:
    rows, columns = size_on_screen(height, width)
    assert LEAST <= min(rows, columns) <= max(SHORTEST, min(height, width))
    assert max(rows, columns) <= LONGEST
    if max(height, width) <= 6 * min(height, width):
        assert rows / columns == pytest.approx(height / width, rel=0.01)
        assert min(rows, columns) >= SHORTEST or max(rows, columns) == LONGEST
    if min(height, width) >= SHORTEST and max(height, width) <= LONGEST:
        assert (rows, columns) == (height, width)


def test_what_fits_the_screen_is_not_touched_and_the_rest_is_resized_frame_by_frame() -> None:
    native = _picture(SHORTEST, LONGEST)
    assert on_screen(native) is native
    small = np.concatenate([_picture(90, 160, 1), _picture(90, 160, 2)])
    enlarged = on_screen(small)
    assert enlarged.shape == (2, SHORTEST, LONGEST, 3)
    assert (enlarged[1] == on_screen(small[1:])[0]).all()


@settings(max_examples=200, deadline=None)
@given(height=st.integers(16, 6000), width=st.integers(16, 6000))
def test_a_second_time_changes_nothing(height: int, width: int) -> None:
    size = size_on_screen(height, width)
    assert size_on_screen(*size) == size
