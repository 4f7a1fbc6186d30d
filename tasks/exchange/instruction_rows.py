"""What importers of conversations and of benchmark questions share: media below a root, rows, rejects with reasons."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pandas as pd

from tasks.errors import StageError
from tasks.exchange.human_lists import suffix_modality
from tasks.question_text import YES_NO
from tasks.records import INSTRUCTIONS, MEDIUM_MARK, REJECTS, Modality, QuestionKind
from tasks.shards import digest, frame_of

STAGE: Final = "import"
"""Under this name rejects of imports stand."""

RESERVED: Final = re.compile(rf"<\|[^|<>]*\|>|</?img>|<IMG_CONTEXT>|{re.escape(MEDIUM_MARK)}")
"""Marks of chat layouts: inside a text they would end a turn or stand for pixels."""

Maker = Callable[[], dict[str, Any]]
"""Makes the row of one record, or raises :class:`RecordRejectedError`."""


class RecordRejectedError(Exception):
    """A record that cannot be used; ``reason`` is a short stable code, the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class ImportedInstructions:
    """A file of instructions as a table.

    Attributes:
        frame: rows of INSTRUCTIONS. rejects: rows of REJECTS.
        notes: what a record was found to say twice and differently, or what was put into our layout: how often.
    """

    frame: pd.DataFrame
    rejects: pd.DataFrame
    notes: dict[str, int]


class MediaRoot:
    """The folder that a data set's media lie in; None leaves open whether they are there."""

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._known: dict[str, bool] = {}

    def path(self, told: Any) -> str:
        """A path of a record, relative to the root.

        Raises:
            RecordRejectedError: it is no path, not below the root, or not there.
        """
        if not isinstance(told, str) or not told or not told.isprintable() or "://" in told:
            raise RecordRejectedError("no_path", f"{told!r} is no path of a file")
        path = PurePosixPath(told)
        if path.is_absolute() and self._root is not None and path.is_relative_to(self._root.absolute().as_posix()):
            path = path.relative_to(self._root.absolute().as_posix())
        if path.is_absolute() or ".." in path.parts:
            raise RecordRejectedError("outside_root", f"{told} does not lie below the root")
        name = path.as_posix()
        if self._root is not None:
            if name not in self._known:
                self._known[name] = (self._root / name).is_file()
            if not self._known[name]:
                raise RecordRejectedError("missing_medium", f"{name} is not below {self._root}")
        return name


def modality_by_suffix(path: str) -> Modality:
    """What a path shows.

    Raises:
        RecordRejectedError: its suffix does not say.
    """
    found = suffix_modality(path)
    if found is None:
        raise RecordRejectedError("unknown_modality", f"the suffix of {path} tells neither an image nor a video")
    return found


def kind_of(stem: str, options: Sequence[str]) -> QuestionKind:
    """The kind of a question by its options and the first word of its last line."""
    if not options:
        return QuestionKind.OPEN
    if {option.lower().rstrip(".") for option in options} == {answer.lower() for answer in YES_NO}:
        return QuestionKind.YES_NO
    return QuestionKind.WHICH if stem.lower().split("\n")[-1].startswith("which") else QuestionKind.WHAT_HOW


def instruction_row(
    source: str, media: Sequence[tuple[str, Modality]], questions: Sequence[str], **row: Any
) -> dict[str, Any]:
    """A row of INSTRUCTIONS; ``row`` holds answers, options, letter, kind and split."""
    paths = [path for path, _ in media]
    return {
        "instruction_id": digest(source, paths, list(questions), row["answers"]),
        "source": source,
        "content_id": f"{source}:{paths[0]}" if paths else None,
        "media": paths,
        "modalities": [str(modality) for _, modality in media],
        "questions": list(questions),
        **row,
    }


def gathered(makers: Iterable[tuple[str, Maker]], notes: Counter[str], name: str) -> ImportedInstructions:
    """Rows of records that can be used, and rejects of the others; a repeated conversation is a reject.

    Args:
        makers: of each record its id and what makes its row.

    Raises:
        StageError: no record can be used.
    """
    seen: set[str] = set()

    def made(make: Maker) -> dict[str, Any]:
        row = make()
        if row["instruction_id"] in seen:
            raise RecordRejectedError("duplicate", "the same conversation about the same media stands before it")
        seen.add(row["instruction_id"])
        return row

    rows, rejects = used([(key, partial(made, make)) for key, make in makers], name)
    return ImportedInstructions(frame_of(INSTRUCTIONS, rows), frame_of(REJECTS, rejects), dict(sorted(notes.items())))


def used(
    makers: Iterable[tuple[str, Callable[[], dict[str, Any]]]], name: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of records that can be used, and rows of REJECTS for the others.

    Args:
        makers: of each record its id and what makes its row.

    Raises:
        StageError: no record can be used.
    """
    rows, rejects = [], []
    for key, make in makers:
        try:
            rows.append(make())
        except RecordRejectedError as error:
            rejects.append({"stage": STAGE, "id": key, "reason": error.reason, "detail": str(error)})
    if not rows:
        told = f"{rejects[0]['reason']}: {rejects[0]['detail']}" if rejects else "it has no records"
        msg = f"{name}: none of {len(rejects)} records can be used; the first is rejected as {told}"
        raise StageError(msg)
    return rows, rejects
