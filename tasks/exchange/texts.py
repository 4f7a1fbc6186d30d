"""Reasoning texts that ``vital rali texts`` wrote, as a table of instructions: an open answer about a medium a row."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tasks.exchange.instruction_rows import (
    RESERVED,
    ImportedInstructions,
    MediaRoot,
    RecordRejectedError,
    gathered,
    instruction_row,
)
from tasks.records import MEDIUM_MARK, Modality, QuestionKind, Split


def texts_table(lines: Sequence[Mapping[str, Any]], root: Path) -> ImportedInstructions:
    """Rows of INSTRUCTIONS, which ``explain.sources`` imports with the same root.

    The same text about a medium from one source counts once; what one medium is told by several sources is one content.

    Args:
        lines: objects with path, modality, text, source, question. root: folder of the media.

    Raises:
        StageError: no line can be used.
    """
    media = MediaRoot(root)
    makers = [(str(line["path"]), partial(_row, line, media)) for line in lines]
    return gathered(makers, Counter(), "texts")


def _row(line: Mapping[str, Any], media: MediaRoot) -> dict[str, Any]:
    path, text = media.path(line["path"]), str(line["text"])
    if found := RESERVED.search(text):
        raise RecordRejectedError("reserved_token", f"a text holds {found[0]!r}, which the layout reserves")
    question = f"{MEDIUM_MARK}\n{line['question']}".strip()
    told = {"answers": [text], "options": [], "letter": None}
    told |= {"kind": str(QuestionKind.OPEN), "split": str(Split.TRAIN)}
    row = instruction_row(str(line["source"]), [(path, Modality(line["modality"]))], [question], **told)
    return row | {"content_id": path}
