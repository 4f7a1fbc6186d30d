"""The authors' training JSON, a list of groups of samples, to rows and back.

What a sample says twice (mean and spread of its scores, the mean in its id, the label of both members of a pair) is
compared and told; nothing is put right.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from models.distortions import CELLS, strength, words
from tasks.errors import StageError
from tasks.exchange.human_lists import IN_ID, MEDIA_KEYS, modality_of, path_of
from tasks.exchange.json_text import Key, Record, mended
from tasks.exchange.tables import finite_number, plain, texts_of
from tasks.records import Task

OTHER: Final = "text"
"""Task of an answer that is neither a level sentence with a target, nor a distortion, nor marked as a description."""

_PREFERENCES: Final = {1: 1.0, 0: 0.0, 2: 0.5}
"""Label -> preference of EXAMPLES."""
_NAMES: Final = {words(kind, level): (kind, strength(kind, level)) for kind, level in CELLS}
_TOLERANCE: Final = 1e-6


def is_training(records: Sequence[Record]) -> bool:
    """Whether records look like the authors' training samples: a list of lists, with an answer each."""
    grouped = records[0].before.count("[") == 2
    return grouped and all(isinstance(record.value.get("conversations"), list) for record in records)


def sample_rows(records: Sequence[Record], name: str) -> list[dict[str, Any]]:
    """Rows of SAMPLES.

    Raises:
        StageError: a sample has no path, no answer, or a target that is not five numbers.
    """
    return [_row(record, number, name) for number, record in enumerate(records)]


def _row(record: Record, number: int, name: str) -> dict[str, Any]:
    value = record.value
    keys = [key for key in MEDIA_KEYS if key in value]
    if len(keys) != 1:
        msg = f"{name}: sample {number} needs one of {', '.join(MEDIA_KEYS)}, and has {', '.join(keys) or 'none'}"
        raise StageError(msg)
    path, answer = path_of(record, keys[0], number, name), _answer(record, number, name)
    target, scores = _numbers(record, "target_dist", number, name), _numbers(record, "mos", number, name)
    if target is not None and len(target) != 5:
        msg = f"{name}: sample {number} has a target of {len(target)} levels instead of 5"
        raise StageError(msg)
    for key in ("gt_score", "std"):
        if value.get(key) is not None and finite_number(value[key]) is None:
            msg = f"{name}: sample {number} has no finite number under {key!r}"
            raise StageError(msg)
    label = value.get("label")
    if label is not None and label not in tuple(_PREFERENCES):
        msg = f"{name}: sample {number} has the label {label!r}; labels are 1 (first better), 0 (second), 2 (tie)"
        raise StageError(msg)
    kind, level = _NAMES.get(answer, (None, None))
    return {
        "row": number,
        "group": record.group,
        "task": _task(value, label, kind),
        "modality": str(modality_of(path, keys[0], name)),
        "path": path,
        "answer": answer,
        "scores": scores,
        "mean": _mean(value, scores),
        "std": finite_number(value.get("std")),
        "target": target,
        "preference": None if label is None else _PREFERENCES[label],
        "distortion": kind,
        "strength": level,
        "media_key": keys[0],
        "name": name,
    } | texts_of(record)


def sample_text(row: Mapping[str, Any], value: Mapping[str, Any]) -> str:
    """The text of a row's record, with what was changed in path, answer, scores, mean, std, target or preference.

    Raises:
        StageError: see :func:`check_sample`.
    """
    check_sample(row)
    answer: Key = ("conversations", len(value["conversations"]) - 1, "value")
    changes: dict[Key, Any] = {(row["media_key"],): row["path"], answer: row["answer"]}
    if value.get("quality") == value["conversations"][-1]["value"]:
        changes["quality",] = row["answer"]
    label = next((label for label, told in _PREFERENCES.items() if told == row["preference"]), None)
    told = {"label": label, "mos": row["scores"], "std": row["std"], "target_dist": row["target"]}
    told["gt_score"] = row["mean"]
    changes |= {(key,): new for key, new in told.items() if new is not None and value.get(key) is not None}
    front, arrow, behind = str(value.get(IN_ID, "")).rpartition("->")
    if arrow and "gt_score" in value and behind == repr(value["gt_score"]) and value["gt_score"] != row["mean"]:
        changes[IN_ID,] = f"{front}->{row['mean']!r}"
    return mended(row["text"], changes)


