"""What a student learns from a folder of one's own: texts and scores from files of other people, told by path."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tasks.errors import StageError
from tasks.human_scale import Meaning
from tasks.own_media import OwnMedia, csv_rows, json_lines
from tasks.shards import digest
from tasks.text_sieve import Leaks, TextSieve

STAGE: Final = "rali"
_UNKNOWN: Final = "unknown"
"""Source of texts that name none."""


@dataclass(frozen=True)
class OwnTexts:
    """Texts of media.

    Attributes:
        texts: medium -> what is said of it, each once, in an order that their words decide.
        told: counts: texts per source, leaks per kind, sentences that were dropped.
        rejects: REJECTS rows of lines that were not used.
    """

    texts: dict[str, list[str]]
    told: dict[str, Any]
    rejects: list[dict[str, str]]


def read_texts(path: Path, media: OwnMedia, leaks: Leaks, per_medium: int | None) -> OwnTexts:
    """Read JSON lines with ``path``, ``text`` and perhaps ``source``.

    Args:
        per_medium: texts of a medium at most; None takes all.

    Raises:
        StageError: the file cannot be read, or no line of it can be used.
    """
    sieve, texts, sources = TextSieve(STAGE, leaks), dict[str, list[str]](), Counter[str]()
    for number, line in json_lines(path):
        name = _about(line, f"{path.name}:{number}", media, sieve)
        if name is None:
            continue
        source = str(line.get("source") or _UNKNOWN)
        said = sieve.sieved(line["text"], name, source)
        if said is not None and said.text not in texts.setdefault(name, []):
            texts[name].append(said.text)
            sources[source] += 1
    kept = {name: sorted(own, key=lambda text: digest(STAGE, text))[:per_medium] for name, own in texts.items() if own}
    if not kept:
        why = ", ".join(f"{reason} {count}" for reason, count in reasons(sieve.rejects).items()) or "it is empty"
        msg = f"{path} holds no text about a medium of {media.root} ({why}): its lines need path and text"
        raise StageError(msg)
    told = {"sources": dict(sorted(sources.items())), "leaks": dict(sorted(sieve.leaks.items()))}
    return OwnTexts(kept, told | {"dropped_sentences": sieve.sentences}, sieve.rejects)


def _about(line: Any, where: str, media: OwnMedia, sieve: TextSieve) -> str | None:
    """The medium that a line tells of; None, and a reject, if it tells of none."""
    told = line if isinstance(line, Mapping) else {}
    if not isinstance(told.get("path"), str) or not isinstance(told.get("text"), str):
        sieve.refuse(where, "no_text", "it is no JSON object with the texts path and text")
        return None
    name = media.name_of(told["path"])
    if name is None:
        sieve.refuse(told["path"], "no_medium", f"{where}: there is no such photo or clip in {media.root}")
    return name


@dataclass(frozen=True)
class OwnScores:
    """Scores of media.

    Attributes:
        scores: medium -> quality, [0, 1], higher is better.
        rejects: REJECTS rows of rows that were not used.
    """

    scores: dict[str, float]
    rejects: list[dict[str, str]]


def read_scores(path: Path, media: OwnMedia, meaning: Meaning) -> OwnScores:
    """Read a CSV file with the columns ``path`` and ``score``.

    Args:
        meaning: of its numbers, as declared.

    Raises:
        StageError: the file cannot be read, a score lies outside the declared scale, a medium has two scores, or no row
            can be used.
    """
    sieve, scores = TextSieve(STAGE, "keep"), dict[str, float]()
    for number, row in enumerate(csv_rows(path, ("path", "score")), 2):
        where, name = f"{path.name}:{number}", media.name_of(row["path"])
        value = _number(row["score"])
        if value is None:
            sieve.refuse(row["path"], "no_number", f"{where}: {row['score']!r} is no finite number")
        elif not meaning.low <= value <= meaning.high:
            msg = f"{where}: the score {value:g} lies outside {meaning.low:g} to {meaning.high:g}: declare --range"
            raise StageError(msg)
        elif name is None:
            sieve.refuse(row["path"], "no_medium", f"{where}: there is no such photo or clip in {media.root}")
        elif scores.setdefault(name, meaning.quality(value)) != meaning.quality(value):
            msg = f"{where}: {name} has another score before: keep one of them"
            raise StageError(msg)
    if not scores:
        why = ", ".join(f"{reason} {count}" for reason, count in reasons(sieve.rejects).items()) or "it is empty"
        msg = f"{path} holds no score of a medium of {media.root} ({why})"
        raise StageError(msg)
    return OwnScores(scores, sieve.rejects)


def reasons(rejects: list[dict[str, str]]) -> dict[str, int]:
    """How often each reason comes."""
    return dict(sorted(Counter(row["reason"] for row in rejects).items()))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
