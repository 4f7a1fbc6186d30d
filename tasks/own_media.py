"""Photos and clips of a folder of one's own, as rows that are decoded like the line's, and files that tell of them.

A medium is called by its path below the folder, in tables that tell of it too; there a path that leads to the medium
from where the command stands counts as well.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pandas as pd

from tasks.errors import MediaError, StageError
from tasks.instructions import ShownMedium
from tasks.media import is_video, read_file
from tasks.records import Modality
from tasks.shards import digest

_OWN: Final = "own"
_HEAD: Final = 4096
"""Bytes that tell a clip from a photo."""


@dataclass(frozen=True)
class OwnMedia:
    """Media below a folder.

    Attributes:
        root: the folder. names: paths below it, sorted.
    """

    root: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, root: Path, paths: Sequence[Path]) -> "OwnMedia":
        """Media by their paths, all of which begin with ``root``.

        Raises:
            StageError: there is none, or one has a name that no table can hold.
        """
        names = sorted(path.relative_to(root).as_posix() for path in paths)
        if not names:
            msg = f"{root} holds no photos or clips"
            raise StageError(msg)
        for name in names:
            try:
                name.encode()
            except UnicodeEncodeError as error:
                msg = f"{name!r} in {root} has a name that is not UTF-8: rename it"
                raise StageError(msg) from error
        return cls(root, tuple(names))

    def name_of(self, told: str) -> str | None:
        """The medium that a path of a table means: below the folder first, else from where we stand; None if none."""
        plain = Path(told).as_posix()
        if plain in self._known:
            return plain
        try:
            below = Path(told).resolve().relative_to(self.root.resolve()).as_posix()
        except (ValueError, OSError, RuntimeError):  # elsewhere, or no path at all
            return None
        return below if below in self._known else None

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names)

    @cached_property
    def state(self) -> str:
        """Changes whenever a medium comes, goes or is written."""
        return files_state(self.root, self.names)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per medium, as ``tasks.tiles`` and ``tasks.prepared`` read them; frames of clips are not counted."""
        rows = [
            ShownMedium(name, name, self._modality(name), 0, 0.0, _OWN, str(self.root / name), 0, 0)
            for name in self.names
        ]
        return pd.DataFrame.from_records(rows, columns=list(ShownMedium._fields))

    def _modality(self, name: str) -> Modality:
        """What its first bytes say; what cannot be read is told when it is decoded."""
        try:
            with (self.root / name).open("rb") as file:
                return Modality.VIDEO if is_video(file.read(_HEAD)) else Modality.IMAGE
        except (OSError, MediaError):
            return Modality.IMAGE


def files_state(root: Path, names: Sequence[str] | None = None) -> str:
    """Hash of names, sizes and times of files below a folder; of all of them if none are named."""
    if names is None:
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    found = [(name, path.stat()) for name in names if (path := root / name).exists()]
    return digest([[name, stat.st_size, stat.st_mtime_ns] for name, stat in found])


def read_own(row: Any) -> bytes:
    """Bytes of a medium.

    Raises:
        MediaError: it cannot be read.
    """
    return read_file(Path(row.shard))


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Rows of a CSV file with a header, as texts.

    Raises:
        StageError: it cannot be read, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if lacking := [name for name in columns if name not in (reader.fieldnames or ())]:
                msg = f"{path} has no column {lacking[0]!r}: its first line must name {', '.join(columns)}"
                raise StageError(msg)
            for row in reader:
                yield {name: row[name] or "" for name in columns}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{path} is no CSV file that can be read: {error}"
        raise StageError(msg) from error


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Values of a file of JSON lines with their numbers from 1; None for a line that is no JSON.

    Raises:
        StageError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _parsed(line)
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} is no file of JSON lines that can be read: {error}"
        raise StageError(msg) from error


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
