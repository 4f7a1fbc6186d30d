"""Benchmark questions with options as rows of INSTRUCTIONS that models are measured with: Q-Bench and Q-Bench-Video.

A question is scored by the letter of its right option. The lists repeat the right answer in words, and do so wrongly
in some rows (31 of the 622 in Q-Bench-Video's development list): the letter stands, and the rows are counted.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from tasks.exchange.instruction_rows import (
    ImportedInstructions,
    MediaRoot,
    RecordRejectedError,
    gathered,
    instruction_row,
    kind_of,
    modality_by_suffix,
)
from tasks.exchange.json_text import Record
from tasks.exchange.questions import OPEN
from tasks.question_text import LETTERS, choice_text
from tasks.records import MEDIUM_MARK, QuestionKind, Split

Q_BENCH: Final = "q_bench"
"""Name of both lists' layout."""

_KINDS: Final = {
    "yes-or-no": QuestionKind.YES_NO,
    "what/how": QuestionKind.WHAT_HOW,
    0: QuestionKind.YES_NO,
    1: QuestionKind.WHAT_HOW,
    2: QuestionKind.WHAT_HOW,
}
"""``question_type`` of Q-Bench-Video; ``type`` of Q-Bench: 0 yes or no, 1 what, 2 how."""
_MEDIA_KEYS: Final = ("video", "image", "img_path")
_TWO_CLIPS: Final = "_cat_"
"""Between the names of two clips that one question compares; the second name then ends with its suffix twice."""


def import_benchmark(records: Sequence[Record], source: str, root: Path | None) -> ImportedInstructions:
    """Questions of a list as conversations of one turn for measuring; open questions need a judge and are rejects.

    Args:
        source: name under which accuracies are told. root: folder of the media; None leaves open whether they exist.

    Raises:
        StageError: no question can be used.
    """
    reader = _Reader(source, MediaRoot(root))
    makers = [(f"{number}", partial(reader.row, record.value)) for number, record in enumerate(records)]
    return gathered(makers, reader.notes, source)


class _Reader:
    def __init__(self, source: str, root: MediaRoot) -> None:
        self._source, self._root = source, root
        self.notes: Counter[str] = Counter()

    def row(self, value: dict[str, Any]) -> dict[str, Any]:
        """A row of INSTRUCTIONS.

        Raises:
            RecordRejectedError: the question cannot be asked and scored.
        """
        told_kind = value.get("question_type", value.get("type"))
        if told_kind == OPEN:
            raise RecordRejectedError("open_ended", "an open question is scored by a judge, not by letter")
        question, told = value.get("question"), value.get("answers")
        if not isinstance(question, str) or not question.strip() or not isinstance(told, list):
            raise RecordRejectedError("no_question", "there is no question with a list of answers")
        options = [option for option in told if isinstance(option, str) and option]
        letter = value.get("correct_choice")
        if len(options) < 2 or not isinstance(letter, str) or len(letter) != 1 or letter not in LETTERS[: len(options)]:
            raise RecordRejectedError("no_right_option", f"{len(options)} options, and the right one is {letter!r}")
        if options[LETTERS.index(letter)] != value.get("correct_ans"):
            self.notes["right answers in words that are not the option of the letter"] += 1
        media = [(path, modality_by_suffix(path)) for path in self._paths(value)]
        text = f"{MEDIUM_MARK}\n" * len(media) + choice_text(question.strip(), options)
        kind = next((kind for told, kind in _KINDS.items() if told == told_kind), kind_of(question, options))
        row = {"answers": [letter], "options": options, "letter": letter, "kind": str(kind)}
        return instruction_row(self._source, media, [text], split=str(Split.HELD_OUT), **row)

    def _paths(self, value: dict[str, Any]) -> list[str]:
        keys = [key for key in _MEDIA_KEYS if value.get(key)]
        if len(keys) != 1:
            raise RecordRejectedError("no_path", f"a question needs a path under one of {', '.join(_MEDIA_KEYS)}")
        told = value[keys[0]]
        if isinstance(told, str) and told.count(_TWO_CLIPS) == 1:
            first, second = told.split(_TWO_CLIPS)
            return [self._root.path(first), self._root.path(second.rpartition(".")[0])]
        return [self._root.path(told)]
