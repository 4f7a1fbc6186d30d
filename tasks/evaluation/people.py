"""People's scores of media that models are asked about: a table, joined to media by their files' names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from tasks.errors import StageError
from tasks.evaluation.named_columns import grouped, numeric, read_any, sample_names
from tasks.human_scale import Meaning


@dataclass(frozen=True)
class People:
    """Where people's scores are.

    Attributes:
        path: of a table. meaning: of its numbers; declared, never guessed.
        id: column that names media; None is the first of ``id``, ``path``, ``name`` and ``image_name``.
        mos: column of mean scores.
        content: column, or ``COLUMN:REGEX``, of what is shown; None knows none.
    """

    path: Path
    meaning: Meaning
    id: str | None = None
    mos: str = "mos"
    content: str | None = None


@dataclass(frozen=True)
class Rated:
    """People's score of a medium as it stands in the table, and what the medium shows."""

    score: float
    content: str


def rated(people: People, media: Iterable[str]) -> dict[str, Rated]:
    """Scores of the media that have one.

    A row is about a medium if their paths end alike: in as many parts as both have, or in the name without its suffix.

    Raises:
        StageError: the table cannot be read, a column is unknown, a name fits several rows, a score lies outside the
            declared scale, or no medium has a score.
    """
    table = read_any(people.path)
    names = sample_names(table, people.id, people.path)
    score_N = numeric(table, people.mos, people.path)
    contents = names if people.content is None else grouped(table, people.content, people.path)
    rows_of: dict[tuple[str, ...], list[int]] = {}
    for row, name in enumerate(names):
        for ending in _endings(name):
            rows_of.setdefault(ending, []).append(row)
    found: dict[str, Rated] = {}
    for medium in media:
        row = _row(medium, rows_of, people.path)
        if row is not None and np.isfinite(score_N[row]):
            found[medium] = Rated(float(score_N[row]), contents[row])
    _check_range(people, [one.score for one in found.values()])
    if not found:
        msg = f"{people.path} has no score of any of the media: its rows are called like {names[0]!r} (--people-id)"
        raise StageError(msg)
    return found


def _check_range(people: People, scores: Sequence[float]) -> None:
    low, high = people.meaning.low, people.meaning.high
    strange = [score for score in scores if not low <= score <= high]
    if strange:
        msg = f"{people.path}: {people.mos} holds {strange[0]:g}, outside the declared scale {low:g} to {high:g}"
        raise StageError(msg)


def _endings(name: str) -> list[tuple[str, ...]]:
    """Ways to end of a path, longest first; the last one is the name without its suffix."""
    parts = PurePath(name).parts
    return [*dict.fromkeys([*(parts[start:] for start in range(len(parts))), (PurePath(name).stem,)])]


def _row(medium: str, rows_of: dict[tuple[str, ...], list[int]], path: Path) -> int | None:
    for ending in _endings(medium):
        rows: Sequence[int] = rows_of.get(ending, ())
        if len(rows) > 1:
            msg = f"{path}: {len(rows)} rows may be about {medium}: name the media as the table does"
            raise StageError(msg)
        if rows:
            return rows[0]
    return None
