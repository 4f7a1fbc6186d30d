"""Tables as Hugging Face data sets on disk, and such data sets as tables; nothing is asked of the hub."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import StageError
from tasks.records import RowSchema
from tasks.shards import digest

_MARKS: Final = ("dataset_dict.json", "state.json")


def is_hub_folder(path: Path) -> bool:
    """Whether a folder was written by ``save_to_disk``."""
    return any((path / mark).is_file() for mark in _MARKS)


def write_hub(folder: Path, rows: RowSchema, frame: pd.DataFrame) -> None:
    """Write a table as one ``datasets.Dataset``; equal rows get equal fingerprints.

    Raises:
        StageError: see :func:`new_folder`.
    """
    from datasets import Dataset  # noqa: PLC0415 - a second that only this pays
    from datasets.table import InMemoryTable  # noqa: PLC0415

    table = rows.to_arrow(frame)
    fingerprint = digest(rows.name, *(json.dumps(row, default=str) for row in table.to_pylist()))[:16]
    with new_folder(folder) as fresh:
        Dataset(InMemoryTable(table), fingerprint=fingerprint).save_to_disk(str(fresh))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``folder`` when all is written, or goes away.

    Raises:
        StageError: ``folder`` is a file, or not empty.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        msg = f"{folder} is {'not empty' if folder.is_dir() else 'a file'}: name a new folder"
        raise StageError(msg)
    folder.parent.mkdir(parents=True, exist_ok=True)
    around = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    fresh = around / "fresh"  # the folder around it is for its maker's eyes alone, whatever the umask
    try:
        fresh.mkdir()
        yield fresh
        fresh.rename(folder)
    finally:
        shutil.rmtree(around, ignore_errors=True)


def read_hub(folder: Path) -> pa.Table:
    """Read a data set from disk; the splits of a ``DatasetDict`` follow each other in its order.

    Raises:
        StageError: the folder holds no data set, no rows, or splits that differ in their columns.
    """
    from datasets import Dataset, DatasetDict, load_from_disk  # noqa: PLC0415

    try:
        found = load_from_disk(str(folder))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:  # what the library raises of damage
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        msg = f"{folder} holds no data set of the library datasets (save_to_disk): {told}"
        if isinstance(error, IndexError) and (empty := _without_rows(folder)):
            msg = f"{empty[0]} is a data set without rows: there is nothing to import, name the folder of another split"
        raise StageError(msg) from error
    parts = list(found.values()) if isinstance(found, DatasetDict) else [found]
    tables = [_whole(part) for part in parts if isinstance(part, Dataset) and len(part)]
    if not tables:
        msg = f"{folder} is a data set without rows: there is nothing to import"
        raise StageError(msg)
    if len({tuple(table.column_names) for table in tables}) != 1:
        msg = f"{folder}: its splits have different columns: name the folder of one split"
        raise StageError(msg)
    try:
        return pa.concat_tables(tables, promote_options="default")
    except pa.ArrowTypeError as error:
        msg = f"{folder}: its splits have columns of different types: name the folder of one split: {error}"
        raise StageError(msg) from error


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        StageError: it is missing or damaged.
    """
    if not path.is_file():
        msg = f"{path} is missing: name a file that exists"
        raise StageError(msg)
    try:
        return pq.read_table(path)
    except pa.ArrowInvalid as error:
        msg = f"{path} is not a readable Parquet file: {error}"
        raise StageError(msg) from error


def records_text(table: pa.Table) -> str:
    """Rows of somebody else's data set as JSON, an object per line; columns of bytes (pictures) are left out.

    Raises:
        StageError: a column holds what JSON cannot.
    """
    kept = [field.name for field in table.schema if not _has_bytes(field.type)]
    try:
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in table.select(kept).to_pylist()) + "\n"
    except TypeError as error:  # dates and the like
        msg = f"a column of the data set holds values that are no JSON: {error}"
        raise StageError(msg) from error


def left_out(table: pa.Table) -> list[str]:
    """Columns that :func:`records_text` leaves out."""
    return [field.name for field in table.schema if _has_bytes(field.type)]


def _without_rows(folder: Path) -> list[Path]:
    """The folder, or those of its splits, that were written without rows: the library cannot read them back."""
    states = sorted(folder.glob("state.json")) + sorted(folder.glob("*/state.json"))
    return [state.parent for state in states if json.loads(state.read_text())["_data_files"] == []]


def _whole(part: Any) -> pa.Table:
    """All rows in the order of the data set: it may be a selection of the rows on disk."""
    return part.with_format("arrow")[:]


def _has_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_has_bytes(kind.field(index).type) for index in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_bytes(kind.value_type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
