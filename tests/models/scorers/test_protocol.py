"""Calibration is a strictly rising map into [0, 1]."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ModelError
from models.scorers import Calibration

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
