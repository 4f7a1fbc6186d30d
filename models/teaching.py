"""What a teacher is asked about media, and how an answer to it is written.

The same words in training and wherever a taught model is asked later; media always stand before the question. Two
styles: ``short`` asks alone, for a model that learns the layout of answers from examples; ``full`` also says how to
answer, for one that follows instructions.
"""

import json
from typing import Final, Literal

from models.distortions import strength
from models.rewards import (
    CLASS_KEY,
    CLASSES,
    IMAGE_A,
    IMAGE_B,
    RATING_KEY,
    SEVERITIES,
    SEVERITY_KEY,
    Better,
    Degradation,
    Kind,
    Score,
    Tags,
    Truth,
    rating_of,
)

AskStyle = Literal["short", "full"]

_SHORT: Final[dict[Kind, str]] = {
    "score": "Rate the quality of the {medium} from 1 to 5.",
    "degradation": "Which distortion does the image show, and how severe is it?",
    "pair": f"Which image has the better quality, {IMAGE_A.image} or {IMAGE_B.image}?",
}
_LAYOUT: Final = (
    "First write down between <think> and </think> what you see: sharpness, noise, light, colors and traces of "
    "compression, without any number. Then give {what} between <answer> and </answer>, and nothing else."
)
_WHAT: Final[dict[Kind, str]] = {
    "score": (
        f'a JSON object with the key "{RATING_KEY}": a number from 1 (very poor) to 5 (excellent) with two decimals'
    ),
    "degradation": (
        f'a JSON object with the keys "{CLASS_KEY}" ({", ".join(CLASSES)}, or null for none) and "{SEVERITY_KEY}" '
        f"({', '.join(SEVERITIES)}, or null for none)"
    ),
    "pair": f"either {IMAGE_A.image} or {IMAGE_B.image}",
}

_CLASS_OF: Final[dict[str, str]] = {
    **dict.fromkeys(("gaussian_blur", "lens_blur", "motion_blur"), "blur"),
    **dict.fromkeys(("white_noise", "white_noise_color", "impulse_noise", "multiplicative_noise"), "noise"),
    **dict.fromkeys(("jpeg", "jpeg2000"), "compression"),
    "darken": "darken",
}
"""Distortion of this project -> what a teacher calls it; the others have no name there."""


def question(kind: Kind, style: AskStyle, *, is_video: bool = False) -> str:
    """What is asked behind the medium, or behind both images of a pair."""
    asked = _SHORT[kind].format(medium="video" if is_video else "image")
    return asked if style == "short" else f"{asked} {_LAYOUT.format(what=_WHAT[kind])}"


def shown(kind: Kind, mark: str) -> str:
    """What stands before the question: a mark for each medium, and the names of a pair's."""
    if kind == "pair":
        return f"{IMAGE_A.image}: {mark}\n{IMAGE_B.image}: {mark}\n"
    return f"{mark}\n"


def answer(thought: str, truth: Truth, tags: Tags) -> str:
    """A whole answer that says what is true; ``strict_newline`` wants line breaks around tags."""
    gap, said = _gap(tags), _said(truth, quoted=tags == "strict_newline")
    return f"{thought_block(thought, tags)}{gap}<answer>{gap}{said}{gap}</answer>"


def thought_block(thought: str, tags: Tags) -> str:
    """The first part of an answer: what is thought before it is said."""
    return f"<think>{_gap(tags)}{thought}{_gap(tags)}</think>"


def _gap(tags: Tags) -> str:
    return "\n" if tags == "strict_newline" else ""


def _said(truth: Truth, *, quoted: bool) -> str:
    if isinstance(truth, Score):
        return f'{{"{RATING_KEY}": {rating_of(truth.quality):.2f}}}'
    if isinstance(truth, Better):
        return truth.image
    words = {CLASS_KEY: truth.name, SEVERITY_KEY: truth.severity}
    return json.dumps({key: "null" if word is None and quoted else word for key, word in words.items()})


def degradation_of(distortion: str | None, severity: int) -> Degradation | None:
    """What a teacher calls a distortion of this project; None for one that it has no name for, or that changes nothing.

    Args:
        distortion: name of the type, None for an original. severity: 1 to 5.
    """
    if distortion is None:
        return Degradation(None, None)
    if distortion not in _CLASS_OF or strength(distortion, severity) == 0:
        return None
    return Degradation(_CLASS_OF[distortion], SEVERITIES[strength(distortion, severity) - 1])
