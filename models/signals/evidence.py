"""The pixels that one judge looks at in one round: random crops, a random sample of tones, and a run of frames.

Rounds and judges draw from seeds of their own, so no two of them rest on the same pixels. Shapes: ``N`` crops, ``T``
frames, ``P`` sampled pixels, ``HW`` a crop's or frame's size, ``C`` = RGB.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R BT.601 weights."""


@dataclass(frozen=True)
class EvidenceConfig:
    """How much one round looks at.

    Attributes:
        crops: crops at native resolution (shared out over the frames of a clip).
        crop_side: their side, pixels; a smaller medium gives smaller crops.
        tones: pixels sampled from the whole medium.
        run_frames: consecutive frames of a clip.
        run_side: shorter side to which these frames are reduced by averaging, pixels.
    """

    crops: int
    crop_side: int
    tones: int
    run_frames: int
    run_side: int

    def __post_init__(self) -> None:
        if min(self.crops, self.tones) < 1 or min(self.crop_side, self.run_side) < 32 or self.run_frames < 8:
            msg = "evidence needs crops >= 1, tones >= 1, sides >= 32 and run_frames >= 8"
            raise ValueError(msg)


class Medium:
    """Pixels that evidence is drawn from; what draws share of a clip is computed once, and only if asked for.

    Args:
        pixels: ``[H, W, 3]`` of an image or ``[T, H, W, 3]`` of a clip, uint8 RGB.

    Raises:
        ModelError: wrong shape or type.
    """

    def __init__(self, pixels: Pixels) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[-1] != 3 or 0 in pixels.shape:
            msg = f"expected [H, W, 3] or [T, H, W, 3] uint8, not {pixels.shape} {pixels.dtype}"
            raise ModelError(msg)
        self.is_clip = pixels.ndim == 4
        self.frames_THWC = pixels if self.is_clip else pixels[None]
        self._reduced: dict[int, Floats] = {}

    def reduced_luma(self, side: int) -> Floats:
        """Luma ``[T, h, w]`` of all frames, 0 to 255, averaged so that the shorter side is near ``side`` pixels."""
        if side not in self._reduced:
            self._reduced[side] = np.concatenate([_reduced(frame[None], side) for frame in self.frames_THWC])
        return self._reduced[side]


@dataclass(frozen=True)
class Run:
    """Consecutive frames of a clip, which only the estimators of motion look at."""

    medium: Medium
    start: int
    config: EvidenceConfig

    def luma_THW(self) -> Floats:  # noqa: N802 - a tensor, with its shape
        """Luma of the frames, 0 to 255, reduced; ``T`` = 0 for images."""
        if not self.medium.is_clip:
            return np.zeros((0, 0, 0), np.float32)
        return self.medium.reduced_luma(self.config.run_side)[self.start : self.start + self.config.run_frames]


@dataclass(frozen=True)
class Evidence:
    """What is looked at.

    Attributes:
        key: names medium, judge and round.
        medium: "image" or "video".
        crops_NHWC: uint8 RGB at native resolution.
        tones_PC: uint8 RGB of randomly chosen pixels of the whole medium.
        run: consecutive frames of a clip.
    """

    key: str
    medium: str
    crops_NHWC: Pixels
    tones_PC: Pixels
    run: Run

    @cached_property
    def luma_NHW(self) -> Floats:  # noqa: N802 - a tensor, with its shape
        """Luma of the crops, 0 to 255."""
        return self.crops_NHWC.astype(np.float32) @ LUMA

    @cached_property
    def tone_luma_P(self) -> Floats:  # noqa: N802 - a tensor, with its shape
        """Luma of the sampled pixels, 0 to 255."""
        return self.tones_PC.astype(np.float32) @ LUMA

    @property
    def run_THW(self) -> Floats:  # noqa: N802 - a tensor, with its shape
        """Luma of the run's frames, 0 to 255, reduced; ``T`` = 0 for images."""
        return self.run.luma_THW()


def draw_evidence(medium: Medium, config: EvidenceConfig, *seed: str | int) -> Evidence:
    """Draw one round's evidence.

    Args:
        medium: an image or a clip; draws from one ``Medium`` share the reduction of its frames.
        config: how much of it.
        seed: (sample id, judge, round); equal seeds draw equal pixels.
    """
    key = "/".join(str(part) for part in seed)
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
    crops = _crops(medium.frames_THWC, config, generator)
    tones = _tones(medium.frames_THWC, config.tones, generator)
    total = len(medium.frames_THWC) if medium.is_clip else 0
    start = int(generator.integers(max(total - config.run_frames, 0) + 1))
    return Evidence(key, "video" if medium.is_clip else "image", crops, tones, Run(medium, start, config))


def _crops(frames_THWC: Pixels, config: EvidenceConfig, generator: np.random.Generator) -> Pixels:
    total, height, width = frames_THWC.shape[:3]
    high, wide = min(config.crop_side, height), min(config.crop_side, width)
    crops = np.empty((config.crops, high, wide, 3), np.uint8)
    for index in range(config.crops):
        frame = int(generator.integers(total))
        top, left = int(generator.integers(height - high + 1)), int(generator.integers(width - wide + 1))
        crops[index] = frames_THWC[frame, top : top + high, left : left + wide]
    return crops


def _tones(frames_THWC: Pixels, count: int, generator: np.random.Generator) -> Pixels:
    total, height, width = frames_THWC.shape[:3]
    places = tuple(generator.integers(size, size=count) for size in (total, height, width))
    return frames_THWC[places]


def _reduced(frames_THWC: Pixels, side: int) -> Floats:
    height, width = frames_THWC.shape[1:3]
    luma_THW = frames_THWC.astype(np.float32) @ LUMA
    factor = max(1, min(height, width) // side)
    rows, columns = height // factor, width // factor
    blocks = luma_THW[:, : rows * factor, : columns * factor].reshape(-1, rows, factor, columns, factor)
    return blocks.mean(axis=(2, 4))
