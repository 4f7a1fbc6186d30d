"""ConvNeXt-T inflated to video, the aesthetic backbone of DOVER, for inference.

Liu et al., A ConvNet for the 2020s, CVPR 2022 (arXiv 2201.03545); Wu et al., DOVER, ICCV 2023 (arXiv 2211.04894).
Attribute names are the tensor names of the official checkpoint.

Shape legend: N clips, C channels, T time steps, H and W height and width.
"""

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import ModelError

_WIDTHS: Final = (96, 192, 384, 768)
_DEPTHS: Final = (3, 3, 9, 3)
_TIME_KERNELS: Final = (1, 3, 1)
"""Extent in time of the depthwise kernels, block after block: the middle one of three looks at neighbours in time."""
_STRIDE: Final = (2, 32, 32)
_EPSILON: Final = 1e-6


class ConvNeXt3D(nn.Module):
    """Stem, three reductions and four stages of residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv3d(3, _WIDTHS[0], (2, 4, 4), (2, 4, 4)), ChannelNorm(_WIDTHS[0]))
        reductions = (
            nn.Sequential(ChannelNorm(inputs), nn.Conv3d(inputs, outputs, (1, 2, 2), (1, 2, 2)))
            for inputs, outputs in pairwise(_WIDTHS)
        )
        self.downsample_layers = nn.ModuleList([stem, *reductions])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, _TIME_KERNELS[index % len(_TIME_KERNELS)]) for index in range(depth)))
            for width, depth in zip(_WIDTHS, _DEPTHS, strict=True)
        )
        self.norm = nn.LayerNorm(_WIDTHS[-1], eps=_EPSILON)

    def forward(self, clips_NCTHW: Tensor) -> Tensor:
        """Features ``[N, 768, T/2, H/32, W/32]`` of normalised clips.

        Raises:
            ModelError: a side is not a multiple of the stride.
        """
        if any(extent % step or not extent for extent, step in zip(clips_NCTHW.shape[2:], _STRIDE, strict=True)):
            msg = f"clips must be multiples of {_STRIDE} in time, height and width, not {tuple(clips_NCTHW.shape[2:])}"
            raise ModelError(msg)
        x_NCTHW = clips_NCTHW
        for reduction, stage in zip(self.downsample_layers, self.stages, strict=True):
            x_NCTHW = stage(reduction(x_NCTHW))
        return self.norm(x_NCTHW.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class Block(nn.Module):
    """Depthwise convolution, normalisation and a perceptron, scaled per channel and added to the input."""

    def __init__(self, width: int, time_kernel: int) -> None:
        super().__init__()
        kernel = (time_kernel, 7, 7)
        self.dwconv = nn.Conv3d(width, width, kernel, padding=(time_kernel // 2, 3, 3), groups=width)
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """The same shape."""
        y_NTHWC = self.norm(self.dwconv(x_NCTHW).permute(0, 2, 3, 4, 1))
        y_NTHWC = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(y_NTHWC)))
        return x_NCTHW + y_NTHWC.permute(0, 4, 1, 2, 3)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of ``[N, C, T, H, W]``."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=_EPSILON)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the parent's name
        """The same shape."""
        return super().forward(input.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
