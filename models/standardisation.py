"""Features on one scale: mean and deviation over what is learnt from, and how a linear layer comes to take raw ones.

Shape legend: ``N`` media, ``F`` features, ``H`` outputs.

A linear layer learns slowly where features share a large mean: the mean's direction outweighs all others in the
gradient. It may learn on standard features and be published as a layer of the same shape that takes raw ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import ModelError

Floats = NDArray[np.float64]

LEAST_SHARE: Final = 0.01
"""Floor of a deviation, as a share of the root mean square of all: what hardly varies in training must not be blown up
where it does."""


@dataclass(frozen=True)
class Standardisation:
    """``(features - mean) / deviation``.

    Attributes:
        mean_F: of each feature.
        deviation_F: population standard deviation of each feature, floored; 1 where no feature varies.
    """

    mean_F: Floats
    deviation_F: Floats

    @classmethod
    def over(cls, parts: Iterable[NDArray[np.floating]]) -> "Standardisation":
        """Of features ``[N, F]`` that come in parts, each seen once (Chan's update, in double precision).

        Raises:
            ModelError: there is no row, or a feature is not finite.
        """
        count, mean_F, squares_F = 0, np.zeros(1), np.zeros(1)
        for part in parts:
            part_NF = np.asarray(part, np.float64)
            if not len(part_NF):
                continue
            own_F, total = part_NF.mean(axis=0), count + len(part_NF)
            apart_F = own_F - mean_F
            squares_F = squares_F + ((part_NF - own_F) ** 2).sum(axis=0) + apart_F**2 * (count * len(part_NF) / total)
            mean_F, count = mean_F + apart_F * (len(part_NF) / total), total
        if not count or not np.isfinite(squares_F).all():
            raise ModelError("standard features need a medium at least, and finite features of each")
        deviation_F = np.sqrt(squares_F / count)
        least = LEAST_SHARE * float(np.sqrt(np.mean(deviation_F**2)))
        return cls(mean_F, np.maximum(deviation_F, least) if least > 0.0 else np.ones_like(mean_F))

    def applied(self, features_NF: Tensor) -> Tensor:
        """Standard features ``[N, F]`` of raw ones, as float32."""
        return ((features_NF.double() - torch.from_numpy(self.mean_F)) / torch.from_numpy(self.deviation_F)).float()

    @torch.no_grad()
    def fold_into(self, layer: nn.Linear) -> None:
        """Let a layer that takes standard features take raw ones: ``W / deviation`` and ``b - W mean / deviation``.

        Args:
            layer: ``F`` inputs, ``H`` outputs; what it gives stays, up to the rounding of its own precision.
        """
        weight_HF = layer.weight.double().cpu() / torch.from_numpy(self.deviation_F)
        shift_H = weight_HF @ torch.from_numpy(self.mean_F)
        layer.bias.copy_(layer.bias.double().cpu() - shift_H)
        layer.weight.copy_(weight_HF)
