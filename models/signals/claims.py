"""What an assertion claims: one attribute, and either that it is fine or that one fault of it is slight or strong.

Measurement works on claims, people and LMMs on sentences. ``parse_claim`` reads a sentence by cues of its own; it
knows nothing of the templates in ``wording``, so any describer's plain sentence can be checked by measurement.
"""

import re
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final


class Attribute(StrEnum):
    """What an assertion is about; the last two exist for videos only."""

    SHARPNESS = "sharpness"
    NOISE = "noise"
    EXPOSURE = "exposure"
    CONTRAST = "contrast"
    COLOUR = "colour"
    COMPRESSION = "compression"
    STABILITY = "stability"
    SMOOTHNESS = "smoothness"


class Fault(StrEnum):
    """Ways in which an attribute can be off."""

    BLUR = "blur"
    NOISE = "noise"
    DARK = "dark"
    BRIGHT = "bright"
    FLAT = "flat"
    DULL = "dull"
    VIVID = "vivid"
    COMPRESSION = "compression"
    SHAKE = "shake"
    STUTTER = "stutter"


class Degree(IntEnum):
    """How much of a fault there is."""

    NONE = 0
    SLIGHT = 1
    STRONG = 2


FAULTS: Final[dict[Attribute, tuple[Fault, ...]]] = {
    Attribute.SHARPNESS: (Fault.BLUR,),
    Attribute.NOISE: (Fault.NOISE,),
    Attribute.EXPOSURE: (Fault.DARK, Fault.BRIGHT),
    Attribute.CONTRAST: (Fault.FLAT,),
    Attribute.COLOUR: (Fault.DULL, Fault.VIVID),
    Attribute.COMPRESSION: (Fault.COMPRESSION,),
    Attribute.STABILITY: (Fault.SHAKE,),
    Attribute.SMOOTHNESS: (Fault.STUTTER,),
}
"""The faults of each attribute; two where it can be off in two directions."""

ATTRIBUTE_OF: Final[dict[Fault, Attribute]] = {fault: name for name, faults in FAULTS.items() for fault in faults}
IMAGE_ATTRIBUTES: Final = tuple(Attribute)[:6]
VIDEO_ATTRIBUTES: Final = tuple(Attribute)


@dataclass(frozen=True)
class Claim:
    """``fault`` of ``attribute`` is there in ``degree``; without a fault, the attribute is claimed to be fine."""

    attribute: Attribute
    fault: Fault | None = None
    degree: Degree = Degree.NONE

    def __post_init__(self) -> None:
        if (self.fault is None) != (self.degree is Degree.NONE):
            msg = "a claim names a fault with a degree, or neither"
            raise ValueError(msg)
        if self.fault is not None and ATTRIBUTE_OF[self.fault] is not self.attribute:
            msg = f"{self.fault} is not a fault of {self.attribute}"
            raise ValueError(msg)


def fine(attribute: Attribute) -> Claim:
    """Claim that nothing is wrong with ``attribute``."""
    return Claim(attribute)


def faulty(fault: Fault, degree: Degree) -> Claim:
    """Claim that ``fault`` is there in ``degree``."""
    return Claim(ATTRIBUTE_OF[fault], fault, degree)


CLAIMS: Final[tuple[Claim, ...]] = tuple(
    claim
    for attribute, faults in FAULTS.items()
    for claim in (
        fine(attribute),
        *(faulty(fault, degree) for fault in faults for degree in (Degree.SLIGHT, Degree.STRONG)),
    )
)
"""Everything that can be claimed."""

_LOW = r"(?:low|poor|insufficient|inadequate|weak|reduced|limited|lacking|too little)"
_GOOD = r"(?:high|good|fine|sufficient|adequate|fair|natural|balanced|appropriate|normal)"
_RICH = r"(?:(?:very|quite|fairly|both) )?(?:vivid|vibrant|lively|rich)"
_LITTLE = r"(?:very )?(?:low|minimal|negligible)"

