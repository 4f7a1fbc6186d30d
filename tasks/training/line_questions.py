"""Questions about the line's own media, whose answers the line knows: reviewed assertions, recipes, opinions.

Each question is one INSTRUCTIONS row of one turn. Everything that is drawn (wording, polarity, order of options) is a
hash of the seed and of what is asked, so equal tables give equal questions, and a growing pool leaves old ones alone.
Planted assertions are never asked about: they measure the review.
"""

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from models.distortions import IMAGE_TYPES, VIDEO_TYPES, distortion, strength
from models.signals.claims import FAULTS, Attribute, Claim, Degree, Fault, parse_claim
from tasks.instructions import LINE
from tasks.records import MEDIUM_MARK, Modality, Origin, QuestionKind, Task
from tasks.shards import digest

Row = Mapping[str, Any]
OptionOrder = Literal["fixed", "shuffled"]

YES_NO: Final = ("Yes", "No")

_HAS_FAULT: Final[dict[Fault, tuple[str, ...]]] = {
    Fault.BLUR: ("Is the {medium} blurry?", "Does the {medium} lack sharpness?"),
    Fault.NOISE: ("Is the {medium} noisy?", "Is noise visible in the {medium}?"),
    Fault.DARK: ("Is the {medium} too dark?", "Is the {medium} underexposed?"),
    Fault.BRIGHT: ("Is the {medium} too bright?", "Is the {medium} overexposed?"),
    Fault.FLAT: ("Does the {medium} lack contrast?", "Does the {medium} look flat?"),
    Fault.DULL: ("Are the colors dull?", "Do the colors look faded?"),
    Fault.VIVID: ("Are the colors oversaturated?", "Are the colors too vivid?"),
    Fault.COMPRESSION: ("Are compression artifacts visible?", "Is the {medium} blocky?"),
    Fault.SHAKE: ("Does the camera shake?", "Is the {medium} shaky?"),
    Fault.STUTTER: ("Does playback stutter?", "Is the motion jerky?"),
}
"""Questions whose answer is yes if the fault is claimed, in either degree."""
_IS_FINE: Final[dict[Attribute, tuple[str, ...]]] = {
    Attribute.SHARPNESS: ("Is the {medium} sharp?", "Are the edges crisp?"),
    Attribute.NOISE: ("Is the {medium} free of noise?", "Do surfaces look clean?"),
    Attribute.EXPOSURE: ("Is the {medium} well exposed?", "Is the exposure balanced?"),
    Attribute.CONTRAST: ("Is the contrast sufficient?", "Are the tones well separated?"),
    Attribute.COLOUR: ("Do the colors look natural?", "Is the saturation adequate?"),
    Attribute.COMPRESSION: ("Is the {medium} free of compression artifacts?", "Do gradients remain continuous?"),
    Attribute.STABILITY: ("Is the camera steady?", "Is the picture stable?"),
    Attribute.SMOOTHNESS: ("Is the movement fluent?", "Is the motion smooth?"),
}
"""Questions whose answer is yes if the attribute is claimed to be fine."""
_HOW: Final[dict[Attribute, tuple[str, tuple[str, ...]]]] = {
    Attribute.SHARPNESS: ("How is the sharpness of the {medium}?", ("High", "Slightly reduced", "Low")),
    Attribute.NOISE: ("How much noise is visible in the {medium}?", ("Hardly any", "Some", "Much")),
    Attribute.EXPOSURE: ("How is the exposure of the {medium}?", ("Balanced", "Too dark", "Too bright")),
    Attribute.CONTRAST: ("How is the contrast of the {medium}?", ("Sufficient", "Slightly reduced", "Low")),
    Attribute.COLOUR: ("How are the colors of the {medium}?", ("Natural", "Too pale", "Too vivid")),
    Attribute.COMPRESSION: ("How visible are compression artifacts?", ("Hardly", "Slightly", "Strongly")),
    Attribute.STABILITY: ("How steady is the camera?", ("Steady", "Slightly shaky", "Very shaky")),
    Attribute.SMOOTHNESS: ("How fluent is the movement?", ("Fluent", "Slightly jerky", "Very jerky")),
}
"""Question and options, those of the claims in the order of ``_how_index``."""
_STRENGTHS: Final = ("Slight", "Moderate", "Strong")
_STEP_OF: Final = {1: 0, 2: 0, 3: 1, 4: 2, 5: 2}
"""Strength of a distortion -> which of ``_STRENGTHS`` it is."""

FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "Blur": ("gaussian_blur", "lens_blur", "motion_blur", "denoise"),
    "Noise": ("white_noise", "white_noise_color", "impulse_noise", "multiplicative_noise"),
    "Compression": ("jpeg", "jpeg2000", "h264_compression", "h265_compression"),
    "Changed colors": ("color_diffusion", "color_shift", "color_saturation_1", "color_saturation_2"),
    "Changed brightness": ("brighten", "darken", "mean_shift"),
}
"""Distortions that a question after the kind of problem can be asked of; the other types belong to none."""
_FAMILY_OF: Final = {kind: family for family, kinds in FAMILIES.items() for kind in kinds}

