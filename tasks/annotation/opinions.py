"""Machine opinion of one medium: decode once, show every scorer its frames, calibrate, summarise.

The light path behind ``vital score``: NumPy, Pillow and onnxruntime; no torch, no tables. The stage ``score`` runs the
same functions over the pool.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.levels import level_of
from models.opinion import summarise
from models.scorers import BUILT_INS, CLIP_FRAMES, Excerpt, Gathering, Sampling, Scorer, load_scorer
from models.scorers.built_in import Backend
from models.scorers.protocol import middle_frames
from models.scorers.screen import on_screen
from tasks.errors import MediaError
from tasks.media import Limits, Pixels, decode_image, is_video, read_file, watch_video

UNSCORABLE: Final = "unscorable"
"""Reason of a medium that decodes, but of which a scorer gives no score."""
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
        return middle_frames(total, self.frames)

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
    """What scorers see of one decoded medium, by the way they see it."""

    seen: dict[Sampling | Excerpt, Pixels]

    def for_sampling(self, sampling: Sampling | Excerpt) -> Pixels:
        """The frames ``[T, H, W, 3]`` that a scorer of this kind sees."""
        return self.seen[sampling]


class _Audience:
    """Gathers what scorers want while a medium is shown once; a video's frames are kept as reduced as they allow."""

    def __init__(self, samplings: Sequence[Sampling | Excerpt], rule: FrameRule) -> None:
        self._samplings, self._rule = tuple(dict.fromkeys(samplings)), rule
        self._whole: dict[tuple[bool, int], Pixels] = {}
        self._places: dict[Sampling, list[int]] = {}
        self._gatherings: dict[Excerpt, Gathering] = {}

    def wanted(self, total: int) -> list[int]:
        """Indices of the frames that somebody wants of ``total``; what was seen before is forgotten."""
        self._whole.clear()
        for sampling in self._samplings:
            if isinstance(sampling, Excerpt):
                self._gatherings[sampling] = Gathering(sampling.strips(total))
            else:
                self._places[sampling] = self._rule.runs(total) if sampling.clips else self._rule.singles(total)
        excerpts = (gathering.wanted for gathering in self._gatherings.values())
        return sorted(set().union(*self._places.values(), *excerpts))

    def see(self, index: int, frame_HWC: Pixels) -> None:
        """Take a frame that is wanted.

        Raises:
            MediaError: ``unsupported``, a scorer cannot see frames of this shape.
        """
        for screen in {sampling.screen for sampling, places in self._places.items() if index in places}:
            self._whole[screen, index] = on_screen(frame_HWC[None])[0] if screen else frame_HWC
        try:
            for gathering in self._gatherings.values():
                gathering.see(index, frame_HWC)
        except ModelError as error:
            raise MediaError("unsupported", str(error)) from error

    def frames(self) -> Frames:
        """What was gathered."""
        whole = {
            sampling: np.stack([self._whole[sampling.screen, index] for index in places])
            for sampling, places in self._places.items()
        }
        return Frames({**whole, **{key: gathering.gathered() for key, gathering in self._gatherings.items()}})


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
        ModelError: an unknown name or none, or damaged files; MissingWeightsError says which file belongs where.
    """
    names = [names] if isinstance(names, str) else names
    if names is not None and not names:
        raise ModelError("name at least one scorer")
    return [load_scorer(name, backend, threads) for name in (list(BUILT_INS) if names is None else names)]


def decode_frames(
    data: bytes, rule: FrameRule, samplings: Sequence[Sampling | Excerpt], limits: Limits | None = None
) -> Frames:
    """Decode a medium once and gather what scorers of these kinds see.

    Raises:
        MediaError: the medium is not usable.
    """
    audience = _Audience(samplings, rule)
    if is_video(data, limits):
        watch_video(data, audience.wanted, audience.see, limits)
    else:
        audience.wanted(1)
        audience.see(0, decode_image(data, limits))
    return audience.frames()


def scores_of(
    data: bytes, scorers: Sequence[Scorer], rule: FrameRule, limits: Limits | None = None
) -> NDArray[np.float64]:
    """Calibrated scores ``[S]`` of a medium, one per scorer, from a single decode.

    Raises:
        MediaError: the medium is not usable, or a scorer gives no score of it.
    """
    frames = decode_frames(data, rule, [scorer.sampling for scorer in scorers], limits)
    return np.array([score_by(scorer, frames.for_sampling(scorer.sampling)) for scorer in scorers])


def score_by(scorer: Scorer, frames_THWC: Pixels) -> float:
    """A scorer's calibrated score of what it sees of a medium.

    Raises:
        MediaError: ``unscorable``: it refuses the medium, or gives what is no score.
        ModelError: it failed; the message names it.
    """
    return scores_by(scorer.name, lambda: [scorer.score(frames_THWC)])[0]


def scores_by(name: str, ask: Callable[[], Sequence[float]]) -> list[float]:
    """What ``ask`` gets from the scorer of this name, if all of it is calibrated scores.

    Raises:
        MediaError, ModelError: as :func:`score_by`.
    """
    try:
        scores = list(ask())
    except ModelError as error:
        raise MediaError(UNSCORABLE, f"scorer {name}: {error}") from error
    except Exception as error:  # it may be anybody's code: a failure, of a GPU for example, is told under its name
        msg = f"scorer {name} failed ({type(error).__name__}: {error})"
        raise ModelError(msg) from error
    for score in scores:
        if not isinstance(score, Real) or not 0.0 <= score <= 1.0:
            msg = f"scorer {name}: gave {score!r}, which is no calibrated score in [0, 1]"
            raise MediaError(UNSCORABLE, msg)
    return [float(score) for score in scores]


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
