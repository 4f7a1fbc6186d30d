"""Stage ``assemble``: training examples of four tasks, with the splits of their contents, and exports of them.

Single opinions and pairs carry PMOD targets; distortion and description texts carry words. Planted assertions never
become text. Pairs never cross splits or modalities.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models.distortions import words
from models.levels import level_of
from models.signals.assertions import token_count
from tasks.annotation.exports import authors_groups, write_authors, write_hugging_face
from tasks.annotation.pairs import BETTER, TIE, WORSE, PairRule, choose_pairs
from tasks.annotation.parts import counts_of, rows_of
from tasks.errors import StageError
from tasks.pool import load_candidates
from tasks.records import EXAMPLES, OPINIONS, REJECTS, REVIEWED, Modality, Origin, Split, Task
from tasks.shards import digest, frame_of, read_table, write_table
from tasks.stage import Place
from tasks.training_set import FOLDER, write_training_set

PAPER_MEAN_TOKENS: Final = 14.83
"""Mean length of the paper's descriptions (VITAL, prompts)."""


@dataclass(frozen=True)
class Config:
    """Parameters of ``assemble``.

    Attributes:
        seed: of the pairs.
        pairs: how pairs are chosen.
    """

    seed: int
    pairs: PairRule


@dataclass(frozen=True)
class Report:
    """What was assembled.

    Attributes:
        examples: of all tasks and splits.
        by_task: task -> split -> examples.
        pairs: modality -> better, worse, tie.
        rejected: candidates without an opinion, and kept planted assertions.
        description_tokens: mean words and punctuation marks of a description.
        description_lengths: of them mean, sd, shortest, median, p90 and longest, beside ``paper_mean``, which counts
            the tokens of the paper's tokenizer; empty without descriptions.
        authors_groups: groups in ``authors.json``.
    """

    examples: int
    by_task: dict[str, dict[str, int]]
    pairs: dict[str, dict[str, int]]
    rejected: dict[str, int]
    description_tokens: float | None
    authors_groups: int
    description_lengths: dict[str, float]


def run(config: Config, place: Place) -> Report:
    """Write examples and rejects, ``training_set/`` (what training maps), ``authors.json`` with its meta, and ``hf/``.

    Raises:
        StageError: an input is missing, no candidate has an opinion, or a content is in two splits.
    """
    candidates = load_candidates(place)
    media = {row["id"]: row for row in rows_of(candidates)}
    opinions = rows_of(read_table(place.artifacts("score") / "opinions.parquet", OPINIONS))
    reviewed = rows_of(read_table(place.artifacts("review") / "reviewed.parquet", REVIEWED))
    opinion_of = {row["id"]: row for row in opinions if row["id"] in media}
    if not opinion_of:
        raise StageError("no candidate has an opinion: look at artifacts/score/rejects.parquet")
    kept = [row for row in reviewed if row["kept"]]
    records = [
        *singles(media, opinion_of),
        *pairs(media, opinion_of, config),
        *distortions(media, opinion_of),
        *descriptions(media, opinion_of, [row for row in kept if row["origin"] == Origin.DESCRIBER]),
    ]
    examples = frame_of(EXAMPLES, records)
    rejects = _rejects(media, opinion_of, kept)
    write_table(place.out / "examples.parquet", EXAMPLES, examples)
    write_table(place.out / "rejects.parquet", REJECTS, frame_of(REJECTS, rejects))
    table = EXAMPLES.to_arrow(examples)
    write_training_set(place.out / FOLDER, table, candidates)
    ordered = table.to_pylist()
    groups = authors_groups(ordered, media, opinion_of)
    write_authors(place.out, groups)
    write_hugging_face(place.out / "hf", examples, media)
    return _report(records, rejects, len(groups))


def level_sentence(modality: str, mu: float) -> str:
    """The answer that scoring forces and training teaches (VITAL, prompts): without a full stop."""
    return f"The quality of the {modality} is {level_of(mu)}"


