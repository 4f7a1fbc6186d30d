"""Selections of pandas frames with the types that they really have (pandas' annotations widen every one of them)."""

from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def where(frame: pd.DataFrame, mask: Any) -> pd.DataFrame:
    """Rows for which ``mask`` is true."""
    return cast("pd.DataFrame", frame[mask])


def ordered(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Rows sorted by columns."""
    return frame.sort_values(list(columns), ignore_index=True)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def numbers(column: Any) -> NDArray[np.float64]:
    """A numeric column; missing values are NaN."""
    return np.asarray(pd.to_numeric(column), dtype=np.float64)


def truths(column: Any) -> NDArray[np.bool_]:
    """A nullable boolean column with null as False."""
    return np.array([not pd.isna(value) and bool(value) for value in column], dtype=bool)
