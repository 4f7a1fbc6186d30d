"""Selections of pandas frames with the types that they really have (pandas' annotations widen every one of them)."""

from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.distortions import strength
from models.errors import ModelError
from tasks.errors import StageError


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


def strengths(frame: pd.DataFrame) -> NDArray[np.int64]:
    """How strong each row's distortion is, 0 (none, or one that changes nothing) to 5.

    Levels of a type (``severity``) are not in order of strength where KADIS goes in both directions, so ranks and axes
    take the strength.

    Raises:
        StageError: a row has a severity of a distortion that does not exist.
    """
    try:
        found = [
            strength(str(kind), int(severity)) if severity else 0
            for kind, severity in zip(frame["distortion"], frame["severity"], strict=True)
        ]
    except ModelError as error:
        msg = f"a row has a severity without a known strength ({error}): write severity 0 where none is known"
        raise StageError(msg) from error
    return np.array(found, dtype=np.int64)


def truths(column: Any) -> NDArray[np.bool_]:
    """A nullable boolean column with null as False."""
    return np.array([not pd.isna(value) and bool(value) for value in column], dtype=bool)