_FAULT_CUES: Final[dict[Fault, str]] = {
    Fault.BLUR: rf"blur\w*|out[ -]of[ -]focus|smeared|softness|(?:edges|contours|outlines|details?) (?:are|is|look) "
    rf"(?:\w+ ){{0,2}}(?:soft|lost|unclear|fuzzy|washed)|soft(?:er)? (?:edges|contours|outlines)|"
    rf"(?:sharpness|clarity|focus) (?:is|are) (?:\w+ )?{_LOW}|{_LOW} sharpness|lacks? (?:of )?sharpness",
    Fault.NOISE: r"nois[ey]\w*|grain\w*|speckles?|speckled",
    Fault.DARK: r"dark|underexpos\w+|dim(?:ly)?|murky|"
    rf"(?:lighting|illumination|brightness|light|exposure) is (?:\w+ )?{_LOW}|lacks? light|{_LOW} (?:light|lighting)",
    Fault.BRIGHT: r"overexpos\w+|too bright|over-?bright|(?:\w+ )?brighter than|blown[ -]out|glaring|"
    r"washed out by light|"
    r"excess(?:ive)? (?:light|brightness)|(?:lighting|brightness|exposure) is (?:\w+ )?(?:excessive|too high)",
    Fault.FLAT: rf"contrast is (?:\w+ )?{_LOW}|{_LOW} contrast|hazy|looks? (?:\w+ )?flat|flat tones|lacks? contrast|"
    r"tones? (?:lie|are|sit) (?:\w+ )?close together|haze",
    Fault.DULL: r"dull\w*|colou?rless|desaturated|faded|pale\w*|grey(?:ish)?|"
    rf"(?:saturation|colou?rfulness) is (?:\w+ )?{_LOW}|{_LOW} saturation",
    Fault.VIVID: r"over-?saturat\w+|garish|gaudy|"
    r"(?:too|overly|excessively|unnaturally|artificially) (?:vivid|vibrant|saturated)|too strong in colou?r|"
    r"(?:saturation) is (?:\w+ )?(?:excessive|too high)|"
    r"excessive saturation|more vivid than natural",
    Fault.COMPRESSION: r"block(?:s|y|iness|ing)|compression|block edges|(?:grid|mosaic) pattern",
    Fault.SHAKE: r"shak\w+|trembl\w+|jitter\w*|unsteady|unstable|wobbl\w+",
    Fault.STUTTER: r"stutter\w*|judder\w*|frozen|freez\w+|halt\w*|chopp\w+|jerky|repeated frames|skips?",
}
_FINE_CUES: Final[dict[Attribute, str]] = {
    Attribute.SHARPNESS: rf"crisp\w*|sharp\b(?! drop)|(?:fully|clearly|well) resolved|in focus|"
    rf"(?:sharpness|clarity|focus) (?:is|are) (?:(?!too\b)\w+ )?{_GOOD}",
    Attribute.NOISE: r"clean",
    Attribute.EXPOSURE: r"well[ -]lit|well[ -]exposed|"
    rf"(?:lighting|illumination|brightness|light|exposure) (?:is|are) (?:(?!too\b)\w+ )?{_GOOD}|"
    rf"{_GOOD} (?:light|lighting|exposure)",
    Attribute.CONTRAST: rf"contrast is (?:(?!too\b)\w+ )?{_GOOD}|{_GOOD} contrast|"
    r"(?:tones|areas) are (?:\w+ )?separated",
    Attribute.COLOUR: rf"colou?rs? (?:are|is|look|looks) (?:(?!too\b)\w+ )?{_GOOD}|{_GOOD} (?:saturation|colou?rs?)|"
    rf"(?:saturation|colou?rfulness) is (?:(?!too\b)\w+ )?{_GOOD}",
    Attribute.COMPRESSION: r"artifact[ -]free",
    Attribute.STABILITY: r"steady|steadily|stable",
    Attribute.SMOOTHNESS: r"fluent\w*|smooth(?:ly)? (?:motion|movement|playback)|flows? (?:smoothly|evenly)|"
    r"(?:motion|movement|playback) (?:is|runs) smooth(?:ly)?",
}
_SLIGHT: Final = re.compile(
    r"\b(?:slight\w*|somewhat|a little|mild\w*|minor|a bit|faint\w*|moderate\w*|marginal\w*|now and then|occasional\w*|"
    r"some|a touch|a few)\b",
    re.IGNORECASE,
)
_NEGATORS: Final = re.compile(
    r"\b(?:no|not|\w+n['\u2019]t|cannot|without|free (?:of|from)|neither|nor|never|hardly|barely|absent|lacks?|nothing)"
    r"\b(?:\W+\w+){0,3}\W*$",
    re.IGNORECASE,
)
_NEGATED_WITHIN: Final = re.compile(r"\b(?:not|never|hardly|barely)\b", re.IGNORECASE)
_NEGATED_AFTER: Final = re.compile(
    rf"^(?:\W+\w+){{0,2}}\W+(?:(?:is|are)n['\u2019]t|"
    rf"(?:is|are)\W+(?:not(?! {_LITTLE}\b)|hardly|barely|never|absent))\b|"
    r"^(?:\W+\w+){0,2}\W+cannot be seen\b",
    re.IGNORECASE,
)
_AMOUNTS: Final = frozenset({Fault.BLUR, Fault.NOISE, Fault.COMPRESSION, Fault.SHAKE, Fault.STUTTER})
"""Faults of which little is fine; the others are directions, in which "low" is the fault itself."""
_LITTLE_BEFORE: Final = re.compile(rf"\b{_LITTLE} $", re.IGNORECASE)
_LITTLE_AFTER: Final = re.compile(
    rf"^(?: artifacts?| levels?)? (?:is|are) {_LITTLE}(?: overall| throughout| everywhere)?\W*$", re.IGNORECASE
)
_RICH_COLOURS: Final = re.compile(
    r"(?:(?:the|this|it|there|image|picture|photo(?:graph)?|video|clip|footage|scene|has|have|shows?|with|is|are) )*"
    rf"(?:{_RICH}(?:(?: and|,) {_RICH})* colou?rs?|"
    rf"colou?rs? (?:are|is|looks?|appears?) {_RICH}(?:(?: and|,) (?:{_RICH}|{_GOOD}))*)\W*",
    re.IGNORECASE,
)
"""A whole sentence: with anything beside it, richness may as well be too much, or missed."""
_OF_MEDIUM: Final = re.compile(
    r"\s+(?:of|in|across|throughout) (?:the|this) (?:whole |entire )?"
    r"(?:image|picture|photo|photograph|video|clip|footage|scene|shot|frame|camera)\b",
    re.IGNORECASE,
)
"""Says nothing beyond what an assertion is about anyway; read over."""
_SENTENCE: Final = re.compile(r"[.!?\n]+(?=\s|$)")
_CLAUSE: Final = re.compile(
    r"[,;:]|\b(?:but|while|so that|although|and (?=(?:has|have|is|are|shows?|looks?|suffers?)\b))"
)
_FAULT_PATTERNS: Final = {fault: re.compile(rf"\b(?:{cue})\b", re.IGNORECASE) for fault, cue in _FAULT_CUES.items()}
_FINE_PATTERNS: Final = {name: re.compile(rf"\b(?:{cue})\b", re.IGNORECASE) for name, cue in _FINE_CUES.items()}


