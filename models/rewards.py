"""Rewards of a teacher's answers: what is read in an answer, and what it is worth against what is true.

An answer is a think block and an answer block, as Q-Insight's teacher writes them (arXiv 2503.22679):
``<think>...</think><answer>...</answer>``. The answer block holds one flat JSON object, or of a comparison the name of
the better image. Quality is [0, 1] here (DESIGN law 6); answers speak of it from 1 to 5, and :func:`rating_of` is the
one place where the scales meet.

Two ways to read, by name: ``free`` takes tags with or without line breaks around them, JSON's null or the word "null",
and numbers with or without quotes; ``strict_newline`` reproduces the public code, which takes line breaks that no
prompt asks for, quoted classes and bare numbers alone.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from models.errors import ModelError

Kind = Literal["score", "degradation", "pair"]
Tags = Literal["free", "strict_newline"]
ScoreShape = Literal["step", "cosine"]

KINDS: Final[tuple[Kind, ...]] = ("score", "degradation", "pair")
CLASSES: Final = ("noise", "compression", "blur", "darken")
"""Degradations that can be told apart; none of them is null."""
SEVERITIES: Final = ("slight", "moderate", "obvious", "serious", "catastrophic")
"""Of a degradation, weakest first; null without one."""
RATING_KEY, CLASS_KEY, SEVERITY_KEY = "rating", "distortion_class", "severity"

_NULL: Final = "null"
_SPAN: Final = 4.0
"""Of the scale of answers, which begins at 1."""
_CLASS_WORTH, _SEVERITY_WORTH = 0.25, 0.75
_EXACT: Final = 1e-9
"""A decimal difference that equals the tolerance is no smaller than it, whatever its binary rounding."""

_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)")
_TAG: Final = r"</?(?:think|answer)>"
_INSIDE: Final = rf"(?:(?!{_TAG}).)*"
_WHOLE: Final = re.compile(rf"\s*<think>({_INSIDE})</think>\s*<answer>({_INSIDE})</answer>\s*", re.DOTALL)
_ANSWER: Final = re.compile(rf"<answer>({_INSIDE})</answer>", re.DOTALL)

_BREAK: Final = r"\s*\n"
_STRICT_ANSWER: Final = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_STRICT_RATING: Final = re.compile(rf'"{RATING_KEY}"\s*:\s*([\d.]+)')
_STRICT_CLASS: Final = re.compile(rf'"{CLASS_KEY}"\s*:\s*"([^"]+)".*?"{SEVERITY_KEY}"\s*:\s*"([^"]+)"', re.DOTALL)


def _strict_whole(body: str) -> "re.Pattern[str]":
    """The public code's frame of an answer."""
    thought = rf"<think>{_BREAK}(.*?)\n\s*</think>{_BREAK}"
    return re.compile(rf"{thought}<answer>{_BREAK}{body}{_BREAK}\s*</answer>\s*", re.DOTALL)


_STRICT_WHOLE: Final[dict[Kind, "re.Pattern[str]"]] = {
    "score": _strict_whole(r"\{[^{}]*\}"),
    "degradation": _strict_whole(r"\{[^{}]*\}"),
    "pair": _strict_whole(r".*?"),
}


@dataclass(frozen=True)
class Score:
    """How good a medium is, in [0, 1]."""

    quality: float

    @property
    def kind(self) -> Kind:
        """Its task."""
        return "score"


@dataclass(frozen=True)
class Degradation:
    """What was done to an image.

    Attributes:
        name: one of ``CLASSES``, None for nothing. severity: one of ``SEVERITIES``, None for nothing.
    """

    name: str | None
    severity: str | None

    @property
    def kind(self) -> Kind:
        """Its task."""
        return "degradation"


@dataclass(frozen=True)
class Better:
    """Which of two images is better, ``Image A`` (shown first) or ``Image B``."""

    image: str

    @property
    def kind(self) -> Kind:
        """Its task."""
        return "pair"


