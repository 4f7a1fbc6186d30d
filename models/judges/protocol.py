"""What a judge is: something that votes on one assertion by looking at evidence."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from models.signals.evidence import Evidence


class Verdict(StrEnum):
    """A judge's verdict on an assertion.

    ``MALFORMED`` is ours, for an answer that breaks the schema; no judge can ask for it.
    """

    AGREE = "agree"
    REVISE = "revise"
    SEVERE = "severe"
    ABSTAIN = "abstain"
    MALFORMED = "malformed"


@dataclass(frozen=True)
class Vote:
    """One vote; ``revision`` is the proposed text and is there exactly if the verdict is REVISE.

    ``model`` is what answered, as a server says; None for judges that ask none.
    """

    verdict: Verdict
    revision: str | None
    reason: str
    model: str | None = None

    def __post_init__(self) -> None:
        if (self.revision is not None) != (self.verdict is Verdict.REVISE):
            msg = "a vote has a revision exactly if its verdict is revise"
            raise ValueError(msg)


@dataclass(frozen=True)
class Assertion:
    """A sentence about a medium ("image" or "video")."""

    text: str
    medium: str


class Judge(Protocol):
    """Name, model and prompt version are part of every answer's key."""

    @property
    def name(self) -> str:
        """Which of the judges this is."""
        ...

    @property
    def model(self) -> str:
        """What answers: an estimator family or an LMM's name."""
        ...

    @property
    def prompt_version(self) -> str:
        """Changes whenever the same question could be answered differently for a reason of ours."""
        ...

    def vote(self, assertion: Assertion, evidence: Evidence, round_number: int) -> Vote:
        """Judge the assertion by what the evidence shows.

        Args:
            assertion: what is claimed; untrusted text.
            evidence: this judge's and round's own pixels.
            round_number: 1, 2, 3 ...
        """
        ...