def parse_claim(text: str) -> Claim | None:
    """Read a sentence's claim.

    Returns:
        None if the sentence makes no claim that can be measured, contradicts itself, or speaks of two attributes.
    """
    plain = _OF_MEDIUM.sub("", text)
    found = {claim for clause in _CLAUSE.split(plain) for claim in _claims_in(clause, plain)}
    if _RICH_COLOURS.fullmatch(plain):
        found.add(fine(Attribute.COLOUR))
    return found.pop() if len(found) == 1 else None


def claims_of(text: str) -> list[Claim]:
    """All claims of a text in their order, repeated ones included.

    A text may speak of many attributes, unlike one assertion, which :func:`parse_claim` reads.
    """
    sentences = [_OF_MEDIUM.sub("", part) for part in _SENTENCE.split(text)]
    return [claim for part in sentences for clause in _CLAUSE.split(part) for claim in _claims_in(clause, part)]


def is_negated(clause: str, start: int, end: int) -> bool:
    """Whether what stands in a clause from ``start`` to ``end`` is said not to be there."""
    before, cue, after = clause[:start], clause[start:end], clause[end:]
    return bool(_NEGATORS.search(before) or _NEGATED_WITHIN.search(cue) or _NEGATED_AFTER.search(after))


def clauses(text: str) -> list[str]:
    """A text's clauses, in which a negation reaches to the end."""
    return [clause for part in _SENTENCE.split(text) for clause in _CLAUSE.split(part)]


def _claims_in(clause: str, text: str) -> list[Claim]:
    degree = Degree.SLIGHT if _SLIGHT.search(text) else Degree.STRONG
    claims = []
    for fault, pattern in _FAULT_PATTERNS.items():
        for match in pattern.finditer(clause):
            negated = is_negated(clause, *match.span()) or (fault in _AMOUNTS and _is_little(clause, match))
            claims.append(fine(ATTRIBUTE_OF[fault]) if negated else faulty(fault, degree))
    for attribute, pattern in _FINE_PATTERNS.items():
        for match in pattern.finditer(clause):
            if not is_negated(clause, *match.span()):
                claims.append(fine(attribute))
            elif len(FAULTS[attribute]) == 1:
                claims.append(faulty(FAULTS[attribute][0], degree))
    return claims


def _is_little(clause: str, match: re.Match[str]) -> bool:
    return bool(_LITTLE_BEFORE.search(clause[: match.start()]) or _LITTLE_AFTER.search(clause[match.end() :]))
