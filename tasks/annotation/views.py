"""What the gate looks at: the published tables with one computed column per rule that a plain column cannot hold.

A view keeps one row per row of its table, so whatever fails is named by its key. Two views stand for the whole line:
``flow`` has a row per thing that a stage took in, ``balance`` a row per stage with its counts.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.levels import CENTRES, LEVELS
from models.opinion import MU_HIGH, MU_LOW
from tasks.errors import StageError
from tasks.records import (
    ASSERTIONS,
    CANDIDATES,
    EXAMPLES,
    OPINIONS,
    REJECTS,
    REVIEWED,
    VOTES,
    Modality,
    RowSchema,
    Split,
    Task,
)
from tasks.shards import read_table
from tasks.stage import Place

DESCRIBER, PLANTED = "describer", "planted"
BENCHMARK_HASHES: Final = Path(__file__).with_name("benchmark_hashes.txt")
"""SHA-256 of media that nothing may be trained on; a dependency of ``validate``, so that DVC sees a change."""
WRONG: Final = 1e9
"""Error given to a value that is missing or has the wrong length: beyond every tolerance."""
TABLES: Final[tuple[tuple[str, str, RowSchema], ...]] = (
    ("collect", "candidates", CANDIDATES),
    ("collect", "rejects", REJECTS),
    ("distort", "candidates", CANDIDATES),
    ("distort", "rejects", REJECTS),
    ("score", "opinions", OPINIONS),
    ("score", "rejects", REJECTS),
    ("describe", "assertions", ASSERTIONS),
    ("describe", "rejects", REJECTS),
    ("review", "votes", VOTES),
    ("review", "reviewed", REVIEWED),
    ("review", "rejects", REJECTS),
    ("assemble", "examples", EXAMPLES),
    ("assemble", "rejects", REJECTS),
)
"""Stage, file and schema of every table that the gate reads."""

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Plant:
    """All tables of the annotation line, and the counts that two stages report about what never became a row."""

    candidates: pd.DataFrame
    opinions: pd.DataFrame
    assertions: pd.DataFrame
    votes: pd.DataFrame
    reviewed: pd.DataFrame
    examples: pd.DataFrame
    rejects: pd.DataFrame
    reported: dict[str, dict[str, Any]]


def schema_view(place: Place) -> pd.DataFrame:
    """One row per column of every table: the declared type and the type that is there."""
    rows = []
    for stage, name, schema in TABLES:
        path = place.artifacts(stage) / f"{name}.parquet"
        if not path.is_file():
            msg = f"{path.relative_to(place.root)} is missing: run dvc repro {stage}"
            raise StageError(msg)
        found = pq.read_schema(path)
        columns = list(dict.fromkeys([*schema.columns, *found.names]))
        for column in columns:
            declared = str(schema.schema.field(column).type) if column in schema.columns else "unknown column"
            there = str(found.field(column).type) if column in found.names else "missing"
            rows.append({"column": f"{stage}/{name}.{column}", "declared": declared, "found": _plain(there)})
    return pd.DataFrame(rows)


def _plain(name: str) -> str:
    """The type's name without the difference between Arrow's small and large layouts."""
    return name.replace("large_", "").replace("item:", "element:").replace("<element:", "<item:")


def load_plant(place: Place) -> Plant:
    """Read every table; :func:`schema_view` must hold.

    Raises:
        StageError: a table or a report is missing.
    """
    tables = {(stage, name): read_table(place.artifacts(stage) / f"{name}.parquet", s) for stage, name, s in TABLES}
    originals, children = tables["collect", "candidates"], tables["distort", "candidates"]
    candidates = pd.concat([originals.assign(stage="collect"), children.assign(stage="distort")], ignore_index=True)
    rejects = pd.concat([table for (_, name), table in tables.items() if name == "rejects"], ignore_index=True)
    return Plant(
        candidates=candidates,
        opinions=tables["score", "opinions"],
        assertions=tables["describe", "assertions"],
        votes=tables["review", "votes"],
        reviewed=tables["review", "reviewed"],
        examples=tables["assemble", "examples"],
        rejects=rejects,
        reported={stage: _reported(place, stage) for stage in ("collect", "distort")},
    )


def _reported(place: Place, stage: str) -> dict[str, Any]:
    path = place.root / "metrics" / f"{stage}.json"
    if not path.is_file():
        msg = f"metrics/{stage}.json is missing: run dvc repro {stage}"
        raise StageError(msg)
    return json.loads(path.read_text())


def candidates_view(plant: Plant, forbidden: frozenset[str], distortions: frozenset[str]) -> pd.DataFrame:
    """Candidates with their original's split, and whether lineage, size and benchmark hashes are in order."""
    rows = plant.candidates
    originals = rows[rows["stage"] == "collect"]
    split_of = dict(zip(originals["id"], originals["split"], strict=True))
    original = rows["stage"] == "collect"
    lineage = np.where(
        original,
        rows["parent_id"].isna()
        & rows["distortion"].isna()
        & (rows["severity"] == 0)
        & (rows["content_id"] == rows["id"]),
        rows["parent_id"].isin(list(split_of))
        & rows["distortion"].isin(list(distortions))
        & rows["severity"].between(1, 5),
    )
    image = rows["modality"] == Modality.IMAGE
    timing = np.where(image, (rows["frames"] == 1) & (rows["fps"] == 0), (rows["frames"] > 0) & (rows["fps"] > 0))
    trained = rows["split"].isin([Split.TRAIN, Split.WARM_UP])
    return rows.assign(
        content_split=[split_of.get(content) or "no such original" for content in rows["content_id"]],
        lineage_holds=lineage.astype(bool),
        timing_holds=timing.astype(bool),
        is_benchmark_medium=(trained & rows["bytes_sha256"].isin(list(forbidden))).astype(bool),
        shorter_side=rows[["width", "height"]].min(axis=1),
    )


