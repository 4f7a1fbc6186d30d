"""Score every candidate: six calibrated scores, their mean and spread, and the distribution over the five levels.

Scores come from the opinion store where it has them; only what is missing is computed, medium by medium, each decoded
once for all scorers that need it. Finished batches go to the store at once, so a killed run loses one batch.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from models.distortions import strength
from models.opinion import summarise
from models.scorers import Excerpt, Sampling, Scorer, missing_weights
from tasks.annotation.opinions import FrameRule, load_scorers, scores_of
from tasks.errors import MediaError, StageError
from tasks.media import ADMITTED
from tasks.memo import OpinionMemo, open_memo
from tasks.pool import load_candidates, read_media
from tasks.records import OPINIONS, REJECTS, Modality
from tasks.shards import frame_of, write_table
from tasks.stage import Place

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

_STAGE: Final = "score"
_FEWEST_FOR_SRCC: Final = 5


@dataclass(frozen=True)
class Config:
    """How candidates are scored.

    Attributes:
        scorers: names, in the order of the scores.
        frames: single frames of a video that image scorers see.
        clips: runs of consecutive frames of a video that clip scorers see.
        backend: runtime of the built-in scorers.
        batch: candidates per batch; a killed run loses at most one batch.
        max_reject_share: share of unreadable candidates above which the stage fails.
    """

    scorers: tuple[str, ...]
    frames: int
    clips: int
    backend: Literal["onnx", "torch"]
    batch: int
    max_reject_share: float

    def __post_init__(self) -> None:
        if not self.scorers or len(set(self.scorers)) != len(self.scorers):
            raise ValueError("scorers must be one or more different names")
        if self.batch < 1 or not 0.0 <= self.max_reject_share < 1.0:
            raise ValueError("batch must be at least 1 and max_reject_share in [0, 1)")
        FrameRule(self.frames, self.clips)


@dataclass(frozen=True)
class ScorerSummary:
    """One scorer over the pool."""

    version: str
    mean: float
    std: float
    srcc_with_others: float


@dataclass(frozen=True)
class Report:
    """What was scored, and how the scorers agree.

    Attributes:
        candidates, opinions, rejects: counts; the first is the sum of the others.
        mu_mean, mu_std, sigma_mean: of the opinions.
        mu_clamped: opinions whose mean the five levels cannot express.
        scorers: name -> its distribution, and SRCC with the mean of the others.
        srcc: "first~second" -> rank correlation of two scorers.
        severity_srcc: distortion -> rank correlation of mu with strength (mildest first), expected below 0.
        severity_srcc_mean: mean of those.
        below_parent: share of children whose mu is below their original's.
    """

    candidates: int
    opinions: int
    rejects: int
    mu_mean: float
    mu_std: float
    sigma_mean: float
    mu_clamped: int
    scorers: dict[str, ScorerSummary]
    srcc: dict[str, float]
    severity_srcc: dict[str, float]
    severity_srcc_mean: float
    below_parent: float


def missing(config: Config, _root: Path) -> list[str]:
    """What the configured scorers lack on this machine, one line each."""
    return missing_weights(config.scorers)


def run(config: Config, place: Place) -> Report:
    """Score the pool; see the module's description.

    Raises:
        StageError: the pool is empty, or too many candidates cannot be read.
        ModelError: a scorer is unknown or its weights are missing.
    """
    candidates = load_candidates(place)
    if candidates.empty:
        raise StageError("there is no candidate to score: collect found no usable media")
    engine = _Engine(config, place, open_memo(place.root))
    scores, rejected = engine.score(candidates)
    kept = candidates.loc[candidates["id"].isin(list(scores))].reset_index(drop=True)
    if len(rejected) > config.max_reject_share * len(candidates):
        first = next(iter(rejected.values()))
        msg = (
            f"{len(rejected)} of {len(candidates)} candidates cannot be scored, more than max_reject_share "
            f"{config.max_reject_share:g}; for example: {first}"
        )
        raise StageError(msg)
    scores_NS = np.array([scores[key] for key in kept["id"]])
    opinions = _opinions(kept, scores_NS, config, engine.versions)
    write_table(place.out / "opinions.parquet", OPINIONS, opinions)
    rejects = [
        {"stage": _STAGE, "id": key, "reason": error.reason, "detail": str(error)} for key, error in rejected.items()
    ]
    write_table(place.out / "rejects.parquet", REJECTS, frame_of(REJECTS, rejects))
    return _report(candidates, kept, opinions, scores_NS, engine)


class _Engine:
    """Scores candidates through the memo; threads share the scorers, each forward pass runs on one thread."""

    def __init__(self, config: Config, place: Place, memo: OpinionMemo) -> None:
        self._config, self._place, self._memo = config, place, memo
        self._rule = FrameRule(config.frames, config.clips)
        self.scorers = load_scorers(config.scorers, config.backend, threads=1)
        self.versions = {
            modality: [opinion_version(scorer, modality, self._rule, config.backend) for scorer in self.scorers]
            for modality in Modality
        }

    def score(self, candidates: pd.DataFrame) -> tuple[dict[str, Floats], dict[str, MediaError]]:
        """Scores ``[S]`` by candidate id, and the errors of those that cannot be scored."""
        known = {
            (scorer.name, version): self._memo.lookup(scorer.name, version)
            for versions in self.versions.values()
            for scorer, version in zip(self.scorers, versions, strict=True)
        }
        contents = candidates.drop_duplicates("bytes_sha256")
        todo = [row for row in contents.to_dict("records") if any(self._wanted(row, known))]
        log.info("score: %d of %d contents need computing", len(todo), len(contents))
        failed: dict[str, MediaError] = {}
        workers = os.cpu_count() or 1
        with ThreadPoolExecutor(workers) as pool, tqdm(total=len(todo), desc=_STAGE, unit="medium") as bar:
            for start in range(0, len(todo), self._config.batch):
                futures = [
                    (row, pool.submit(self._compute, row, self._wanted(row, known)))
                    for row in todo[start : start + self._config.batch]
                ]
                self._flush(self._gather(futures, failed, bar), known)
        scores: dict[str, Floats] = {}
        rejected: dict[str, MediaError] = {}
        for row in candidates.to_dict("records"):
            content = row["bytes_sha256"]
            if content in failed:
                rejected[row["id"]] = failed[content]
            else:
                versions = zip(self.scorers, self.versions[Modality(row["modality"])], strict=True)
                scores[row["id"]] = np.array([known[scorer.name, version][content] for scorer, version in versions])
        return scores, rejected

    def _wanted(self, row: dict[Any, Any], known: dict[tuple[str, str], dict[str, float]]) -> list[bool]:
        """Which scorers have no score of this content yet, ``[S]``."""
        versions = self.versions[Modality(row["modality"])]
        return [
            row["bytes_sha256"] not in known[scorer.name, version]
            for scorer, version in zip(self.scorers, versions, strict=True)
        ]

    def _compute(self, row: dict[Any, Any], wanted: list[bool]) -> dict[tuple[str, str], float]:
        chosen = [index for index, is_wanted in enumerate(wanted) if is_wanted]
        data = read_media(self._place, row)
        scores = scores_of(data, [self.scorers[index] for index in chosen], self._rule, ADMITTED)
        versions = self.versions[Modality(row["modality"])]
        names = [(self.scorers[index].name, versions[index]) for index in chosen]
        return dict(zip(names, map(float, scores), strict=True))

    def _gather(
        self,
        futures: Sequence[tuple[dict[Any, Any], Future[dict[tuple[str, str], float]]]],
        failed: dict[str, MediaError],
        bar: "tqdm[Any]",
    ) -> Iterator[tuple[str, dict[tuple[str, str], float]]]:
        for row, future in futures:
            try:
                yield row["bytes_sha256"], future.result()
            except MediaError as error:
                failed[row["bytes_sha256"]] = error
            bar.update()

    def _flush(
        self,
        computed: Iterator[tuple[str, dict[tuple[str, str], float]]],
        known: dict[tuple[str, str], dict[str, float]],
    ) -> None:
        fresh: dict[tuple[str, str], dict[str, float]] = {}
        for content, scores in computed:
            for key, score in scores.items():
                fresh.setdefault(key, {})[content] = score
        for (name, version), scores in fresh.items():
            self._memo.add(name, version, scores)
            known[name, version].update(scores)


def opinion_version(scorer: Scorer, modality: Modality, rule: FrameRule, backend: str) -> str:
    """What an opinion of this scorer depends on besides the content: its version, and how videos are sampled."""
    version = scorer.version if backend == "onnx" else f"{scorer.version}+{backend}"
    if modality is Modality.IMAGE or isinstance(scorer.sampling, Excerpt):  # an excerpt's rule is the scorer's own
        return version
    return f"{version}+{rule.clips}clips" if scorer.sampling is Sampling.CLIPS else f"{version}+{rule.frames}frames"


def _opinions(
    kept: pd.DataFrame, scores_NS: Floats, config: Config, versions: dict[Modality, list[str]]
) -> pd.DataFrame:
    summary = summarise(scores_NS)
    return pd.DataFrame(
        {
            "id": kept["id"],
            "bytes_sha256": kept["bytes_sha256"],
            "scorers": [list(config.scorers)] * len(kept),
            "versions": [versions[Modality(modality)] for modality in kept["modality"]],
            "scores": list(scores_NS),
            "mu": summary.mu_N,
            "sigma": summary.sigma_N,
            "pmod": list(summary.pmod_N5),
            "mu_clamped": summary.clamped_N,
        }
    )


def _report(
    candidates: pd.DataFrame, kept: pd.DataFrame, opinions: pd.DataFrame, scores_NS: Floats, engine: _Engine
) -> Report:
    names = [scorer.name for scorer in engine.scorers]
    mu = opinions["mu"].to_numpy()
    severity = _severity_srcc(kept, mu)
    return Report(
        candidates=len(candidates),
        opinions=len(opinions),
        rejects=len(candidates) - len(opinions),
        mu_mean=_rounded(mu.mean()),
        mu_std=_rounded(mu.std()),
        sigma_mean=_rounded(opinions["sigma"].mean()),
        mu_clamped=int(np.count_nonzero(opinions["mu_clamped"].to_numpy())),
        scorers={
            scorer.name: ScorerSummary(
                scorer.version,
                _rounded(scores_NS[:, index].mean()),
                _rounded(scores_NS[:, index].std()),
                _srcc(scores_NS[:, index], np.delete(scores_NS, index, axis=1).mean(axis=1)) if len(names) > 1 else 1.0,
            )
            for index, scorer in enumerate(engine.scorers)
        },
        srcc={
            f"{names[i]}~{names[j]}": _srcc(scores_NS[:, i], scores_NS[:, j])
            for i, j in combinations(range(len(names)), 2)
        },
        severity_srcc=severity,
        severity_srcc_mean=_rounded(np.mean(list(severity.values()))) if severity else 0.0,
        below_parent=_below_parent(kept, mu),
    )


def _severity_srcc(kept: pd.DataFrame, mu: Floats) -> dict[str, float]:
    """Rank correlation of mu with strength within each distortion that enough children have."""
    found: dict[str, float] = {}
    for kind, rows in kept.dropna(subset=["distortion"]).groupby("distortion"):
        strengths = np.array(
            [strength(str(kind), severity) for severity in rows["severity"].to_numpy(dtype=int).tolist()]
        )
        if len(rows) >= _FEWEST_FOR_SRCC and len(set(strengths)) > 1:
            found[str(kind)] = _srcc(mu[rows.index.to_numpy()], strengths)
    return found


def _below_parent(kept: pd.DataFrame, mu: Floats) -> float:
    """Share of scored children that score below their scored original; 0 where there is none."""
    of = dict(zip(kept["id"], mu, strict=True))
    pairs = [
        (of[parent], score)
        for parent, score in zip(kept["parent_id"], mu, strict=True)
        if isinstance(parent, str) and parent in of
    ]
    return _rounded(np.mean([child < parent for parent, child in pairs])) if pairs else 0.0


def _srcc(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    ranks = [pd.Series(values).rank().to_numpy() for values in (first, second)]
    if min(np.ptp(rank) for rank in ranks) == 0:
        return 0.0
    return _rounded(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _rounded(value: Any) -> float:
    return round(float(value), 4)
