"""Tables of what was imported: normalised columns, and the text of every record, from which an export is made.

The last three columns of each table are the record as it stood in its file, the text before it and the text after the
last one. Rows are in the order of the file.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from tasks.exchange.json_text import Record
from tasks.records import RowSchema

_S, _I, _F, _B = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_TEXTS: Final = {"before": _S, "text": _S, "after": _S}


def _table(name: str, /, **columns: pa.DataType) -> RowSchema:
    return RowSchema(name, pa.schema([("row", _I), *columns.items(), *_TEXTS.items()]), ("row",))


HUMAN_SCORES: Final = _table(
    "human_scores",
    path=_S,  # as the file says, relative to a root that the file does not know
    modality=_S,
    score=_F,  # the file's number
    std=_F,  # of the raters, in the file's unit; null if it says none
    quality=_F,  # [0, 1], higher is better
    quality_std=_F,  # std on that scale
    polarity=_S,  # tasks.human_scale.Polarity, as declared
    low=_F,  # ends of the file's scale, as declared
    high=_F,
    media_key=_S,  # where the file keeps the path and the score
    score_key=_S,  # "id" is the number behind "->" in the id
    name=_S,  # of the file
)
"""One row per rated medium of a list with human scores."""

DEGRADATIONS: Final = RowSchema(
    "degradations",
    pa.schema([("path", _S), ("modality", _S), ("distortion_class", _S), ("severity", _S)]),
    ("path",),
)
"""One row per medium of which it is known what was done to it, in the teacher's words (models.rewards); null in both:
nothing was. Read by ``teach``; no export is made of it."""

SAMPLES: Final = _table(
    "training_samples",
    group=_I,  # of samples that one step of the released loss sees together
    task=_S,  # single, pair, distortion, description, or text for answers of another kind
    modality=_S,
    path=_S,
    answer=_S,
    scores=pa.list_(_F),  # of the scorers, in the file's unit; null for texts
    mean=_F,
    std=_F,
    target=pa.list_(_F),  # five level probabilities, best first, as they stand (they may not sum to 1)
    preference=_F,  # of the first of a pair: 1 better, 0 worse, .5 tie
    distortion=_S,  # key of the type that the answer names
    strength=_I,  # 1 slight to 5 very severe
    media_key=_S,
    name=_S,
)
"""One row per member of a group of the authors' training JSON."""

QUESTIONS: Final = _table(
    "questions",
    video=_S,
    question=_S,
    options=pa.list_(_S),  # those that are not empty
    kind=_S,  # what/how, yes-or-no, open_ended
    concern=_S,
    video_type=_S,
    context=_S,
    letter=_S,  # of the right option: questions are scored by it
    answer=_S,  # text of that option; of open questions the text of the answer
    told_answer=_S,  # what the file calls the right answer in words
    consistent=_B,  # whether the two agree; null for open questions
    name=_S,
)
"""One row per question of a Q-Bench-Video list."""

DESCRIPTIONS: Final = _table(
    "descriptions",
    id=_S,
    path=_S,
    modality=_S,
    question=_S,
    answer=_S,  # as written
    assertions=pa.list_(_S),  # single assertions that are left of it
    attributes=pa.list_(_S),  # what each is about
    dropped=pa.list_(_S),  # sentences of which nothing is left, with the reason
    tokens=_I,  # words and punctuation marks of the answer
    media_key=_S,
    name=_S,
)
"""One row per description in the style of Q-Instruct: a human's question and an answer in prose."""

TABLES: Final = {table.name: table for table in (HUMAN_SCORES, SAMPLES, QUESTIONS, DESCRIPTIONS)}
"""Name -> table."""


def texts_of(record: Record) -> dict[str, str]:
    """The last three columns of a record."""
    return {"before": record.before, "text": record.text, "after": record.after}


def table_of(columns: list[str]) -> RowSchema | None:
    """The table with exactly these columns."""
    return next((table for table in TABLES.values() if table.columns == columns), None)


def is_missing(value: Any) -> bool:
    """Whether a cell is null: None, or NaN as pandas has it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def finite_number(value: Any) -> float | None:
    """A finite number of a record as a float; None for anything else, and for a number that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of more than 308 digits
        return None
    return number if math.isfinite(number) else None


def plain(row: Mapping[str, Any], name: str) -> Any:
    """A cell, None where it is null."""
    return None if is_missing(row[name]) else row[name]