def check_sample(row: Mapping[str, Any]) -> None:
    """Refuse a row of SAMPLES whose numbers cannot be.

    Raises:
        StageError: scores or target are empty or hold what is no finite number, the target has not five levels, mean
            or std is not finite, or the preference is none of 1, 0 and .5.
    """
    lists = {name: plain(row, name) for name in ("scores", "target")}
    wrong = [name for name, told in lists.items() if told is not None and not _all_finite(told)]
    wrong += [name for name in ("mean", "std") if plain(row, name) is not None and finite_number(row[name]) is None]
    if lists["target"] is not None and len(lists["target"]) != 5:
        wrong.append("target")
    if plain(row, "preference") not in (None, *_PREFERENCES.values()):
        wrong.append("preference")
    if wrong:
        msg = f"row {row['row']} ({row['path']}): {wrong[0]} cannot be {row[wrong[0]]}"
        raise StageError(msg)


def contradictions(rows: Sequence[Mapping[str, Any]], values: Sequence[Mapping[str, Any]]) -> list[str]:
    """What samples and groups say twice, and differently."""
    found = []
    for row, value in zip(rows, values, strict=True):
        found += [f"sample {row['row']} ({row['path']}): {told}" for told in _against_itself(row, value)]
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    for number, members in groups.items():
        labels = {row["preference"] for row in members if row["task"] == Task.PAIR}
        if len({row["modality"] for row in members}) > 1:
            found.append(f"group {number} mixes images and videos")
        if labels and (len(members) != 2 or len(labels) != 1 or any(row["task"] != Task.PAIR for row in members)):
            found.append(f"group {number} is no pair of two samples with one label")
        if any(row["task"] == Task.SINGLE for row in members) and len(members) < 2:
            found.append(f"group {number} has one opinion, and the released loss reads two")
    return found


def _against_itself(row: Mapping[str, Any], value: Mapping[str, Any]) -> list[str]:
    found = []
    scores = plain(row, "scores")
    if scores is not None:
        mean, spread = statistics.fmean(scores), statistics.pstdev(scores)
        told = ((value.get("gt_score"), mean, "gt_score is not the mean of mos"),)
        told += ((row["std"], spread, "std is not the population deviation of mos"),)
        found += [
            says for one, other, says in told if one is not None and not math.isclose(one, other, rel_tol=_TOLERANCE)
        ]
        behind = str(value.get(IN_ID, "")).rpartition("->")[2]
        if behind and "gt_score" in value and behind != repr(value["gt_score"]):
            found.append("the id does not end with gt_score")
    if value.get("quality", row["answer"]) != row["answer"]:
        found.append("quality is not the answer")
    return found


def _task(value: Mapping[str, Any], label: int | None, kind: str | None) -> str:
    if value.get("target_dist") is not None:
        return str(Task.SINGLE if label is None else Task.PAIR)
    if "quality" in value:
        return str(Task.DESCRIPTION)
    return str(Task.DISTORTION) if kind is not None else OTHER


def _answer(record: Record, number: int, name: str) -> str:
    turns = record.value.get("conversations")
    last = turns[-1] if isinstance(turns, list) and turns else None
    answer = last.get("value") if isinstance(last, dict) and last.get("from") == "gpt" else None
    if not isinstance(answer, str) or not answer.strip():
        msg = f"{name}: sample {number} has no answer at the end of its conversation"
        raise StageError(msg)
    return answer


def _numbers(record: Record, key: str, number: int, name: str) -> list[float] | None:
    value = record.value.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not _all_finite(value):
        msg = f"{name}: sample {number} has no list of finite numbers under {key!r}"
        raise StageError(msg)
    return [float(one) for one in value]


def _all_finite(told: Sequence[Any]) -> bool:
    """Whether there are numbers, and nothing else."""
    return len(told) > 0 and all(finite_number(one) is not None for one in told)


def _mean(value: Mapping[str, Any], scores: list[float] | None) -> float | None:
    told = finite_number(value.get("gt_score"))
    return told if told is not None or scores is None else statistics.fmean(scores)
