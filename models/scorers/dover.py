"""DOVER with its official weights: a technical branch on fragments and an aesthetic branch on whole resized frames.

Wu et al., Exploring Video Quality Assessment on User Generated Contents from Aesthetic and Technical Perspectives,
ICCV 2023 (arXiv 2211.04894). Written from the paper and from the facts of the official repository, whose code, under a
non-commercial licence, is not used.

Shape legend: N clips, C channels, T frames or time steps, H and W height and width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from models.errors import ModelError
from models.scorers.convnext_3d import ConvNeXt3D
from models.scorers.fast_vqa import FORMS, QualityHead, clips_of, logistic, mean_qualities
from models.scorers.official import official_version
from models.scorers.official_checkpoint import fill
from models.scorers.protocol import Excerpt, Pixels, Strip
from models.scorers.runtime import RunsByTorch
from models.scorers.video_swin import VideoSwin
from models.scorers.video_views import FragmentClips, Runs, squeeze

LENGTH: Final = 32
"""Frames in a clip of either branch."""
SIDE: Final = 224
_TECHNICAL: Final = FragmentClips(Runs(3, LENGTH, 2), 7, LENGTH)
_AESTHETIC: Final = Runs(LENGTH, 1, 2)


@dataclass(frozen=True)
class Branches:
    """Raw scores of the two branches, each on a scale of its own; higher is better."""

    technical: float
    aesthetic: float


@dataclass(frozen=True)
class Term:
    """One branch's part in the fused score: ``weight * (raw - mean) / std``."""

    mean: float
    std: float
    weight: float

    def __call__(self, raw: float) -> float:
        """The part of a raw score."""
        return self.weight * (raw - self.mean) / self.std


TECHNICAL_TERM: Final = Term(0.1107, 0.07355, 0.6104)
AESTHETIC_TERM: Final = Term(-0.08285, 0.03774, 0.3896)
"""The official tool's constants, in the order in which it applies them; docs/scorers.md says what is odd about them."""


class Dover(nn.Module):
    """Two backbones and two heads that share nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.technical_backbone = VideoSwin(FORMS["fast_vqa"].swin)
        self.technical_head = QualityHead()
        self.aesthetic_backbone = ConvNeXt3D()
        self.aesthetic_head = QualityHead()

    def technical(self, clips_NCTHW: Tensor) -> Tensor:
        """Local raw scores ``[N, T/2, H/32, W/32]`` of normalised clips of fragments."""
        return self.technical_head(self.technical_backbone(clips_NCTHW))

    def aesthetic(self, clips_NCTHW: Tensor) -> Tensor:
        """Local raw scores ``[N, T/2, H/32, W/32]`` of normalised clips of whole resized frames."""
        return self.aesthetic_head(self.aesthetic_backbone(clips_NCTHW))

    def forward(self, technical_NCTHW: Tensor, aesthetic_NCTHW: Tensor) -> tuple[Tensor, Tensor]:
        """Local raw scores of both branches, technical first; their numbers of clips may differ."""
        return self.technical(technical_NCTHW), self.aesthetic(aesthetic_NCTHW)


class DoverScorer(RunsByTorch):
    """DOVER as a Scorer: :meth:`branches` gives the raw scores of the branches, :meth:`raw` their weighted sum."""

    def __init__(self, network: Dover) -> None:
        super().__init__(network)
        self._sampling = dover_sampling()

    @property
    def name(self) -> str:
        """Key of the scorer."""
        return "dover"

    @property
    def version(self) -> str:
        """Our implementation, and the weight file."""
        return official_version(self.name)

    @property
    def sampling(self) -> Excerpt:
        """Clips of fragments, then one clip of whole frames."""
        return self._sampling

    def branches(self, frames_THWC: Pixels) -> Branches:
        """Raw scores of the branches, each the mean over its clips.

        Raises:
            ModelError: the frames are neither one still nor an excerpt.
        """
        return self._branches([frames_THWC])[0]

    def raw(self, frames_THWC: Pixels) -> float:
        """Weighted sum of the standardised branches."""
        return fuse(self.branches(frames_THWC))

    def score(self, frames_THWC: Pixels) -> float:
        """Logistic function of :meth:`raw`, in [0, 1]."""
        return self.score_many([frames_THWC])[0]

    def score_many(self, media: Sequence[Pixels]) -> list[float]:
        """Scores of several media, whose clips share forward passes, branch by branch.

        Raises:
            ModelError: the frames of one are neither one still nor an excerpt.
        """
        return [logistic(fuse(branches)) for branches in self._branches(media)]

    def _branches(self, media: Sequence[Pixels]) -> list[Branches]:
        clips = [clips_of(frames_THWC, self._sampling, LENGTH, SIDE) for frames_THWC in media]
        if min(map(len, clips)) < 2 * LENGTH:
            raise ModelError("an excerpt for DOVER has clips of fragments and one of whole frames")
        network, runtime = self._network, self._runtime
        technical = mean_qualities(network.technical, [seen[:-LENGTH] for seen in clips], LENGTH, runtime)
        aesthetic = mean_qualities(network.aesthetic, [seen[-LENGTH:] for seen in clips], LENGTH, runtime)
        return [Branches(*pair) for pair in zip(technical, aesthetic, strict=True)]


def strips(total: int) -> tuple[Strip, ...]:
    """What DOVER sees of a medium of ``total`` frames: the technical clips, then the aesthetic one."""
    whole = [index for run in _AESTHETIC.indices(total) for index in run]
    return (*_TECHNICAL.strips(total), Strip(whole, _squeeze))


def dover_sampling() -> Excerpt:
    """What DOVER sees of a medium, without its weights."""
    return Excerpt(strips)


def fuse(branches: Branches) -> float:
    """Weighted sum of the standardised branches, the official tool's fused score before its logistic function."""
    return TECHNICAL_TERM(branches.technical) + AESTHETIC_TERM(branches.aesthetic)


def load_dover(path: Path) -> DoverScorer:
    """DOVER with the weights of the official checkpoint.

    Raises:
        MissingWeightsError: the file is not there.
        ModelError: it does not fit; the message names the tensors.
    """
    network = Dover()
    fill(network, path)
    return DoverScorer(network)


def _squeeze(frame_HWC: Pixels, _seed: int) -> Pixels:
    return squeeze(frame_HWC, SIDE)
