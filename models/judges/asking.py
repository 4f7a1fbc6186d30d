"""What a judge that asks an LMM sends and gets back, free of any network: tasks hand in how it is asked.

A question is closed to whatever the medium or the assertion says: both travel as data, and every answer is read by a
strict reader that yields a vote or a counted malformed one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from models.judges.protocol import Assertion, Vote
from models.signals.evidence import Evidence


class Shown(Protocol):
    """What a question shows: a medium's pixels, or whatever stands for its pictures where the question is asked."""

    @property
    def is_clip(self) -> bool:
        """Whether it is a video."""
        ...


@dataclass(frozen=True)
class ChatQuestion:
    """A question to be answered in words.

    Attributes:
        system: instructions.
        text: of the user's turn; what is untrusted stands in it as JSON.
        schema: JSON schema of the answer; None for prose.
        medium: whose pictures are shown; None for a question about text.
    """

    system: str
    text: str
    schema: Mapping[str, Any] | None
    medium: Shown | None


@dataclass(frozen=True)
class DecisionQuestion:
    """A closed question about a medium: the answer is a probability per option.

    Attributes:
        instructions: the question.
        options: value -> description, in the order in which they are offered.
        medium: whose pictures are shown.
    """

    instructions: str
    options: Mapping[str, str]
    medium: Shown


@dataclass(frozen=True)
class ChatReply:
    """An answer in words.

    Attributes:
        text: untrusted.
        problem: "refusal", "refused by the server" (which takes other questions) or "cut off"; None for an answer.
        model: what answered, as the server says.
    """

    text: str
    problem: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class DecisionReply:
    """Probabilities of the options; empty, with a problem, if there are none."""

    probabilities: Mapping[str, float]
    problem: str | None = None
    model: str | None = None


PROBLEMS: Final[Mapping[str, str]] = {
    "refusal": "refusal",
    "refused by the server": "refused by the server",
    "cut off": "cut off at the limit of tokens",
}
"""What a server says of an answer that is no answer -> the name under which it is counted."""
NO_ANSWER: Final = "no usable answer"
"""The name of any other problem."""

Question = ChatQuestion | DecisionQuestion
Reply = ChatReply | DecisionReply
Asker = Callable[[Question], Reply]
"""How a question is asked; tasks hand it in."""


def not_asked(_: Question) -> Reply:
    """The asker of a judge that only words questions and reads answers."""
    msg = "this judge was given no way of asking"
    raise RuntimeError(msg)


class Asking:
    """A judge whose vote is the reading of one answer to one question.

    Args:
        name: of the judge.
        model: as it is asked for.
        version: of everything of ours that an answer depends on beside the prompt: pictures and settings.
        ask: how a question is asked.
    """

    def __init__(self, name: str, model: str, version: str, ask: Asker = not_asked) -> None:
        self._name, self._model, self._version, self._ask = name, model, version, ask

    @property
    def name(self) -> str:
        """Which of the judges this is."""
        return self._name

    @property
    def model(self) -> str:
        """The model that is asked for."""
        return self._model

    @property
    def prompt_version(self) -> str:
        """Version of prompt, pictures and settings."""
        return self._version

    def vote(self, assertion: Assertion, evidence: Evidence, round_number: int) -> Vote:
        """Ask about the medium that the evidence is of, and read the answer."""
        return self.read(assertion, self._ask(self.question(assertion, evidence.run.medium, round_number)))

    def question(self, assertion: Assertion, medium: Shown, round_number: int) -> Question:
        """What is asked."""
        raise NotImplementedError

    def read(self, assertion: Assertion, reply: Reply) -> Vote:
        """What the answer means."""
        raise NotImplementedError
