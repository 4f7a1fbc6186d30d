"""The protocol of review as pure functions of votes.

Unanimity keeps. One severe deviation discards. Otherwise a slight inconsistency adopts a judge's revision and the
revised text is voted on again, at most ``max_revisions`` times. A kept text then passes self-review: the annotator,
asked in reworded prompts, must confirm it every time. Malformed answers and abstentions only ever prevent keeping.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from models.judges.protocol import Verdict, Vote


class Outcome(StrEnum):
    """Why an assertion was kept or discarded; the reasons in the rejects table."""

    UNANIMOUS = "unanimous"
    SEVERE = "severe_deviation"
    MALFORMED = "malformed_answer"
    ABSTAINED = "abstained"
    NO_CONSENSUS = "no_consensus"
    SELF_INCONSISTENT = "self_inconsistent"
    DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Decision:
    """Either ``outcome`` is set and the matter is closed, or ``revision`` is the text to vote on next."""

    outcome: Outcome | None
    revision: str | None = None


def decide(votes: Sequence[Vote], attempt: int, max_revisions: int) -> Decision:
    """Decide one complete ballot (every judge, every round) on one text.

    Args:
        votes: in a fixed order of judges and rounds, which breaks ties between revisions.
        attempt: 0 for the first text, n after n revisions.
        max_revisions: how many revised texts may be voted on.

    Raises:
        ValueError: there is no vote.
    """
    if not votes:
        raise ValueError("a ballot needs votes")
    cast = {vote.verdict for vote in votes}
    for verdict, outcome in (
        (Verdict.SEVERE, Outcome.SEVERE),
        (Verdict.MALFORMED, Outcome.MALFORMED),
        (Verdict.ABSTAIN, Outcome.ABSTAINED),
    ):
        if verdict in cast:
            return Decision(outcome)
    if cast == {Verdict.AGREE}:
        return Decision(Outcome.UNANIMOUS)
    if attempt >= max_revisions:
        return Decision(Outcome.NO_CONSENSUS)
    return Decision(None, chosen_revision(votes))


def chosen_revision(votes: Sequence[Vote]) -> str:
    """The revision that most votes propose; among equals the one that was proposed first."""
    counts = Counter(vote.revision for vote in votes if vote.revision is not None)
    return max(counts, key=lambda text: counts[text])


def decide_self_review(votes: Sequence[Vote]) -> Outcome:
    """Decide the annotator's answers to the reworded prompts: kept only if it confirms every time.

    Raises:
        ValueError: there is no vote.
    """
    if not votes:
        raise ValueError("self-review needs votes")
    agreed = all(vote.verdict is Verdict.AGREE for vote in votes)
    return Outcome.UNANIMOUS if agreed else Outcome.SELF_INCONSISTENT
