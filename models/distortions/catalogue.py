"""What distortions there are: 25 KADIS-700K image types and four video types, five levels each, and their words.

Image types, their order and their level parameters are those of KADIS-700K's generator; where a parameter is ours the
entry says so. Of the video types only H.264 compression is the paper's; the other three are ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.distortions import blur, clips, colour, compression, exposure, noise, spatial
from models.errors import ModelError

Pixels = NDArray[np.uint8]
LEVELS: Final = (1, 2, 3, 4, 5)

SEVERITY_WORDS: Final = ("slight", "mild", "relatively severe", "severe", "very severe")
"""Words of severities 1 to 5. The paper shows "mild" and "relatively severe" (level 3); the other three are ours."""

IN_ORDER: Final = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class ImageDistortion:
    """One image type.

    Attributes:
        id: KADIS number, 1-25.
        name: key used in tables.
        words: name in sentences.
        parameter: what the level parameter is, with its unit.
        parameters: its value at levels 1 to 5.
        apply: ``(pixels_HW3 uint8, parameter, generator) -> pixels_HW3 uint8``.
        strengths: how strong levels 1 to 5 are, 1 slight to 5 very severe, 0 no change; differs from the level
            where KADIS goes in both directions (mean shift, contrast change). Words follow the strength.
        min_side: smallest side the type needs, pixels.
        note: how it departs from KADIS, empty if it does not.
        flickers: on clips every frame has a random pattern of its own (noise); otherwise all frames share one.
    """

    id: int
    name: str
    words: str
    parameter: str
    parameters: tuple[float, ...]
    apply: Callable[[Pixels, float, np.random.Generator], Pixels]
    strengths: tuple[int, ...] = IN_ORDER
    min_side: int = 16
    note: str = ""
    flickers: bool = False


@dataclass(frozen=True)
class VideoDistortion:
    """One video type: ``apply`` is ``(frames, fps, parameter, generator) -> bytes`` of an MP4 file."""

    id: int
    name: str
    words: str
    parameter: str
    parameters: tuple[float, ...]
    apply: Callable[[clips.Frames, float, float, np.random.Generator], bytes]
    note: str = ""

    @property
    def strengths(self) -> tuple[int, ...]:
        """Levels are in order of strength for every video type."""
        return IN_ORDER


_IMAGE: Final = (
    ImageDistortion(
        1,
        "gaussian_blur",
        "gaussian blur",
        "sigma, pixels",
        (0.35, 0.5, 1, 2, 5),
        blur.gaussian_blur,
        note="level 1 is .1 in KADIS, which changes no 8-bit pixel; .35 is ours",
    ),
    ImageDistortion(2, "lens_blur", "lens blur", "disk radius, pixels", (1, 2, 4, 6, 8), blur.lens_blur, min_side=24),
    ImageDistortion(
        3,
        "motion_blur",
        "motion blur",
        "path length, pixels",
        (1, 2, 4, 6, 10),
        blur.motion_blur,
        note="straight path of random direction, antialiased, so that length 1 is not the identity",
    ),
    ImageDistortion(
        4,
        "color_diffusion",
        "color diffusion",
        "amount of Lab chroma blur and gain",
        (1, 3, 6, 8, 12),
        colour.color_diffusion,
    ),
    ImageDistortion(5, "color_shift", "color shift", "shift of green, pixels", (1, 3, 6, 8, 12), colour.color_shift),
    ImageDistortion(
        6,
        "color_quantization",
        "color quantization",
        "colours",
        (64, 48, 32, 16, 8),
        colour.color_quantization,
        note="palette by k-means, Floyd-Steinberg dither, in place of MATLAB's minimum variance",
    ),
    ImageDistortion(
        7,
        "color_saturation_1",
        "HSV color saturation",
        "factor of HSV saturation",
        (0.4, 0.2, 0.1, 0, -0.4),
        colour.color_saturation_hsv,
    ),
    ImageDistortion(
        8,
        "color_saturation_2",
        "Lab color saturation",
        "factor of Lab chroma",
        (1.5, 2, 3, 6, 9),
        colour.color_saturation_lab,
        note="level 1 is the factor 1 in KADIS, which changes nothing; 1.5 is ours",
    ),
    ImageDistortion(
        9,
        "jpeg2000",
        "JPEG2000 compression",
        "compression ratio",
        (16, 32, 45, 120, 400),
        compression.jpeg2000,
        min_side=32,
    ),
    ImageDistortion(10, "jpeg", "JPEG compression", "quality", (43, 36, 24, 7, 4), compression.jpeg),
    ImageDistortion(
        11,
        "white_noise",
        "white noise",
        "variance of RGB in [0, 1]",
        (0.001, 0.002, 0.003, 0.005, 0.01),
        noise.white_noise,
        flickers=True,
    ),
    ImageDistortion(
        12,
        "white_noise_color",
        "white noise in color component",
        "variance of YCbCr in [0, 1]",
        (0.0001, 0.0005, 0.001, 0.002, 0.003),
        noise.white_noise_color,
        flickers=True,
    ),
    ImageDistortion(
        13,
        "impulse_noise",
        "impulse noise",
        "share of samples",
        (0.001, 0.005, 0.01, 0.02, 0.03),
        noise.impulse_noise,
        flickers=True,
    ),
    ImageDistortion(
        14,
        "multiplicative_noise",
        "multiplicative noise",
        "variance of the factor",
        (0.001, 0.005, 0.01, 0.02, 0.05),
        noise.multiplicative_noise,
        flickers=True,
    ),
    ImageDistortion(
        15,
        "denoise",
        "denoise",
        "variance of the removed noise",
        (0.01, 0.03, 0.05, 0.1, 0.15),
        noise.denoise,
        flickers=True,
        note="adaptive Wiener filter in place of DnCNN",
    ),
    ImageDistortion(16, "brighten", "brighten", "lift of mid grey", (0.1, 0.2, 0.4, 0.7, 1.1), exposure.brighten),
    ImageDistortion(17, "darken", "darken", "drop of mid grey", (0.05, 0.1, 0.2, 0.4, 0.8), exposure.darken),
    ImageDistortion(
        18,
        "mean_shift",
        "mean shift",
        "shift of [0, 1]",
        (0.15, 0.08, 0, -0.08, -0.15),
        exposure.mean_shift,
        strengths=(4, 2, 0, 2, 4),
    ),
    ImageDistortion(
        19,
        "jitter",
        "jitter",
        "deviation of each of 5 displacements, pixels",
        (0.05, 0.1, 0.2, 0.5, 1),
        spatial.jitter,
        flickers=True,
        note="the five random warps are composed into one of sqrt(5) times the deviation, bilinear",
    ),
    ImageDistortion(
        20,
        "non_eccentricity_patch",
        "non-eccentricity patch",
        "patches",
        (20, 40, 60, 80, 100),
        spatial.non_eccentricity_patch,
        min_side=64,
    ),
    ImageDistortion(21, "pixelate", "pixelate", "strength", (0.01, 0.05, 0.1, 0.2, 0.5), spatial.pixelate),
    ImageDistortion(
        22,
        "quantization",
        "quantization",
        "grey levels",
        (20, 16, 13, 10, 7),
        colour.quantization,
        note="levels by Lloyd's algorithm on the histogram, which has the criterion of MATLAB's multithresh",
    ),
    ImageDistortion(23, "color_block", "color block", "blocks", (2, 4, 6, 8, 10), spatial.color_block, min_side=64),
    ImageDistortion(24, "high_sharpen", "high sharpen", "amount", (1, 2, 3, 6, 12), spatial.high_sharpen),
    ImageDistortion(
        25,
        "contrast_change",
        "contrast change",
        "amount, negative lowers",
        (0.3, 0.15, 0, -0.4, -0.6),
        exposure.contrast_change,
        strengths=(2, 1, 0, 4, 5),
    ),
)

_VIDEO: Final = (
    VideoDistortion(
        101,
        "h264_compression",
        "H264 compression",
        "CRF of libx264",
        (19, 24, 31, 38, 45),
        clips.h264_compression,
        note="the paper's; CRF 24 is its 'mild', the other values are ours",
    ),
    VideoDistortion(
        102,
        "h265_compression",
        "H265 compression",
        "CRF of libx265",
        (22, 28, 34, 40, 46),
        clips.h265_compression,
        note="ours",
    ),
    VideoDistortion(
        103,
        "frame_stutter",
        "frame stutter",
        "share of repeated frames",
        (0.1, 0.25, 0.45, 0.65, 0.85),
        clips.frame_stutter,
        note="ours",
    ),
    VideoDistortion(
        104,
        "camera_shake",
        "camera shake",
        "deviation of the shift, share of the shorter side",
        (0.003, 0.006, 0.012, 0.024, 0.048),
        clips.camera_shake,
        note="ours",
    ),
)

IMAGE_TYPES: Final[dict[str, ImageDistortion]] = {kind.name: kind for kind in _IMAGE}
"""The 25 KADIS types in id order."""

VIDEO_TYPES: Final[dict[str, VideoDistortion]] = {kind.name: kind for kind in _VIDEO}
"""The four video types."""

NO_OP_CELLS: Final = frozenset(
    (kind.name, level) for kind in _IMAGE for level in LEVELS if kind.strengths[level - 1] == 0
)
"""(mean_shift, 3) and (contrast_change, 3): KADIS's parameter is 0 there, so the label would be noise."""

