"""Texts that are longer than a text tower takes: nothing is cut in silence.

CLIP's text tower takes 77 tokens, two of which are its own marks. A text of reasoning overflows it now and then, and
plain truncation would lose the conclusion, which comes last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from models.errors import ModelError
from models.reasoning_text import sentences

LengthPolicy = Literal["chunks", "head_tail", "error"]
"""Of a text that is too long: ``chunks`` embeds runs of whole sentences and takes the mean; ``head_tail`` keeps its
first and last tokens; ``error`` refuses it."""

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True)
class Fitted:
    """A text as token runs that a tower takes.

    Attributes:
        runs: tokens, each run no longer than the limit.
        tokens: of the whole text. lost: tokens of it that are in no run.
    """

    runs: list[list[int]]
    tokens: int
    lost: int


def fit_text(text: str, encode: Encode, limit: int, policy: LengthPolicy) -> Fitted:
    """Bring a text to runs of at most ``limit`` tokens.

    Raises:
        ModelError: it is longer under ``error``, or holds no token.
    """
    tokens = list(encode(text))
    if not tokens:
        raise ModelError("a text without a token has no place in the joint space")
    if len(tokens) <= limit:
        return Fitted([tokens], len(tokens), 0)
    if policy == "error":
        msg = (
            f"a text has {len(tokens)} tokens, the text tower takes {limit}: shorten it, or choose chunks or head_tail"
        )
        raise ModelError(msg)
    if policy == "head_tail":
        tail = limit - limit // 2
        return Fitted([[*tokens[: limit // 2], *tokens[-tail:]]], len(tokens), len(tokens) - limit)
    return Fitted(_packed([list(encode(one)) for one in sentences(text)], limit), len(tokens), 0)


def _packed(parts: Sequence[list[int]], limit: int) -> list[list[int]]:
    """Runs of whole sentences as long as fit; a sentence that is too long by itself is cut into several."""
    runs: list[list[int]] = [[]]
    for part in parts:
        for start in range(0, len(part), limit):
            piece = part[start : start + limit]
            if len(runs[-1]) + len(piece) > limit:
                runs.append([])
            runs[-1] += piece
    return [run for run in runs if run]
