"""Descriptions in the style of Q-Instruct: one medium, a human's question, an answer in prose; to rows and back.

An answer keeps its words. Beside it stand the single assertions that are left once praise, verdicts on the whole and
what tells no attribute of quality are taken away, by the rules of the describer (``models.signals.assertions``).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from models.signals.assertions import assertions_of, is_vacuous, problem_of, sentences_of, token_count
from models.signals.claims import parse_claim
from tasks.errors import StageError
from tasks.exchange.human_lists import MEDIA_KEYS, modality_of, path_of
from tasks.exchange.instruction_rows import RecordRejectedError, used
from tasks.exchange.json_text import Key, Record, mended
from tasks.exchange.tables import texts_of

_SCORES: Final = ("mos", "gt_score", "->")


def is_instructions(records: Sequence[Record]) -> bool:
    """Whether all records are conversations about a medium, without a score."""
    return all(
        isinstance(record.value.get("conversations"), list)
        and not any(key in record.value for key in _SCORES)
        and "->" not in str(record.value.get("id", ""))
        for record in records
    )


def description_rows(records: Sequence[Record], name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of DESCRIPTIONS, and rows of REJECTS for records that are no description of one medium.

    Raises:
        StageError: no record can be used.
    """
    makers = [(f"{number}", partial(_row, record, number, name)) for number, record in enumerate(records)]
    return used(makers, name)


def _row(record: Record, number: int, name: str) -> dict[str, Any]:
    turns = record.value["conversations"]
    speakers = [turn.get("from") if isinstance(turn, dict) else None for turn in turns]
    if len(turns) > 2 and speakers == ["human", "gpt"] * (len(turns) // 2):
        msg = f"record {number} has {len(turns) // 2} questions, and a description answers one"
        raise RecordRejectedError("several_turns", f"{msg}: --instructions reads conversations")
    if speakers != ["human", "gpt"]:
        told = f"record {number} is no conversation of one question and one answer: {speakers}"
        raise RecordRejectedError("speakers", told)
    if not all(isinstance(turn.get("value"), str) for turn in turns):
        raise RecordRejectedError("no_text", f"record {number} has no text under 'value' in one of its turns")
    keys = [key for key in MEDIA_KEYS if key in record.value]
    if len(keys) != 1:
        told = f"record {number} needs one of {', '.join(MEDIA_KEYS)}, and has {', '.join(keys) or 'none'}"
        raise RecordRejectedError("several_media_keys" if keys else "no_path", told)
    answer = turns[1]["value"]
    try:
        path = path_of(record, keys[0], number, name)
        modality = modality_of(path, keys[0], name)
    except StageError as error:
        raise RecordRejectedError("no_path", str(error)) from error
    kept, dropped = assertions_in(answer)
    told = record.value.get("id")
    return {
        "row": number,
        "id": told if told is None or isinstance(told, str) else str(told),
        "path": path,
        "modality": str(modality),
        "question": turns[0]["value"],
        "answer": answer,
        "assertions": [text for text, _ in kept],
        "attributes": [attribute for _, attribute in kept],
        "dropped": dropped,
        "tokens": token_count(answer),
        "media_key": keys[0],
        "name": name,
    } | texts_of(record)


def assertions_in(answer: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Single assertions with the attribute of each, and what is left out, with the reason before a colon.

    What is depicted is not quality: a sentence that tells no attribute is left out, as in the stage ``describe``.
    """
    kept: dict[str, str] = {}
    dropped = []
    for sentence in sentences_of(answer):
        claims = {text: parse_claim(text) for text in assertions_of(sentence)}
        kept |= {text: str(claim.attribute) for text, claim in claims.items() if claim is not None}
        dropped += [f"no attribute of quality: {text}" for text, claim in claims.items() if claim is None]
        if not claims:
            reason = "vacuous" if is_vacuous(sentence) else problem_of(sentence.rstrip(" .!?;,")) or "empty"
            dropped.append(f"{reason}: {sentence}")
    return list(kept.items()), dropped


def description_text(row: Mapping[str, Any], value: Mapping[str, Any]) -> str:
    """The text of a row's record, with a changed id (if it is a text), path, question or answer."""
    changes: dict[Key, Any] = {
        (row["media_key"],): row["path"],
        ("conversations", 0, "value"): row["question"],
        ("conversations", 1, "value"): row["answer"],
    }
    if isinstance(value.get("id"), str):
        changes["id",] = row["id"]
    return mended(row["text"], changes)
