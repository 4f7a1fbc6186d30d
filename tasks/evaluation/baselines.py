"""What the line is compared with: a ridge regression on features of the untouched encoder, and NIQE."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from models.errors import ModelError
from models.linear_probe import LinearProbe, fit_probe
from models.motion import MotionExtractor
from models.niqe import niqe
from models.quality_lmm import QualityLMM, VisualFeatures
from models.vision_encoder import VisualInput, VisualSpec
from tasks.errors import MediaError
from tasks.media import Clip
from tasks.pool import decoded
from tasks.prepared import CachedFeatures
from tasks.stage import Place

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ProbeConfig:
    """How the linear probe is fitted.

    Attributes:
        penalties: ridge penalties to choose from.
        folds: folds of whole contents in that choice.
        max_media: bound on the training media that it is fitted to (see ``tasks.targets.bounded``); None takes all. The
            fit holds their features in memory.
    """

    penalties: tuple[float, ...]
    folds: int
    max_media: int | None

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.max_media is not None and self.max_media < 1:
            raise ValueError("max_media must be at least 1, or null for all")


@dataclass(frozen=True)
class MeanPooled:
    """A model's frozen encoder, whose features of a medium are pooled to one vector."""

    model: QualityLMM

    @property
    def spec(self) -> VisualSpec:
        """How it looks at media."""
        return self.model.spec

    @property
    def image_encoder(self) -> nn.Module:
        """What makes its visual tokens."""
        return self.model.image_encoder

    @property
    def motion_extractor(self) -> MotionExtractor:
        """What makes its motion tokens."""
        return self.model.motion_extractor

    def visual_features(self, inputs: Sequence[VisualInput]) -> list[VisualFeatures]:
        """Features of each medium, not pooled yet."""
        return self.model.visual_features(inputs)

    def gathered(self, features: Sequence[VisualFeatures]) -> Tensor:
        """Vectors ``[N, F]``: mean over visual tokens, mean over motion tokens (0 for images), and the modality."""
        return torch.stack([self._pooled(one) for one in features])

    def _pooled(self, one: VisualFeatures) -> Tensor:
        still_M = torch.zeros(self.motion_extractor.config.channels)
        motion_M = still_M if one.motion_TM is None else one.motion_TM.mean(dim=0)
        return torch.cat([one.tiles_PSC.mean(dim=(0, 1)), motion_M, torch.tensor([float(one.is_video)])])


def pooled(ids: Iterable[str], features: CachedFeatures, model: QualityLMM) -> NDArray[np.float32]:
    """Vectors ``[N, F]`` of cached features of the model's encoder, of which one medium's are held at a time."""
    encoder = MeanPooled(model)
    return torch.cat([encoder.gathered([features.read(medium)]) for medium in ids]).numpy()


def train_probe(rows: pd.DataFrame, pooled_NF: NDArray[np.floating], config: ProbeConfig) -> LinearProbe:
    """Fit the probe on candidates with a ``target`` and their pooled features.

    Raises:
        ModelError: there are fewer contents than folds.
    """
    return fit_probe(pooled_NF, rows["target"].to_numpy(), list(rows["content_id"]), config.penalties, config.folds)


def niqe_scores(place: Place, rows: pd.DataFrame, frames: int) -> Floats:
    """NIQE of each candidate, lower is better, a video's averaged over evenly spread frames; NaN where undefined."""
    scores = np.full(len(rows), np.nan)
    for position, row in enumerate(tqdm(rows.itertuples(index=False), total=len(rows), desc="predict: niqe")):
        candidate: Any = row
        try:
            medium = decoded(place, candidate, frames)
            pictures = list(medium.frames_THWC) if isinstance(medium, Clip) else [medium]
            scores[position] = float(np.mean([niqe(picture) for picture in pictures]))
        except (ModelError, MediaError) as error:
            log.info("niqe: no score for %s: %s", candidate.id, error)
    return scores
