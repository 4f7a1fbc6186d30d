"""The file that a table becomes: what nobody edited as the same bytes, and an edit in its place or not at all.

The file is read again before it is handed out. Where it does not say what somebody wrote into the table, the export is
refused with the name of the column: nobody finds out later that a correction was lost.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from tasks.errors import StageError
from tasks.exchange.formats import Options, rows_of
from tasks.exchange.human_lists import meaning_in, score_text
from tasks.exchange.instructions import description_text
from tasks.exchange.json_text import Record, cut, joined
from tasks.exchange.questions import question_text
from tasks.exchange.tables import DESCRIPTIONS, HUMAN_SCORES, QUESTIONS, SAMPLES
from tasks.exchange.training_groups import sample_text
from tasks.records import RowSchema

_Row = Mapping[str, Any]
_Part = tuple[str, str, str]
"""The text before a record, its own, and the text after it."""

_TEXTS: Final[dict[str, Callable[[_Row, dict[str, Any]], str]]] = {
    HUMAN_SCORES.name: score_text,
    SAMPLES.name: sample_text,
    QUESTIONS.name: question_text,
    DESCRIPTIONS.name: description_text,
}
_OF_A_LIST: Final = ("polarity", "low", "high", "media_key", "score_key")
"""Columns of HUMAN_SCORES that are declared of the list as a whole."""
_NOT_COMPARED: Final = ("row", "group", "name", "before", "text", "after")
_TOLERANCE: Final = 1e-9


def export_text(table: RowSchema, frame: pd.DataFrame) -> tuple[str, int]:
    """The file of a table, and how many of its records differ from what was imported.

    Raises:
        StageError: there are no rows, a row lost its text, a changed row contradicts itself, or a column was edited
            that the file cannot say.
    """
    if table.name not in _TEXTS:
        msg = f"a table of {table.name} has no file that it came from: export it as a data set, or its workspace"
        raise StageError(msg)
    rows = table.to_arrow(frame).to_pylist()
    if not rows:
        msg = f"the table of {table.name} has no rows: there is nothing to export"
        raise StageError(msg)
    options = _declared(rows) if table is HUMAN_SCORES else Options()
    records = [_record(row) for row in rows]
    before = _read(table, records, "the table", options)
    for row, old in zip(rows, before, strict=True):
        if row.get("media_key") != old.get("media_key"):
            _refuse(row, "media_key", old["media_key"])
    parts = _parts(rows, [_TEXTS[table.name](row, record.value) for row, record in zip(rows, records, strict=True)])
    changed = sum(part[:2] != (row["before"], row["text"]) for part, row in zip(parts, rows, strict=True))
    text, name = joined(_closed(parts, table)), "the exported file"
    _check(table, rows, before, _read(table, cut(text, name), name, options))
    return text, changed


def _declared(rows: Sequence[_Row]) -> Options:
    for row in rows:
        if different := [column for column in _OF_A_LIST if row[column] != rows[0][column]]:
            msg = f"row {row['row']} ({row['path']}): {different[0]} is that of the whole list, "
            msg += f"{rows[0][different[0]]}, and here {row[different[0]]}: put it back"
            raise StageError(msg)
    return Options(meaning_in(rows[0]), rows[0]["media_key"], rows[0]["score_key"])


def _record(row: _Row) -> Record:
    """The record of a row as it was imported."""
    texts = {name: row[name] for name in ("text", "before", "after")}
    if lost := [name for name, text in texts.items() if text is None]:
        msg = f"row {row['row']}: its column {lost[0]} is empty, and the file is made of it: import the file again"
        raise StageError(msg)
    return Record(cut(row["text"], f"row {row['row']}")[0].value, **texts)


def _read(table: RowSchema, records: Sequence[Record], name: str, options: Options) -> list[dict[str, Any]]:
    """Rows of records as an import makes them."""
    rows, rejects = rows_of(table, records, name, options)
    if rejects:
        msg = f"{name} has a record that an import rejects: {rejects[0]['detail']}"
        raise StageError(msg)
    return rows


def _check(table: RowSchema, rows: Sequence[_Row], before: Sequence[_Row], after: Sequence[_Row]) -> None:
    """Refuse an edit that did not reach the file.

    Args:
        rows: of the table. before: as imported. after: as the file now says.
    """
    columns = [column for column in table.columns if column not in _NOT_COMPARED]
    for row, old, new in zip(rows, before, after, strict=True):
        for column in columns:
            if not (_equal(row[column], new[column]) or _equal(row[column], old[column])):
                _refuse(row, column, new[column])
    if table is SAMPLES:
        for row, new, mine, told in zip(rows, after, _ranks(rows), _ranks(after), strict=True):
            if mine != told:
                _refuse(row, "group", new["group"])


def _ranks(rows: Sequence[_Row]) -> list[int]:
    """Groups by the order in which they first appear: rows that were taken out leave gaps in their numbers."""
    order = {group: rank for rank, group in enumerate(dict.fromkeys(row["group"] for row in rows))}
    return [order[row["group"]] for row in rows]


def _refuse(row: _Row, column: str, told: Any) -> None:
    path = row.get("path", row.get("video"))
    msg = f"row {row['row']} ({path}): {column} was changed to {row[column]!r}, and the exported file would still say "
    msg += f"{told!r}: put it back, or change what it follows from"
    raise StageError(msg)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return one == other


def _parts(rows: Sequence[_Row], texts: Sequence[str]) -> list[_Part]:
    """Records between the texts around them; where groups were edited, a row goes to the group that it names."""
    parts = []
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        before = row["before"]
        if number and "group" in row:
            begins = row["group"] != rows[number - 1]["group"]
            if begins != ("]" in before):
                before = "],\n[" if begins else ", "
        parts.append((before, text, row["after"]))
    return parts


def _closed(parts: list[_Part], table: RowSchema) -> list[_Part]:
    """Records whose first or last was taken out of the table still make a list."""
    before, text, after = parts[0]
    if before.lstrip().startswith((",", "]")):
        parts[0] = ("[" * (2 if table is SAMPLES else 1) + "\n", text, after)
    before, text, after = parts[-1]
    if parts[0][0].lstrip("\ufeff \t\r\n").startswith("[") and not after:
        parts[-1] = (before, text, "\n" + "]" * parts[0][0].count("[") + "\n")
    return parts