def contents_view(plant: Plant) -> pd.DataFrame:
    """One row per content with the number of splits that its samples are in."""
    groups = plant.candidates.groupby("content_id")["split"].agg(lambda splits: len(set(splits)))
    return pd.DataFrame({"content_id": groups.index, "splits": groups.to_numpy()})


def splits_view(plant: Plant) -> pd.DataFrame:
    """One row per split with its number of contents."""
    contents = Counter(plant.candidates.drop_duplicates("content_id")["split"])
    return pd.DataFrame({"split": [str(split) for split in Split], "contents": [contents[split] for split in Split]})


def opinions_view(plant: Plant) -> pd.DataFrame:
    """Opinions with the errors of their summary and of their PMOD."""
    rows = plant.opinions
    hashes = dict(zip(plant.candidates["id"], plant.candidates["bytes_sha256"], strict=True))
    scores = [numbers(values) for values in rows["scores"]]
    pmods = [numbers(values) for values in rows["pmod"]]
    mu, sigma = rows["mu"].to_numpy(np.float64), rows["sigma"].to_numpy(np.float64)
    clamped = np.clip(mu, MU_LOW, MU_HIGH)
    usual = Counter(map(tuple, rows["scorers"])).most_common(1)
    return rows.assign(
        candidate_known=rows["id"].isin(list(hashes)),
        bytes_known=[hashes.get(key) == sha for key, sha in zip(rows["id"], rows["bytes_sha256"], strict=True)],
        score_count=[len(values) for values in scores],
        score_min=[values.min(initial=WRONG) for values in scores],
        score_max=[values.max(initial=-WRONG) for values in scores],
        scorers_agree=[
            tuple(names) == usual[0][0] and len(names) == len(versions) == len(values)
            for names, versions, values in zip(rows["scorers"], rows["versions"], scores, strict=True)
        ],
        mu_error=gap([values.mean() if len(values) else WRONG for values in scores], mu),
        sigma_error=gap([values.std() if len(values) else WRONG for values in scores], sigma),
        pmod_sum_error=gap([values.sum() if len(values) == len(LEVELS) else WRONG for values in pmods], 1.0),
        pmod_mean_error=gap([values @ CENTRES if len(values) == len(LEVELS) else WRONG for values in pmods], clamped),
        pmod_min=[values.min(initial=WRONG) for values in pmods],
        clamp_told=(rows["mu_clamped"].astype(bool) == ((mu < MU_LOW) | (mu > MU_HIGH))),
    )


def flow_view(plant: Plant) -> pd.DataFrame:
    """One row per (stage, id): how often it went in (0 or 1), and how many fates (output or reject) it has."""
    rows = []
    for stage, (taken, passed, refused) in _flows(plant).items():
        inputs, fates = set(taken), Counter([*passed, *refused])
        rows += [
            {"thing": f"{stage} {key}", "stage": stage, "inputs": int(key in inputs), "fates": fates.get(key, 0)}
            for key in sorted(inputs | set(fates))
        ]
    return pd.DataFrame(rows, columns=["thing", "stage", "inputs", "fates"])


