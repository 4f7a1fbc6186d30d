"""Stage ``review``: three judges, three rounds, unanimity; then the annotator's self-review.

Every assertion is put to every judge in every round: measuring judges look at pixels of their own, LMMs behind
endpoints at the whole medium. Votes come from the answer store where somebody has paid for them before, and go there at
once. Planted assertions take part like all others, which measures the review; they keep their origin and never become
training text.
"""

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from infra.dvc_store import shared_store
from models.judges import Bands, Outcome, Verdict, Vote, embedded_annotator, embedded_judges
from models.signals.evidence import Evidence, Medium, draw_evidence
from models.signals.scale import Thresholds, load_thresholds
from tasks.annotation import agreement
from tasks.annotation.answers import AnswerBook, recover, snapshot_rows, spending_folder
from tasks.annotation.batches import desk_in_mode
from tasks.annotation.calls import stored_calls, write_costs
from tasks.annotation.desk import Desk
from tasks.annotation.exhibits import Exhibits, ShownMedia
from tasks.annotation.forecast import forecast
from tasks.annotation.leases import lease
from tasks.annotation.parts import counts_of, each_part, rows_of
from tasks.annotation.protocol import Ask, Hearing, Matter, Rules, hear, next_ballot
from tasks.annotation.questions import ANSWERS, SERVED_ANSWERS, Question, question_of
from tasks.annotation.roles import ReviewEndpoints, bench_of
from tasks.annotation.sample_pixels import load_pixels
from tasks.annotation.spending import Spending
from tasks.annotation.waves import hear_together
from tasks.pool import load_candidates
from tasks.records import ASSERTIONS, REJECTS, REVIEWED, VOTES, Origin, RowSchema, Split
from tasks.shards import TableParts, digest, frame_of, read_table, write_json, write_table
from tasks.stage import Place

log = logging.getLogger(__name__)

_Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Config:
    """Parameters of ``review``.

    Attributes:
        rounds: votes of each judge per ballot (VITAL: 3).
        max_revisions: revised texts that are voted on again (VITAL: slight inconsistency adopts the revision).
        frames: consecutive frames of a clip, from its middle, that are measured; LMMs see ``endpoints.pictures``.
        part_samples: samples per part of the work.
        bands: where measured probabilities become verdicts.
        endpoints: LMMs that judge instead of measurement; null for measurement.
        processes: worker processes.
    """

    rounds: int
    max_revisions: int
    frames: int
    part_samples: int
    bands: Bands
    endpoints: ReviewEndpoints | None = None
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
class _Looks:
    """The evidence that judges draw from one sample: decoded when the first question about it is asked."""

    job: _Job
    sample: dict[str, Any]
    thresholds: Thresholds
    _medium: list[Medium] = field(default_factory=list)
    _drawn: dict[tuple[str, int], Evidence] = field(default_factory=dict)

    def medium(self) -> Medium:
        if not self._medium:
            self._medium.append(Medium(load_pixels(self.job.place, self.sample, self.job.config.frames)))
        return self._medium[0]

    def drawn(self, name: str, turn: int) -> Evidence:
        if (name, turn) not in self._drawn:
            seed = (self.sample["id"], name, turn)
            self._drawn[name, turn] = draw_evidence(self.medium(), self.thresholds.evidence, *seed)
        return self._drawn[name, turn]


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
    answers_rows = ANSWERS if config.endpoints is None else SERVED_ANSWERS
    with tqdm(total=total, initial=total - left, desc="review", unit="sample") as bar:
        if config.endpoints is None:
            each_part(_review_part, jobs, config.processes, bar)
        else:
            _ask_parts(config.endpoints, jobs, account_of(config, assertions), bar)
    votes, reviewed, answers = (_parts(place, answers_rows)[name].read() for name in ("votes", "reviewed", "answers"))
    outcomes = rows_of(reviewed)
    rejects = frame_of(REJECTS, (_reject(row) for row in outcomes if not row["kept"]))
    write_table(place.out / "votes.parquet", VOTES, votes)
    write_table(place.out / "reviewed.parquet", REVIEWED, reviewed)
    write_table(place.out / "rejects.parquet", REJECTS, rejects)
    write_table(place.out / "answers" / "answers.parquet", answers_rows, answers)
    if config.endpoints is not None:
        write_json(place.out / "malformed.json", malformed_counts(rows_of(votes)))
        used = {question_of(row).key: row["content"] for row in rows_of(answers)}
        calls = stored_calls(shared_store(place.root), set(used.values()))
        write_costs(place, "review", (row for row in calls if row["call"] in used), account_of(config, assertions))
    unseen = {row["id"] for row in candidates if row["split"] != Split.TRAIN}
    return summarise({row["assertion_id"]: row["text"] for row in assertions}, rows_of(votes), outcomes, unseen)


def foresee(config: Config, root: Path) -> list[str]:
    """What a review would ask of endpoints and pay, one line; nothing for judges that measure."""
    if config.endpoints is None:
        return []
    if not (root / "artifacts" / "describe" / "assertions.parquet").is_file():
        return [f"the number of calls is known when describe has run: {_plan_of(root)}"]
    found = forecast(config.endpoints, Place(root, root, root), config.rounds, config.max_revisions)
    least, most = (sum(getattr(one, name) for one in found) for name in ("least", "most"))
    tokens = sum(one.tokens_in + one.tokens_out for one in found)
    cost, most_cost = sum(one.cost for one in found), sum(one.most_cost for one in found)
    told = f"{least:,} calls (at most {most:,}), about {tokens:,} tokens, cost {cost:.2f} (at most {most_cost:.2f})"
    told += ", by batch files" if config.endpoints.mode == "batch" else ""
    return [f"{told}; {_plan_of(root)} tells more"]


