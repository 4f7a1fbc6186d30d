"""Lists with human scores, as the VITAL authors and others keep them, to rows and back.

The path stands under one of four keys, the score under ``mos`` or ``gt_score`` or in the id behind ``->``, as a number
or in quotes. What a list says twice must agree; what it says about polarity is declared (``known_lists``, or by hand).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from tasks.errors import StageError
from tasks.exchange.json_text import Key, Record, mended
from tasks.exchange.known_lists import KNOWN, fingerprint
from tasks.exchange.polarity import check_meaning
from tasks.exchange.tables import finite_number, plain, texts_of
from tasks.human_scale import Meaning, Polarity
from tasks.records import Modality

MEDIA_KEYS: Final = ("image", "video", "video_path", "img_path")
SCORE_KEYS: Final = ("mos", "gt_score")
IN_ID: Final = "id"

_ARROW: Final = "->"
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_VIDEO_SUFFIXES: Final = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".yuv", ".gif")
_IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".avif", ".jp")
"""``.jp`` is a cut ``.JPG`` in the authors' list of BID."""
_NAMED: Final = {"image": Modality.IMAGE, "video": Modality.VIDEO, "video_path": Modality.VIDEO}
_TOLERANCE: Final = 1e-9


@dataclass(frozen=True)
class Keys:
    """Where a list keeps its path and its score (``id``: behind the arrow in the id)."""

    media: str
    score: str


def keys_of(records: Sequence[Record], media: str | None, score: str | None, name: str) -> Keys:
    """Where this list keeps them: the one key that all records have, unless somebody names another.

    Raises:
        StageError: there is none, or there are several.
    """
    if media is None:
        everywhere = [key for key in MEDIA_KEYS if _everywhere(records, key)]
        media = _only(everywhere or _somewhere(records, MEDIA_KEYS), "path", "--media-key", name)
    _check_paths(records, media, name)
    if score is None:
        found = [key for key in SCORE_KEYS if _everywhere(records, key)]
        if not found and all(_ARROW in str(record.value.get(IN_ID, "")) for record in records):
            found = [IN_ID]
        score = _only(found, "score", "--score-key", name)
    return Keys(media, score)


def read_scores(records: Sequence[Record], keys: Keys, name: str) -> list[float]:
    """The number of every record.

    Raises:
        StageError: it is missing, no finite number, or stands twice in a record with different values.
    """
    scores = [_score(record, keys, name) for record in records]
    for number, (record, score) in enumerate(zip(records, scores, strict=True)):
        behind = _behind_arrow(record)
        if behind is not None and keys.score != IN_ID and abs(behind - score) > _TOLERANCE * max(1, abs(score)):
            msg = f"{name}: record {number} has the score {score:g}, and its id says {behind:g}"
            raise StageError(msg)
    return scores


def meaning_of(records: Sequence[Record], keys: Keys, declared: Meaning | None, name: str) -> Meaning:
    """The meaning of a list: its entry in ``known_lists``, or what was declared; never anything else.

    Raises:
        StageError: there is neither, or they contradict each other or the list.
    """
    scores = read_scores(records, keys, name)
    paths = [str(record.value.get(keys.media)) for record in records]
    known = KNOWN.get(fingerprint(paths, scores))
    if known is None and declared is None:
        low, high = min(scores), max(scores)
        msg = (
            f"{name}: nobody says what its scores ({low:g} to {high:g}) mean, and it is none of the known lists: "
            "declare --polarity mos|dmos|negated_dmos and --range LOW HIGH"
        )
        raise StageError(msg)
    if known is not None and declared is not None and known.meaning != declared:
        meant, said = known.meaning, declared
        msg = (
            f"{name} is the known list {known.title}: {meant.polarity} from {meant.low:g} to {meant.high:g}, and "
            f"{said.polarity} from {said.low:g} to {said.high:g} was declared: leave the declaration away"
        )
        raise StageError(msg)
    meaning = declared or (known.meaning if known else None)
    assert meaning is not None
    check_meaning(meaning, scores, [record.value for record in records], name)
    return meaning


def score_rows(records: Sequence[Record], keys: Keys, meaning: Meaning, name: str) -> list[dict[str, Any]]:
    """Rows of HUMAN_SCORES.

    Raises:
        StageError: a path is missing or no text, repeats, or does not say what kind of medium it is.
    """
    paths = [path_of(record, keys.media, number, name) for number, record in enumerate(records)]
    path, count = Counter(paths).most_common(1)[0]
    if count > 1:
        msg = f"{name}: {path!r} has {count} scores: which of them counts is not for us to choose"
        raise StageError(msg)
    rows = []
    scores = read_scores(records, keys, name)
    for number, (record, path, score) in enumerate(zip(records, paths, scores, strict=True)):
        std = _std(record, number, name)
        rows.append(
            {
                "row": number,
                "path": path,
                "modality": str(modality_of(path, keys.media, name)),
                "score": score,
                "std": std,
                "quality": meaning.quality(score),
                "quality_std": meaning.unit_std(std),
                "polarity": str(meaning.polarity),
                "low": meaning.low,
                "high": meaning.high,
                "media_key": keys.media,
                "score_key": keys.score,
                "name": name,
            }
            | texts_of(record)
        )
    return rows


def score_text(row: Mapping[str, Any], value: dict[str, Any]) -> str:
    """The text of a row's record, with whatever was changed in the row since the import.

    Args:
        row: of HUMAN_SCORES. value: its record as imported.

    Raises:
        StageError: see :func:`check_score`.
    """
    check_score(row)
    changes: dict[Key, Any] = {(row["media_key"],): row["path"]}
    told, score = value[row["score_key"]], row["score"]
    if row["score_key"] != IN_ID and _number(told) != score:
        changes[row["score_key"],] = str(score) if isinstance(told, str) else score
    told = value.get(IN_ID)
    if isinstance(told, str) and _ARROW in told:
        front, _, behind = told.rpartition(_ARROW)
        changes[IN_ID,] = told if _number(behind) == score else f"{front}{_ARROW}{score}"
    std = plain(row, "std")
    if std is not None and "std" in value and _number(value["std"]) != std:
        changes["std",] = std
    return mended(row["text"], changes)


