"""Files that are either whole or absent: Parquet tables, resumable table parts, and media archives.

Everything is written under a temporary name in the same folder, flushed to disk and renamed; a killed writer leaves
nothing that a reader could mistake for data (DESIGN law 3).
"""

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import StageError
from tasks.records import RowSchema

_TAR_BLOCK = 512


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open ``path`` for writing so that it appears whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sweep(folder: Path) -> None:
    """Remove what killed writers left below ``folder``; only for folders that one process at a time writes to."""
    for rest in folder.rglob(".*.tmp"):
        rest.unlink()


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as stable, readable JSON (sorted keys, two-space indent)."""
    with atomic(path) as file:
        file.write((json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def write_table(path: Path, rows: RowSchema, frame: pd.DataFrame) -> None:
    """Write ``frame`` to ``path`` sorted by key; equal rows give equal bytes."""
    with atomic(path) as file:
        pq.write_table(rows.to_arrow(frame), file, compression="zstd")


def read_table(path: Path, rows: RowSchema) -> pd.DataFrame:
    """Read a table and check its columns.

    Raises:
        StageError: the file is missing, is not Parquet, or is not a ``rows`` table.
    """
    if not path.is_file():
        msg = f"{path} is missing: run the stage that makes it (dvc repro), or dvc pull"
        raise StageError(msg)
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        msg = f"{path} is not a readable Parquet file: {error}"
        raise StageError(msg) from error
    if table.column_names != rows.columns:
        msg = f"{path} is not a {rows.name} table: it has columns {table.column_names}"
        raise StageError(msg)
    return table.to_pandas()


def frame_of(rows: RowSchema, records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Build a frame with exactly the columns of ``rows`` (empty input gives an empty frame)."""
    return pd.DataFrame.from_records(list(records), columns=rows.columns)


class TableParts:
    """A table written in parts by a stage that may be killed: finished parts are kept, unfinished ones never existed.

    A part is named by the caller (usually the hash of the keys it answers), so repeating work replaces equal by equal.
    """

    def __init__(self, folder: Path, rows: RowSchema) -> None:
        self._folder, self._rows = folder, rows
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, part: str, frame: pd.DataFrame) -> None:
        """Store one part."""
        write_table(self._folder / f"{part}.parquet", self._rows, frame)

    def has(self, part: str) -> bool:
        """Say whether the part is complete."""
        return (self._folder / f"{part}.parquet").is_file()

    def read_part(self, part: str) -> pd.DataFrame:
        """Return one complete part."""
        return read_table(self._folder / f"{part}.parquet", self._rows)

    def read(self) -> pd.DataFrame:
        """Return all complete parts, sorted by key."""
        frames = [read_table(path, self._rows) for path in sorted(self._folder.glob("*.parquet"))]
        if not frames:
            return frame_of(self._rows, [])
        return pd.concat(frames, ignore_index=True).sort_values(list(self._rows.key), ignore_index=True)


@dataclass(frozen=True)
class Placed:
    """Where the bytes of one medium lie."""

    shard: str
    offset: int
    length: int


def write_archive(path: Path, items: Iterable[tuple[str, bytes]]) -> dict[str, Placed]:
    """Write named byte strings as an uncompressed tar whose bytes depend on names and content alone.

    Returns:
        name -> place; ``shard`` is the archive's file name.
    """
    places: dict[str, Placed] = {}
    with atomic(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in items:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            start = archive.offset
            archive.addfile(member, io.BytesIO(data))
            places[name] = Placed(path.name, start + _TAR_BLOCK, len(data))
    return places


def read_placed(folder: Path, place: Placed) -> bytes:
    """Read the bytes of one medium.

    Raises:
        StageError: the archive is missing or shorter than its index says.
    """
    path = folder / place.shard
    try:
        with path.open("rb") as file:
            file.seek(place.offset)
            data = file.read(place.length)
    except FileNotFoundError as error:
        msg = f"{path} is missing: run the stage that makes it (dvc repro), or dvc pull"
        raise StageError(msg) from error
    if len(data) != place.length:
        msg = f"{path} is shorter than its index says: delete it and run the stage again"
        raise StageError(msg)
    return data


def digest(*parts: object) -> str:
    """Short content key (32 hex digits of SHA-256) of a tuple of JSON-able values or byte strings."""
    sha = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, ensure_ascii=False).encode()
        sha.update(len(data).to_bytes(8, "little") + data)
    return sha.hexdigest()[:32]
