"""What the report says about the data: pool, opinions, examples, review. Tables in, plain values and charts out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.correlation import srcc
from models.distortions import VIDEO_TYPES
from models.levels import LEVELS, level_of
from tasks.evaluation import charts
from tasks.evaluation.charts import Axis
from tasks.evaluation.frames import numbers, ordered, records, truths, where
from tasks.evaluation.pictures import Thumbnails
from tasks.records import Modality, Split, Task

Matrix = NDArray[np.float64]

REJECTING: Final = ("collect", "distort", "score", "describe", "review", "assemble", "predict")
"""Stages that can reject, in order of the line."""
_BINS: Final = 20
_QUANTILES: Final = (("good", 0.97), ("middle", 0.5), ("bad", 0.03))


def pool_chapter(candidates: pd.DataFrame, rejects: pd.DataFrame) -> dict[str, Any]:
    """Counts of contents and samples by split, rejects by reason, and how often each distortion cell occurs."""
    originals = where(candidates, candidates["stage"] == "collect")
    splits = []
    for split in Split:
        row: dict[str, Any] = {"split": str(split)}
        for modality in Modality:
            mine = where(candidates, (candidates["split"] == split) & (candidates["modality"] == modality))
            row[f"{modality}_contents"] = len(set(mine["content_id"]))
            row[f"{modality}_samples"] = len(mine)
        splits.append(row)
    return {
        "originals": len(originals),
        "children": len(candidates) - len(originals),
        "videos": list(originals["modality"]).count(Modality.VIDEO),
        "splits": splits,
        "rejects": _reject_rows(rejects),
        "rejected": len(rejects),
        "cells": _cell_rows(candidates),
    }


def _reject_rows(rejects: pd.DataFrame) -> list[dict[str, Any]]:
    """Number and one example of every (stage, reason)."""
    rows = []
    for found in sorted(set(zip(rejects["stage"], rejects["reason"], strict=True))):
        group = ordered(where(rejects, (rejects["stage"] == found[0]) & (rejects["reason"] == found[1])), "id")
        example = records(group.head(1))[0]["detail"]
        rows.append({"stage": found[0], "reason": found[1], "count": len(group), "example": str(example)})
    return sorted(rows, key=lambda row: REJECTING.index(row["stage"]))


def _cell_rows(candidates: pd.DataFrame) -> list[dict[str, Any]]:
    children = where(candidates, candidates["stage"] == "distort")
    counts = Counter(zip(children["distortion"], children["severity"], strict=True))
    return [
        {"distortion": str(kind), "counts": [counts[kind, severity] for severity in range(1, 6)]}
        for kind in sorted(set(children["distortion"]))
    ]


def opinion_chapter(candidates: pd.DataFrame, opinions: pd.DataFrame) -> dict[str, Any]:
    """Distributions of mu and sigma, of every scorer, and how well scorers agree with each other and with the mean."""
    if opinions.empty:
        return {"scored": 0}
    joined = opinions.merge(candidates[["id", "split", "severity"]], on="id")
    scorers = list(opinions["scorers"].iloc[0])
    scores_NS = np.stack([np.asarray(values, dtype=np.float64) for values in opinions["scores"]])
    unit = Axis("mu", 0, 1)
    groups = [
        (name, numbers(where(joined, mask)["mu"]))
        for name, mask in (("undistorted", joined["severity"] == 0), ("distorted", joined["severity"] > 0))
    ]
    sigma = Axis("sigma", 0, max(0.05, float(numbers(opinions["sigma"]).max())))
    counts = Counter(level_of(float(value)) for value in opinions["mu"])
    return {
        "scored": len(opinions),
        "clamped": int(truths(opinions["mu_clamped"]).sum()),
        "mu_chart": charts.histogram("Distribution of the machine opinion's mean", unit, groups, _BINS),
        "sigma_chart": charts.histogram(
            "Distribution of the scorers' standard deviation", sigma, [("all", numbers(opinions["sigma"]))], _BINS
        ),
        "levels": [
            {"level": level, "count": counts[level], "share": counts[level] / len(opinions)} for level in LEVELS
        ],
        "scorers": [_scorer_row(name, scores_NS, i) for i, name in enumerate(scorers)],
        "agreement": matrix_rows(scorers, agreement_matrix(scores_NS)),
    }


def _scorer_row(name: str, scores_NS: Matrix, index: int) -> dict[str, Any]:
    own = scores_NS[:, index]
    others = np.delete(scores_NS, index, axis=1).mean(axis=1) if scores_NS.shape[1] > 1 else own
    low, middle, high = np.quantile(own, [0.05, 0.5, 0.95])
    return {"name": name, "low": low, "middle": middle, "high": high, "with_others": srcc(own, others)}


def agreement_matrix(scores_NS: Matrix) -> list[list[float | None]]:
    """SRCC between every two scorers."""
    count = scores_NS.shape[1]
    return [[1.0 if i == j else srcc(scores_NS[:, i], scores_NS[:, j]) for j in range(count)] for i in range(count)]


def matrix_rows(names: Sequence[str], values: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """A square matrix as the template's rows."""
    return {"names": list(names), "rows": [{"name": n, "values": list(v)} for n, v in zip(names, values, strict=True)]}


