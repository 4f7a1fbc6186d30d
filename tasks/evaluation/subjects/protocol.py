"""What an instrument can ask a subject for.

A subject answers single questions (``Asked``); how a model of some kind comes to a verdict about a medium - by one
sentence, by describing first, or from its own description alone - is a ``Course`` of such questions, the same for every
subject, in ``tasks.evaluation.subjects.course``.

Shape legend: ``N`` questions, ``C`` candidate words, ``L`` layers, ``K`` top tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from models.instruments.attention_share import AttentionShare
from models.instruments.lens import Reading
from models.sampling import GREEDY, Draws
from tasks.errors import StageError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """A medium as one subject takes it.

    Attributes:
        path: where it came from. is_video: whether it is a clip. content: for its subject alone.
    """

    path: Path
    is_video: bool
    content: Any

    @property
    def modality(self) -> str:
        """What questions call it."""
        return "video" if self.is_video else "image"


@dataclass(frozen=True)
class Asked:
    """One question.

    Attributes:
        question: of the user's turn; empty where a model is asked nothing.
        medium: that is shown before it; None shows none.
        opening: how the answer is forced to begin.
        description: the part of ``question`` or ``opening`` that is a model's own words about the medium.
        avoid: openings that the answer may not have; subjects that cannot forbid any leave them out.
    """

    question: str
    medium: Shown | None = None
    opening: str = ""
    description: str = ""
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layers:
    """What the lens reads at the token that follows a question's opening.

    Attributes:
        reading: of the candidate words and the top tokens. top_words_LK: the latter as text.
    """

    reading: Reading
    top_words_LK: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Answering:
    """How answers are drawn and how long they may become, in tokens."""

    max_new_tokens: int = 128
    draws: Draws = GREEDY


class Subject(Protocol):
    """A model that can be asked. What one cannot give is an error that says why."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def open(self, path: Path) -> Shown:
        """Read a medium.

        Raises:
            MediaError: it cannot be read or does not decode.
        """
        ...

    def answers(self, asked: Sequence[Asked], answering: Answering) -> list[str]:
        """Texts that follow each opening, the opening left out."""
        ...

    def word_probabilities(self, asked: Sequence[Asked], words: Sequence[str]) -> Floats:
        """Probabilities ``[N, C]`` of words among each other, as the next word after each opening; rows sum to 1."""
        ...

    def layers(self, asked: Sequence[Asked], words: Sequence[str], top: int) -> list[Layers]:
        """What each layer of the decoder would say next after each opening."""
        ...

    def attention(self, asked: Sequence[Asked]) -> list[AttentionShare]:
        """Where the decoder looks when it says what follows each opening."""
        ...


WORD_PROBABILITIES: Final = "probabilities of words"
LAYERS: Final = "hidden states of its layers"
ATTENTION: Final = "attention weights"


def cannot(name: str, kind: str, what: str, instead: str) -> StageError:
    """The error of a subject that cannot give something.

    Args:
        kind: of subject, with its article. what: it cannot give. instead: what to do.
    """
    return StageError(f"{name} is {kind} and gives no {what}: {instead}")
