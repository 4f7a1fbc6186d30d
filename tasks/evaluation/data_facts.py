"""What a version of the data set consists of, counted from its tables: for its card, and to say what it cost.

Costs are counted by comparing what was paid for, scores and answers, with the last version: what both have was looked
up. The result is plain values, made for JSON.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow.parquet as pq

from tasks.records import CANDIDATES, EXAMPLES, OPINIONS, REJECTS, REVIEWED, VOTES
from tasks.shards import read_table

OPINION_TABLE: Final = "score/opinions.parquet"
ANSWER_TABLE: Final = "review/answers/answers.parquet"
PAID: Final = (OPINION_TABLE, ANSWER_TABLE)
"""Tables of a version that the next one is compared with."""

_ANSWER_KEY: Final = ["content", "assertion", "judge", "model", "prompt_version", "round"]
_ORIGINALS, _CHILDREN = "collect/candidates.parquet", "distort/candidates.parquet"

Locate = Callable[[str], Path]
"""Path of a table in a data set -> where it can be read."""


def data_facts(locate: Locate, paths: Collection[str], before: Locate | None = None) -> dict[str, Any]:
    """Count one version.

    Args:
        locate: finds the version's tables.
        paths: all files of the version.
        before: finds the last version's tables of ``PAID``; None for a first version.

    Raises:
        StageError: a table is missing or is of another version of this project.
    """
    candidates = read_samples(locate)
    votes = read_table(locate("review/votes.parquet"), VOTES)
    reviewed = read_table(locate("review/reviewed.parquet"), REVIEWED)
    examples = read_table(locate("assemble/examples.parquet"), EXAMPLES)
    opinions = read_table(locate(OPINION_TABLE), OPINIONS)
    originals = candidates.loc[candidates["parent_id"].isna().to_numpy(dtype=bool), ["modality", "split"]]
    return {
        "counts": {
            "originals": len(originals),
            "children": len(candidates) - len(originals),
            "opinions": len(opinions),
            "assertions": len(reviewed),
            "kept": sum(map(bool, reviewed["kept"])),
            "votes": len(votes),
            "examples": len(examples),
        },
        "originals": _counts(f"{modality} {split}" for modality, split in originals.to_numpy().tolist()),
        "examples": _counts(examples["task"]),
        "scorers": _scorers(opinions),
        "judges": _judges(votes),
        "rejects": _rejects(locate, paths),
        "paid": _paid(locate, before),
    }


def read_samples(locate: Locate) -> pd.DataFrame:
    """Originals and children of a version, in one frame."""
    tables = [read_table(locate(path), CANDIDATES) for path in (_ORIGINALS, _CHILDREN)]
    return pd.concat([table for table in tables if not table.empty], ignore_index=True)


def stage_costs(workspace: Path, stages: Sequence[str]) -> dict[str, Any]:
    """What each stage's last computation in a workspace cost; stages that were restored say nothing."""
    files = {stage: workspace / ".work" / "telemetry" / f"{stage}.json" for stage in stages}
    return {stage: json.loads(file.read_text()) for stage, file in files.items() if file.is_file()}


def paid_calls(workspace: Path, stages: Sequence[str]) -> list[dict[str, Any]]:
    """What endpoints were paid for the answers of each stage, by role: all of them, and those of the last run."""
    files = {stage: workspace / ".work" / "telemetry" / f"{stage}_calls.json" for stage in stages}
    told = {stage: json.loads(file.read_text()) for stage, file in files.items() if file.is_file()}
    return [{"stage": stage, "role": role, **took} for stage, roles in told.items() for role, took in roles.items()]


def _scorers(opinions: pd.DataFrame) -> dict[str, list[str]]:
    """Scorer -> its versions (photographs and videos may have different ones)."""
    found: dict[str, set[str]] = {}
    for names, versions in zip(opinions["scorers"], opinions["versions"], strict=True):
        for name, version in zip(names, versions, strict=True):
            found.setdefault(str(name), set()).add(str(version))
    return {name: sorted(versions) for name, versions in found.items()}


def _judges(votes: pd.DataFrame) -> list[dict[str, Any]]:
    key = ["phase", "judge", "model", "prompt_version"]
    return [
        {**dict(zip(key, map(str, names), strict=True)), "votes": len(rows), "verdicts": _counts(rows["verdict"])}
        for names, rows in votes.groupby(key, sort=True)
        if isinstance(names, tuple)
    ]


def _rejects(locate: Locate, paths: Collection[str]) -> dict[str, dict[str, int]]:
    """Stage -> reason -> how many."""
    tables = {path.partition("/")[0]: path for path in sorted(paths) if path.endswith("/rejects.parquet")}
    found = {stage: _counts(read_table(locate(path), REJECTS)["reason"]) for stage, path in tables.items()}
    return {stage: reasons for stage, reasons in found.items() if reasons}


def _paid(locate: Locate, before: Locate | None) -> dict[str, dict[str, int]]:
    """Scores and answers of this version, and how many of them the last one did not have."""
    kinds = {"media": _media, "scores": _scores, "answers": _answers}
    found = {}
    for kind, keys in kinds.items():
        here = keys(locate)
        found[kind] = {"total": len(here), "new": len(here if before is None else here - keys(before))}
    return found


def _media(locate: Locate) -> set[Hashable]:
    return set(pq.read_table(locate(OPINION_TABLE), columns=["bytes_sha256"]).column("bytes_sha256").to_pylist())


def _scores(locate: Locate) -> set[Hashable]:
    columns = ("bytes_sha256", "scorers", "versions")
    table = pq.read_table(locate(OPINION_TABLE), columns=list(columns))
    rows = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
    return {(content, *seat) for content, names, versions in rows for seat in zip(names, versions, strict=True)}


def _answers(locate: Locate) -> set[Hashable]:
    table = pq.read_table(locate(ANSWER_TABLE), columns=_ANSWER_KEY)
    return set(zip(*(table.column(name).to_pylist() for name in _ANSWER_KEY), strict=True))


def _counts(values: Iterable[object]) -> dict[str, int]:
    return dict(sorted(Counter(map(str, values)).items()))
