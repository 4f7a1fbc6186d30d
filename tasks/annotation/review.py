"""Stage ``review``: three judges, three rounds, unanimity; then the annotator's self-review.

Every assertion is put to every judge in every round, each on pixels of its own. Votes come from the answer store where
somebody has paid for them before, and go there at once. Planted assertions take part like all others, which measures
the review; they keep their origin and never become training text.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd
from tqdm import tqdm

from infra.dvc_store import shared_store
from models.judges import (
    Assertion,
    Bands,
    Judge,
    Outcome,
    Vote,
    decide,
    decide_self_review,
    embedded_annotator,
    embedded_judges,
)
from models.signals.evidence import Evidence, Medium, draw_evidence
from models.signals.scale import Thresholds, load_thresholds
from tasks.annotation import agreement
from tasks.annotation.answers import ANSWERS, AnswerBook, Question, recover, snapshot_rows
from tasks.annotation.parts import counts_of, each_part, rows_of
from tasks.annotation.sample_pixels import load_pixels
from tasks.pool import load_candidates
from tasks.records import ASSERTIONS, REJECTS, REVIEWED, VOTES, Origin, Split
from tasks.shards import TableParts, digest, frame_of, read_table, write_table
from tasks.stage import Place

log = logging.getLogger(__name__)

SELF: Final = "self"


_Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Config:
    """Parameters of ``review``.

    Attributes:
        rounds: votes of each judge per ballot (VITAL: 3).
        max_revisions: revised texts that are voted on again (VITAL: slight inconsistency adopts the revision).
        frames: consecutive frames of a clip that are looked at, from its middle.
        part_samples: samples per part of the work.
        bands: where measured probabilities become verdicts.
        processes: worker processes.
    """

    rounds: int
    max_revisions: int
    frames: int
    part_samples: int
    bands: Bands
    processes: int = 2

    def __post_init__(self) -> None:
        if min(self.rounds, self.frames, self.part_samples) < 1 or self.max_revisions < 0:
            raise ValueError("rounds, frames and part_samples must be at least 1, max_revisions at least 0")


@dataclass(frozen=True)
class Report:
    """What came of it; ``assertions`` = ``kept`` + ``rejected``.

    Attributes:
        kept_share: of the describer's assertions.
        planted: shares for planted assertions, over all contents; ``planted_unseen`` leaves out the training contents,
            on which the judges' thresholds were fitted.
        judge_agreement: share of equal verdicts on the first ballot, per pair.
        judge_errors: share of wrong first-ballot votes on planted assertions.
        error_phi: correlation of two judges' errors; ``round_phi`` of one judge's errors between its rounds.
    """

    assertions: int
    kept: int
    rejected: int
    by_reason: dict[str, int]
    kept_share: float | None
    votes: int
    revised: int
    planted: dict[str, Any]
    planted_unseen: dict[str, Any]
    judge_agreement: dict[str, float]
    judge_errors: dict[str, float]
    error_phi: dict[str, float | None]
    round_phi: dict[str, float | None]


@dataclass(frozen=True)
class _Job:
    place: Place
    part: str
    samples: list[tuple[dict[str, Any], list[dict[str, Any]]]]
    config: Config


@dataclass
class _Matter:
    """One assertion on its way through the protocol."""

    row: dict[str, Any]
    text: str
    outcome: Outcome | None = None


@dataclass
class _Panel:
    """The judges of one sample, the evidence they draw, and every vote they cast."""

    sample: dict[str, Any]
    medium: Callable[[], Medium]
    thresholds: Thresholds
    book: AnswerBook
    votes: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[Question, Vote] = field(default_factory=dict)
    _evidence: dict[tuple[str, int], Evidence] = field(default_factory=dict)

    def ballot(
        self, matters: list[_Matter], seats: list[tuple[Judge, int]], phase: str, attempt: int
    ) -> list[list[Vote]]:
        """Put texts to judges; a list of votes per text, in the order of the seats (judge, round)."""
        asked = [(matter, judge, turn) for matter in matters for judge, turn in seats]
        questions = [self._question(matter.text, judge, turn) for matter, judge, turn in asked]
        judges = {question: (judge, turn) for question, (_, judge, turn) in zip(questions, asked, strict=True)}

        def ask(question: Question) -> Vote:
            judge, turn = judges[question]
            assertion = Assertion(question.assertion, str(self.sample["modality"]))
            return judge.vote(assertion, self._drawn(judge.name, turn), turn)

        votes = self.book.votes(questions, ask)
        self.answers.update(zip(questions, votes, strict=True))
        for (matter, judge, turn), vote in zip(asked, votes, strict=True):
            key = {"assertion_id": matter.row["assertion_id"], "id": matter.row["id"], "phase": phase}
            who = {"judge": judge.name, "model": judge.model, "prompt_version": judge.prompt_version}
            what = {"verdict": str(vote.verdict), "revision": vote.revision, "reason": vote.reason}
            self.votes.append({**key, **who, "round": turn, "attempt": attempt, **what})
        return [votes[start : start + len(seats)] for start in range(0, len(votes), len(seats))]

    def _question(self, text: str, judge: Judge, turn: int) -> Question:
        return Question(self.sample["bytes_sha256"], text, judge.name, judge.model, judge.prompt_version, turn)

    def _drawn(self, name: str, turn: int) -> Evidence:
        if (name, turn) not in self._evidence:
            seed = (self.sample["id"], name, turn)
            self._evidence[name, turn] = draw_evidence(self.medium(), self.thresholds.evidence, *seed)
        return self._evidence[name, turn]


def run(config: Config, place: Place) -> Report:
    """Write ``votes``, ``reviewed``, ``rejects`` and the snapshot ``answers/answers.parquet``.

    Raises:
        StageError: an input is missing, or another review is running in this workspace.
        InfraError: the answer store cannot be reached.
    """
    store = shared_store(place.root)
    store.check()
    recover(store, _journals(place))
    assertions = rows_of(read_table(place.artifacts("describe") / "assertions.parquet", ASSERTIONS))
    candidates = rows_of(load_candidates(place))
    jobs = _jobs(config, place, candidates, assertions)
    total, left = len({row["id"] for row in assertions}), sum(len(job.samples) for job in jobs)
    with tqdm(total=total, initial=total - left, desc="review", unit="sample") as bar:
        each_part(_review_part, jobs, config.processes, bar)
    votes, reviewed, answers = (_parts(place)[name].read() for name in ("votes", "reviewed", "answers"))
    outcomes = rows_of(reviewed)
    rejects = frame_of(REJECTS, (_reject(row) for row in outcomes if not row["kept"]))
    write_table(place.out / "votes.parquet", VOTES, votes)
    write_table(place.out / "reviewed.parquet", REVIEWED, reviewed)
    write_table(place.out / "rejects.parquet", REJECTS, rejects)
    write_table(place.out / "answers" / "answers.parquet", ANSWERS, answers)
    unseen = {row["id"] for row in candidates if row["split"] != Split.TRAIN}
    return summarise({row["assertion_id"]: row["text"] for row in assertions}, rows_of(votes), outcomes, unseen)


def _journals(place: Place) -> Path:
    return place.root / ".vital" / "journal"


def _parts(place: Place) -> dict[str, TableParts]:
    tables = {"votes": VOTES, "reviewed": REVIEWED, "answers": ANSWERS}
    return {name: TableParts(place.work / name, rows) for name, rows in tables.items()}


def _jobs(config: Config, place: Place, candidates: _Rows, assertions: _Rows) -> list[_Job]:
    """Cut the samples, ordered by content hash, into parts that are not finished yet."""
    groups: dict[str, _Rows] = {}
    for row in assertions:
        groups.setdefault(row["id"], []).append(row)
    told = [sample for sample in candidates if sample["id"] in groups]
    samples = sorted(told, key=lambda sample: (sample["bytes_sha256"], sample["id"]))
    done, jobs = _parts(place)["reviewed"], []
    for start in range(0, len(samples), config.part_samples):
        rows = [(sample, groups[sample["id"]]) for sample in samples[start : start + config.part_samples]]
        part = digest(*(sample["id"] for sample, _ in rows))
        if not done.has(part):
            jobs.append(_Job(place, part, rows, config))
    return jobs


def _review_part(job: _Job) -> int:
    thresholds = load_thresholds()
    judges = embedded_judges(thresholds, job.config.bands)
    annotator = embedded_annotator(thresholds, job.config.bands)
    tables: dict[str, list[Any]] = {"votes": [], "reviewed": [], "answers": []}
    contents = {sample["bytes_sha256"] for sample, _ in job.samples}
    with AnswerBook(shared_store(job.place.root), _journals(job.place) / f"{job.part}.jsonl", contents) as book:
        for sample, rows in job.samples:
            panel = _Panel(sample, _medium_once(job, sample), thresholds, book)
            matters = review_sample(rows, panel, (judges, annotator), job.config)
            tables["votes"] += panel.votes
            tables["reviewed"] += [_outcome(matter) for matter in matters]
            tables["answers"].append(snapshot_rows(panel.answers, panel.answers.values()))
        book.commit()
    parts = _parts(job.place)
    parts["votes"].add(job.part, frame_of(VOTES, tables["votes"]))
    merged = pd.concat(tables["answers"], ignore_index=True).drop_duplicates(list(ANSWERS.key))
    parts["answers"].add(job.part, merged)
    parts["reviewed"].add(job.part, frame_of(REVIEWED, tables["reviewed"]))  # last: it says that the part is complete
    return len(job.samples)


def _medium_once(job: _Job, sample: dict[str, Any]) -> Callable[[], Medium]:
    """Decode a sample when the first question about it is asked; answered samples are never decoded."""
    kept: list[Medium] = []

    def medium() -> Medium:
        if not kept:
            kept.append(Medium(load_pixels(job.place, sample, job.config.frames)))
        return kept[0]

    return medium


def review_sample(
    rows: list[dict[str, Any]], panel: _Panel, bench: tuple[tuple[Judge, ...], tuple[Judge, ...]], config: Config
) -> list[_Matter]:
    """Take all assertions about one sample through the protocol.

    Args:
        rows: of ASSERTIONS.
        panel: the sample's evidence and answers; collects the votes.
        bench: the judges, and the annotator under its reworded prompts.
        config: rounds and revisions.
    """
    judges, annotator = bench
    matters = [_Matter(row, row["text"]) for row in rows]
    seats = [(judge, turn) for judge in judges for turn in range(1, config.rounds + 1)]
    pending = matters
    for attempt in range(config.max_revisions + 1):
        for matter, votes in zip(pending, panel.ballot(pending, seats, agreement.CROSS, attempt), strict=True):
            decision = decide(votes, attempt, config.max_revisions)
            matter.outcome, matter.text = decision.outcome, decision.revision or matter.text
        pending = [matter for matter in pending if matter.outcome is None]
        if not pending:
            break
    kept = [matter for matter in matters if matter.outcome is Outcome.UNANIMOUS]
    _mark_duplicates(kept)
    kept = [matter for matter in kept if matter.outcome is Outcome.UNANIMOUS]
    again = [(judge, turn) for turn, judge in enumerate(annotator, start=1)]
    for matter, votes in zip(kept, panel.ballot(kept, again, SELF, 0), strict=True):
        matter.outcome = decide_self_review(votes)
    return matters


def _mark_duplicates(kept: list[_Matter]) -> None:
    """Revisions can make two assertions of one origin equal: the first stays."""
    seen: set[tuple[str, str]] = set()
    for matter in kept:
        key = (matter.row["origin"], matter.text)
        if key in seen:
            matter.outcome = Outcome.DUPLICATE
        seen.add(key)


def _outcome(matter: _Matter) -> dict[str, Any]:
    kept = matter.outcome is Outcome.UNANIMOUS
    return {**matter.row, "text": matter.text, "kept": kept, "reason": str(matter.outcome)}


def _reject(row: dict[str, Any]) -> dict[str, Any]:
    return {"stage": "review", "id": row["assertion_id"], "reason": row["reason"], "detail": row["text"]}


def summarise(texts: Mapping[str, str], votes: _Rows, reviewed: _Rows, unseen: set[str]) -> Report:
    """Counts and shares of one review.

    Args:
        texts: assertion_id -> text before review.
        votes: rows of VOTES.
        reviewed: rows of REVIEWED.
        unseen: samples whose contents trained nothing.
    """
    ballots = agreement.first_ballots(votes)
    truth = {row["assertion_id"]: bool(row["planted_truth"]) for row in reviewed if row["origin"] == Origin.PLANTED}
    errors = agreement.planted_errors(ballots, truth)
    kept = sum(bool(row["kept"]) for row in reviewed)
    return Report(
        assertions=len(reviewed),
        kept=kept,
        rejected=len(reviewed) - kept,
        by_reason=counts_of(row["reason"] for row in reviewed),
        kept_share=agreement.share(row["kept"] for row in reviewed if row["origin"] == Origin.DESCRIBER),
        votes=len(votes),
        revised=sum(row["text"] != texts[row["assertion_id"]] for row in reviewed),
        planted=agreement.planted_outcomes(reviewed, texts),
        planted_unseen=agreement.planted_outcomes([row for row in reviewed if row["id"] in unseen], texts),
        judge_agreement=agreement.pairwise_agreement(ballots),
        judge_errors=agreement.error_rates(errors),
        error_phi=agreement.error_correlations(errors),
        round_phi=agreement.round_correlations(errors),
    )