def pmod_examples(candidates: pd.DataFrame, opinions: pd.DataFrame, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """A good, a middling and a bad sample with their scores and distributions."""
    if opinions.empty:
        return []
    ranked = records(ordered(opinions, "mu", "id"))
    rows = {row["id"]: row for row in records(candidates)}
    examples = []
    for word, quantile in _QUANTILES:
        opinion = ranked[round(quantile * (len(ranked) - 1))]
        row = rows[opinion["id"]]
        named = zip(opinion["scorers"], opinion["scores"], strict=True)
        examples.append(
            {
                "word": word,
                "picture": thumbnails.of(row),
                "caption": caption(row),
                "id": opinion["id"],
                "mu": opinion["mu"],
                "sigma": opinion["sigma"],
                "level": level_of(float(opinion["mu"])),
                "scores": [{"name": name, "score": float(score)} for name, score in named],
                "chart": charts.levels(f"PMOD of the {word} example", LEVELS, list(opinion["pmod"])),
            }
        )
    return examples


def caption(row: dict[str, Any]) -> str:
    """Source, and what was done to it."""
    what = f"{row['distortion']}, severity {row['severity']}" if row["severity"] else "undistorted"
    return f"{row['source']} ({row['modality']}, {what})"


def severity_examples(
    candidates: pd.DataFrame, opinions: pd.DataFrame, thumbnails: Thumbnails, types: int
) -> list[dict[str, Any]]:
    """Rows of thumbnails by severity for the ``types`` distortions that show the most severities of one content.

    Types of images come first: a still says nothing of stutter or shake. Where a content has a severity of the type it
    is shown; gaps are filled with other contents, so each picture also tells the mean of all children of its severity.
    """
    mu = dict(zip(opinions["id"], opinions["mu"], strict=True))
    children = [row for row in records(ordered(candidates, "id")) if row["stage"] == "distort" and row["id"] in mu]
    shown: dict[str, dict[str, set[int]]] = {}
    for row in children:
        shown.setdefault(row["distortion"], {}).setdefault(row["content_id"], set()).add(row["severity"])
    found = []
    for kind, contents in shown.items():
        best = min(contents, key=lambda content: (-len(contents[content]), content))
        moving = kind in VIDEO_TYPES
        found.append((moving, -len(contents[best]), -len(set().union(*contents.values())), kind, best))
    rows = []
    for *_, kind, content in sorted(found)[:types]:
        mine = [row for row in children if row["distortion"] == kind]
        pictures = []
        for severity in sorted({row["severity"] for row in mine}):
            equals = [row for row in mine if row["severity"] == severity]
            row = min(equals, key=lambda row: row["content_id"] != content)
            pictures.append(
                {
                    "severity": severity,
                    "picture": thumbnails.of(row),
                    "caption": caption(row),
                    "mu": mu[row["id"]],
                    "mean": float(np.mean([mu[other["id"]] for other in equals])),
                    "count": len(equals),
                }
            )
        rows.append({"distortion": kind, "pictures": pictures})
    return rows


def review_chapter(votes: pd.DataFrame, reviewed: pd.DataFrame, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What review kept, how it treated planted assertions, and whether the judges err together.

    Args:
        votes: rows of VOTES.
        reviewed: rows of REVIEWED.
        figures: ``metrics/review.json``, whose agreement and error correlations of judges are shown as they are.
    """
    kept, ours = truths(reviewed["kept"]), (reviewed["origin"] == "describer").to_numpy()
    true = truths(reviewed["planted_truth"])
    false = reviewed["planted_truth"].notna().to_numpy() & ~true
    judges = sorted(set(where(votes, votes["phase"] == "cross")["judge"]))
    reasons = Counter(zip(reviewed["origin"], reviewed["reason"], strict=True))
    attributes = []
    for attribute in sorted(set(reviewed["attribute"][ours])):
        mine = ours & (reviewed["attribute"] == attribute).to_numpy()
        attributes.append({"attribute": attribute, "count": int(mine.sum()), "kept": float(kept[mine].mean())})
    return {
        "assertions": int(ours.sum()),
        "kept": int((ours & kept).sum()),
        "planted_true": _share(kept[true]),
        "planted_false": _share(~kept[false]),
        "votes": len(votes),
        "attributes": attributes,
        "reasons": [{"origin": o, "reason": r, "count": n} for (o, r), n in sorted(reasons.items())],
        "agreement": _judge_matrix(judges, figures["judge_agreement"]),
        "errors": _judge_matrix(judges, figures["error_phi"]),
    }


def _share(values: NDArray[np.bool_]) -> dict[str, Any]:
    return {"count": len(values), "share": float(values.mean()) if len(values) else None}


def _judge_matrix(judges: Sequence[str], pairs: Mapping[str, float | None]) -> dict[str, Any]:
    """A measure of pairs of judges ("one/two" -> value) as a symmetric matrix."""
    values = [[1.0 if a == b else pairs.get(f"{a}/{b}", pairs.get(f"{b}/{a}")) for b in judges] for a in judges]
    return matrix_rows(judges, values)


def story(
    candidates: pd.DataFrame,
    votes: pd.DataFrame,
    reviewed: pd.DataFrame,
    examples: pd.DataFrame,
    thumbnails: Thumbnails,
) -> dict[str, Any] | None:
    """One sample from picture to training text: the one whose review has the most different outcomes."""
    if reviewed.empty:
        return None
    outcomes: dict[str, list[dict[str, Any]]] = {}
    for entry in records(ordered(reviewed, "position", "assertion_id")):
        outcomes.setdefault(entry["id"], []).append(entry)
    chosen = max(sorted(outcomes), key=lambda key: _variety(outcomes[key]))
    row = records(where(candidates, candidates["id"] == chosen))[0]
    mine = where(examples, [chosen in list(ids) for ids in examples["ids"]])
    return {
        "id": chosen,
        "picture": thumbnails.of(row),
        "caption": caption(row),
        "assertions": [_told(entry, votes) for entry in outcomes[chosen]],
        "examples": [
            {"task": str(example["task"]), "answer": example["answers"][0]}
            for example in records(ordered(mine, "task", "example_id"))
            if example["task"] != Task.PAIR
        ],
        "pairs": list(mine["task"]).count(Task.PAIR),
    }


def _variety(entries: list[dict[str, Any]]) -> tuple[int, int, int]:
    """How much a sample's review shows: kinds of assertions, kinds of outcomes, assertions."""
    return len({entry["origin"] for entry in entries}), len({entry["reason"] for entry in entries}), len(entries)


def _told(entry: dict[str, Any], votes: pd.DataFrame) -> dict[str, Any]:
    """One assertion with its votes in order."""
    own = where(votes, votes["assertion_id"] == entry["assertion_id"])
    turns = records(ordered(own, "phase", "attempt", "judge", "round"))
    truth = entry["planted_truth"]
    return {
        "text": entry["text"],
        "attribute": entry["attribute"],
        "kept": bool(entry["kept"]),
        "reason": entry["reason"],
        "truth": None if pd.isna(truth) else bool(truth),
        "votes": turns,
    }