_DESCRIBE: Final = ("Describe and evaluate the quality of the {medium}.", "Describe the quality of the {medium}.")
_RATE: Final = ("How would you rate the quality of the {medium}?", "Rate the quality of the {medium}.")
_BETTER: Final = "Which {medium} has the better quality?"


@dataclass(frozen=True)
class QuestionRule:
    """How questions are drawn.

    Attributes:
        seed: of wordings, polarities and orders.
        option_order: ``fixed`` gives the options of one wording always in the same order; ``shuffled`` draws the order
            of each question, so that a letter alone means nothing.
        compare_share: share of the decided pairs that are asked about; two media cost twice as much as one.
        dialogue_share: share of the media whose training questions become conversations of several turns.
        turns: turns that such a conversation has at most.
        held_out_questions: questions of each kind that models are measured with, at most.
    """

    seed: int
    option_order: OptionOrder
    compare_share: float
    dialogue_share: float
    turns: int
    held_out_questions: int

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("turns", "held_out_questions"):
            if getattr(self, name) < 1:
                msg = f"{name} must be at least 1"
                raise ValueError(msg)
        if not (0.0 <= self.compare_share <= 1.0 and 0.0 <= self.dialogue_share <= 1.0):
            raise ValueError("compare_share and dialogue_share must lie in [0, 1]")


def line_questions(
    media: Mapping[str, Row], reviewed: Sequence[Row], examples: Sequence[Row], rule: QuestionRule
) -> list[dict[str, Any]]:
    """Questions of one turn about the media of one split.

    Args:
        media: candidate rows by id. reviewed: rows of REVIEWED. examples: rows of EXAMPLES; both about ``media``.
    """
    draw = _Draw(media, rule)
    told = [row for row in reviewed if row["kept"] and row["origin"] == Origin.DESCRIBER]
    found = [question for key, claim in _claims(told) for question in draw.of_claim(key, claim)]
    for example in examples:
        found += draw.of_example(example)
    assertions: dict[str, list[str]] = {}
    for row in sorted(told, key=lambda row: (row["id"], row["position"])):
        assertions.setdefault(row["id"], []).append(row["text"])
    found += [draw.description(key, texts) for key, texts in assertions.items()]
    return list({row["instruction_id"]: row for row in found}.values())


def _claims(told: Sequence[Row]) -> list[tuple[str, Claim]]:
    """Claims of the assertions of each medium; where two of them differ about one attribute, neither is asked about."""
    found: dict[tuple[str, Attribute], set[Claim]] = {}
    for row in told:
        claim = parse_claim(row["text"])
        if claim is not None:
            found.setdefault((row["id"], claim.attribute), set()).add(claim)
    return [(key, next(iter(claims))) for (key, _), claims in found.items() if len(claims) == 1]


def measured(questions: Sequence[Row], rule: QuestionRule) -> list[Row]:
    """Questions that have options, at most ``held_out_questions`` of each kind, by hash."""
    chosen: list[Row] = []
    for kind in QuestionKind:
        mine = [row for row in questions if row["kind"] == kind and len(row["options"])]
        chosen += sorted(mine, key=lambda row: digest(rule.seed, row["instruction_id"]))[: rule.held_out_questions]
    return chosen


def dialogues(questions: Sequence[Row], rule: QuestionRule) -> list[dict[str, Any]]:
    """Chain the questions about a share of the media to conversations of at most ``turns`` turns.

    The medium is shown in the first turn alone. Questions that show several media stay by themselves.
    """
    of_medium: dict[str, list[Row]] = {}
    alone: list[dict[str, Any]] = []
    for row in questions:
        if len(row["media"]) == 1 and _share(rule.dialogue_share, rule.seed, "dialogue", row["media"][0]):
            of_medium.setdefault(row["media"][0], []).append(row)
        else:
            alone.append(dict(row))
    for key in sorted(of_medium):
        drawn = sorted(of_medium[key], key=lambda row: digest(rule.seed, "dialogue", row["instruction_id"]))
        alone += [_joined(drawn[start : start + rule.turns]) for start in range(0, len(drawn), rule.turns)]
    return alone


def _share(share: float, *about: object) -> bool:
    """Whether a thing belongs to a share of all, by its hash."""
    return int(digest(*map(str, about))[:12], 16) < share * 16**12


def _joined(rows: Sequence[Row]) -> dict[str, Any]:
    last = dict(rows[-1])
    later = [row["questions"][0].replace(f"{MEDIUM_MARK}\n", "") for row in rows[1:]]
    questions, answers = [rows[0]["questions"][0], *later], [row["answers"][0] for row in rows]
    key = digest(LINE, last["media"], questions, answers)
    return last | {"instruction_id": key, "questions": questions, "answers": answers}


