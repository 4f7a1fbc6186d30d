"""How the next token of an answer is chosen: the most probable one, or drawn.

Every answer has a seed and a stream of random numbers of its own, so that what is drawn for it hangs neither on the
answers that share its batch nor on their order (up to rounding of the logits).

Shape legend: ``B`` answers, ``V`` vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor

from models.errors import ModelError

Choose = Callable[[Tensor], Tensor]
"""Logits ``[B, V]`` of a step to the tokens ``[B]`` that go on."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        temperature: logits are divided by it; 0 takes the most probable token always.
        top_p: draws among the fewest most probable tokens whose probabilities reach this sum (Holtzman et al. 2020).
    """

    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ModelError: the temperature is negative or endless, or top_p outside (0, 1].
        """
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            msg = f"temperature must be 0 (greedy) or above, not {self.temperature:g}"
            raise ModelError(msg)
        if not 0 < self.top_p <= 1:
            msg = f"top_p must lie in (0, 1], not {self.top_p:g}"
            raise ModelError(msg)

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0.0


def greedy(logits_BV: Tensor) -> Tensor:
    """The most probable tokens ``[B]``."""
    return logits_BV.argmax(-1)


@dataclass(frozen=True)
class Draws:
    """How each of some answers is drawn.

    Attributes:
        sampling: of all of them. seeds: of each; none are needed where nothing is drawn.
    """

    sampling: Sampling = field(default_factory=Sampling)
    seeds: Sequence[int] = ()

    def of(self, members: Sequence[int], answers: int) -> Choose:
        """A way to choose for some of the answers, good for one batch from its first token on.

        Args:
            members: numbers of the answers that share the batch. answers: how many there are in all.

        Raises:
            ModelError: there is not a seed for each answer that is drawn.
        """
        if self.sampling.greedy:
            return greedy
        if len(self.seeds) != answers:
            msg = f"{answers} answers are to be drawn with {len(self.seeds)} seeds: give one for each"
            raise ModelError(msg)
        streams = [np.random.default_rng(self.seeds[number]) for number in members]

        def choose(logits_BV: Tensor) -> Tensor:
            places_B = torch.tensor([stream.random() for stream in streams], dtype=torch.float64)
            return _at(places_B.to(logits_BV.device), *_ranked(logits_BV, self.sampling))

        return choose


GREEDY: Final = Draws()


def _ranked(logits_BV: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Probabilities in falling order, 0 beyond the nucleus, and their tokens."""
    probs_BV = (logits_BV.double() / sampling.temperature).softmax(-1)
    ranked_BV, tokens_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = ranked_BV.cumsum(-1) - ranked_BV
    return ranked_BV.masked_fill(before_BV >= sampling.top_p, 0.0), tokens_BV


def _at(places_B: Tensor, ranked_BV: Tensor, tokens_BV: Tensor) -> Tensor:
    """Tokens at places of [0, 1) of each cumulative distribution."""
    upto_BV = ranked_BV.cumsum(-1)
    aims_B1 = (places_B * upto_BV[:, -1])[:, None]
    ranks_B1 = torch.searchsorted(upto_BV, aims_B1, right=True)
    last_B1 = (ranked_BV > 0).sum(-1, keepdim=True) - 1  # rounding must not lead beyond the nucleus
    return tokens_BV.gather(-1, torch.minimum(ranks_B1, last_B1))[:, 0]
