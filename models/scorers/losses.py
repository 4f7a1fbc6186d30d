"""What the built-in scorers are taught with: one way of learning each, so that their errors differ.

Pure functions of tensors. Shape legend: N samples, P pairs.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from models.levels import CENTRES

_LEVEL_WIDTH: Final = 0.2
_TIE: Final = 0.03
"""Pairs whose targets differ by less teach nothing about order."""


def correlation_loss(raw_N: Tensor, target_N: Tensor) -> Tensor:
    """One minus Pearson's correlation: scale and offset stay free."""
    raw, target = raw_N - raw_N.mean(), target_N - target_N.mean()
    return 1.0 - (raw * target).sum() / torch.sqrt((raw**2).sum() * (target**2).sum() + 1e-8)


def squared_loss(raw_N: Tensor, target_N: Tensor) -> Tensor:
    """Mean squared error of the raw score."""
    return functional.mse_loss(raw_N, target_N)


def level_loss(logits_N5: Tensor, target_N: Tensor) -> Tensor:
    """Cross entropy with the two levels next to the target, weighted so that their expectation is the target."""
    centres = torch.tensor(CENTRES, dtype=target_N.dtype, device=target_N.device)
    clamped = target_N.clamp(float(CENTRES.min()), float(CENTRES.max()))
    soft_N5 = (1.0 - (clamped[:, None] - centres).abs() / _LEVEL_WIDTH).clamp_min(0.0)
    return functional.cross_entropy(logits_N5.float(), soft_N5)


def fidelity_loss(raw_N: Tensor, target_N: Tensor) -> Tensor:
    """Fidelity of Thurstone's preference (sigma 1) with the true order, over all pairs (LIQE; Tsai et al. 2007)."""
    first, second = _pairs(target_N)
    margin_P = (raw_N[first] - raw_N[second]) * torch.sign(target_N[first] - target_N[second])
    right_P = torch.special.ndtr(margin_P / 2**0.5)  # probability of the true order, which is 0 or 1 for clear pairs
    return (1.0 - torch.sqrt(right_P + 1e-6)).mean()


def margin_loss(raw_N: Tensor, target_N: Tensor) -> Tensor:
    """Hinge on every ordered pair, with a margin that grows with the difference of the targets."""
    first, second = _pairs(target_N)
    difference = target_N[first] - target_N[second]
    gain = (raw_N[first] - raw_N[second]) * torch.sign(difference)
    return functional.relu(difference.abs() * 2.0 - gain).mean()


QUALITY_LOSSES: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "correlation": correlation_loss,
    "squared": squared_loss,
    "fidelity": fidelity_loss,
    "margin": margin_loss,
}
"""Name -> loss of raw scores."""


def _pairs(target_N: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of all pairs whose targets differ."""
    first, second = torch.triu_indices(len(target_N), len(target_N), offset=1)
    clear = (target_N[first] - target_N[second]).abs() > _TIE
    return first[clear], second[clear]
