"""Synthetic distortions of known type and severity, for images and clips."""

from models.distortions.catalogue import (
    CELLS,
    IMAGE_CELLS,
    IMAGE_TYPES,
    LEVELS,
    NO_OP_CELLS,
    SEVERITY_WORDS,
    VIDEO_CELLS,
    VIDEO_TYPES,
    ImageDistortion,
    VideoDistortion,
    distortion,
    strength,
    words,
)
from models.distortions.distort import GENERATOR, distort_clip, distort_image

__all__ = [
    "CELLS",
    "GENERATOR",
    "IMAGE_CELLS",
    "IMAGE_TYPES",
    "LEVELS",
    "NO_OP_CELLS",
    "SEVERITY_WORDS",
    "VIDEO_CELLS",
    "VIDEO_TYPES",
    "ImageDistortion",
    "VideoDistortion",
    "distort_clip",
    "distort_image",
    "distortion",
    "strength",
    "words",
]
