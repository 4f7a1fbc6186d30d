"""Apply a distortion by name; the same input, type, severity and seed give the same output."""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.distortions.catalogue import IMAGE_TYPES, VIDEO_TYPES, check_severity, distortion
from models.distortions.clips import encode
from models.errors import ModelError

Pixels = NDArray[np.uint8]

GENERATOR: Final = "kadis-1"
"""Version of the generator: part of every child's id, raised whenever a cell's output changes."""


def distort_image(pixels: Pixels, kind: str, severity: int, seed: int) -> Pixels:
    """Distort one image, or one frame.

    Args:
        pixels: ``[H, W, 3]`` uint8 RGB; not changed.
        kind: key of ``IMAGE_TYPES``.
        severity: 1 to 5.
        seed: the random pattern; severities of one seed share it, so that only the strength differs.

    Returns:
        ``[H, W, 3]`` uint8.

    Raises:
        ModelError: unknown type or severity, wrong shape, or an image smaller than the type needs.
    """
    check_severity(severity)
    if kind not in IMAGE_TYPES:
        distortion(kind)
        msg = f"{kind} is a video distortion; use distort_clip"
        raise ModelError(msg)
    found = IMAGE_TYPES[kind]
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        msg = f"pixels must be [H, W, 3] uint8, not {pixels.shape} {pixels.dtype}"
        raise ModelError(msg)
    if min(pixels.shape[:2]) < found.min_side:
        msg = f"{kind} needs sides of at least {found.min_side} pixels, not {pixels.shape[1]}x{pixels.shape[0]}"
        raise ModelError(msg)
    generator = np.random.default_rng([seed, found.id])
    return found.apply(pixels, found.parameters[severity - 1], generator)


def distort_clip(frames: Iterable[Pixels], fps: float, kind: str, severity: int, seed: int) -> bytes:
    """Distort a clip and return it as an MP4 file.

    Codec types return the bitstream that the codec made; the other types, and image types applied to every frame,
    are encoded nearly losslessly. Frames are consumed one by one, so memory does not grow with the clip.

    Args:
        frames: ``[H, W, 3]`` uint8 RGB each, all of one size.
        fps: frames per second, > 0.
        kind: key of ``VIDEO_TYPES`` or ``IMAGE_TYPES``.
        severity: 1 to 5.
        seed: the random pattern. Noise has a fresh one per frame, as a sensor would; other image types keep theirs.

    Raises:
        ModelError: unknown type or severity, a frame that does not fit, or no frame at all.
    """
    check_severity(severity)
    distortion(kind)
    if kind in VIDEO_TYPES:
        video = VIDEO_TYPES[kind]
        return video.apply(frames, fps, video.parameters[severity - 1], np.random.default_rng([seed, video.id]))
    image = IMAGE_TYPES[kind]
    distorted = (
        distort_image(frame, kind, severity, seed + index if image.flickers else seed)
        for index, frame in enumerate(frames)
    )
    return encode(distorted, fps)
