"""How answers to different tasks begin: it tells tasks apart that share the empty question."""

from typing import Final

from models.distortions.catalogue import SEVERITY_WORDS
from models.quality_lmm import IMAGE_PREFIX

NOT_DESCRIPTIONS: Final = (" ".join(IMAGE_PREFIX.split()[:2]), *(word.split()[0] for word in SEVERITY_WORDS))
"""Openings of a score and of a distortion, which a description may not have."""
