"""Group relative policy optimisation, as pure functions (arXiv 2402.03300; Q-Insight trains its teacher so).

Several answers to one question are drawn; each is judged against the mean of its group, and its tokens are made more
or less likely, within a clipped ratio to the policy that drew them and held to a reference by a penalty.

Shape legend: ``P`` questions, ``G`` answers of a group, ``A`` answers, ``L`` tokens of an answer, ``N`` tokens of
several answers one behind the other.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from models.errors import ModelError

Scale = Literal["std", "none"]
Average = Literal["sequence", "token"]

_STD_EPS: Final = 1e-4
"""Q-Insight's guard of the division by a group's spread."""


@dataclass(frozen=True)
class GrpoRule:
    """The objective.

    Attributes:
        clip: how far the ratio of a token's probabilities may leave 1 and still pull.
        beta: weight of the penalty that holds the policy to the reference; 0 needs no reference.
        scale: ``std`` divides advantages by the spread of their group, ``none`` leaves them (arXiv 2503.20783).
        average: ``sequence``, the mean over an answer's tokens and then over answers, or ``token``, the mean over all
            tokens of a step, in which long answers weigh more (DAPO, arXiv 2503.14476).
    """

    clip: float
    beta: float
    scale: Scale
    average: Average

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 0.0 < self.clip < 1.0:
            raise ValueError("clip must lie between 0 and 1")
        if not 0.0 <= self.beta < float("inf"):
            raise ValueError("beta must not be negative")


def advantages(rewards_PG: ArrayLike, scale: Scale = "std") -> NDArray[np.float64]:
    """How much better than its group each answer is: ``(r - mean) / (std + 1e-4)``, the spread being unbiased.

    A group of equal rewards has advantages of exactly 0, whatever rounding makes of its mean.

    Raises:
        ModelError: the rewards are no table, a group has fewer than two answers, or a reward is not finite.
    """
    rewards = _table(rewards_PG)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    if scale == "std":
        centred = centred / (rewards.std(axis=1, ddof=1, keepdims=True) + _STD_EPS)
    return np.where(wasted(rewards)[:, None], 0.0, centred)


def wasted(rewards_PG: ArrayLike) -> NDArray[np.bool_]:
    """Which groups ``[P]`` teach nothing, their rewards being equal.

    Raises:
        ModelError: as :func:`advantages`.
    """
    rewards = _table(rewards_PG)
    return rewards.max(axis=1) == rewards.min(axis=1)


def _table(rewards_PG: ArrayLike) -> NDArray[np.float64]:
    rewards = np.asarray(rewards_PG, dtype=np.float64)
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        msg = f"rewards must be [questions, answers] with two answers at least, not {list(rewards.shape)}"
        raise ModelError(msg)
    if not np.isfinite(rewards).all():
        raise ModelError("a reward is not finite")
    return rewards


def live_tokens(ids_AL: Tensor, end_id: int) -> Tensor:
    """Mask ``[A, L]`` of the tokens of drawn answers up to their first end, which is one of them."""
    ends_AL = (ids_AL == end_id).long()
    return ends_AL.cumsum(1) - ends_AL == 0


def token_objective(log_probs_N: Tensor, old_N: Tensor, advantages_N: Tensor, clip: float) -> Tensor:
    """``-min(rho A, clip(rho, 1 - eps, 1 + eps) A)`` per token, with ``rho = p / p_old``.

    Args:
        log_probs_N: of the policy. old_N: of the policy that drew the tokens, without a gradient.
        advantages_N: of the answer that each token belongs to.
    """
    ratio_N = (log_probs_N - old_N).exp()
    clipped_N = ratio_N.clamp(1.0 - clip, 1.0 + clip)
    return -torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)


def is_clipped(log_probs_N: Tensor, old_N: Tensor, advantages_N: Tensor, clip: float) -> Tensor:
    """Which tokens ``[N]`` have left the range in which they pull."""
    ratio_N = (log_probs_N - old_N).exp()
    up_N, down_N = (ratio_N > 1.0 + clip) & (advantages_N > 0), (ratio_N < 1.0 - clip) & (advantages_N < 0)
    return up_N | down_N


def k3(log_probs_N: Tensor, reference_N: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) per token that the policy drew: ``exp(d) - d - 1``.

    With ``d = log p_ref - log p``. Never below 0, and 0 for equal probabilities (Schulman 2020, "Approximating KL
    divergence").
    """
    difference_N = reference_N - log_probs_N
    return (torch.expm1(difference_N) - difference_N).clamp_min(0.0)


def answer_weights(lengths: ArrayLike, average: Average) -> NDArray[np.float64]:
    """Weights ``[A]`` of the mean token losses of a step's answers, whose mean is 1."""
    lengths_A = np.asarray(lengths, dtype=np.float64)
    return np.ones_like(lengths_A) if average == "sequence" else lengths_A / lengths_A.mean()