class _Draw:
    """Words questions; every choice is a hash of the seed and of what is asked."""

    def __init__(self, media: Mapping[str, Row], rule: QuestionRule) -> None:
        self._media, self._rule = media, rule

    def of_claim(self, key: str, claim: Claim) -> Iterator[dict[str, Any]]:
        """Whether a fault is there, or the attribute fine; and how it is."""
        if self._even(key, "polarity", str(claim)):
            fault = claim.fault or self._pick(FAULTS[claim.attribute], key, "fault")
            text, answer = self._pick(_HAS_FAULT[fault], key, "fault", fault), YES_NO[claim.fault is not fault]
        else:
            text = self._pick(_IS_FINE[claim.attribute], key, "fine", claim.attribute)
            answer = YES_NO[claim.fault is not None]
        yield self._choice(QuestionKind.YES_NO, [key], text, YES_NO, answer)
        text, options = _HOW[claim.attribute]
        yield self._choice(QuestionKind.WHAT_HOW, [key], text, options, options[_how_index(claim)])

    def of_example(self, example: Row) -> Iterator[dict[str, Any]]:
        """What a training example tells: the quality in words, the recipe of a child, which of two is better."""
        task, ids = example["task"], list(example["ids"])
        if task == Task.SINGLE:
            yield self._question(QuestionKind.SCORE, ids, self._pick(_RATE, ids[0], "rate"), example["answers"][0])
        elif task == Task.DISTORTION:
            yield from self._of_recipe(ids[0], self._media[ids[0]]["distortion"], int(self._media[ids[0]]["severity"]))
        elif task == Task.PAIR and example["preference"] in (0.0, 1.0) and self._compares(ids):
            options = tuple(f"The {which} {self._media[ids[0]]['modality']}" for which in ("first", "second"))
            better = options[example["preference"] == 0.0]
            yield self._choice(QuestionKind.COMPARE, ids, _BETTER, options, better)

    def _compares(self, ids: Sequence[str]) -> bool:
        return _share(self._rule.compare_share, self._rule.seed, "compare", *ids)

    def _of_recipe(self, key: str, kind: str, severity: int) -> Iterator[dict[str, Any]]:
        others = [
            other
            for other in (VIDEO_TYPES if kind in VIDEO_TYPES else IMAGE_TYPES)
            if _FAMILY_OF.get(other, other) != _FAMILY_OF.get(kind, kind)
        ]
        applied = self._even(key, "applied")
        asked = distortion(kind if applied else self._pick(others, key, "other")).words
        text = f"Was {asked} applied to the {{medium}}?"
        yield self._choice(QuestionKind.YES_NO, [key], text, YES_NO, YES_NO[not applied])
        step = _STRENGTHS[_STEP_OF[strength(kind, severity)]]
        text = f"How strong is the {distortion(kind).words} of the {{medium}}?"
        yield self._choice(QuestionKind.WHAT_HOW, [key], text, _STRENGTHS, step)
        if kind in _FAMILY_OF:
            text = "Which kind of problem was added to the {medium}?"
            yield self._choice(QuestionKind.WHICH, [key], text, tuple(FAMILIES), _FAMILY_OF[kind])

    def description(self, key: str, texts: Sequence[str]) -> dict[str, Any]:
        """What review kept of a medium, in prose."""
        answer = " ".join(f"{text}." for text in texts)
        return self._question(QuestionKind.OPEN, [key], self._pick(_DESCRIBE, key, "describe"), answer)

    def _choice(
        self, kind: QuestionKind, ids: list[str], text: str, options: Sequence[str], right: str
    ) -> dict[str, Any]:
        shown = list(options)
        if self._rule.option_order == "shuffled":
            shown.sort(key=lambda option: digest(self._rule.seed, ids, text, option))
        letters = string.ascii_uppercase[: len(shown)]
        letter = letters[shown.index(right)]
        lines = [f"{name}. {option}" for name, option in zip(letters, shown, strict=True)]
        return self._question(kind, ids, "\n".join([text, *lines]), letter) | {"options": shown, "letter": letter}

    def _question(self, kind: QuestionKind, ids: list[str], text: str, answer: str) -> dict[str, Any]:
        rows = [self._media[key] for key in ids]
        modality = Modality(rows[0]["modality"])
        question = f"{MEDIUM_MARK}\n" * len(ids) + text.replace("{medium}", modality)
        return {
            "instruction_id": digest(LINE, ids, question, answer),
            "source": LINE,
            "kind": str(kind),
            "split": str(rows[0]["split"]),
            "content_id": rows[0]["content_id"],
            "media": ids,
            "modalities": [str(modality)] * len(ids),
            "questions": [question],
            "answers": [answer],
            "options": [],
            "letter": None,
        }

    def _pick(self, choices: Sequence[Any], *about: object) -> Any:
        return choices[int(digest(self._rule.seed, *map(str, about))[:12], 16) % len(choices)]

    def _even(self, *about: object) -> bool:
        return bool(self._pick((True, False), *about))


def _how_index(claim: Claim) -> int:
    """Which option of ``_HOW`` a claim is: by fault where an attribute can be off in two ways, else by degree."""
    if claim.fault is None:
        return 0
    faults = FAULTS[claim.attribute]
    return 1 + faults.index(claim.fault) if len(faults) > 1 else 1 + (claim.degree is Degree.STRONG)
