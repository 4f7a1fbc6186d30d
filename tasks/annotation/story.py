"""One sample's whole story in review: what was said of it, every vote, every revision, the self-review, the outcome."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.dvc_store import shared_store
from infra.errors import InfraError
from tasks.annotation.agreement import CROSS
from tasks.annotation.answers import read_snapshot
from tasks.annotation.calls import stored_calls
from tasks.annotation.parts import rows_of
from tasks.annotation.protocol import SELF
from tasks.annotation.questions import Question, question_of
from tasks.errors import StageError
from tasks.pool import load_candidates
from tasks.records import ASSERTIONS, REVIEWED, VOTES
from tasks.shards import read_table
from tasks.stage import Place

_Row = dict[str, Any]


@dataclass(frozen=True)
class BallotTold:
    """One ballot: its text, and votes with what their calls took (None where nothing was paid)."""

    phase: str
    attempt: int
    text: str
    votes: list[_Row]


@dataclass(frozen=True)
class AssertionTold:
    """One assertion from first text to outcome."""

    assertion_id: str
    text: str
    origin: str
    planted_truth: bool | None
    ballots: list[BallotTold]
    kept: bool
    outcome: str
    final_text: str


@dataclass(frozen=True)
class Story:
    """A sample and all its assertions; ``calls`` and ``cost`` are of the answers that were used."""

    id: str
    source: str
    modality: str
    distortion: str | None
    severity: int
    assertions: list[AssertionTold] = field(default_factory=list)
    calls: int = 0
    cost: float = 0.0


def tell(place: Place, wanted: str) -> Story:
    """The story of the sample whose id or assertion's id is, or starts with, ``wanted``, or of the original there.

    Raises:
        StageError: no reviewed sample, or more than one, is meant; or ``review`` has not been run.
    """
    told = place.artifacts("review")
    assertions = rows_of(read_table(place.artifacts("describe") / "assertions.parquet", ASSERTIONS))
    sample = _find(place, assertions, wanted)
    mine = [row for row in assertions if row["id"] == sample["id"]]
    votes = [row for row in rows_of(read_table(told / "votes.parquet", VOTES)) if row["id"] == sample["id"]]
    outcomes = {row["assertion_id"]: row for row in rows_of(read_table(told / "reviewed.parquet", REVIEWED))}
    answers = rows_of(read_snapshot(told / "answers" / "answers.parquet"))
    book = _Book([row for row in answers if row["content"] == sample["bytes_sha256"]], _calls(place, sample))
    stories = [_assertion(row, votes, outcomes[row["assertion_id"]], book) for row in mine]
    distortion = sample["distortion"] if isinstance(sample["distortion"], str) else None
    facts = (sample["id"], sample["source"], sample["modality"], distortion, int(sample["severity"]))
    return Story(*facts, stories, len(book.used), round(sum(call["cost"] for call in book.used.values()), 6))


def _find(place: Place, assertions: Sequence[_Row], wanted: str) -> _Row:
    described = {row["id"] for row in assertions}
    by_assertion = {row["id"] for row in assertions if row["assertion_id"].startswith(wanted)} if wanted else set()
    samples = [row for row in rows_of(load_candidates(place)) if row["id"] in described]
    originals = [row for row in samples if row["source"] == wanted and not isinstance(row["distortion"], str)]
    found = [row for row in samples if row["id"] == wanted] or originals
    if wanted and not found:
        found = [row for row in samples if row["id"].startswith(wanted) or row["id"] in by_assertion]
    if len(found) != 1:
        children = [row for row in samples if row["source"] == wanted]
        some = ", ".join(row["id"][:12] for row in (found or children or samples)[:3])
        what = f"{len(found)} reviewed samples are" if found else "no reviewed sample is"
        msg = f"{what} called {wanted!r}: give more of an id, for example one of {some}"
        raise StageError(msg)
    return found[0]


def _calls(place: Place, sample: _Row) -> dict[str, _Row]:
    """Calls about a sample; none where the store cannot be reached, because they are telemetry."""
    try:
        rows = stored_calls(shared_store(place.root), [sample["bytes_sha256"]])
    except InfraError:
        return {}
    return {row["call"]: row for row in rows}


class _Book:
    """Which text a vote was about, and what it took."""

    def __init__(self, answers: Sequence[_Row], calls: Mapping[str, _Row]) -> None:
        self._questions: dict[tuple[Any, ...], Question] = {}
        for row in answers:
            question = question_of(row)
            self._questions[question.assertion, question.judge, question.prompt_version, question.round] = question
        self._texts, self._calls = {key[0] for key in self._questions}, calls
        self.used: dict[str, _Row] = {}

    def told(self, text: str, vote: _Row) -> _Row:
        question = self._questions.get((text, vote["judge"], vote["prompt_version"], vote["round"]))
        call = self._calls.get(question.key) if question is not None else None
        took = ("tokens_in", "tokens_out", "cost", "latency_s", "attempts", "replayed")
        if call is not None:
            self.used[call["call"]] = call
        shown = ("judge", "model", "prompt_version", "round", "verdict", "revision", "reason")
        return {name: vote[name] for name in shown} | {name: call[name] if call else None for name in took}

    def revised(self, votes: Sequence[_Row]) -> str | None:
        """The revision that was voted on next: of those most proposed, the one that was put to a vote."""
        counts = Counter(row["revision"] for row in votes if isinstance(row["revision"], str))
        voted = [text for text, count in counts.items() if count == max(counts.values()) and text in self._texts]
        return voted[0] if voted else None


def _assertion(row: _Row, votes: Sequence[_Row], outcome: _Row, book: _Book) -> AssertionTold:
    mine = [vote for vote in votes if vote["assertion_id"] == row["assertion_id"]]
    ballots, text = [], row["text"]
    for attempt in sorted({vote["attempt"] for vote in mine if vote["phase"] == CROSS}):
        cast = [vote for vote in mine if vote["phase"] == CROSS and vote["attempt"] == attempt]
        ballots.append(BallotTold(CROSS, attempt, text, [book.told(text, vote) for vote in cast]))
        text = book.revised(cast) or text
    again = [vote for vote in mine if vote["phase"] == SELF]
    if again:
        final = outcome["text"]
        ballots.append(BallotTold(SELF, 0, final, [book.told(final, vote) for vote in again]))
    truth = None if row["planted_truth"] is None else bool(row["planted_truth"])
    said = (row["assertion_id"], row["text"], row["origin"], truth)
    return AssertionTold(*said, ballots, bool(outcome["kept"]), outcome["reason"], outcome["text"])
