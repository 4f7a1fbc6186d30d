"""The six built-in networks; each takes its view (``models/scorers/views.py``) and shares no weight with another.

``forward`` returns a dict whose ``raw`` is the uncalibrated score ``[N]``; other entries serve training only.

Shape legend: N scored items, T frames, K crops, L positions, C channels, H height, W width.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.levels import CENTRES
from models.scorers.blocks import Head, Residual, Separable, Stem, mean_and_spread, unit_pixels, weighted_mean

Outputs = dict[str, Tensor]


class Fragments(nn.Module):
    """Spliced native fragments over time (FAST-VQA's view): per-frame features, then their mean and their changes."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = nn.Sequential(Stem(24, 4, 4), Separable(24, 32), Separable(32, 32))
        self.trunk = nn.Sequential(
            Separable(96, 48), Residual(48, 64, 2), Separable(64, 64), Residual(64, 72, 2), Separable(72, 72)
        )
        self.head = Head(144 + 4, 64, 1)
        self.errors = nn.Conv2d(72, 3, 1)

    def forward(self, clips_NTHWC: Tensor) -> Outputs:
        """Args: uint8 ``[N, T, 192, 192, 3]``, T >= 2 (a still is shown twice)."""
        count, length = clips_NTHWC.shape[0], clips_NTHWC.shape[1]
        features = self.frame(unit_pixels(clips_NTHWC.flatten(0, 1)))
        features_NTCHW = features.unflatten(0, (count, length))
        change_NTCHW = (features_NTCHW[:, 1:] - features_NTCHW[:, :-1]).abs()
        jerk_NCHW = (change_NTCHW - change_NTCHW.mean(dim=1, keepdim=True)).abs().mean(dim=1)
        summary = torch.cat([features_NTCHW.mean(dim=1), change_NTCHW.mean(dim=1), jerk_NCHW], dim=1)
        pace_NT = change_NTCHW.mean(dim=(2, 3, 4))
        timing = torch.stack([pace_NT.mean(dim=1), pace_NT.amin(dim=1), pace_NT.amax(dim=1)], dim=1)
        still = timing[:, 1:2] / (timing[:, 2:3] + 1e-3)
        positions_NCHW = self.trunk(summary)
        pooled = mean_and_spread(positions_NCHW)
        raw = self.head(torch.cat([pooled, timing, still], dim=1)).squeeze(1)
        return {"raw": raw, "errors": self.errors(positions_NCHW)}


class TwoBranch(nn.Module):
    """Technical branch on native crops plus aesthetic branch on the whole (DOVER's idea); the score is their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.technical = nn.Sequential(
            Stem(16, 5, 2), Separable(16, 32, 2), Residual(32, 32), Residual(32, 48, 2), Separable(48, 64, 2)
        )
        self.technical_head = Head(128, 48, 2)
        self.aesthetic = nn.Sequential(
            Stem(24, 4, 4), Separable(24, 32), Residual(32, 48, 2), Separable(48, 48), Residual(48, 64, 2)
        )
        self.aesthetic_head = Head(128 + 18, 48, 1)
        self.errors = nn.Conv2d(64, 3, 1)

    def forward(self, crops_NKHWC: Tensor, whole_NHWC: Tensor) -> Outputs:
        """Args: uint8 ``[N, K, 128, 128, 3]`` and ``[N, 128, 128, 3]``."""
        count, crops = crops_NKHWC.shape[0], crops_NKHWC.shape[1]
        positions_MCHW = self.technical(unit_pixels(crops_NKHWC.flatten(0, 1)))
        pooled = mean_and_spread(positions_MCHW)
        scores_NK2 = self.technical_head(pooled).unflatten(0, (count, crops))
        technical_N = weighted_mean(scores_NK2[:, :, 0], scores_NK2[:, :, 1])
        whole = unit_pixels(whole_NHWC)
        features = torch.cat([mean_and_spread(self.aesthetic(whole)), _tones(whole)], dim=1)
        aesthetic_N = self.aesthetic_head(features).squeeze(1)
        return {
            "raw": technical_N + aesthetic_N,
            "technical": technical_N,
            "aesthetic": aesthetic_N,
            "errors": self.errors(positions_MCHW),
        }


class LevelProbs(nn.Module):
    """Probabilities of the five levels from block spectra of the whole picture; score = expectation (Q-Align's idea).

    The front end is fixed: log energies of 8 x 8 cosine coefficients at full, half and quarter size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", _cosine_basis(), persistent=False)
        self.register_buffer("to_opponent", _opponent(), persistent=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(66), nn.Linear(66, 64), nn.ReLU(), nn.Linear(64, 40), nn.ReLU())
            for _ in range(4)
        )
        self.norm = nn.BatchNorm1d(4 * (80 + 132) + 18)
        self.head = Head(4 * (80 + 132) + 18, 96, 5, dropout=0.2)

    def forward(self, pixels_NHWC: Tensor) -> Outputs:
        """Args: uint8 ``[N, H, W, 3]``, sides multiples of 32."""
        unit = unit_pixels(pixels_NHWC)
        opponent = functional.conv2d(unit, self.get_buffer("to_opponent"))
        luma = opponent[:, :1]
        half = functional.avg_pool2d(luma, 2)
        quarter = functional.avg_pool2d(half, 2)
        chroma_N2HW = functional.avg_pool2d(opponent[:, 1:], 2)
        pooled = [self._texture(scale, plane) for scale, plane in enumerate((luma, half, quarter))]
        colour = 0.5 * (self._texture(3, chroma_N2HW[:, :1]) + self._texture(3, chroma_N2HW[:, 1:]))
        logits_N5 = self.head(self.norm(torch.cat([*pooled, colour, _tones(unit)], dim=1)))
        centres = torch.tensor(CENTRES, dtype=logits_N5.dtype, device=logits_N5.device)
        return {"raw": torch.softmax(logits_N5, dim=1) @ centres, "logits": logits_N5}

    def _texture(self, scale: int, plane_N1HW: Tensor) -> Tensor:
        """Mean and spread over the blocks, of their spectra and of what a perceptron makes of them, ``[N, 212]``."""
        spectra_NLC = self._spectrum(plane_N1HW)
        features = self.blocks[scale](spectra_NLC.flatten(0, 1)).view(spectra_NLC.shape[0], -1, 40)
        both = torch.cat([features, spectra_NLC], dim=2)
        mean = both.mean(dim=1)
        variance = ((both - mean[:, None]) ** 2).mean(dim=1)
        return torch.cat([mean, torch.sqrt(variance + 1e-6)], dim=1)

    def _spectrum(self, plane_N1HW: Tensor) -> Tensor:
        """Log energies of the 64 coefficients, signed mean and log spread of each block, ``[N, L, 66]``."""
        count, _, height, width = plane_N1HW.shape
        blocks = plane_N1HW.reshape(count, height // 8, 8, width // 8, 8).transpose(2, 3).reshape(count, -1, 64)
        coefficients = blocks @ self.get_buffer("basis")
        energies = coefficients**2
        spread = torch.log(energies[:, :, 1:].sum(dim=2, keepdim=True) + 1e-5)
        return torch.cat([torch.log(energies + 1e-5), coefficients[:, :, :1] / 8.0, spread], dim=2)


class MultiscaleAttention(nn.Module):
    """Features of three scales; coarse positions look where to attend in finer ones (TOPIQ's idea)."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.fine = nn.Sequential(Stem(24, 4, 4), Separable(24, 32), Residual(32, 32))
        self.middle = nn.Sequential(Residual(32, 48, 2), Separable(48, 48))
        self.coarse = nn.Sequential(Residual(48, 56, 2), Separable(56, 56))
        self.project = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in (32, 48, 56))
        self.queries = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.keys = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.mixes = nn.ModuleList(Head(width, width, width) for _ in range(2))
        self.head = Head(2 * width, 64, 1)
        self.errors = nn.Conv2d(48, 3, 1)

    def forward(self, whole_NHWC: Tensor) -> Outputs:
        """Args: uint8 ``[N, 256, 256, 3]``."""
        fine = self.fine(unit_pixels(whole_NHWC))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        tokens_NLC = self._tokens(2, functional.avg_pool2d(coarse, 2))
        finer_tokens = (
            self._tokens(1, functional.avg_pool2d(middle, 2)),
            self._tokens(0, functional.max_pool2d(fine, 4)),
        )
        for step, finer in enumerate(finer_tokens):
            query, key = self.queries[step](tokens_NLC), self.keys[step](finer)
            weights = torch.softmax(query @ key.transpose(1, 2) / query.shape[-1] ** 0.5, dim=-1)
            tokens_NLC = self.norms[step](tokens_NLC + weights @ finer)
            tokens_NLC = tokens_NLC + self.mixes[step](tokens_NLC)
        mean = tokens_NLC.mean(dim=1)
        spread = torch.sqrt(((tokens_NLC - mean[:, None]) ** 2).mean(dim=1) + 1e-6)
        return {"raw": self.head(torch.cat([mean, spread], dim=1)).squeeze(1), "errors": self.errors(middle)}

    def _tokens(self, scale: int, features_NCHW: Tensor) -> Tensor:
        return self.project[scale](features_NCHW).flatten(2).transpose(1, 2)


class MultiTask(nn.Module):
    """Native patches; heads for quality, distortion kind and severity on one trunk (LIQE's idea)."""

    KINDS: Final = 27

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            Stem(16, 3, 2), Residual(16, 24), Residual(24, 40, 2), Residual(40, 64, 2), Separable(64, 72, 2)
        )
        self.quality = Head(144, 64, 1)
        self.kind = nn.Linear(144, self.KINDS)
        self.severity = nn.Linear(144, 1)
        self.errors = nn.Conv2d(72, 3, 1)

    def forward(self, patches_NKHWC: Tensor) -> Outputs:
        """Args: uint8 ``[N, K, 96, 96, 3]``."""
        count, patches = patches_NKHWC.shape[0], patches_NKHWC.shape[1]
        positions_MCHW = self.trunk(unit_pixels(patches_NKHWC.flatten(0, 1)))
        pooled = mean_and_spread(positions_MCHW)
        pooled_NC = pooled.unflatten(0, (count, patches)).mean(dim=1)
        return {
            "raw": self.quality(pooled_NC).squeeze(1),
            "kind": self.kind(pooled_NC),
            "severity": self.severity(pooled_NC).squeeze(1),
            "errors": self.errors(positions_MCHW),
        }


class Ranking(nn.Module):
    """Locally normalised luminance at half size, learnt from pairs alone (QualiCLIP's training, natural-scene view)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("to_opponent", _opponent(), persistent=False)
        self.trunk = nn.Sequential(
            Stem(24, 5, 2, inputs=5), Separable(24, 40, 2), Residual(40, 40), Residual(40, 56, 2), Separable(56, 64, 2)
        )
        self.norm = nn.BatchNorm1d(128 + 42)
        self.head = Head(128 + 42, 64, 2)
        self.errors = nn.Conv2d(64, 3, 1)

    def forward(self, crops_NKHWC: Tensor) -> Outputs:
        """Args: uint8 ``[N, K, 128, 128, 3]``."""
        count, crops = crops_NKHWC.shape[0], crops_NKHWC.shape[1]
        opponent = functional.conv2d(unit_pixels(crops_NKHWC.flatten(0, 1)), self.get_buffer("to_opponent"))
        luma = opponent[:, :1]
        mean = _smoothed(_smoothed(luma, 5), 3)
        centred = luma - mean
        spread = torch.sqrt(_smoothed(centred**2, 7) + 1e-6)
        normal, log_spread = centred / (spread + 0.02), torch.log(spread + 0.01)
        positions_MCHW = self.trunk(torch.cat([normal, log_spread, mean, opponent[:, 1:]], dim=1))
        features = torch.cat([mean_and_spread(positions_MCHW), _scene_statistics(normal, log_spread)], dim=1)
        scores_NK2 = self.head(self.norm(features)).unflatten(0, (count, crops))
        return {
            "raw": weighted_mean(scores_NK2[:, :, 0], scores_NK2[:, :, 1]),
            "errors": self.errors(positions_MCHW),
        }


NETWORKS: Final[dict[str, Callable[[], nn.Module]]] = {
    "fragments": Fragments,
    "two_branch": TwoBranch,
    "level_probs": LevelProbs,
    "multiscale_attention": MultiscaleAttention,
    "multi_task": MultiTask,
    "ranking": Ranking,
}
"""Built-in scorer name -> network."""


class RawOnly(nn.Module):
    """A network that returns its raw score alone: what is exported."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *view: Tensor) -> Tensor:
        """Raw scores ``[N]`` of a view."""
        return self.network(*view)["raw"]


def _tones(unit_NCHW: Tensor) -> Tensor:
    """Shares of dark to bright pixels in eight soft bins, and mean and spread of the opponent colours, ``[N, 18]``."""
    luma = unit_NCHW.mean(dim=1, keepdim=True)
    shares = _shares(functional.avg_pool2d(luma, 4), -1.0, 1.0, 8)
    opponent = torch.cat(
        [luma, unit_NCHW[:, :1] - unit_NCHW[:, 1:2], 0.5 * (unit_NCHW[:, :1] + unit_NCHW[:, 1:2]) - unit_NCHW[:, 2:]],
        dim=1,
    )
    colourful = torch.sqrt(opponent[:, 1:2] ** 2 + opponent[:, 2:] ** 2 + 1e-6)
    clipped = torch.relu(unit_NCHW.abs().amax(dim=1, keepdim=True) - 0.96) * 25.0
    return torch.cat([shares, mean_and_spread(torch.cat([opponent, colourful, clipped], dim=1))], dim=1)


def _smoothed(x_NCHW: Tensor, side: int) -> Tensor:
    """Local mean over a square window; beyond the border nothing counts."""
    return functional.avg_pool2d(x_NCHW, side, 1, side // 2, count_include_pad=False)


def _scene_statistics(normal_N1HW: Tensor, log_spread_N1HW: Tensor) -> Tensor:
    """Shape of normalised luminance, of products of neighbours, and of local contrast (BRISQUE's view), ``[N, 42]``."""
    found = [_shares(normal_N1HW, -2.5, 2.5, 10), _shares(log_spread_N1HW, -4.5, -0.5, 12)]
    neighbours = (
        normal_N1HW[:, :, :, 1:] * normal_N1HW[:, :, :, :-1],
        normal_N1HW[:, :, 1:] * normal_N1HW[:, :, :-1],
        normal_N1HW[:, :, 1:, 1:] * normal_N1HW[:, :, :-1, :-1],
        normal_N1HW[:, :, 1:, :-1] * normal_N1HW[:, :, :-1, 1:],
    )
    for product in neighbours:
        positive, negative = torch.relu(product), torch.relu(-product)
        found += [
            p.mean(dim=(2, 3)) for p in (positive, negative, torch.sqrt(positive + 1e-4), torch.sqrt(negative + 1e-4))
        ]
    found += [(normal_N1HW**power).mean(dim=(2, 3)) for power in (2, 3, 4)]
    found.append(log_spread_N1HW.std(dim=(2, 3)))
    return torch.cat(found, dim=1)


def _shares(x_N1HW: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Shares of values in soft, overlapping bins between ``low`` and ``high``, ``[N, bins]``."""
    centres = torch.linspace(low, high, bins, device=x_N1HW.device).view(1, bins, 1, 1)
    width = (high - low) / (bins - 1)
    return torch.relu(1.0 - (x_N1HW - centres).abs() / width).mean(dim=(2, 3))


def _opponent() -> Tensor:
    """RGB -> luma and two colour differences, as a 1 x 1 convolution ``[3, 3, 1, 1]``."""
    rows = [[0.299, 0.587, 0.114], [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]]
    return torch.tensor(rows).view(3, 3, 1, 1)


def _cosine_basis() -> Tensor:
    """The 64 orthonormal 8 x 8 cosine functions as columns, ``[64, 64]``, low frequencies first in each direction."""
    index = torch.arange(8, dtype=torch.float64)
    rows = torch.cos(torch.pi / 8 * (index[None, :] + 0.5) * index[:, None]) * (2 / 8) ** 0.5
    rows[0] = rows[0] / 2**0.5
    return torch.einsum("ih,jw->hwij", rows, rows).reshape(64, 64).float()
