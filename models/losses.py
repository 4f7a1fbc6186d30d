"""The losses of quality training, as pure functions of tensors (VITAL section 3; the released code's variants by name).

Legend of shape suffixes: N supervised rows, V vocabulary, 5 levels (best first), P pairs, A answers. Every function
returns one value per row, pair or answer and leaves the averaging to the caller, who knows the global counts.

Quality in the pair losses is measured in *level steps*: the centre of a level's bin on [0, 1], times ``scale`` 5, so
that neighbouring levels are one apart, as in the released training code (weights 4.5 ... 0.5) and in the paper's
[0, 5] targets. With the model's spread fixed to 1, a scale of 1 would cap the preference at Phi(.8 / sqrt 2) = .71,
which no pair could ever satisfy.
"""

import math
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from models.levels import CENTRES

LevelSpace = Literal["levels", "vocabulary"]
"""What the level softmax is normalised over: the five level words (paper's text) or all words (released code)."""

PAIR_SCALE: Final = 5.0
_FIDELITY_EPS: Final = 1e-8
"""The released code's guard of square roots whose gradient is infinite at 0."""


def level_log_probabilities(logits_NV: Tensor, level_ids: Tensor, space: LevelSpace) -> Tensor:
    """Log-probabilities ``[N, 5]`` of the level words, best first.

    Args:
        logits_NV: logits of the rows that predict the level word.
        level_ids: token ids ``[5]`` in the order of ``LEVELS``.
        space: with ``vocabulary`` the five probabilities sum to less than 1.
    """
    logits_N5 = logits_NV.float().index_select(1, level_ids)
    if space == "levels":
        return functional.log_softmax(logits_N5, dim=1)
    return logits_N5 - torch.logsumexp(logits_NV.float(), dim=1, keepdim=True)


def level_divergence(log_probs_N5: Tensor, target_N5: Tensor) -> Tensor:
    """``KL(p || q) = sum_i p_i log(p_i / q_i)`` per row, for PMOD targets ``p`` and level probabilities ``q``."""
    target = target_N5.to(log_probs_N5)
    return (torch.xlogy(target, target) - target * log_probs_N5).sum(dim=1)


def level_moments(log_probs_N5: Tensor, scale: float = PAIR_SCALE) -> tuple[Tensor, Tensor]:
    """Mean ``mu = sum_i q_i w_i`` and variance ``sum_i q_i (w_i - mu)^2`` per row; weights are scale x centres."""
    weights_5 = torch.as_tensor(CENTRES * scale, dtype=log_probs_N5.dtype, device=log_probs_N5.device)
    probs_N5 = log_probs_N5.exp()
    mean_N = (probs_N5 * weights_5).sum(dim=1)  # no matrix product: under autocast it would round to bfloat16
    return mean_N, (probs_N5 * (weights_5 - mean_N[:, None]) ** 2).sum(dim=1)


def cross_entropy(logits_NV: Tensor, token_ids_N: Tensor) -> Tensor:
    """``-log p(token)`` per row, in float32."""
    return functional.cross_entropy(logits_NV.float(), token_ids_N, reduction="none")


def focal(logits_NV: Tensor, token_ids_N: Tensor, *, alpha: float = 1.0, beta: float = 2.0) -> Tensor:
    """:func:`focal_of` the token of each row."""
    return focal_of(-cross_entropy(logits_NV, token_ids_N), alpha=alpha, beta=beta)


def focal_of(log_probs_N: Tensor, *, alpha: float = 1.0, beta: float = 2.0) -> Tensor:
    """Dynamic focal loss ``-alpha (1 - p)^beta log p`` per row (VITAL, text tasks; beta 0 is cross entropy)."""
    if beta == 0.0:
        return -alpha * log_probs_N
    missing_N = -torch.expm1(log_probs_N)  # 1 - p without cancellation for confident rows
    # where p rounds to 1, the slope of a power below 1 would be infinite and its product with the loss NaN
    return -alpha * missing_N.clamp_min(torch.finfo(missing_N.dtype).tiny).pow(beta) * log_probs_N


def answer_means(loss_N: Tensor, answer_N: Tensor, lengths_A: Tensor) -> Tensor:
    """``(1 / L_a) sum_{l in a} loss_l`` per answer; rows that an answer does not train count as zeros.

    Args:
        loss_N: loss per supervised row.
        answer_N: which answer each row belongs to.
        lengths_A: number of tokens ``L`` of each answer.
    """
    return loss_N.new_zeros(len(lengths_A)).index_add(0, answer_N, loss_N) / lengths_A.to(loss_N)


def thurstone(mean_first_P: Tensor, mean_second_P: Tensor, preference_P: Tensor) -> Tensor:
    """Two-outcome Thurstone loss with the model's spread fixed to 1: ``KL((t, 1 - t) || (P, 1 - P))``.

    ``P = Phi((mu_1 - mu_2) / sqrt(2))``; the target ``t`` is 1 (first better), 0 (second better) or .5 (tie).
    """
    z_P = (mean_first_P - mean_second_P) / math.sqrt(2.0)
    target = preference_P.to(z_P)
    entropy_P = torch.xlogy(target, target) + torch.xlogy(1 - target, 1 - target)
    return entropy_P - target * torch.special.log_ndtr(z_P) - (1 - target) * torch.special.log_ndtr(-z_P)


def davidson(mean_first_P: Tensor, mean_second_P: Tensor, preference_P: Tensor, *, tie: float) -> Tensor:
    """Davidson's three-outcome model: ``-log`` of the outcome's probability among first, second and tie.

    With worths ``e^mu``: ``P(tie) = nu sqrt(w1 w2) / (w1 + w2 + nu sqrt(w1 w2))`` (Davidson 1970, equation 2.2);
    ``tie`` is nu > 0. Ties are outcomes of their own, the paper's "third class".
    """
    scores_P3 = torch.stack(
        [mean_first_P, mean_second_P, (mean_first_P + mean_second_P) / 2 + math.log(tie)],
        dim=1,
    )
    outcome_P = torch.where(preference_P > 0.75, 0, torch.where(preference_P < 0.25, 1, 2))
    return functional.cross_entropy(scores_P3, outcome_P.to(scores_P3.device), reduction="none")


def fidelity(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], preference_P: Tensor) -> Tensor:
    """The released code's pair loss: ``1 - sqrt(P t) - sqrt((1 - P)(1 - t))`` with the model's own, detached spread.

    ``P = Phi((mu_1 - mu_2) / sqrt(var_1 + var_2))``; ``first`` and ``second`` are :func:`level_moments`.
    """
    (mean_first_P, variance_first_P), (mean_second_P, variance_second_P) = first, second
    spread_P = torch.sqrt((variance_first_P + variance_second_P).detach() + _FIDELITY_EPS / 2)
    preferred_P = torch.special.ndtr((mean_first_P - mean_second_P) / spread_P)
    target = preference_P.to(preferred_P)
    return (
        1.0
        - torch.sqrt(preferred_P * target + _FIDELITY_EPS)
        - torch.sqrt((1 - preferred_P) * (1 - target) + _FIDELITY_EPS)
    )
