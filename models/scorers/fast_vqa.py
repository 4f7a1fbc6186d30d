"""FAST-VQA with its official weights: spliced native fragments, Video Swin-T with gated bias, a head of two layers.

Wu et al., FAST-VQA: Efficient End-to-end Video Quality Assessment with Fragment Sampling, ECCV 2022
(arXiv 2207.02595). Written from the paper and from the facts of the official repository, whose code is not used.

Shape legend: N clips, C channels, T frames or time steps, H and W height and width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import ModelError
from models.scorers.official import official_version
from models.scorers.official_checkpoint import fill
from models.scorers.protocol import Excerpt, Pixels, check_frames
from models.scorers.runtime import RunsByTorch, Runtime, in_format, passes
from models.scorers.video_swin import FEATURES, SwinForm, VideoSwin
from models.scorers.video_views import FRAGMENT, FragmentClips, Runs, normalised

_HIDDEN: Final = 64
DIGITS: Final = 6
"""Scores in [0, 1] are rounded here, so that the last bits of a machine's sums do not reach the tables."""


@dataclass(frozen=True)
class FastVqaForm:
    """What distinguishes the published networks.

    Attributes:
        swin: of the backbone.
        views: the clips it sees.
        mean, std: of the raw scores over one data set, by which the official tool brings a raw score to [0, 1].
    """

    swin: SwinForm
    views: FragmentClips
    mean: float
    std: float


FORMS: Final[dict[str, FastVqaForm]] = {
    "fast_vqa": FastVqaForm(
        SwinForm((8, 7, 7), (True, True, True, False)), FragmentClips(Runs(4, 32, 2), 7, 32), -0.110198185, 0.04178565
    ),
    "fast_vqa_m": FastVqaForm(
        SwinForm((4, 4, 4), (False, False, False, False)), FragmentClips(Runs(4, 16, 2), 4, 8), 0.023889644, 0.030781006
    ),
}
"""FAST-VQA-B, the paper's scorer, and its light sister FAST-VQA-M."""


class QualityHead(nn.Module):
    """Local quality of every position of the features: 1 x 1 x 1 convolutions 768 -> 64 -> 1 with a GELU between."""

    def __init__(self) -> None:
        super().__init__()
        self.fc_hid = nn.Conv3d(FEATURES, _HIDDEN, 1)
        self.fc_last = nn.Conv3d(_HIDDEN, 1, 1)

    def forward(self, features_NCTHW: Tensor) -> Tensor:
        """Local raw scores ``[N, T, H, W]``."""
        return self.fc_last(functional.gelu(self.fc_hid(features_NCTHW)))[:, 0]


class FastVqa(nn.Module):
    """Backbone and head; the raw score of a clip is the mean of its local scores."""

    def __init__(self, form: SwinForm) -> None:
        super().__init__()
        self.fragments_backbone = VideoSwin(form)
        self.vqa_head = QualityHead()

    def forward(self, clips_NCTHW: Tensor) -> Tensor:
        """Local raw scores ``[N, T/2, H/32, W/32]`` of normalised clips of fragments."""
        return self.vqa_head(self.fragments_backbone(clips_NCTHW))


class FastVqaScorer(RunsByTorch):
    """FAST-VQA as a Scorer; the raw score is the mean over the clips of a video, a still is one static clip."""

    def __init__(self, name: str, network: FastVqa) -> None:
        super().__init__(network)
        self._name, self._form, self._sampling = name, FORMS[name], fast_vqa_sampling(name)

    @property
    def name(self) -> str:
        """Key in ``FORMS``."""
        return self._name

    @property
    def version(self) -> str:
        """Our implementation, and the weight file."""
        return official_version(self._name)

    @property
    def sampling(self) -> Excerpt:
        """Clips of fragments."""
        return self._sampling

    def raw(self, frames_THWC: Pixels) -> float:
        """Mean raw score; its scale has no meaning but the order.

        Raises:
            ModelError: the frames are neither one still nor an excerpt.
        """
        return self._raws([frames_THWC])[0]

    def score(self, frames_THWC: Pixels) -> float:
        """Logistic function of the standardised raw score, in [0, 1]."""
        return self.score_many([frames_THWC])[0]

    def score_many(self, media: Sequence[Pixels]) -> list[float]:
        """Scores of several media, whose clips share forward passes.

        Raises:
            ModelError: the frames of one are neither one still nor an excerpt.
        """
        return [logistic((raw - self._form.mean) / self._form.std) for raw in self._raws(media)]

    def _raws(self, media: Sequence[Pixels]) -> list[float]:
        views, side = self._form.views, self._form.views.cells * FRAGMENT
        clips = [clips_of(frames_THWC, self._sampling, views.clips.length, side) for frames_THWC in media]
        return mean_qualities(self._network, clips, views.clips.length, self._runtime)


def load_fast_vqa(name: str, path: Path) -> FastVqaScorer:
    """FAST-VQA with the weights of an official checkpoint.

    Args:
        name: key of ``FORMS``.
        path: the checkpoint.

    Raises:
        MissingWeightsError: the file is not there.
        ModelError: it does not fit; the message names the tensors.
    """
    network = FastVqa(FORMS[name].swin)
    fill(network, path)
    return FastVqaScorer(name, network)


def fast_vqa_sampling(name: str) -> Excerpt:
    """What FAST-VQA sees of a medium, without its weights."""
    return Excerpt(FORMS[name].views.strips)


def clips_of(frames_THWC: Pixels, sampling: Excerpt, length: int, side: int) -> Pixels:
    """Whole clips of ``length`` frames: those handed over, or the excerpt of a still.

    Raises:
        ModelError: the frames are neither.
    """
    check_frames(frames_THWC)
    if len(frames_THWC) == 1:
        return sampling.of(frames_THWC)
    if len(frames_THWC) % length or frames_THWC.shape[1:3] != (side, side):
        msg = (
            f"clips of {length} frames of {side}x{side} are due, not {frames_THWC.shape}: "
            "hand over the scorer's sampling.of(frames)"
        )
        raise ModelError(msg)
    return frames_THWC


def mean_qualities(
    network: Callable[[Tensor], Tensor], media: Sequence[Pixels], length: int, runtime: Runtime
) -> list[float]:
    """Mean of the local scores of all clips of each medium.

    Every pass has ``runtime.rows`` clips, the last one copies of its last clip where there are too few: a clip goes
    through a computation of the same shape in any company, and memory does not depend on the number of clips.
    """
    owners = [index for index, medium in enumerate(media) for _ in range(0, len(medium), length)]
    clips = [medium[start : start + length] for medium in media for start in range(0, len(medium), length)]
    found: list[list[float]] = [[] for _ in media]
    with passes(runtime):
        for start in range(0, len(clips), runtime.rows):
            part = clips[start : start + runtime.rows]
            full = part + part[-1:] * (runtime.rows - len(part))
            seen_NCTHW = torch.cat([normalised(clip, length, runtime.device) for clip in full])
            local_NTHW = network(in_format(seen_NCTHW, runtime)).float().cpu()
            for offset in range(len(part)):
                found[owners[start + offset]].append(local_NTHW[offset].mean().item())
    return [float(np.mean(scores)) for scores in found]


def logistic(standard: float) -> float:
    """``1 / (1 + exp(-x))`` of a standardised score, rounded.

    Raises:
        ModelError: it is not a number.
    """
    if not math.isfinite(standard):
        msg = f"a network gave {standard!r} where a number was due: its weights are damaged"
        raise ModelError(msg)
    return round(0.5 * (1.0 + math.tanh(0.5 * standard)), DIGITS)