def balance_view(plant: Plant) -> pd.DataFrame:
    """One row per stage: inputs, outputs, rejects, and what is missing between them.

    ``collect`` and ``distort`` take in files and plans that are no rows of a table: their own reports count those.
    """
    collected, distorted = plant.reported["collect"], plant.reported["distort"]
    reported = {"collect": collected["files"] - collected["ignored"], "distort": distorted["planned"]}
    rows = []
    for stage, (taken, passed, refused) in _flows(plant).items():
        counts = {"inputs": reported.get(stage, len(set(taken))), "outputs": len(passed), "rejects": len(refused)}
        missing = counts["inputs"] - counts["outputs"] - counts["rejects"]
        rows.append({"stage": stage, **counts, "missing": missing})
    return pd.DataFrame(rows)


def _flows(plant: Plant) -> dict[str, tuple[list[str], list[str], list[str]]]:
    """Stage -> ids that went in, came out, and were refused."""
    originals, children = (plant.candidates[plant.candidates["stage"] == name] for name in ("collect", "distort"))
    refused = {str(stage): list(rows["id"]) for stage, rows in plant.rejects.groupby("stage")}
    ids, files, made = list(plant.candidates["id"]), list(originals["source"]), list(children["id"])
    flows = {
        "collect": ([*files, *refused.get("collect", [])], files),
        "distort": ([*made, *refused.get("distort", [])], made),
        "score": (ids, list(plant.opinions["id"])),
        "describe": (ids, list(dict.fromkeys(plant.assertions["id"]))),
        "review": (list(plant.assertions["assertion_id"]), list(_kept(plant)["assertion_id"])),
        "assemble": _assembled(plant),
    }
    return {stage: (taken, passed, refused.get(stage, [])) for stage, (taken, passed) in flows.items()}


def _kept(plant: Plant) -> pd.DataFrame:
    return pd.DataFrame(plant.reviewed[truths(plant.reviewed["kept"])])


def _assembled(plant: Plant) -> tuple[list[str], list[str]]:
    """Samples and kept assertions, and those of them that are in an example.

    An assertion whose sample has no opinion goes the way of its sample; planted ones are refused whatever the sample.
    """
    examples, kept, judged = plant.examples, _kept(plant), set(plant.opinions["id"])
    single = [key for keys in examples.loc[examples["task"] == Task.SINGLE, "ids"] for key in keys]
    told = {
        (keys[0], text.rstrip(".!?"))
        for keys, answers in examples.loc[examples["task"] == Task.DESCRIPTION, ["ids", "answers"]].itertuples(
            index=False
        )
        for answer in answers
        for text in sentences(answer)
    }
    rows = list(zip(kept["assertion_id"], kept["id"], kept["text"], kept["origin"], strict=True))
    taken = [assertion for assertion, key, _, origin in rows if origin == PLANTED or key in judged]
    passed = [
        assertion for assertion, key, text, origin in rows if origin != PLANTED and (key, text.rstrip(".!?")) in told
    ]
    return [*plant.candidates["id"], *taken], [*single, *passed]


def sentences(text: str) -> list[str]:
    """Split a text at the ends of its sentences; full stops are left out."""
    return [part.strip().rstrip(".!?") for part in _SENTENCE.split(text) if part.strip()]


def numbers(values: Any) -> NDArray[np.float64]:
    """A list column's value; missing numbers become WRONG."""
    return np.nan_to_num(np.asarray([] if values is None else values, dtype=np.float64), nan=WRONG)


def gap(found: Any, expected: Any) -> NDArray[np.float64]:
    """Absolute difference, WRONG where one of the two is missing."""
    return np.nan_to_num(np.abs(np.asarray(found, dtype=np.float64) - expected), nan=WRONG)


def truths(column: Any) -> NDArray[np.bool_]:
    """A nullable boolean column with null as False."""
    return np.array([not pd.isna(value) and bool(value) for value in column], dtype=bool)


def read_hashes(path: Path) -> frozenset[str]:
    """SHA-256 digests of benchmark media, one a line; ``#`` starts a comment.

    Raises:
        StageError: the file is missing, or a line is no SHA-256.
    """
    if not path.is_file():
        msg = (
            f"{path.name} is missing: restore it from the repository (tasks/annotation), empty if there is none to bar"
        )
        raise StageError(msg)
    lines = [line.partition("#")[0].strip().lower() for line in path.read_text().splitlines()]
    wrong = [line for line in lines if line and not re.fullmatch(r"[0-9a-f]{64}", line)]
    if wrong:
        msg = f"{wrong[0]!r} in {path.name} is no SHA-256: write 64 hex digits a line"
        raise StageError(msg)
    return frozenset(line for line in lines if line)
