"""Lists of questions in the format of Q-Bench-Video, to rows and back.

A question is scored by the letter of its right option. The lists also repeat the right answer in words; where the two
disagree, the letter stands and the question is told.
"""

import string
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tasks.errors import StageError
from tasks.exchange.human_lists import path_of
from tasks.exchange.json_text import Key, Record, mended
from tasks.exchange.tables import texts_of

OPEN: Final = "open_ended"
_TEXTS: Final = {"question", "question_type", "correct_choice", "correct_ans"}
_REMARKS: Final = {"quality_concern": "concern", "video_type": "video_type", "context": "context"}
_COLUMNS: Final = {
    "video": "video",
    "question": "question",
    "question_type": "kind",
    "correct_choice": "letter",
    "correct_ans": "told_answer",
    **_REMARKS,
}
"""Key of a record -> column that tells its text."""


def is_questions(records: Sequence[Record]) -> bool:
    """Whether all records are questions with options."""
    return all("question" in record.value and "answers" in record.value for record in records)


def question_rows(records: Sequence[Record], name: str) -> list[dict[str, Any]]:
    """Rows of QUESTIONS.

    Raises:
        StageError: a text is missing, or the letter names no option.
    """
    return [_row(record, number, name) for number, record in enumerate(records)]


def _row(record: Record, number: int, name: str) -> dict[str, Any]:
    value = record.value
    wrong = sorted(key for key in _TEXTS if not isinstance(value.get(key), str))
    wrong += [key for key in _REMARKS if not isinstance(value.get(key, ""), str | None)]
    told = value["answers"]
    if wrong or not isinstance(told, list) or not all(isinstance(option, str) for option in told):
        msg = f"{name}: question {number} has no text under {(wrong or ['answers'])[0]!r}"
        raise StageError(msg)
    options = list(told)
    while options and not options[-1]:
        options.pop()
    letter = value["correct_choice"]
    index = string.ascii_uppercase.find(letter) if len(letter) == 1 else -1
    is_open = value["question_type"] == OPEN
    if not is_open and not 0 <= index < len(options):
        msg = f"{name}: question {number} has {len(options)} options, and the right one is {letter!r}"
        raise StageError(msg)
    answer = value["correct_ans"] if is_open else options[index]
    return {
        "row": number,
        "video": path_of(record, "video", number, name),
        "question": value["question"],
        "options": options,
        "kind": value["question_type"],
        **{column: value.get(key) for key, column in _REMARKS.items()},
        "letter": letter,
        "answer": answer,
        "told_answer": value["correct_ans"],
        "consistent": None if is_open else answer == value["correct_ans"],
        "name": name,
    } | texts_of(record)


def question_text(row: Mapping[str, Any], value: Mapping[str, Any]) -> str:
    """The text of a row's record, with what was changed in the row, but for what follows from it (``answer``)."""
    empty = [""] * (len(value["answers"]) - len(row["options"]))
    changes: dict[Key, Any] = {("answers",): [*row["options"], *empty]}
    changes |= {(key,): row[column] for key, column in _COLUMNS.items() if value.get(key) is not None}
    return mended(row["text"], changes)


def inconsistent(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Questions whose right answer in words is not the option of their letter."""
    return [
        f"question {row['row']} ({row['video']}): {row['letter']} is {row['answer']!r}, told as {row['told_answer']!r}"
        for row in rows
        if row["consistent"] is False
    ]
