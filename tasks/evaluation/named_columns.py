"""Tables that a person hands over: files of several kinds, and their columns by the names that the person gives."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from tasks.errors import StageError
from tasks.evaluation.frames import numbers

Floats = NDArray[np.float64]

UNDISTORTED: Final = "undistorted"
"""Name of the group of samples that have none."""
JSON_LINES: Final = (".jsonl", ".ndjson")
_SEPARATORS: Final = {".csv": ",", ".tsv": "\t"}
_ID_NAMES: Final = ("id", "path", "name", "image_name")


def read_any(path: Path) -> pd.DataFrame:
    """Read a CSV, TSV, Parquet or JSON-lines file; columns keep their names.

    Raises:
        StageError: it is missing, empty, damaged or of another kind.
    """
    if not path.is_file():
        msg = f"{path} is missing: name a file with opinions, or a workspace whose score stage has run"
        raise StageError(msg)
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            frame = pd.read_parquet(path)
        elif kind in _SEPARATORS:
            frame = pd.read_csv(path, sep=_SEPARATORS[kind])
        elif kind in JSON_LINES:
            frame = pd.DataFrame([json.loads(line) for line in path.read_text().splitlines() if line.strip()])
        else:
            msg = f"{path} is of no known kind: name a .parquet, .csv, .tsv or .jsonl file"
            raise StageError(msg)
    except (ValueError, pa.ArrowException, UnicodeDecodeError) as error:  # parser errors of pandas and JSON are values
        msg = f"{path} cannot be read: {' '.join(str(error).split())}"
        raise StageError(msg) from error
    if frame.empty:
        msg = f"{path} holds no rows"
        raise StageError(msg)
    return frame


def sample_names(frame: pd.DataFrame, wanted: str | None, source: Path) -> list[str]:
    """Names of the samples: a column, by default the first of ``id``, ``path``, ``name`` and ``image_name``.

    Raises:
        StageError: the column is unknown, or a row has none.
    """
    names = [wanted] if wanted is not None else [n for n in _ID_NAMES if n in frame.columns]
    if not names or names[0] not in frame.columns:
        told = f"has no column {wanted!r}" if wanted else "does not say which column names the samples (--id)"
        msg = f"{source} {told}; {known_columns(frame)}"
        raise StageError(msg)
    lacking = [row for row, one in enumerate(frame[names[0]]) if pd.isna(one)]
    if lacking:
        msg = (
            f"{source}: {len(lacking)} of {len(frame)} rows have no {names[0]!r}, the first is row {lacking[0]}: add it"
        )
        raise StageError(msg)
    return [str(one) for one in frame[names[0]]]


def repeated(names: Sequence[str]) -> str | None:
    """The most frequent of names that occur more than once."""
    (name, count), *_ = Counter(names).most_common(1) or [("", 0)]
    return name if count > 1 else None


def has_column(frame: pd.DataFrame, wanted: str) -> bool:
    """Whether the table has the column of ``COLUMN`` or ``COLUMN:REGEX``."""
    return wanted in frame.columns or wanted.partition(":")[0] in frame.columns


def grouped(frame: pd.DataFrame, wanted: str, source: Path) -> list[str]:
    """Group of each row by ``COLUMN`` or ``COLUMN:REGEX``, whose group 1 is taken; an empty cell is ``undistorted``.

    Raises:
        StageError: the column is unknown, or the pattern is none or does not fit a value.
    """
    name, _, pattern = (wanted, "", "") if wanted in frame.columns else wanted.partition(":")
    if name not in frame.columns:
        msg = f"{source} has no column {name!r}; {known_columns(frame)}"
        raise StageError(msg)
    values = [UNDISTORTED if pd.isna(value) else str(value) for value in frame[name]]
    if not pattern:
        return values
    try:
        found = [re.search(pattern, value) for value in values]
        groups = [match.group(1) if match else None for match in found]
    except (re.error, IndexError) as error:
        msg = f"{pattern!r} is no pattern with one group in parentheses: {error}"
        raise StageError(msg) from error
    lost = [value for value, group in zip(values, groups, strict=True) if group is None]
    if lost:
        msg = (
            f"{source}: {pattern!r} does not fit {len(lost)} of {len(values)} values of {name}, for example {lost[0]!r}"
        )
        raise StageError(msg)
    return [str(group) for group in groups]


def numeric(frame: pd.DataFrame, name: str, source: Path) -> Floats:
    """A column of numbers ``[N]``, NaN where a cell is empty.

    Raises:
        StageError: it is unknown or holds text.
    """
    if name not in frame.columns:
        msg = f"{source} has no column {name!r}; {known_columns(frame)}"
        raise StageError(msg)
    try:
        return numbers(frame[name])
    except (ValueError, TypeError) as error:
        msg = f"{source}: the column {name!r} is not numeric"
        raise StageError(msg) from error


def known_columns(frame: pd.DataFrame) -> str:
    """What to tell somebody who named a column that does not exist."""
    return f"its columns are {', '.join(map(str, frame.columns))}"