def singles(media: Mapping[str, Any], opinions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One example per opinion."""
    return [
        _example(Task.SINGLE, [media[key]], [level_sentence(media[key]["modality"], row["mu"])], [row["pmod"]])
        for key, row in opinions.items()
    ]


def pairs(media: Mapping[str, Any], opinions: Mapping[str, Any], config: Config) -> list[dict[str, Any]]:
    """Pairs within one split and modality, better : worse : tie = 4 : 4 : 2."""
    found = []
    for number, split in enumerate(Split):
        for kind, modality in enumerate(Modality):
            rows = [opinions[key] for key in sorted(opinions) if _belongs(media[key], split, modality)]
            mu, sigma = (np.array([row[name] for row in rows], dtype=np.float64) for name in ("mu", "sigma"))
            seed = (config.seed, number, kind)
            for one, two, preference in choose_pairs(mu, sigma, config.pairs, seed):
                both = [rows[one], rows[two]]
                answers = [level_sentence(modality, row["mu"]) for row in both]
                targets = [row["pmod"] for row in both]
                found.append(_example(Task.PAIR, [media[row["id"]] for row in both], answers, targets, preference))
    return found


def distortions(media: Mapping[str, Any], opinions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Severity and type of every child, in words."""
    return [
        _example(Task.DISTORTION, [media[key]], [words(media[key]["distortion"], int(media[key]["severity"]))], [])
        for key in opinions
        if isinstance(media[key]["distortion"], str)
    ]


def descriptions(
    media: Mapping[str, Any], opinions: Mapping[str, Any], kept: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One example per reviewed assertion."""
    return [_example(Task.DESCRIPTION, [media[row["id"]]], [row["text"]], []) for row in kept if row["id"] in opinions]


def lengths(tokens: Sequence[int]) -> dict[str, float]:
    """Statistics of lengths, the paper's mean beside them; empty for none."""
    if not tokens:
        return {}
    found = {
        "mean": np.mean(tokens),
        "sd": np.std(tokens),
        "shortest": min(tokens),
        "median": np.median(tokens),
        "p90": np.quantile(tokens, 0.9),
        "longest": max(tokens),
        "paper_mean": PAPER_MEAN_TOKENS,
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def _belongs(row: Mapping[str, Any], split: Split, modality: Modality) -> bool:
    return row["split"] == split and row["modality"] == modality


def _example(
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    answers: list[str],
    targets: list[Any],
    preference: float | None = None,
) -> dict[str, Any]:
    ids = [row["id"] for row in rows]
    return {
        "example_id": digest(str(task), ids, answers),
        "task": str(task),
        "modality": str(rows[0]["modality"]),
        "split": str(rows[0]["split"]),
        "ids": ids,
        "answers": answers,
        "targets": [[float(value) for value in target] for target in targets],
        "preference": preference,
    }


def _rejects(
    media: Mapping[str, Any], opinions: Mapping[str, Any], kept: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    silent = [
        {"stage": "assemble", "id": key, "reason": "no_opinion", "detail": "the score stage has no opinion of it"}
        for key in media
        if key not in opinions
    ]
    planted = [
        {"stage": "assemble", "id": row["assertion_id"], "reason": "planted", "detail": row["text"]}
        for row in kept
        if row["origin"] != Origin.DESCRIBER
    ]
    return silent + planted


def _report(examples: Sequence[dict[str, Any]], rejects: Sequence[dict[str, Any]], groups: int) -> Report:
    classes = {"better": BETTER, "worse": WORSE, "tie": TIE}
    tasks = Counter((row["task"], row["split"]) for row in examples)
    preferences = Counter((row["modality"], row["preference"]) for row in examples if row["task"] == Task.PAIR)
    told = [token_count(row["answers"][0]) for row in examples if row["task"] == Task.DESCRIPTION]
    return Report(
        examples=len(examples),
        by_task={str(task): {str(split): tasks[task, split] for split in Split} for task in Task},
        pairs={
            str(modality): {name: preferences[modality, value] for name, value in classes.items()}
            for modality in Modality
        },
        rejected=counts_of(row["reason"] for row in rejects),
        description_tokens=round(sum(told) / len(told), 4) if told else None,
        authors_groups=groups,
        description_lengths=lengths(told),
    )
