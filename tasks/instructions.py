"""Conversations about media as training and evaluation read them: rows of INSTRUCTIONS, of the line and imported.

A row names its media: candidates of the line by id, media of an imported data set by their path below its root. Here
both get one key, one frame of what is to be decoded, and one way to their bytes.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd

from models.conversations import Turn
from tasks.archives import Archives
from tasks.errors import MediaError, StageError
from tasks.records import INSTRUCTIONS, MEDIUM_MARK, QuestionKind, Split
from tasks.shards import read_table
from tasks.stage import Place

LINE: Final = "line"
"""Source of the rows that the line makes of its own pool."""

_EXTERNAL: Final = "external"


@dataclass(frozen=True)
class ImportedSource:
    """An instruction table that was imported.

    Attributes:
        table: made by ``vital data import --instructions``. root: folder that its media lie in. Both are relative to
            the workspace, or absolute.
        sha256: of the table, as the import told it; where it is declared, another table is an error.
    """

    table: str
    root: str
    sha256: str | None = None


@dataclass(frozen=True)
class Instruction:
    """One conversation; ``media`` are keys, in the order in which the questions show them."""

    instruction_id: str
    source: str
    kind: QuestionKind
    content_id: str | None
    media: tuple[str, ...]
    modalities: tuple[str, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    options: tuple[str, ...]
    letter: str | None

    def conversation(self, numbers: Mapping[str, int]) -> tuple[Turn, ...]:
        """The turns, with the number in the batch of each medium that they show."""
        shown = iter(self.media)
        turns = []
        for question, answer in zip(self.questions, self.answers, strict=True):
            first, *rest = question.split(MEDIUM_MARK)
            parts: list[str | int] = [first] if first else []
            for text in rest:
                parts += [numbers[next(shown)], *([text] if text else [])]
            turns.append(Turn(tuple(parts), answer))
        return tuple(turns)


def instructions_of(rows: Sequence[Mapping[str, Any]], source: str | None = None) -> list[Instruction]:
    """Rows of INSTRUCTIONS as conversations, sorted by id.

    Args:
        source: number or name that tells the media of an imported table from those of others; None for the line's own.

    Raises:
        StageError: a row has another number of marks than of media, or of questions than of answers.
    """
    found = [_instruction(row, source) for row in rows]
    for one in found:
        marks = sum(question.count(MEDIUM_MARK) for question in one.questions)
        if marks != len(one.media) or len(one.questions) != len(one.answers) or not one.answers:
            msg = (
                f"instruction {one.instruction_id} of {one.source} has {marks} marks for {len(one.media)} media and "
                f"{len(one.answers)} answers to {len(one.questions)} questions: import its data set again"
            )
            raise StageError(msg)
    return sorted(found, key=lambda one: one.instruction_id)


def _instruction(row: Mapping[str, Any], source: str | None) -> Instruction:
    media = [str(key) for key in row["media"]]
    content = row["content_id"]
    return Instruction(
        instruction_id=row["instruction_id"],
        source=row["source"],
        kind=QuestionKind(row["kind"]),
        content_id=content if isinstance(content, str) else None,
        media=tuple(media if source is None else (f"{source}:{key}" for key in media)),
        modalities=tuple(row["modalities"]),
        questions=tuple(row["questions"]),
        answers=tuple(row["answers"]),
        options=tuple(row["options"]),
        letter=row["letter"] if isinstance(row["letter"], str) else None,
    )


def read_source(place: Place, source: ImportedSource) -> pd.DataFrame:
    """The table of an imported data set.

    Raises:
        StageError: table or root is missing, or the table is not the declared one.
    """
    check_source(place, source)
    return read_table(place.root / source.table, INSTRUCTIONS)


def check_source(place: Place, source: ImportedSource) -> None:
    """See that a table is the declared one, and that its media have a folder.

    Raises:
        StageError: it is another one, or there is no such folder.
    """
    path = place.root / source.table
    if source.sha256 is not None and path.is_file() and source.sha256 != _sha256(path):
        msg = f"{source.table} is not the table whose sha256 the params declare: import it again, or declare it anew"
        raise StageError(msg)
    if not (place.root / source.root).is_dir():
        msg = f"{source.root} is no folder: it must hold the media of {source.table}"
        raise StageError(msg)


def imported_instructions(
    place: Place, sources: Sequence[ImportedSource], kept: Callable[[Instruction], bool] | None = None
) -> tuple[list[Instruction], list[pd.DataFrame]]:
    """Training conversations of imported tables, and per table what is to be decoded of it.

    Args:
        kept: which conversations are wanted; None for all.

    Raises:
        StageError: as :func:`read_source`; or a table holds rows that are not for training.
    """
    found, frames = list[Instruction](), list[pd.DataFrame]()
    for number, source in enumerate(sources):
        table = read_source(place, source)
        if set(table["split"]) - {Split.TRAIN}:
            msg = f"{source.table} holds questions for measuring: name it under answer.benchmarks instead"
            raise StageError(msg)
        mine = [one for one in instructions_of(table.to_dict("records"), str(number)) if kept is None or kept(one)]
        frames.append(external_media(mine, source.root))
        found += mine
    return found, frames


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def external_media(instructions: Sequence[Instruction], root: str) -> pd.DataFrame:
    """What is to be decoded of an imported data set: see :func:`external_frame`."""
    shown = {key: kind for one in instructions for key, kind in zip(one.media, one.modalities, strict=True)}
    return external_frame(shown, root)


def external_frame(shown: Mapping[str, str], root: str) -> pd.DataFrame:
    """One row per medium outside of the line, as ``tasks.prepared`` reads them.

    A clip's number of frames is 0: nobody has counted them.

    Args:
        shown: key -> modality; behind its first colon a key has the path below ``root``.
    """
    rows = [
        {
            "id": key,
            "content_id": key,
            "modality": modality,
            "frames": 0,
            "fps": 0.0,
            "stage": _EXTERNAL,
            "shard": str(Path(root) / key.split(":", 1)[1]),
            "offset": 0,
            "length": 0,
        }
        for key, modality in shown.items()
    ]
    return pd.DataFrame.from_records(rows, columns=list(ShownMedium._fields))


class ShownMedium(NamedTuple):
    """What a medium is and where its bytes lie; it can be sent to another process."""

    id: str
    content_id: str
    modality: str
    frames: int
    fps: float
    stage: str
    shard: str
    offset: int
    length: int


def media_frame(candidates: pd.DataFrame, external: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Candidates and media of imported data sets in one frame."""
    columns = list(ShownMedium._fields)
    frames = [pd.DataFrame(frame[columns]) for frame in (candidates, *external)]
    return pd.concat(frames, ignore_index=True)


