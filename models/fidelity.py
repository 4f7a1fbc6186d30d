"""Full-reference measures: how faithful a picture is to the pristine one it was made from; no weights, no opinions.

They are the only teachers of the built-in scorers. Written from the papers' equations; inputs are RGB in [0, 255].

Shape legend: B pictures, C channels, H height, W width.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from models.errors import ModelError

_LUMA: Final = (0.299, 0.587, 0.114)
_MIN_SIDE: Final = 176
"""Multi-scale SSIM halves the picture four times and still needs an 11-pixel window."""


def measure(reference_BCHW: Tensor, distorted_BCHW: Tensor) -> dict[str, Tensor]:
    """All measures of a batch of pairs, name -> ``[B]``; higher is more faithful.

    Args:
        reference_BCHW: pristine pictures, RGB, [0, 255].
        distorted_BCHW: the same pictures distorted.

    Raises:
        ModelError: the shapes differ, or a side is below 176 pixels.
    """
    if reference_BCHW.shape != distorted_BCHW.shape or reference_BCHW.shape[1] != 3:
        msg = f"pairs must be two [B, 3, H, W], not {tuple(reference_BCHW.shape)} and {tuple(distorted_BCHW.shape)}"
        raise ModelError(msg)
    if min(reference_BCHW.shape[2:]) < _MIN_SIDE:
        msg = f"full-reference measures need sides of {_MIN_SIDE} pixels or more, not {tuple(reference_BCHW.shape[2:])}"
        raise ModelError(msg)
    return {name: function(reference_BCHW.float(), distorted_BCHW.float()) for name, function in MEASURES.items()}


def gmsd(reference_BCHW: Tensor, distorted_BCHW: Tensor) -> Tensor:
    """Negated gradient magnitude similarity deviation (Xue et al. 2014), ``[B]``, at most 0."""
    first, second = (_gradient(functional.avg_pool2d(_luma(x), 2)) for x in (reference_BCHW, distorted_BCHW))
    similarity = _similarity(first, second, 170.0)
    return -similarity.flatten(1).std(dim=1, correction=0)


def ms_ssim(reference_BCHW: Tensor, distorted_BCHW: Tensor) -> Tensor:
    """Multi-scale structural similarity of luma (Wang et al. 2003), ``[B]``, at most 1."""
    x, y = _luma(reference_BCHW), _luma(distorted_BCHW)
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    result = torch.ones(len(x), device=x.device)
    for scale, weight in enumerate(weights):
        luminance, structure = _ssim_terms(x, y)
        last = scale == len(weights) - 1
        term = (luminance * structure if last else structure).mean(dim=(1, 2, 3))
        result = result * term.clamp_min(1e-6) ** weight
        x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
    return result


def mdsi(reference_BCHW: Tensor, distorted_BCHW: Tensor) -> Tensor:
    """Negated mean deviation similarity index (Nafchi et al. 2016): gradients and chromaticity, ``[B]``, at most 0."""
    factor = max(1, round(min(reference_BCHW.shape[2:]) / 256))
    x, y = functional.avg_pool2d(reference_BCHW, factor), functional.avg_pool2d(distorted_BCHW, factor)
    luma_x, luma_y = _luma(x), _luma(y)
    edges_x, edges_y, edges_mean = _gradient(luma_x), _gradient(luma_y), _gradient(0.5 * (luma_x + luma_y))
    edges = _similarity(edges_x, edges_y, 140.0)
    edges = edges + _similarity(edges_y, edges_mean, 55.0) - _similarity(edges_x, edges_mean, 55.0)
    h_x, h_y = (_mix(p, (0.30, 0.04, -0.35)) for p in (x, y))
    m_x, m_y = (_mix(p, (0.34, -0.60, 0.17)) for p in (x, y))
    chroma = (2 * (h_x * h_y + m_x * m_y) + 550.0) / (h_x**2 + h_y**2 + m_x**2 + m_y**2 + 550.0)
    joint = (0.6 * edges + 0.4 * chroma).clamp_min(0.0) ** 0.25
    return -((joint - joint.mean(dim=(2, 3), keepdim=True)).abs().mean(dim=(1, 2, 3)) ** 0.25)


def haarpsi(reference_BCHW: Tensor, distorted_BCHW: Tensor) -> Tensor:
    """Haar wavelet perceptual similarity (Reisenhofer et al. 2018), ``[B]`` in [0, 1]."""
    x, y = functional.avg_pool2d(reference_BCHW, 2), functional.avg_pool2d(distorted_BCHW, 2)
    bands_x, bands_y = ([_haar(_luma(p), scale) for scale in (1, 2, 3)] for p in (x, y))
    similarities, weights = [], []
    for direction in (0, 1):
        near = [_similarity(bands_x[s][:, direction].abs(), bands_y[s][:, direction].abs(), 30.0**2) for s in (0, 1)]
        similarities.append(torch.stack(near).mean(dim=0))
        weights.append(torch.maximum(bands_x[2][:, direction].abs(), bands_y[2][:, direction].abs()))
    chroma = []
    for mixture in ((0.596, -0.274, -0.322), (0.211, -0.523, 0.312)):
        first, second = (
            functional.avg_pool2d(_mix(p, mixture), 2, stride=1, padding=1)[:, 0, 1:, 1:].abs() for p in (x, y)
        )
        chroma.append(_similarity(first, second, 30.0**2))
    similarities.append(torch.stack(chroma).mean(dim=0))
    weights.append(0.5 * (weights[0] + weights[1]))
    similarity, weight = torch.stack(similarities), torch.stack(weights)
    pooled = (torch.sigmoid(4.2 * similarity) * weight).sum(dim=(0, 2, 3)) / weight.sum(dim=(0, 2, 3)).clamp_min(1e-6)
    return (torch.logit(pooled.clamp(1e-6, 1 - 1e-6)) / 4.2) ** 2


def tone(reference_BCHW: Tensor, distorted_BCHW: Tensor) -> Tensor:
    """Fidelity of the picture at a glance: negated log error of colours at 1/8 size, ``[B]``.

    Blind to fine detail; sees exposure, contrast, cast and saturation. Ours.
    """
    x, y = functional.avg_pool2d(reference_BCHW, 8), functional.avg_pool2d(distorted_BCHW, 8)
    return -torch.log1p(((x - y) ** 2).mean(dim=(1, 2, 3)))


MEASURES: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "gmsd": gmsd,
    "ms_ssim": ms_ssim,
    "mdsi": mdsi,
    "haarpsi": haarpsi,
    "tone": tone,
}
"""Name -> measure; all higher is better."""


def _similarity(x: Tensor, y: Tensor, constant: float) -> Tensor:
    return (2 * x * y + constant) / (x**2 + y**2 + constant)


def _mix(picture_BCHW: Tensor, weights: tuple[float, float, float]) -> Tensor:
    kernel = torch.tensor(weights, device=picture_BCHW.device, dtype=picture_BCHW.dtype).view(1, 3, 1, 1)
    return functional.conv2d(picture_BCHW, kernel)


def _luma(picture_BCHW: Tensor) -> Tensor:
    return _mix(picture_BCHW, _LUMA)


def _gradient(luma_B1HW: Tensor) -> Tensor:
    """Prewitt gradient magnitude, ``[B, 1, H, W]``."""
    row = torch.tensor([1.0, 0.0, -1.0], device=luma_B1HW.device).repeat(3, 1) / 3
    kernels = torch.stack([row, row.T]).unsqueeze(1)
    return functional.conv2d(luma_B1HW, kernels, padding=1).pow(2).sum(dim=1, keepdim=True).sqrt()


def _ssim_terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure maps with an 11-pixel Gaussian window of deviation 1.5."""
    offsets = torch.arange(11, device=x.device, dtype=x.dtype) - 5
    window = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = window / window.sum()
    planes = torch.cat([x, y, x * x, y * y, x * y], dim=1)
    rows = window.view(1, 1, 1, 11).expand(5, 1, 1, 11)
    blurred = functional.conv2d(functional.conv2d(planes, rows, groups=5), rows.transpose(2, 3), groups=5)
    mean_x, mean_y, xx, yy, xy = blurred.split(1, dim=1)
    luminance = _similarity(mean_x, mean_y, (0.01 * 255) ** 2)
    covariance = xy - mean_x * mean_y
    variances = xx - mean_x**2 + yy - mean_y**2
    return luminance, (2 * covariance + (0.03 * 255) ** 2) / (variances + (0.03 * 255) ** 2)


def _haar(luma_B1HW: Tensor, scale: int) -> Tensor:
    """Undecimated Haar details ``[B, 2, H, W]`` (vertical, horizontal) at a dyadic scale."""
    size = 2**scale
    kernel = torch.full((size, size), 2.0**-scale, device=luma_B1HW.device)
    kernel[: size // 2] *= -1
    kernels = torch.stack([kernel, kernel.T]).unsqueeze(1)
    padded = functional.pad(luma_B1HW, (size // 2 - 1, size // 2, size // 2 - 1, size // 2))
    return functional.conv2d(padded, kernels)
