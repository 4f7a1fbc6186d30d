"""The five quality levels: one vocabulary and one scale for training and evaluation (DESIGN law 6).

The paper's words, best first (VITAL section 3); the centres are those of five equal bins of [0, 1].
"""

from collections.abc import Sequence
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.errors import ModelError

Level = Literal["high", "good", "fair", "poor", "low"]

LEVELS: Final[tuple[Level, ...]] = ("high", "good", "fair", "poor", "low")
CENTRES: Final[NDArray[np.float64]] = np.array([0.9, 0.7, 0.5, 0.3, 0.1])
"""Centre of each level's bin on the [0, 1] scale, in the order of ``LEVELS``."""
EDGES: Final[NDArray[np.float64]] = np.array([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
"""Bin edges, best first: level ``i`` covers ``EDGES[i + 1] <= q < EDGES[i]`` (the best bin includes 1)."""


class LevelTokenizer(Protocol):
    """The part of a transformers tokenizer that level lookup needs."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of ``text``."""
        ...


def level_of(quality: float) -> Level:
    """Name the fifth of [0, 1] that ``quality`` lies in.

    Raises:
        ModelError: ``quality`` is not a number in [0, 1].
    """
    if not 0.0 <= quality <= 1.0:
        msg = f"quality must lie in [0, 1], not {quality!r}"
        raise ModelError(msg)
    # The small term keeps decimal edges such as 0.6 in the bin they open, whatever their binary rounding.
    return LEVELS[4 - min(4, int(quality * 5 + 1e-9))]


def expectation(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Quality in [.1, .9] of level probabilities ``[..., 5]`` that sum to 1, best first."""
    return np.asarray(probabilities, dtype=np.float64) @ CENTRES


def level_token_ids(tokenizer: LevelTokenizer) -> tuple[int, ...]:
    """Look up the token of each level word, with its leading space, in *this* tokenizer.

    Raises:
        ModelError: a level word is not exactly one token, or two words share a token.
    """
    ids: list[int] = []
    for word in LEVELS:
        tokens: Sequence[int] = tokenizer.encode(f" {word}", add_special_tokens=False)
        if len(tokens) != 1:
            msg = f"level word {word!r} is {len(tokens)} tokens in this tokenizer; scoring needs exactly one"
            raise ModelError(msg)
        ids.append(tokens[0])
    if len(set(ids)) != len(ids):
        msg = f"level words share token ids {ids}; this tokenizer cannot tell the levels apart"
        raise ModelError(msg)
    return tuple(ids)