class ShownMedia:
    """The media that some conversations show.

    Args:
        frame: of :func:`media_frame`, of these and of others.
    """

    def __init__(self, instructions: Sequence[Instruction], frame: pd.DataFrame) -> None:
        wanted = {medium for one in instructions for medium in one.media}
        self._frame = pd.DataFrame(frame[[medium in wanted for medium in frame["id"]]])
        self._numbers = {medium: number for number, medium in enumerate(self._frame["id"])}

    @property
    def shown(self) -> Mapping[str, int]:
        """All of them, with their numbers."""
        return self._numbers

    def medium(self, medium_id: str) -> ShownMedium:
        """One of them."""
        return ShownMedium(*self._frame.iloc[self._numbers[medium_id]])

    def frame(self) -> pd.DataFrame:
        """Their rows."""
        return self._frame


def read_any_media(place: Place, row: Any, archives: str | None = None) -> bytes:
    """Bytes of a candidate or of a medium of an imported data set.

    Args:
        archives: where the archives of candidates lie if not in the workspace (see tasks.archives).

    Raises:
        MediaError: an imported medium cannot be read. StageError: an archive of the line is missing or short.
    """
    if row.stage != _EXTERNAL:
        return Archives(place, archives).read(row)
    try:
        return (place.root / row.shard).read_bytes()
    except OSError as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        raise MediaError(reason, f"cannot read {row.shard}: {error.strerror}") from error
