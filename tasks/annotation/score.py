"""Score every candidate: six calibrated scores, their mean and spread, and the distribution over the five levels.

Scores come from the opinion store where it has them; only what is missing is computed, each medium decoded once for all
scorers that need it, by the engine that the parameters name. Finished batches go to the store at once, so a killed run
loses one batch.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from models.distortions import strength
from models.opinion import summarise
from models.scorers import missing_weights
from tasks.annotation.opinions import FrameRule
from tasks.annotation.panel import Job, Judged, PanelConfig, Seat, TorchConfig, expected_seats, opinion_version
from tasks.annotation.score_local import LocalEngine
from tasks.errors import StageError
from tasks.memo import OpinionMemo, open_memo
from tasks.pool import load_candidates
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
        engine: ``local``, or ``ray`` for a cluster; both give the same scores.
        ahead: decoded media that wait for scorers at most, on one machine: memory, not results.
        torch: how scorers run that take a runtime.
    """

    scorers: tuple[str, ...]
    frames: int
    clips: int
    backend: Literal["onnx", "torch"]
    batch: int
    max_reject_share: float
    engine: Literal["local", "ray"] = "local"
    ahead: int = 16
    torch: TorchConfig = field(default_factory=TorchConfig)

    def __post_init__(self) -> None:
        if not self.scorers or len(set(self.scorers)) != len(self.scorers):
            raise ValueError("scorers must be one or more different names")
        if min(self.batch, self.ahead) < 1 or not 0.0 <= self.max_reject_share < 1.0:
            raise ValueError("batch and ahead must be at least 1 and max_reject_share in [0, 1)")
        FrameRule(self.frames, self.clips)

    @property
    def panel(self) -> PanelConfig:
        """Who scores, and what they see."""
        return PanelConfig(self.scorers, self.backend, FrameRule(self.frames, self.clips), self.torch)


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
    ledger = _complete(config, place, candidates)
    scores, rejected = ledger.by_candidate(candidates)
    kept = candidates.loc[candidates["id"].isin(list(scores))].reset_index(drop=True)
    if len(rejected) > config.max_reject_share * len(candidates):
        first = next(iter(rejected.values()))[1]
        msg = (
            f"{len(rejected)} of {len(candidates)} candidates cannot be scored, more than max_reject_share "
            f"{config.max_reject_share:g}; for example: {first}"
        )
        raise StageError(msg)
    scores_NS = np.array([scores[key] for key in kept["id"]])
    opinions = _opinions(kept, scores_NS, config, ledger.versions)
    write_table(place.out / "opinions.parquet", OPINIONS, opinions)
    rejects = [
        {"stage": _STAGE, "id": key, "reason": reason, "detail": detail} for key, (reason, detail) in rejected.items()
    ]
    write_table(place.out / "rejects.parquet", REJECTS, frame_of(REJECTS, rejects))
    return _report(candidates, kept, opinions, scores_NS, ledger.seats)


class Engine(Protocol):
    """Where scores are computed."""

    @property
    def seats(self) -> tuple[Seat, ...]:
        """The admitted scorers, in order."""
        ...

    def judged(self, jobs: Sequence[Job]) -> Iterator[Judged]:
        """Judge all jobs, a group as soon as it is done."""
        ...


@contextmanager
def _engine(config: Config, place: Place) -> Iterator[Engine]:
    if config.engine == "local":
        yield LocalEngine(config.panel, place, config.ahead)
        return
    from tasks.annotation.score_ray import ray_engine  # noqa: PLC0415 - one machine does without

    with ray_engine(config.panel, place) as engine:
        yield engine


