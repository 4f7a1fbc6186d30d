"""Parts of the built-in scorers' networks: they share code, never weights."""

import torch
from torch import Tensor, nn


class Stem(nn.Sequential):
    """First convolution on uint8-valued pixels: scaling to [-1, 1] is folded in by the caller."""

    def __init__(self, channels: int, kernel: int, stride: int, inputs: int = 3) -> None:
        super().__init__(
            nn.Conv2d(inputs, channels, kernel, stride, padding=(kernel - stride + 1) // 2, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )


class Separable(nn.Module):
    """Depthwise and pointwise convolution with a shortcut where the shape allows one."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = stride == 1 and inputs == outputs
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Same height and width divided by the stride."""
        y = self.body(x_NCHW)
        return self.activation(y + x_NCHW) if self.shortcut else self.activation(y)


class Residual(nn.Module):
    """Two full 3 x 3 convolutions with a shortcut (pooled and projected when the shape changes)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(inputs, outputs, 1, bias=False))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Same height and width divided by the stride."""
        return self.activation(self.body(x_NCHW) + self.shortcut(x_NCHW))


class Head(nn.Sequential):
    """Two-layer perceptron with dropout."""

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float = 0.1) -> None:
        super().__init__(
            nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(hidden, outputs)
        )


def unit_pixels(pixels_NHWC: Tensor) -> Tensor:
    """uint8 ``[N, H, W, C]`` -> float ``[N, C, H, W]`` in [-1, 1]."""
    return pixels_NHWC.permute(0, 3, 1, 2).float() * (2.0 / 255.0) - 1.0


def mean_and_spread(x_NCHW: Tensor) -> Tensor:
    """Mean and standard deviation over the picture, ``[N, 2C]``."""
    mean = x_NCHW.mean(dim=(2, 3))
    variance = ((x_NCHW - mean[:, :, None, None]) ** 2).mean(dim=(2, 3))
    return torch.cat([mean, torch.sqrt(variance + 1e-6)], dim=1)


def weighted_mean(scores_NK: Tensor, logits_NK: Tensor) -> Tensor:
    """Mean over K with softmax weights, ``[N]``."""
    return (scores_NK * torch.softmax(logits_NK, dim=1)).sum(dim=1)
