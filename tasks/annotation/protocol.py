"""The protocol of review for one sample, as a dialogue: it puts out ballots and is given their votes.

Who answers, one sample at a time or a whole part of them at once, live or by batch files, is not its concern: that is
why measuring and asking judges go through the same three ballots and the same self-review.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from models.judges import Assertion, Judge, Outcome, Vote, decide, decide_self_review
from tasks.annotation import agreement
from tasks.annotation.questions import Question

SELF: Final = "self"

Rows = list[dict[str, Any]]


@dataclass
class Matter:
    """One assertion on its way through the protocol."""

    row: dict[str, Any]
    text: str
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Seat:
    """A judge in a round."""

    judge: Judge
    turn: int


@dataclass(frozen=True)
class Ask:
    """One vote that is wanted."""

    question: Question
    assertion: Assertion
    seat: Seat


@dataclass(frozen=True)
class Rules:
    """Judges, the annotator under its reworded prompts, rounds per judge, and how many revisions are voted on."""

    judges: Sequence[Judge]
    annotator: Sequence[Judge]
    rounds: int
    max_revisions: int


@dataclass
class Hearing:
    """What came of one sample: every matter, every vote as a row of VOTES, every answer that was used."""

    matters: list[Matter]
    votes: Rows = field(default_factory=list)
    answers: dict[Question, Vote] = field(default_factory=dict)


Ballots = Generator[list[Ask], Sequence[Vote], None]


def hear(hearing: Hearing, sample: dict[str, Any], rules: Rules) -> Ballots:
    """Take all assertions about one sample through the protocol.

    Yields:
        A ballot; the votes are sent back in its order.
    """
    seats = [Seat(judge, turn) for judge in rules.judges for turn in range(1, rules.rounds + 1)]
    pending = hearing.matters
    for attempt in range(rules.max_revisions + 1):
        ballots = yield from _ballot(hearing, sample, pending, seats, (agreement.CROSS, attempt))
        for matter, votes in zip(pending, ballots, strict=True):
            decision = decide(votes, attempt, rules.max_revisions)
            matter.outcome, matter.text = decision.outcome, decision.revision or matter.text
        pending = [matter for matter in pending if matter.outcome is None]
        if not pending:
            break
    kept = [matter for matter in hearing.matters if matter.outcome is Outcome.UNANIMOUS]
    _mark_duplicates(kept)
    kept = [matter for matter in kept if matter.outcome is Outcome.UNANIMOUS]
    again = [Seat(judge, turn) for turn, judge in enumerate(rules.annotator, start=1)]
    ballots = yield from _ballot(hearing, sample, kept, again, (SELF, 0))
    for matter, votes in zip(kept, ballots, strict=True):
        matter.outcome = decide_self_review(votes)


def next_ballot(ballots: Ballots, votes: Sequence[Vote] | None) -> list[Ask] | None:
    """Send votes to a hearing (None to open it) and take its next ballot; None when it is over."""
    try:
        return next(ballots) if votes is None else ballots.send(votes)
    except StopIteration:
        return None


def _ballot(
    hearing: Hearing, sample: dict[str, Any], matters: list[Matter], seats: list[Seat], when: tuple[str, int]
) -> Generator[list[Ask], Sequence[Vote], list[Sequence[Vote]]]:
    """Put texts to seats; a list of votes per text, in the order of the seats."""
    if not matters:
        return []
    placed = [(matter, seat) for matter in matters for seat in seats]
    asks = [_ask(sample, matter.text, seat) for matter, seat in placed]
    votes = yield asks
    phase, attempt = when
    for (matter, seat), ask, vote in zip(placed, asks, votes, strict=True):
        hearing.answers[ask.question] = vote
        key = {"assertion_id": matter.row["assertion_id"], "id": matter.row["id"], "phase": phase}
        model = vote.model or seat.judge.model
        who = {"judge": seat.judge.name, "model": model, "prompt_version": seat.judge.prompt_version}
        what = {"verdict": str(vote.verdict), "revision": vote.revision, "reason": vote.reason}
        hearing.votes.append({**key, **who, "round": seat.turn, "attempt": attempt, **what})
    return [votes[start : start + len(seats)] for start in range(0, len(votes), len(seats))]


def _ask(sample: dict[str, Any], text: str, seat: Seat) -> Ask:
    judge = seat.judge
    question = Question(sample["bytes_sha256"], text, judge.name, judge.model, judge.prompt_version, seat.turn)
    return Ask(question, Assertion(text, str(sample["modality"])), seat)


def _mark_duplicates(kept: list[Matter]) -> None:
    """Revisions can make two assertions of one origin equal: the first stays."""
    seen: set[tuple[str, str]] = set()
    for matter in kept:
        key = (matter.row["origin"], matter.text)
        if key in seen:
            matter.outcome = Outcome.DUPLICATE
        seen.add(key)