IMAGE_A, IMAGE_B = Better("Image A"), Better("Image B")
Truth = Score | Degradation | Better


@dataclass(frozen=True)
class Reading:
    """What an answer says.

    Attributes:
        formatted: whether the whole of it is laid out as it should be.
        said: what it answers; a rating may lie off the scale under ``strict_newline``, a class may be unknown.
        failure: why nothing can be read in it: ``no_answer``, ``several_answers``, ``no_object``, ``no_value``,
            ``off_scale``.
        thought: the think block of a formatted answer.
    """

    formatted: bool
    said: Truth | None
    failure: str | None
    thought: str = ""


@dataclass(frozen=True)
class KindWeights:
    """What the parts of a kind's reward count.

    Attributes:
        answer: of the reward for what is said. format: of the reward for how it is laid out.
    """

    answer: float
    format: float

    def __post_init__(self) -> None:
        """Check ranges."""
        if not all(math.isfinite(weight) and weight >= 0.0 for weight in (self.answer, self.format)):
            raise ValueError("weights of rewards must not be negative")
        if self.answer + self.format <= 0.0:
            raise ValueError("one of the weights of a kind's rewards must be positive")


@dataclass(frozen=True)
class RewardRule:
    """How answers are rewarded.

    Attributes:
        tags: how they are read, see the module.
        score_shape: ``step``, 1 nearer than ``tolerance`` and 0 elsewhere (Q-Insight), or ``cosine``,
            ``(1 + cos(pi d / tolerance)) / 2`` there (arXiv 2601.02441).
        tolerance: of a rating, on the scale from 1 to 5; a difference that equals it earns nothing.
        score, degradation, pair: weights of each kind's rewards.
    """

    tags: Tags
    score_shape: ScoreShape
    tolerance: float
    score: KindWeights
    degradation: KindWeights
    pair: KindWeights

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 0.0 < self.tolerance <= _SPAN:
            raise ValueError("tolerance must lie in (0, 4]: ratings run from 1 to 5")

    def weights(self, kind: Kind) -> KindWeights:
        """Of one kind."""
        return {"score": self.score, "degradation": self.degradation, "pair": self.pair}[kind]


@dataclass(frozen=True)
class Reward:
    """What an answer earns.

    Attributes:
        answer, format: in [0, 1], before they are weighted. total: their weighted sum.
        failure: as in :class:`Reading`.
    """

    answer: float
    format: float
    total: float
    failure: str | None


def rating_of(quality: float) -> float:
    """Quality in [0, 1] on the scale of answers, from 1 to 5.

    Raises:
        ModelError: it does not lie in [0, 1].
    """
    if not 0.0 <= quality <= 1.0:
        msg = f"quality must lie in [0, 1], not {quality!r}"
        raise ModelError(msg)
    return 1.0 + _SPAN * quality


def quality_of(rating: float) -> float:
    """The inverse of :func:`rating_of`; what is off the scale stays off [0, 1]."""
    return (rating - 1.0) / _SPAN


def reward_of(text: str, truth: Truth, rule: RewardRule) -> Reward:
    """What an answer to the question after ``truth`` earns."""
    reading, weights = read_answer(text, truth.kind, rule.tags), rule.weights(truth.kind)
    answer = 0.0 if reading.said is None else agreement(reading.said, truth, rule)
    layout = float(reading.formatted)
    return Reward(answer, layout, weights.answer * answer + weights.format * layout, reading.failure)


def agreement(said: Truth, truth: Truth, rule: RewardRule) -> float:
    """How far what is said agrees with what is true, in [0, 1].

    A degradation earns .25 for its class and .75 more for its severity, which counts under the right class alone.
    """
    if isinstance(truth, Score) and isinstance(said, Score):
        return _nearness(_SPAN * abs(said.quality - truth.quality), rule)
    if isinstance(truth, Degradation) and isinstance(said, Degradation):
        same = said.name == truth.name
        return _CLASS_WORTH * same + _SEVERITY_WORTH * (same and said.severity == truth.severity)
    return float(said == truth)