def _plan_of(root: Path) -> str:
    """The command that tells more, of this workspace wherever it is given."""
    return f"vital review plan --workspace {shlex.quote(str(root))}"


def _journals(place: Place) -> Path:
    return place.root / ".vital" / "journal"


def _parts(place: Place, answers_rows: RowSchema = ANSWERS) -> dict[str, TableParts]:
    tables = {"votes": VOTES, "reviewed": REVIEWED, "answers": answers_rows}
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
    """Review some samples by measurement, one after the other."""
    thresholds, bands = load_thresholds(), job.config.bands
    judges, annotator = embedded_judges(thresholds, bands), embedded_annotator(thresholds, bands)
    rules = Rules(judges, annotator, job.config.rounds, job.config.max_revisions)
    contents = {sample["bytes_sha256"] for sample, _ in job.samples}
    hearings = []
    with AnswerBook(shared_store(job.place.root), _journals(job.place) / f"{job.part}.jsonl", contents) as book:
        for sample, rows in job.samples:
            hearing = Hearing([Matter(row, row["text"]) for row in rows])
            _measure(hearing, _Looks(job, sample, thresholds), rules, book)
            hearings.append(hearing)
        book.commit()
    return _store_part(job, hearings, ANSWERS)


def _measure(hearing: Hearing, looks: _Looks, rules: Rules, book: AnswerBook[Vote]) -> None:
    ballots = hear(hearing, looks.sample, rules)
    votes: Sequence[Vote] | None = None
    while (asks := next_ballot(ballots, votes)) is not None:
        places = {ask.question: ask for ask in asks}

        def measured(question: Question, places: dict[Question, Ask] = places) -> Vote:
            ask = places[question]
            evidence = looks.drawn(ask.seat.judge.name, ask.seat.turn)
            return ask.seat.judge.vote(ask.assertion, evidence, ask.seat.turn)

        votes = book.votes([ask.question for ask in asks], measured)


def _ask_parts(endpoints: ReviewEndpoints, jobs: Sequence[_Job], account: str, bar: tqdm) -> None:
    """Review by asking, part after part; each part's questions are put to all roles at once."""
    if not jobs:
        return
    place, config = jobs[0].place, jobs[0].config
    rules = Rules(*bench_of(endpoints), config.rounds, config.max_revisions)
    budget = Spending(spending_folder(_journals(place)), account, endpoints.budget)
    desk = Desk(endpoints.roles, Exhibits(endpoints.pictures), budget, account)
    answer = desk_in_mode(desk, endpoints, place.root).answer
    media = ShownMedia(place, endpoints.pictures)
    for job in jobs:
        contents = {sample["bytes_sha256"] for sample, _ in job.samples}
        journal = _journals(place) / f"{job.part}.jsonl"
        samples = [(sample, Hearing([Matter(row, row["text"]) for row in rows])) for sample, rows in job.samples]
        store = shared_store(place.root)
        with lease(store, job.part, place.root), AnswerBook(store, journal, contents, account=account) as book:
            hear_together(samples, rules, media, book, answer)
            book.commit()
        media.forget()
        bar.update(_store_part(job, [hearing for _, hearing in samples], SERVED_ANSWERS))
    told = desk.spending.spent
    log.info("review: %d calls, %.4f spent for this review so far", told.calls, told.cost)


def account_of(config: Config, assertions: Sequence[Mapping[str, Any]]) -> str:
    """Name of the account of one review: the same for the same assertions and judges, killed or not."""
    endpoints = config.endpoints
    models = [] if endpoints is None else [(name, role.model) for name, role in endpoints.roles.items()]
    ids = sorted(row["assertion_id"] for row in assertions)
    return f"review-{digest(ids, models, config.rounds, config.max_revisions)[:16]}"


def malformed_counts(votes: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Judge -> broken rule -> how many of its answers broke it."""
    broken = [row for row in votes if row["verdict"] == Verdict.MALFORMED]
    return {
        judge: counts_of(row["reason"] for row in broken if row["judge"] == judge)
        for judge in sorted({row["judge"] for row in broken})
    }


def _store_part(job: _Job, hearings: Sequence[Hearing], answers_rows: RowSchema) -> int:
    parts = _parts(job.place, answers_rows)
    parts["votes"].add(job.part, frame_of(VOTES, [row for hearing in hearings for row in hearing.votes]))
    answers = {question: vote for hearing in hearings for question, vote in hearing.answers.items()}
    parts["answers"].add(job.part, snapshot_rows(answers, answers.values(), answers_rows))
    reviewed = [_outcome(matter) for hearing in hearings for matter in hearing.matters]
    parts["reviewed"].add(job.part, frame_of(REVIEWED, reviewed))  # last: it says that the part is complete
    return len(job.samples)


def _outcome(matter: Matter) -> dict[str, Any]:
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
