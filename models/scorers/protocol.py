"""What a scorer is, built in or not: a name, a version, a way to see a medium, and a score in [0, 1]."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError

Pixels = NDArray[np.uint8]

CLIP_FRAMES: Final = 8
"""Consecutive frames that a clip scorer sees at a time (FasterVQA's aligned clips have 8, too)."""


def middle_frames(total: int, count: int) -> list[int]:
    """Frames in the middles of ``count`` equal parts of a video of ``total`` frames; all of them of a shorter one."""
    count = min(count, total)
    return [int((part + 0.5) * total / count) for part in range(count)]


class Sampling(StrEnum):
    """The common ways to see a video, whole frames by the stage's rule; of an image it is the one frame.

    Scorers of one way share what they see: frames are brought to the screen's size once for all of them.
    """

    FRAMES = "frames"
    """Single frames spread evenly over the video; the raw score is the mean of theirs."""
    CLIPS = "clips"
    """Runs of ``CLIP_FRAMES`` consecutive frames spread evenly, one after the other along T."""
    SCREEN_FRAMES = "screen_frames"
    """As ``FRAMES``, at the size of a screen (``models/scorers/screen.py``)."""
    SCREEN_CLIPS = "screen_clips"
    """As ``CLIPS``, at the size of a screen."""

    @property
    def clips(self) -> bool:
        """Whether it is runs of frames."""
        return self in {Sampling.CLIPS, Sampling.SCREEN_CLIPS}

    @property
    def screen(self) -> bool:
        """Whether frames come at the size of a screen."""
        return self in {Sampling.SCREEN_FRAMES, Sampling.SCREEN_CLIPS}


@dataclass(frozen=True)
class Strip:
    """Frames that a scorer wants one after the other, all reduced alike.

    Attributes:
        indices: places in the medium, in the order of seeing; they may repeat and turn back.
        reduce: (frame_HWC, seed) -> what is seen of it, uint8 ``[h, w, 3]``; the seed is the medium's, for drawn crops.
    """

    indices: Sequence[int]
    reduce: Callable[[Pixels, int], Pixels]


@dataclass(frozen=True)
class Excerpt:
    """What a scorer sees that chooses frames and crops by its own rule; an image is a video of one frame to it.

    Frames are reduced as they are decoded: an excerpt of a long or large video takes no more memory than another.

    Attributes:
        strips: number of frames of the medium -> strips, seen one after the other along T.
    """

    strips: Callable[[int], tuple[Strip, ...]]

    def of(self, frames_THWC: Pixels) -> Pixels:
        """The excerpt ``[T', h, w, 3]`` of a medium whose frames are all in memory.

        Raises:
            ModelError: the array has another shape or type, or frames cannot be reduced.
        """
        check_frames(frames_THWC)
        gathering = Gathering(self.strips(len(frames_THWC)))
        for index in sorted(gathering.wanted):
            gathering.see(index, frames_THWC[index])
        return gathering.gathered()


class Gathering:
    """Strips of one medium, filled while its frames are shown in rising order."""

    def __init__(self, strips: Sequence[Strip]) -> None:
        self._strips = strips
        self._seen: list[dict[int, Pixels]] = [{} for _ in strips]
        self._seed: int | None = None
        self.wanted: Final = frozenset(index for strip in strips for index in strip.indices)

    def see(self, index: int, frame_HWC: Pixels) -> None:
        """Take what the strips want of a frame; the first one wanted gives the seed, so equal media have equal ones."""
        for strip, seen in zip(self._strips, self._seen, strict=True):
            if index in strip.indices:
                if self._seed is None:
                    self._seed = int.from_bytes(hashlib.sha256(np.ascontiguousarray(frame_HWC).data).digest()[:8])
                seen[index] = strip.reduce(frame_HWC, self._seed)

    def gathered(self) -> Pixels:
        """All strips ``[T, h, w, 3]``, one after the other."""
        strips = zip(self._strips, self._seen, strict=True)
        return np.stack([seen[index] for strip, seen in strips for index in strip.indices])


@runtime_checkable
class Scorer(Protocol):
    """A no-reference quality scorer.

    Scoring is deterministic: the same frames give the same score, whatever was scored before.
    """

    @property
    def name(self) -> str:
        """Short name, the key of its scores."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever scores may change: opinions are stored under (content, name, version)."""
        ...

    @property
    def sampling(self) -> Sampling | Excerpt:
        """Which frames of a video it wants."""
        ...

    def raw(self, frames_THWC: Pixels) -> float:
        """Uncalibrated score, higher is better.

        Args:
            frames_THWC: uint8 RGB; T = 1 for an image, else as :attr:`sampling` asks (of an excerpt, all of it).

        Raises:
            ModelError: the array has another shape or type.
        """
        ...

    def score(self, frames_THWC: Pixels) -> float:
        """Calibrated score in [0, 1], higher is better."""
        ...


@dataclass(frozen=True)
class Calibration:
    """Monotone map of a raw score to [0, 1]: straight lines between knots, constant beyond the first and last.

    Attributes:
        raw: strictly increasing raw scores.
        quality: strictly increasing values in [0, 1], one per knot.
    """

    raw: tuple[float, ...]
    quality: tuple[float, ...]

    def __post_init__(self) -> None:
        raw, quality = np.asarray(self.raw), np.asarray(self.quality)
        rising = len(raw) == len(quality) >= 2 and (np.diff(raw) > 0).all() and (np.diff(quality) > 0).all()
        if not rising or quality[0] < 0.0 or quality[-1] > 1.0:
            msg = "a calibration needs two or more knots that rise strictly on both sides, and qualities in [0, 1]"
            raise ModelError(msg)

    def __call__(self, raw: float) -> float:
        """Quality of a raw score.

        Raises:
            ModelError: the raw score is not a number.
        """
        if not np.isfinite(raw):
            msg = f"a scorer gave {raw!r} where a number was due"
            raise ModelError(msg)
        return float(np.interp(raw, self.raw, self.quality))


def check_frames(frames_THWC: Pixels) -> None:
    """Refuse anything but uint8 ``[T, H, W, 3]`` with T >= 1.

    Raises:
        ModelError: naming shape and type.
    """
    fits = frames_THWC.ndim == 4 and frames_THWC.shape[3] == 3 and frames_THWC.dtype == np.uint8 and frames_THWC.size
    if not fits:
        msg = f"frames must be [T, H, W, 3] uint8 with T >= 1, not {frames_THWC.shape} {frames_THWC.dtype}"
        raise ModelError(msg)
