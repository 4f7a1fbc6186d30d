"""Tables of degraded media as the stage ``teach`` asks about them: what was done to a medium, and how strongly.

Every set has names and levels of its own. Which of them is which class and severity of the teacher is declared, as is
where they stand; a record with a name or level that nobody has declared is a reject, never the nearest guess.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd

from models.rewards import CLASSES, SEVERITIES
from tasks.errors import StageError
from tasks.exchange.instruction_rows import MediaRoot, RecordRejectedError, modality_by_suffix, used
from tasks.exchange.json_text import read_records
from tasks.exchange.tables import DEGRADATIONS
from tasks.records import REJECTS
from tasks.shards import frame_of

NOTHING: Final = "null"
"""What is declared of names under which nothing was done."""
_SEPARATORS: Final = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Declared:
    """What a person says about a table of degradations.

    Attributes:
        media_key, class_key, level_key: columns of the path, the name of the degradation, and its level.
        classes: name in the table -> one of ``models.rewards.CLASSES``, or ``null``: nothing was done.
        levels: level in the table -> one of ``models.rewards.SEVERITIES``.
    """

    media_key: str
    class_key: str
    level_key: str
    classes: Mapping[str, str]
    levels: Mapping[str, str]

    def __post_init__(self) -> None:
        """Check that what is declared exists.

        Raises:
            StageError: it does not.
        """
        for told, known in ((self.classes, (*CLASSES, NOTHING)), (self.levels, SEVERITIES)):
            for name, meaning in told.items():
                if meaning not in known:
                    msg = f"{name!r} is declared as {meaning!r}; there are {', '.join(known)}"
                    raise StageError(msg)


@dataclass(frozen=True)
class ImportedDegradations:
    """A table as rows of DEGRADATIONS, and rows of REJECTS for the records that cannot be used."""

    frame: pd.DataFrame
    rejects: pd.DataFrame


def import_degradations(path: Path, declared: Declared, root: Path | None) -> ImportedDegradations:
    """Read a CSV, TSV, JSON or JSON-lines file; rejects are named by their number in it, from 0.

    Args:
        root: folder of the media; None leaves open whether they are there.

    Raises:
        StageError: the file cannot be read, lacks a declared column everywhere, or no record of it can be used.
    """
    records = _records(path)
    for key in (declared.media_key, declared.class_key, declared.level_key):
        if not any(key in record for record in records):
            msg = f"{path} has no column {key!r}; its first record has {', '.join(records[0]) if records else 'none'}"
            raise StageError(msg)
    reader = _Reader(declared, MediaRoot(root))
    makers: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        (str(number), partial(reader.row, record)) for number, record in enumerate(records)
    ]
    rows, rejects = used(makers, str(path))
    return ImportedDegradations(frame_of(DEGRADATIONS, rows), frame_of(REJECTS, rejects))


def _records(path: Path) -> Sequence[Mapping[str, Any]]:
    separator = _SEPARATORS.get(path.suffix.lower())
    if separator is None:
        return [record.value for record in read_records(path)]
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            found: list[Mapping[str, Any]] = list(csv.DictReader(file, delimiter=separator, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{path} cannot be read: {error}"
        raise StageError(msg) from error
    if not found:
        msg = f"{path} holds no records"
        raise StageError(msg)
    return found


class _Reader:
    """Makes rows of records, each medium once."""

    def __init__(self, declared: Declared, root: MediaRoot) -> None:
        self._declared, self._root = declared, root
        self._seen: set[str] = set()

    def row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A row of DEGRADATIONS.

        Raises:
            RecordRejectedError: the record cannot be used.
        """
        declared = self._declared
        path = self._root.path(record.get(declared.media_key))
        modality = modality_by_suffix(path)
        name, level = _text(record.get(declared.class_key)), _text(record.get(declared.level_key))
        if name not in declared.classes:
            raise RecordRejectedError("unknown_class", f"nobody has declared what {name!r} is")
        found = declared.classes[name]
        if found != NOTHING and level not in declared.levels:
            raise RecordRejectedError("unknown_level", f"nobody has declared how strong {level!r} is")
        if path in self._seen:
            raise RecordRejectedError("duplicate", f"{path} stands before it")
        self._seen.add(path)
        severity = None if found == NOTHING else declared.levels[level]
        named = None if found == NOTHING else found
        return {"path": path, "modality": str(modality), "distortion_class": named, "severity": severity}


def _text(value: Any) -> str:
    """A cell as it is declared: whole numbers without a point, nothing as the empty text."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
