"""Columns by the names that people give them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.errors import StageError
from tasks.evaluation.named_columns import grouped, has_column, numeric, repeated, sample_names

FRAME = pd.DataFrame({"path": ["x/a_1.png", "x/b_2.png", None], "a:b": ["p", None, "q"], "n": ["1", "", "3.5"]})
FILE = Path("table.csv")


def test_a_column_may_hold_a_colon_and_an_empty_cell_is_undistorted():
    assert grouped(FRAME, "a:b", FILE) == ["p", "undistorted", "q"]
    assert has_column(FRAME, "a:b")
    assert has_column(FRAME, r"path:^(\w)")
    assert not has_column(FRAME, r"name:^(\w)")


def test_a_pattern_takes_its_group():
    assert grouped(FRAME.head(2), r"path:_(\d)\.", FILE) == ["1", "2"]
    with pytest.raises(StageError, match="does not fit 1 of 3 values of path, for example 'undistorted'"):
        grouped(FRAME, r"path:_(\d)\.", FILE)
    with pytest.raises(StageError, match="has no column 'name'; its columns are path, a:b, n"):
        grouped(FRAME, "name", FILE)


def test_samples_are_named_by_the_first_column_that_is_there():
    assert sample_names(FRAME.head(2), None, FILE) == ["x/a_1.png", "x/b_2.png"]
    assert sample_names(FRAME, "n", FILE) == ["1", "", "3.5"]
    with pytest.raises(StageError, match=r"does not say which column names the samples \(--id\)"):
        sample_names(FRAME[["n"]], None, FILE)


def test_a_row_without_a_name_is_told():
    frame = pd.DataFrame([{"path": "a.jpg", "mos": 3}, {"mos": 4}])
    with pytest.raises(StageError, match="1 of 2 rows have no 'path', the first is row 1: add it"):
        sample_names(frame, None, FILE)


def test_numbers_may_be_written_as_text():
    assert numeric(FRAME, "n", FILE).tolist() == pytest.approx([1, np.nan, 3.5], nan_ok=True)
    with pytest.raises(StageError, match="'path' is not numeric"):
        numeric(FRAME, "path", FILE)


def test_repeated_names():
    assert repeated(["a", "b", "a", "b", "b"]) == "b"
    assert repeated(["a", "b"]) is None
    assert repeated([]) is None
