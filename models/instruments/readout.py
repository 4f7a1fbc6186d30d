"""What an answer says about quality: a level word or a number. One that says neither, or two things, says nothing.

Every figure depends on how answers are read, so a reading has a name: ``word`` (a level word that was written),
``number`` (a score that was written) and ``expectation`` (:func:`models.levels.expectation` over the probabilities of
the level words, which no text holds).
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from models.errors import ModelError
from models.levels import LEVELS, level_of

Readout = Literal["word", "number"]

RATING_KEYS: Final = ("rating", "score", "quality")
"""Keys of a JSON answer that hold its score."""
_ANSWER: Final = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_OBJECT: Final = re.compile(r"\{[^{}]*\}")
_NUMBER: Final = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?![\w%]|\.\d)")
_OUT_OF: Final = re.compile(r"([-+]?\d+(?:\.\d+)?)\s*(?:/|out of)\s*\d+(?:\.\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class WordReadout:
    """Reads the level word that an answer states.

    Attributes:
        levels: words, best first.
    """

    levels: Sequence[str] = LEVELS

    def __post_init__(self) -> None:
        """Check the words.

        Raises:
            ModelError: there are fewer than two, or one twice.
        """
        if len(self.levels) < 2 or len({word.lower() for word in self.levels}) < len(self.levels):
            msg = f"a readout of words needs two different levels at least, not {', '.join(self.levels) or 'none'}"
            raise ModelError(msg)

    def __call__(self, answer: str) -> int | None:
        """Number of the level, from 0 for the best; None if the answer states none, or several.

        A word after "quality ... is" (or "rating", "score") is the statement; without one, the only level word there
        is.
        """
        names = "|".join(re.escape(word) for word in self.levels)
        text = _inner(answer)
        stated = re.findall(
            rf"\b(?:quality|rating|score)\b[^.!?\n]*?(?:\b(?:is|as|be)\b|:)\s*(?:\w+ly )?({names})\b",
            text,
            re.IGNORECASE,
        )
        found = {word.lower() for word in stated or re.findall(rf"\b({names})\b", text, re.IGNORECASE)}
        if len(found) != 1:
            return None
        return [word.lower() for word in self.levels].index(found.pop())


@dataclass(frozen=True)
class NumberReadout:
    """Reads the score that an answer states; its class is the fifth of the scale that it lies in.

    Attributes:
        low, high: ends of the scale, higher is better.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Check the scale.

        Raises:
            ModelError: it is empty.
        """
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            msg = f"the scale {self.low:g} to {self.high:g} is empty"
            raise ModelError(msg)

    def quality(self, answer: str) -> float | None:
        """The score on [0, 1]; None if the answer states none within the scale, or several."""
        text = _inner(answer)
        numbers = _ratings(text) or [float(number) for number in _OUT_OF.findall(text)]
        numbers = numbers or [float(number) for number in _NUMBER.findall(text)]
        inside = {number for number in numbers if self.low <= number <= self.high}
        if len(inside) != 1 or len(set(numbers)) != 1:
            return None
        return (inside.pop() - self.low) / (self.high - self.low)

    def __call__(self, answer: str) -> int | None:
        """Number of the level, from 0 for the best; None as :meth:`quality`."""
        quality = self.quality(answer)
        return None if quality is None else LEVELS.index(level_of(quality))


def _inner(answer: str) -> str:
    """The inside of the last answer tags, or all of it."""
    tagged = _ANSWER.findall(answer)
    return tagged[-1] if tagged else answer


def _ratings(text: str) -> list[float]:
    """Scores of the flat JSON objects in a text."""
    found: list[float] = []
    for part in _OBJECT.findall(text):
        try:
            values = json.loads(part)
        except ValueError:
            continue
        for key in RATING_KEYS:
            value = values.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                found.append(float(value))
    return found