def _nearness(distance: float, rule: RewardRule) -> float:
    """Reward of a rating that is so far off, on the scale from 1 to 5."""
    if distance >= rule.tolerance - _EXACT:
        return 0.0
    return 1.0 if rule.score_shape == "step" else 0.5 * (1.0 + math.cos(math.pi * distance / rule.tolerance))


# -------------------------------------------------------------------------- reading


def read_answer(text: str, kind: Kind, tags: Tags = "free") -> Reading:
    """Read an answer to a question of a kind; what cannot be read is told, never guessed."""
    return _read_strictly(text, kind) if tags == "strict_newline" else _read(text, kind)


def _read(text: str, kind: Kind) -> Reading:
    whole, blocks = _WHOLE.fullmatch(text), _ANSWER.findall(text)
    if len(blocks) != 1:
        return Reading(formatted=False, said=None, failure="several_answers" if blocks else "no_answer")
    body = blocks[0].strip()
    thought = whole[1].strip() if whole else ""
    if kind == "pair":
        said = next((better for better in (IMAGE_A, IMAGE_B) if better.image == body), None)
        single = bool(body) and "\n" not in body
        return Reading(bool(thought) and single, said, None if said else "no_value", thought)
    values = _flat_object(body)
    if values is None:
        return Reading(formatted=False, said=None, failure="no_object")
    said, failure = _score_in(values) if kind == "score" else _degradation_in(values)
    return Reading(bool(thought), said, failure, thought)


def _flat_object(body: str) -> dict[str, Any] | None:
    """One JSON object without objects or lists in it; a key that stands twice says nothing."""

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs) or any(isinstance(value, dict | list) for value in found.values()):
            raise ValueError("not flat, or ambiguous")
        return found

    try:
        values = json.loads(body, object_pairs_hook=distinct, parse_constant=_refused, parse_int=float)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _refused(constant: str) -> float:
    """NaN and Infinity are not JSON."""
    raise ValueError(constant)


def _score_in(values: dict[str, Any]) -> tuple[Score | None, str | None]:
    rating = _number(values.get(RATING_KEY))
    if rating is None:
        return None, "no_value"
    if not 1.0 <= rating <= 1.0 + _SPAN:
        return None, "off_scale"
    return Score(quality_of(rating)), None


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value := value.strip()) else None
    return value if isinstance(value, float) and math.isfinite(value) else None


def _degradation_in(values: dict[str, Any]) -> tuple[Degradation | None, str | None]:
    if not {CLASS_KEY, SEVERITY_KEY} <= values.keys():
        return None, "no_value"
    words = [values[key] for key in (CLASS_KEY, SEVERITY_KEY)]
    if not all(word is None or isinstance(word, str) for word in words):
        return None, "no_value"
    name, severity = (None if word is None or word.strip() == _NULL else word.strip() for word in words)
    return Degradation(name, severity), None


def _read_strictly(text: str, kind: Kind) -> Reading:
    whole, block = _STRICT_WHOLE[kind].fullmatch(text), _STRICT_ANSWER.search(text)
    thought = whole[1].strip() if whole else ""
    if block is None:
        return Reading(whole is not None, None, "no_answer", thought)
    body = block[1].strip()
    said: Truth | None = None
    if kind == "pair":
        said = next((better for better in (IMAGE_A, IMAGE_B) if better.image == body), None)
    elif kind == "score":
        found = _STRICT_RATING.search(body)
        number = _number(found[1]) if found else None
        said = None if number is None else Score(quality_of(number))
    elif found := _STRICT_CLASS.search(body):
        name, severity = (None if word.strip() == _NULL else word.strip() for word in found.groups())
        said = Degradation(name, severity)
    return Reading(whole is not None, said, None if said else "no_value", thought)
