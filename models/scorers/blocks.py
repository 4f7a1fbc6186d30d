"""Parts of the built-in scorers' networks: they share code, never weights."""

from typing import Final

import torch
from torch import Tensor, nn

_FARTHEST: Final = 5.0
"""Standardised figures beyond this are cut: a picture unlike all training samples is judged like the nearest."""

_LEAST_DEVIATION: Final = 1e-2
"""Figures that hardly vary are not blown up."""


class Standardised(nn.Module):
    """Brings figures to mean 0 and deviation 1 of the samples it was fitted on."""

    def __init__(self, figures: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(figures))
        self.register_buffer("deviation", torch.ones(figures))

    def fit(self, figures: Tensor) -> None:
        """Take mean and deviation over all but the last axis of ``[..., F]``."""
        flat = figures.flatten(0, -2).double()
        self.get_buffer("mean").copy_(flat.mean(dim=0))
        self.get_buffer("deviation").copy_(flat.std(dim=0, correction=0).clamp_min(_LEAST_DEVIATION))

    def forward(self, figures: Tensor) -> Tensor:
        """Standardised figures, same shape."""
        standard = (figures - self.get_buffer("mean")) / self.get_buffer("deviation")
        return standard.clamp(-_FARTHEST, _FARTHEST)


class Head(nn.Sequential):
    """Two-layer perceptron with dropout."""

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float = 0.3) -> None:
        super().__init__(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))


def unit_pixels(pixels_NHWC: Tensor) -> Tensor:
    """uint8 ``[N, H, W, C]`` -> float ``[N, C, H, W]`` in [-1, 1]."""
    return pixels_NHWC.permute(0, 3, 1, 2).float() * (2.0 / 255.0) - 1.0


def weighted_mean(scores_NK: Tensor, logits_NK: Tensor) -> Tensor:
    """Mean over K with softmax weights, ``[N]``."""
    return (scores_NK * torch.softmax(logits_NK, dim=1)).sum(dim=1)