IMAGE_CELLS: Final = tuple(
    (kind.name, level) for kind in _IMAGE for level in LEVELS if (kind.name, level) not in NO_OP_CELLS
)
VIDEO_CELLS: Final = tuple((kind.name, level) for kind in _VIDEO for level in LEVELS)
CELLS: Final = IMAGE_CELLS + VIDEO_CELLS
"""Every (type, severity) that changes its input, images first, in id order."""


def distortion(kind: str) -> ImageDistortion | VideoDistortion:
    """Look a type up by name.

    Raises:
        ModelError: there is no such type.
    """
    found = IMAGE_TYPES.get(kind) or VIDEO_TYPES.get(kind)
    if found is None:
        msg = f"unknown distortion {kind!r}; known are {', '.join([*IMAGE_TYPES, *VIDEO_TYPES])}"
        raise ModelError(msg)
    return found


def check_severity(severity: int) -> None:
    """Refuse severities other than 1 to 5.

    Raises:
        ModelError: naming the value.
    """
    if severity not in LEVELS:
        msg = f"severity must be 1 to 5, not {severity!r}"
        raise ModelError(msg)


def strength(kind: str, severity: int) -> int:
    """How strong a cell is, 1 (slight) to 5 (very severe), or 0 where it changes nothing."""
    check_severity(severity)
    return distortion(kind).strengths[severity - 1]


def words(kind: str, severity: int) -> str:
    """Name a cell in words: ``words("white_noise", 3)`` is "relatively severe white noise".

    Raises:
        ModelError: unknown type or severity, or a cell that changes nothing and so has no true name.
    """
    level = strength(kind, severity)
    if level == 0:
        msg = f"{kind} at severity {severity} changes nothing, so no words are true of it"
        raise ModelError(msg)
    return f"{SEVERITY_WORDS[level - 1]} {distortion(kind).words}"
