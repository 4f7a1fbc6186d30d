"""What the line is compared with: a ridge regression on features of the untouched encoder, and NIQE."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from models.errors import ModelError
from models.linear_probe import LinearProbe, fit_probe
from models.niqe import niqe
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
    """

    penalties: tuple[float, ...]
    folds: int


def pooled_features(ids: Iterable[str], features: CachedFeatures) -> Floats:
    """One vector per medium: mean over all visual tokens, mean over motion tokens (0 for images), and the modality."""
    items = [features.read(medium) for medium in ids]
    visual_NC = np.array([item.tiles_PSC.mean(dim=(0, 1)).numpy() for item in items], np.float64)
    motion_NM = np.zeros((len(items), features.motion_channels))
    for position, item in enumerate(items):
        if item.motion_TM is not None:
            motion_NM[position] = item.motion_TM.mean(dim=0).numpy()
    is_video_N1 = np.array([[item.is_video] for item in items], np.float64)
    return np.hstack([visual_NC, motion_NM, is_video_N1])


def train_probe(rows: pd.DataFrame, features: CachedFeatures, config: ProbeConfig) -> LinearProbe:
    """Fit the probe on candidates with a ``target``.

    Raises:
        ModelError: there are fewer contents than folds.
    """
    pooled_NF = pooled_features(rows["id"], features)
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