def check_score(row: Mapping[str, Any]) -> None:
    """Refuse a row of HUMAN_SCORES whose numbers cannot be, or contradict each other.

    Raises:
        StageError: score or quality is null or off the scale, a deviation is negative, or one of the pairs score and
            quality, std and quality_std says two things.
    """
    where = f"row {row['row']} ({row['path']})"
    meaning = meaning_in(row)
    score, std = finite_number(row["score"]), plain(row, "std")
    if score is None or not meaning.low <= score <= meaning.high:
        msg = f"{where}: the score {row['score']} is no number on its scale, {meaning.low:g} to {meaning.high:g}"
        raise StageError(msg)
    if std is not None and (finite_number(std) is None or std < 0):
        msg = f"{where}: the standard deviation {std} is none"
        raise StageError(msg)
    for told, column, meant in (
        ("score", "quality", meaning.quality(score)),
        ("std", "quality_std", meaning.unit_std(std)),
    ):
        found = plain(row, column)
        if (found is None) != (meant is None) or (found is not None and abs(found - (meant or 0)) > _TOLERANCE):
            msg = f"{where}: {column} {found} is not what the {told} {row[told]} means ({meant}): "
            raise StageError(msg + f"change {told} and {column} together")


def meaning_in(row: Mapping[str, Any]) -> Meaning:
    """The meaning that a row of HUMAN_SCORES was imported with.

    Raises:
        StageError: polarity or scale is none.
    """
    low, high = finite_number(row["low"]), finite_number(row["high"])
    if row["polarity"] not in tuple(Polarity) or low is None or high is None:
        msg = f"row {row['row']} ({row['path']}): polarity {row['polarity']} from {row['low']} to {row['high']} is none"
        raise StageError(msg)
    return Meaning(Polarity(row["polarity"]), low, high)


def path_of(record: Record, key: str, number: int, name: str) -> str:
    """The path of a record.

    Raises:
        StageError: it is missing, no text, or text that no file system has.
    """
    path = record.value.get(key)
    if not isinstance(path, str) or not path or not path.isprintable():
        msg = f"{name}: record {number} has no usable path under {key!r}: {path!r}"
        raise StageError(msg)
    return path


def suffix_modality(path: str) -> Modality | None:
    """What a path shows by its suffix; None if that does not say."""
    suffix = PurePosixPath(path).suffix.lower()
    return Modality.VIDEO if suffix in _VIDEO_SUFFIXES else Modality.IMAGE if suffix in _IMAGE_SUFFIXES else None


def modality_of(path: str, key: str, name: str) -> Modality:
    """What a path shows, by its suffix; the key must not say otherwise.

    Raises:
        StageError: neither says it, or they contradict each other.
    """
    by_suffix = suffix_modality(path)
    by_key = _NAMED.get(key)
    if by_suffix is None and by_key is None:
        msg = f"{name}: neither the key {key!r} nor the suffix of {path!r} says whether it is an image or a video"
        raise StageError(msg)
    if by_suffix is not None and by_key is not None and by_suffix is not by_key:
        msg = f"{name}: {path!r} stands under {key!r} and is named like a {by_suffix}"
        raise StageError(msg)
    found = by_suffix or by_key
    assert found is not None
    return found


def _everywhere(records: Sequence[Record], key: str) -> bool:
    return all(key in record.value for record in records)


def _somewhere(records: Sequence[Record], keys: Sequence[str]) -> list[str]:
    return [key for key in keys if any(key in record.value for record in records)]


def _check_paths(records: Sequence[Record], key: str, name: str) -> None:
    lacking = [number for number, record in enumerate(records) if key not in record.value]
    if lacking:
        has = ", ".join(map(repr, records[lacking[0]].value)) or "none"
        msg = (
            f"{name}: {len(lacking)} of {len(records)} records have no key {key!r} for the path, the first is record "
            f"{lacking[0]} (its keys: {has}): add the path, take the record out, or name another key by --media-key"
        )
        raise StageError(msg)


def _only(found: list[str], what: str, option: str, name: str) -> str:
    if len(found) == 1:
        return found[0]
    told = f"several keys that may hold its {what}: {', '.join(found)}" if found else f"no key for its {what}"
    msg = f"{name} has {told}: name one by {option}"
    raise StageError(msg)


def _score(record: Record, keys: Keys, name: str) -> float:
    found = _behind_arrow(record) if keys.score == IN_ID else _number(record.value.get(keys.score))
    if found is None:
        told = record.value.get(keys.score)
        msg = f"{name}: {record.value.get(keys.media)!r} has no finite number under {keys.score!r}: {told!r}"
        raise StageError(msg)
    return found


def _behind_arrow(record: Record) -> float | None:
    told = record.value.get(IN_ID)
    return _number(told.rpartition(_ARROW)[2]) if isinstance(told, str) and _ARROW in told else None


def _number(value: Any) -> float | None:
    """A finite number, written as such or in quotes."""
    if isinstance(value, str):
        return finite_number(float(value)) if _NUMBER.fullmatch(value) else None
    return finite_number(value)


def _std(record: Record, number: int, name: str) -> float | None:
    if "std" not in record.value:
        return None
    std = _number(record.value["std"])
    if std is None or std < 0:
        msg = f"{name}: record {number} has the standard deviation {record.value['std']!r}"
        raise StageError(msg)
    return std