class _Ledger:
    """What is known of every content: scores of the opinion store, and those that this run adds to it."""

    def __init__(self, config: Config, seats: Sequence[Seat], memo: OpinionMemo) -> None:
        self._memo, self.seats = memo, tuple(seats)
        self.versions = {m: [opinion_version(seat, m, config.panel) for seat in seats] for m in Modality}
        self._known = {
            (seat.name, version): memo.lookup(seat.name, version)
            for versions in self.versions.values()
            for seat, version in zip(seats, versions, strict=True)
        }
        self._problems: dict[str, tuple[str, str]] = {}

    def jobs(self, candidates: pd.DataFrame) -> list[Job]:
        """What must be computed, content by content."""
        contents = candidates.drop_duplicates("bytes_sha256").to_dict("records")
        jobs = [Job(row["bytes_sha256"], _lean(row), tuple(self._missing(row))) for row in contents]
        return [job for job in jobs if job.wanted]

    def save(self, fresh: Sequence[tuple[Job, Mapping[str, float], tuple[str, str] | None]]) -> None:
        """Remember the scores of jobs that are done."""
        found: dict[tuple[str, str], dict[str, float]] = {}
        for job, scores, problem in fresh:
            if problem is not None:
                self._problems[job.content] = problem
            for name, version in self._keys(job.row["modality"]):
                if name in scores:
                    found.setdefault((name, version), {})[job.content] = scores[name]
        for (name, version), scores in found.items():
            self._memo.add(name, version, scores)
            self._known[name, version].update(scores)

    def by_candidate(self, candidates: pd.DataFrame) -> tuple[dict[str, Floats], dict[str, tuple[str, str]]]:
        """Scores ``[S]`` by candidate id, and reason and message for those that cannot be scored."""
        scores: dict[str, Floats] = {}
        rejected: dict[str, tuple[str, str]] = {}
        for row in candidates.to_dict("records"):
            content = row["bytes_sha256"]
            if content in self._problems:
                rejected[row["id"]] = self._problems[content]
            else:
                scores[row["id"]] = np.array([self._known[key][content] for key in self._keys(row["modality"])])
        return scores, rejected

    def _missing(self, row: Mapping[Any, Any]) -> Iterator[str]:
        for name, version in self._keys(row["modality"]):
            if row["bytes_sha256"] not in self._known[name, version]:
                yield name

    def _keys(self, modality: str) -> Iterator[tuple[str, str]]:
        """Name and version of each seat."""
        for seat, version in zip(self.seats, self.versions[Modality(modality)], strict=True):
            yield seat.name, version


def _complete(config: Config, place: Place, candidates: pd.DataFrame) -> _Ledger:
    """A ledger with all that can be known; where the opinion store has everything, no scorer is loaded."""
    memo = open_memo(place.root)
    ledger = _Ledger(config, expected_seats(config.panel), memo)
    if not ledger.jobs(candidates):
        log.info("score: the opinion store has every score")
        return ledger
    with _engine(config, place) as engine:
        ledger = _Ledger(config, engine.seats, memo)
        _compute(ledger, engine, candidates, config.batch)
    return ledger


def _compute(ledger: _Ledger, engine: Engine, candidates: pd.DataFrame, batch: int) -> None:
    """Compute what is missing; what is done is saved by batches, also when something fails."""
    jobs = ledger.jobs(candidates)
    log.info("score: %d of %d contents need computing", len(jobs), candidates["bytes_sha256"].nunique())
    by_content = {job.content: job for job in jobs}
    fresh: list[tuple[Job, Mapping[str, float], tuple[str, str] | None]] = []
    waited_s = worked_s = 0.0
    with tqdm(total=len(jobs), desc=_STAGE, unit="medium") as bar:
        try:
            for judged in engine.judged(jobs):
                waited_s, worked_s = waited_s + judged.waited_s, worked_s + judged.worked_s
                for outcome in judged.outcomes:
                    fresh.append((by_content[outcome.content], outcome.scores, outcome.problem))
                    if len(fresh) >= batch:
                        ledger.save(fresh)
                        fresh.clear()
                bar.update(len(judged.outcomes))
        finally:
            ledger.save(fresh)
    if jobs:
        share = waited_s / max(waited_s + worked_s, 1e-9)
        log.info("score: decode-wait share %.2f: scorers waited %.1f s, worked %.1f s", share, waited_s, worked_s)


def _lean(row: Mapping[Any, Any]) -> dict[str, Any]:
    """What is needed to read a medium."""
    return {name: row[name] for name in ("stage", "shard", "offset", "length", "modality")}


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
    candidates: pd.DataFrame, kept: pd.DataFrame, opinions: pd.DataFrame, scores_NS: Floats, seats: Sequence[Seat]
) -> Report:
    names = [seat.name for seat in seats]
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
            seat.name: ScorerSummary(
                seat.full_version,
                _rounded(scores_NS[:, index].mean()),
                _rounded(scores_NS[:, index].std()),
                _srcc(scores_NS[:, index], np.delete(scores_NS, index, axis=1).mean(axis=1)) if len(names) > 1 else 1.0,
            )
            for index, seat in enumerate(seats)
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
