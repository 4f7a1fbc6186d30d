"""The six built-in networks: fixed measurements of a view (``models/scorers/views.py``), judged by a small network.

Measurements (``describe``) have no weights and differ from scorer to scorer; what learns (``judge``) is never shared.
``judge`` returns a dict whose ``raw`` is the uncalibrated score ``[N]``; other entries serve training only.

Shape legend: N scored items, T frames, K crops, L places, C channels, H height, W width, F figures.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.levels import CENTRES
from models.scorers import statistics as measured
from models.scorers.blocks import Head, Standardised, unit_pixels, weighted_mean

Outputs = dict[str, Tensor]


class Measured(nn.Module):
    """A network whose front end has no weights: training measures each sample once, and then learns to judge.

    Attributes:
        standard: brings every figure to mean 0 and deviation 1 of the training samples.
        describe: a view's arrays -> measurements ``[N, ..., F]``.
        judge: measurements -> scores.
    """

    standard: Standardised
    describe: Callable[..., Tensor]
    judge: Callable[[Tensor], Outputs]

    def forward(self, *view: Tensor) -> Outputs:
        """Scores of a view."""
        return self.judge(self.describe(*view))


class Fragments(Measured):
    """Spliced native fragments over time (FAST-VQA's view): their spectra, the spectra's changes, and jerks."""

    SIDE: Final = 32
    RINGS: Final = 12
    FIGURES: Final = 3 * (3 * RINGS + 32) + 24 + 2 * RINGS * 3 + 4

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", measured.cosine_basis(self.SIDE), persistent=False)
        self.register_buffer("bands", measured.frequency_bands(self.SIDE, self.RINGS), persistent=False)
        self.register_buffer("wide", measured.frequency_bands(self.SIDE, 4), persistent=False)
        self.standard = Standardised(self.FIGURES)
        self.head = Head(self.FIGURES, 64, 1)

    def describe(self, clips_NTHWC: Tensor) -> Tensor:
        """Args: uint8 ``[N, T, 192, 192, 3]``, T >= 2 (a still is shown twice); returns ``[N, F]``."""
        count, length = clips_NTHWC.shape[0], clips_NTHWC.shape[1]
        planes = measured.opponent(unit_pixels(clips_NTHWC.flatten(0, 1)))
        luma_NTLHW = self._fragments(planes[:, :1]).unflatten(0, (count, length))
        chroma_ML = self._energies(self._fragments(planes[:, 1:2]), self._fragments(planes[:, 2:]))
        spectra = self._spectra(luma_NTLHW)
        energy_NTLS = spectra**2
        banded_NTLF = measured.log_energy(energy_NTLS @ self.get_buffer("bands"))
        square = energy_NTLS.unflatten(3, (self.SIDE, self.SIDE))
        lines_NTLF = measured.log_energy(0.5 * (square[..., :2, :].mean(dim=3) + square[..., :2].mean(dim=4)))
        places_NLF = torch.cat([banded_NTLF, lines_NTLF], dim=3).flatten(1, 2)
        activity_NL = measured.log_energy(energy_NTLS[..., 1:].mean(dim=3)).flatten(1, 2)
        still = measured.pooled(places_NLF, activity_NL)
        colour = chroma_ML.unflatten(0, (count, length)).mean(dim=1)
        return torch.cat([still, colour, self._motion(spectra)], dim=1)

    def judge(self, figures: Tensor) -> Outputs:
        """Args: ``[N, F]``."""
        return {"raw": self.head(self.standard(figures)).squeeze(1)}

    def _motion(self, spectra_NTLS: Tensor) -> Tensor:
        """Energies of the changes from frame to frame, of how these vary over time, and the pace, ``[N, 76]``."""
        change_NTLS = (spectra_NTLS[:, 1:] - spectra_NTLS[:, :-1]) ** 2
        pace_NT = measured.log_energy(change_NTLS.mean(dim=(2, 3)))
        change_NTF = measured.log_energy((change_NTLS @ self.get_buffer("bands")).mean(dim=2))
        jerk_NF = (change_NTF - change_NTF.mean(dim=1, keepdim=True)).abs().mean(dim=1)
        timing = [pace_NT.mean(dim=1), pace_NT.amin(dim=1), pace_NT.amax(dim=1), measured.spread(pace_NT, 1)]
        return torch.cat([change_NTF.mean(dim=1), jerk_NF, torch.stack(timing, dim=1)], dim=1)

    def _fragments(self, plane_M1HW: Tensor) -> Tensor:
        """The fragments of spliced pictures, ``[M, 36, 32, 32]``."""
        cells = plane_M1HW.squeeze(1).unflatten(2, (-1, self.SIDE)).unflatten(1, (-1, self.SIDE))
        return cells.transpose(2, 3).flatten(1, 2)

    def _spectra(self, fragments: Tensor) -> Tensor:
        """Cosine coefficients of each fragment, its last two axes flattened."""
        basis = self.get_buffer("basis")
        return (basis @ fragments @ basis.T).flatten(-2)

    def _energies(self, *planes_MLHW: Tensor) -> Tensor:
        """Coarse log energies of colour planes, ``[M, 12 per plane]``."""
        bands = [(self._spectra(plane) ** 2 @ self.get_buffer("wide")).mean(dim=1) for plane in planes_MLHW]
        return measured.log_energy(torch.cat(bands, dim=1))


class TwoBranch(Measured):
    """Technical branch on native crops plus aesthetic branch on the whole (DOVER's idea); the score is their sum.

    The technical branch sees how gradients and second differences are distributed at four octaves, and edges that
    return every eight pixels; the aesthetic branch sees light and colour.
    """

    OCTAVES: Final = 4
    CROP_FIGURES: Final = OCTAVES * (9 + 7 + 5) + 2
    TONES: Final = 24

    def __init__(self) -> None:
        super().__init__()
        self.standard = Standardised(self.CROP_FIGURES + self.TONES)
        self.technical_head = Head(self.CROP_FIGURES, 64, 2)
        self.aesthetic_head = Head(self.TONES, 32, 1)

    def describe(self, crops_NKHWC: Tensor, whole_NHWC: Tensor) -> Tensor:
        """Args: uint8 ``[N, K, 128, 128, 3]`` and ``[N, 128, 128, 3]``; returns ``[N, K, F]``, tones last."""
        count, crops = crops_NKHWC.shape[0], crops_NKHWC.shape[1]
        planes = measured.opponent(unit_pixels(crops_NKHWC.flatten(0, 1)))
        found = [self._blocks(planes[:, :1])]
        for octave in range(self.OCTAVES):
            found.append(self._gradients(planes))
            if octave + 1 < self.OCTAVES:
                planes = measured.halved(planes)
        technical_NKF = torch.cat(found, dim=1).unflatten(0, (count, crops))
        tones_NKF = measured.tones(unit_pixels(whole_NHWC))[:, None].expand(-1, crops, -1)
        return torch.cat([technical_NKF, tones_NKF], dim=2)

    def judge(self, figures: Tensor) -> Outputs:
        """Args: ``[N, K, F]``."""
        standard = self.standard(figures)
        scores_NK2 = self.technical_head(standard[..., : self.CROP_FIGURES])
        technical_N = weighted_mean(scores_NK2[..., 0], scores_NK2[..., 1])
        aesthetic_N = self.aesthetic_head(standard[:, 0, self.CROP_FIGURES :]).squeeze(1)
        return {"raw": technical_N + aesthetic_N, "technical": technical_N, "aesthetic": aesthetic_N}

    @staticmethod
    def _gradients(planes_M3HW: Tensor) -> Tensor:
        """Distribution of luma's gradients and second differences, and sizes of colour's, ``[M, 21]``."""
        across, down, bend_across, bend_down = measured.differences(planes_M3HW)
        gradient = torch.log(torch.sqrt(across[:, :1] ** 2 + down[:, :1] ** 2 + 1e-6) + 2e-3)
        bend = torch.log(torch.sqrt(bend_across[:, :1] ** 2 + bend_down[:, :1] ** 2 + 1e-6) + 2e-3)
        size = across.abs() + down.abs()
        direction = torch.log(
            (across[:, :1].abs().mean(dim=(2, 3)) + 1e-3) / (down[:, :1].abs().mean(dim=(2, 3)) + 1e-3)
        )
        colour = torch.log(size.mean(dim=(2, 3)) + 1e-3)
        peak = torch.log(gradient.exp().square().mean(dim=(2, 3)))
        return torch.cat(
            [
                measured.shares(gradient, -6.0, 0.0, 9),
                measured.shares(bend, -6.0, 0.0, 7),
                direction.abs(),
                colour,
                peak,
            ],
            dim=1,
        )

    @staticmethod
    def _blocks(luma_M1HW: Tensor) -> Tensor:
        """How far edges that return every eight rows or columns stand out, ``[M, 2]``."""
        step = luma_M1HW[:, 0, :, 1:-2], luma_M1HW[:, 0, :, 2:-1]
        jump = (step[1] - step[0]).abs() - 0.5 * (
            (step[0] - luma_M1HW[:, 0, :, :-3]).abs() + (luma_M1HW[:, 0, :, 3:] - step[1]).abs()
        )
        drop = luma_M1HW[:, 0, 1:-2], luma_M1HW[:, 0, 2:-1]
        fall = (drop[1] - drop[0]).abs() - 0.5 * (
            (drop[0] - luma_M1HW[:, 0, :-3]).abs() + (luma_M1HW[:, 0, 3:] - drop[1]).abs()
        )
        profiles = torch.relu(jump).mean(dim=1), torch.relu(fall).mean(dim=2)
        return torch.cat([measured.periods(profile, 8) for profile in profiles], dim=1)


class LevelProbs(Measured):
    """Probabilities of the five levels from spectra of all blocks; the score is their expectation (Q-Align's idea)."""

    SCALES: Final = 3
    FIGURES: Final = 3 * 66 * SCALES + 2 * 66

    def __init__(self) -> None:
        super().__init__()
        basis, matrix = measured.block_basis(), measured.opponent_matrix()
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("colour_basis", basis * matrix[0].view(1, 3, 1, 1), persistent=False)
        self.register_buffer("halving", matrix[:, :, None, None].expand(3, 3, 2, 2) / 4, persistent=False)
        self.standard = Standardised(self.FIGURES)
        self.head = Head(self.FIGURES, 80, 5)

    def describe(self, pixels_NHWC: Tensor) -> Tensor:
        """Args: uint8 ``[N, H, W, 3]``, sides multiples of 32; returns ``[N, F]``."""
        unit = unit_pixels(pixels_NHWC)
        half = functional.conv2d(unit, self.get_buffer("halving"), stride=2)
        basis = self.get_buffer("basis")
        luma = [self._spectra(unit, self.get_buffer("colour_basis")), self._spectra(half[:, :1], basis)]
        luma.append(self._spectra(measured.halved(half[:, :1]), basis))
        chroma = [self._spectra(half[:, plane : plane + 1], basis).mean(dim=1) for plane in (1, 2)]
        texture = [measured.pooled(spectra_NLF, spectra_NLF[:, :, 65]) for spectra_NLF in luma]
        return torch.cat([*texture, *chroma], dim=1)

    def judge(self, figures: Tensor) -> Outputs:
        """Args: ``[N, F]``."""
        logits_N5 = self.head(self.standard(figures))
        centres = torch.tensor(CENTRES, dtype=logits_N5.dtype, device=logits_N5.device)
        return {"raw": torch.softmax(logits_N5, dim=1) @ centres, "logits": logits_N5}

    @staticmethod
    def _spectra(planes: Tensor, basis: Tensor) -> Tensor:
        """Log energies of the 64 coefficients, mean and log spread of each block, ``[N, L, 66]``."""
        coefficients_NCL = functional.conv2d(planes, basis, stride=8).flatten(2)
        energies = coefficients_NCL**2
        spread = measured.log_energy(energies[:, 1:].sum(dim=1, keepdim=True))
        return torch.cat([measured.log_energy(energies), coefficients_NCL[:, :1] / 8.0, spread], dim=1).transpose(1, 2)


class MultiscaleAttention(Measured):
    """Band energies of cells of the picture; coarse cells look where to attend among fine ones (TOPIQ's idea)."""

    CELL: Final = 32
    OCTAVES: Final = 4
    COLOURED: Final = 2
    FIGURES: Final = 3 * OCTAVES + 4 * COLOURED + 5

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        haar = measured.haar_kernels()
        first = torch.einsum("pc,khw->pkchw", measured.opponent_matrix(), haar).flatten(0, 1)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("next", haar[:, None].repeat(3, 1, 1, 1), persistent=False)
        self.standard = Standardised(self.FIGURES)
        self.fine = Head(self.FIGURES, width, width)
        self._scale = width**-0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.mix = Head(2 * width, width, width)
        self.head = Head(4 * width, 64, 1)

    def describe(self, pixels_NHWC: Tensor) -> Tensor:
        """Args: uint8 ``[N, H, W, 3]``, sides multiples of 32; returns ``[N, H / 32, W / 32, F]``."""
        wavelet = functional.conv2d(unit_pixels(pixels_NHWC), self.get_buffer("first"), stride=2)
        cell, found = self.CELL // 2, []
        for octave in range(self.OCTAVES):
            low = wavelet[:, ::4]
            if octave < self.COLOURED:
                bands = [wavelet[:, 1:4], wavelet[:, 5:8], wavelet[:, 9:12]]
                energy = functional.avg_pool2d(torch.cat(bands, dim=1) ** 2, cell)
                colour = [energy[:, 3:6].sum(dim=1, keepdim=True), energy[:, 6:].sum(dim=1, keepdim=True)]
                found.append(measured.log_energy(torch.cat([energy[:, :3], *colour], dim=1)))
                found.append(torch.log(functional.max_pool2d(bands[0][:, :2].abs(), cell) + 2e-3))
            else:
                found.append(measured.log_energy(functional.avg_pool2d(wavelet[:, 1:4] ** 2, cell)))
            if octave == 0:
                means = functional.avg_pool2d(low, cell)
                clipped = functional.avg_pool2d(torch.relu(low[:, :1].abs() - 0.94) * 16.0, cell)
                found += [means, (means[:, 1:] ** 2).sum(dim=1, keepdim=True), clipped]
            if octave + 1 < self.OCTAVES:
                wavelet, cell = functional.conv2d(low, self.get_buffer("next"), stride=2, groups=3), cell // 2
        return torch.cat(found, dim=1).permute(0, 2, 3, 1)

    def judge(self, figures: Tensor) -> Outputs:
        """Args: ``[N, rows, columns, F]``."""
        fine_NHWC = self.fine(self.standard(figures))
        fine_NLC = fine_NHWC.flatten(1, 2)
        coarse_NLC = functional.avg_pool2d(fine_NHWC.permute(0, 3, 1, 2), 2, ceil_mode=True).flatten(2).transpose(1, 2)
        similarity = self.query(coarse_NLC) @ self.key(fine_NLC).transpose(1, 2) * self._scale
        weights = torch.softmax(similarity, dim=-1)
        attended_NLC = self.mix(torch.cat([coarse_NLC, weights @ fine_NLC], dim=2))
        summary = [
            part for tokens in (fine_NLC, attended_NLC) for part in (tokens.mean(dim=1), measured.spread(tokens, 1))
        ]
        return {"raw": self.head(torch.cat(summary, dim=1)).squeeze(1)}


class MultiTask(Measured):
    """Residues of native patches, as steganalysis sees them; heads for quality, kind and severity (LIQE's idea)."""

    KINDS: Final = 27
    FIGURES: Final = 12 * (measured.RESIDUES + 2) + 10

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernels", measured.residue_kernels(), persistent=False)
        self.standard = Standardised(self.FIGURES)
        self.trunk = nn.Sequential(nn.Linear(self.FIGURES, 96), nn.ReLU(), nn.Dropout(0.3))
        self.quality = Head(96, 48, 2)
        self.kind = nn.Linear(96, self.KINDS)
        self.severity = nn.Linear(96, 1)

    def describe(self, patches_NKHWC: Tensor) -> Tensor:
        """Args: uint8 ``[N, K, 96, 96, 3]``; returns ``[N, K, F]``."""
        count, patches = patches_NKHWC.shape[0], patches_NKHWC.shape[1]
        planes = measured.opponent(unit_pixels(patches_NKHWC.flatten(0, 1)))
        kernels = self.get_buffer("kernels")
        luma = functional.conv2d(planes[:, :1], kernels)
        chroma = functional.conv2d(planes[:, 1:], kernels[4:5].expand(2, -1, -1, -1), groups=2)
        common = (luma[:, 4:5] * chroma).mean(dim=(2, 3)) / (
            torch.sqrt((luma[:, 4:5] ** 2).mean(dim=(2, 3)) * (chroma**2).mean(dim=(2, 3))) + 1e-6
        )
        plain = [planes.mean(dim=(2, 3)), measured.spread(planes, (2, 3))]
        plain += [planes[:, :1].amax(dim=(2, 3)), planes[:, :1].amin(dim=(2, 3))]
        figures = [measured.residue_statistics(luma), measured.residue_statistics(chroma), common, *plain]
        return torch.cat(figures, dim=1).unflatten(0, (count, patches))

    def judge(self, figures: Tensor) -> Outputs:
        """Args: ``[N, K, F]``."""
        trunk_NKC = self.trunk(self.standard(figures))
        quality_NK2 = self.quality(trunk_NKC)
        return {
            "raw": weighted_mean(quality_NK2[..., 0], quality_NK2[..., 1]),
            "kind": self.kind(trunk_NKC).mean(dim=1),
            "severity": self.severity(trunk_NKC).mean(dim=(1, 2)),
        }


class Ranking(Measured):
    """Natural-scene statistics of native crops at three scales, learnt from pairs alone (QualiCLIP's training)."""

    SCALES: Final = 3
    FIGURES: Final = 46 * SCALES

    def __init__(self) -> None:
        super().__init__()
        self.standard = Standardised(self.FIGURES)
        self.head = Head(self.FIGURES, 64, 2)

    def describe(self, crops_NKHWC: Tensor) -> Tensor:
        """Args: uint8 ``[N, K, 160, 160, 3]``; returns ``[N, K, F]``."""
        count, crops = crops_NKHWC.shape[0], crops_NKHWC.shape[1]
        luma = measured.opponent(unit_pixels(crops_NKHWC.flatten(0, 1)))[:, :1]
        found = []
        for scale in range(self.SCALES):
            found.append(measured.scene_statistics(luma))
            if scale + 1 < self.SCALES:
                luma = measured.halved(luma)
        return torch.cat(found, dim=1).unflatten(0, (count, crops))

    def judge(self, figures: Tensor) -> Outputs:
        """Args: ``[N, K, F]``."""
        scores_NK2 = self.head(self.standard(figures))
        return {"raw": weighted_mean(scores_NK2[..., 0], scores_NK2[..., 1])}


NETWORKS: Final[dict[str, Callable[[], Measured]]] = {
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
