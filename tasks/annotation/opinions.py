"""Machine opinion of one medium: decode once, show every scorer its frames, calibrate, summarise.

The light path behind ``vital score``: NumPy, Pillow and onnxruntime; no torch, no tables. The stage ``score`` runs the
same functions over the pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.levels import level_of
from models.opinion import summarise
from models.scorers import BUILT_INS, CLIP_FRAMES, Sampling, Scorer, load_scorer
from models.scorers.built_in import Backend
from tasks.media import Limits, Pixels, decode_image, decode_video, is_video, read_file

FRAMES: Final = 4
"""Single frames of a video that image scorers see when nothing else is asked for (``score.frames`` in params.yaml)."""
CLIPS: Final = 3
"""Runs of consecutive frames that clip scorers see when nothing else is asked for (``score.clips`` in params.yaml)."""


@dataclass(frozen=True)
class FrameRule:
    """Which frames of a video are scored.

    Attributes:
        frames: single frames, at the middles of as many equal parts of the video.
        clips: runs of ``CLIP_FRAMES`` consecutive frames, centred in as many equal parts.
    """

    frames: int = FRAMES
    clips: int = CLIPS

    def __post_init__(self) -> None:
        if self.frames < 1 or self.clips < 1:
            raise ValueError("at least one frame and one clip of a video must be scored")

    def singles(self, total: int) -> list[int]:
        """Indices of the single frames of a video of ``total`` frames; fewer for shorter videos."""
        count = min(self.frames, total)
        return [int((part + 0.5) * total / count) for part in range(count)]

    def runs(self, total: int) -> list[int]:
        """Indices of the clips' frames, run after run; a video shorter than one run is one run of all its frames."""
        if total <= CLIP_FRAMES:
            return list(range(total))
        count = min(self.clips, total // CLIP_FRAMES)
        starts = [
            min(max(round((part + 0.5) * total / count - CLIP_FRAMES / 2), 0), total - CLIP_FRAMES)
            for part in range(count)
        ]
        return [start + offset for start in starts for offset in range(CLIP_FRAMES)]


@dataclass(frozen=True)
class Frames:
    """What scorers may see of one decoded medium: ``singles_THWC`` and ``runs_THWC`` are the same frame of an image."""

    singles_THWC: Pixels
    runs_THWC: Pixels

    def for_sampling(self, sampling: Sampling) -> Pixels:
        """The frames a scorer of this kind sees."""
        return self.runs_THWC if sampling is Sampling.CLIPS else self.singles_THWC


@dataclass(frozen=True)
class ScoreResult:
    """Machine opinion of one file.

    Attributes:
        path: as it was given.
        scores: scorer name -> calibrated score in [0, 1].
        mu: their mean. sigma: their population standard deviation.
        pmod: probabilities of the levels high, good, fair, poor, low.
        level: name of the fifth of [0, 1] that mu lies in.
    """

    path: str
    scores: dict[str, float]
    mu: float
    sigma: float
    pmod: list[float]
    level: str


def load_scorers(
    names: Sequence[str] | None = None, backend: Backend = "onnx", threads: int | None = None
) -> list[Scorer]:
    """Load scorers once per process; without names the six built-in ones.

    Raises:
        ModelError: an unknown name, or damaged files; MissingWeightsError says which file belongs where.
    """
    return [load_scorer(name, backend, threads) for name in (list(BUILT_INS) if names is None else names)]


def decode_frames(data: bytes, rule: FrameRule, limits: Limits | None = None) -> Frames:
    """Decode a medium once and pick the frames that any scorer sees.

    Raises:
        MediaError: the medium is not usable.
    """
    if not is_video(data, limits):
        image = decode_image(data, limits)[None]
        return Frames(image, image)
    chosen: dict[str, list[int]] = {}

    def wanted(total: int) -> list[int]:
        chosen["singles"], chosen["runs"] = rule.singles(total), rule.runs(total)
        return sorted({*chosen["singles"], *chosen["runs"]})

    frames_THWC = decode_video(data, wanted, limits).frames_THWC
    position = {index: row for row, index in enumerate(sorted({*chosen["singles"], *chosen["runs"]}))}
    singles, runs = ([position[index] for index in chosen[part]] for part in ("singles", "runs"))
    return Frames(frames_THWC[singles], frames_THWC[runs])


def scores_of(
    data: bytes, scorers: Sequence[Scorer], rule: FrameRule, limits: Limits | None = None
) -> NDArray[np.float64]:
    """Calibrated scores ``[S]`` of a medium, one per scorer, from a single decode.

    Raises:
        MediaError: the medium is not usable.
    """
    frames = decode_frames(data, rule, limits)
    return np.array([scorer.score(frames.for_sampling(scorer.sampling)) for scorer in scorers])


def opinion_of(data: bytes, scorers: Sequence[Scorer], path: str = "", rule: FrameRule | None = None) -> ScoreResult:
    """Machine opinion of a medium's bytes.

    Args:
        data: an image or video file.
        scorers: from :func:`load_scorers`.
        path: what the result calls it.
        rule: frames of videos; the embedded profile's by default.

    Raises:
        MediaError: the medium is not usable.
    """
    scores = scores_of(data, scorers, rule or FrameRule())
    opinion = summarise(scores[None])
    mu = float(opinion.mu_N[0])
    return ScoreResult(
        path=path,
        scores={scorer.name: float(score) for scorer, score in zip(scorers, scores, strict=True)},
        mu=mu,
        sigma=float(opinion.sigma_N[0]),
        pmod=[float(p) for p in opinion.pmod_N5[0]],
        level=level_of(mu),
    )


def score_path(path: Path | str, scorers: Sequence[Scorer] | None = None) -> ScoreResult:
    """Machine opinion of a file.

    Args:
        path: a photograph or a clip.
        scorers: from :func:`load_scorers`; by default the built-in six, loaded once per process.

    Raises:
        MediaError: it is missing, not readable, or not a usable medium.
        ModelError: a scorer's weights are missing or damaged.
    """
    return opinion_of(read_file(Path(path)), scorers if scorers is not None else _default_scorers(), str(path))


_loaded: list[Scorer] = []


def _default_scorers() -> list[Scorer]:
    if not _loaded:
        _loaded.extend(load_scorers())
    return _loaded
