"""Do a text's words speak for or against quality, and does the verdict that stands with them agree?

Words are read by two lexicons: the claims about attributes (``models.signals.claims``: sharpness, noise, exposure ...,
fine or faulty, slight or strong) and words that praise or blame without naming one. Both know negation ("not blurry",
"free of noise", "little distortion", "no detail"). Sentences that state the verdict itself do not count.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from models.signals.claims import Attribute, Degree, claims_of, clauses, is_negated

SLIGHT_WEIGHT: Final = 0.5
"""A slight fault weighs half a strong one."""
CLEAR: Final = 0.2
"""From this balance on, words have a side."""
MIDDLE: Final = (0.4, 0.6)
"""Qualities in between, the middle fifth of the scale, are on no side."""

_PRAISE: Final = (
    r"excellent\w*|outstanding\w*|superb\w*|great|impressive\w*|pleas(?:ing|ant)\w*|appealing\w*|attractive\w*|"
    r"beautiful\w*|stunning\w*|striking\w*|exceptional\w*|remarkabl\w+|perfect\w*|flawless\w*|pristine|immaculate\w*|"
    r"good|fine(?:st)?|nice\w*|clear|clearly (?:seen|shown|drawn|rendered|defined)|detailed|natural|adequate|"
    r"high[ -]quality|high[ -]resolution|professional\w*|vibrant\w*|"
    r"realistic\w*|lifelike|harmonious\w*|well[ -](?!lit|exposed|resolved)\w+|enhanc\w+|"
    r"easy to (?:see|recogni[sz]e|tell)|"
    r"visually engaging|faithful\w*|accurate\w*|true to life|intact|intricate"
)
_BLAME: Final = (
    r"bad(?:ly)?|poor(?:ly)?|terribl\w+|awful\w*|horribl\w+|dreadful\w*|unpleas\w+|unappealing\w*|ugly|distort\w+|"
    r"arti?e?facts?|degrad\w+|deteriorat\w+|unclear\w*|indistinct|unnatural\w*|unrealistic\w*|mess(?:y|ed)?|amateur\w*|"
    r"low[ -]quality|low[ -]resolution|lack(?:s|ed|ing)?|missing|loss|lost|loses|hinder\w*|detract\w*|suffers?|"
    r"flaw(?:s|ed)?|defect\w*|impair\w*|unusable|washed[ -]out|pixel(?:at\w+|i[sz]\w+)|corrupt\w*|glitch\w*|uneven\w*|"
    r"distract\w*|disappoint\w*|weak(?:ly)?|mediocre|problem\w*|issues?|worse|worst|compromis\w+|fail(?:s|ed|ing)?|"
    r"harsh\w*|ruin\w*|spoil\w*|damag\w+|hard to (?:see|recogni[sz]e|tell|make out)|difficult to \w+|illegible|"
    r"unrecogni[sz]able|smudg\w+|band(?:ing|ed)|ringing|ghosting|aliasing|jagged"
)
_PRAISE_WORDS: Final = re.compile(rf"\b(?:{_PRAISE})\b(?! (?:of )?(?:fault|noise|blur))", re.IGNORECASE)
_BLAME_WORDS: Final = re.compile(rf"\b(?:{_BLAME})\b", re.IGNORECASE)
_LITTLE_OF: Final = re.compile(
    r"(?<!\ba )\b(?:little|few|minimal|negligible|fewest|least|minor)\b(?:\W+\w+)?\W*$", re.IGNORECASE
)
_NOT_ONLY: Final = re.compile(r"\bnot (?:only|just|merely)\b", re.IGNORECASE)
_VERDICT: Final = re.compile(
    r"\b(?:overall|final|general|therefore|in (?:sum|summary|conclusion|total))\b[^.]*"
    r"\b(?:quality|rating|score|picture|image)\b|"
    r"\bquality (?:of (?:the|this) (?:image|picture|photo\w*|video|clip) )?(?:is|as|can be|would be)\b|"
    r"\b(?:rating|score)\b",
    re.IGNORECASE,
)
_SENTENCE: Final = re.compile(r"[^.!?\n]+(?:[.!?]+(?=\s|$)|\n|$)|\n")


class Agreement(StrEnum):
    """What a verdict is to the words that stand with it."""

    AGREES = "agrees"
    CONTRADICTS = "contradicts"
    OPEN = "open"


@dataclass(frozen=True)
class Balance:
    """Words for and against quality.

    Attributes:
        praise, blame: their weights, from 0.
    """

    praise: float
    blame: float

    @property
    def value(self) -> float:
        """Praise less blame over both, in [-1, 1]; 0 where nothing was said."""
        total = self.praise + self.blame
        return (self.praise - self.blame) / total if total else 0.0


def balance(text: str) -> Balance:
    """Weigh a text's words, the verdict's sentences left out."""
    plain = _NOT_ONLY.sub("", beside_verdict(text))
    praise = blame = 0.0
    for claim in claims_of(plain):
        if claim.degree is Degree.NONE:
            praise += 1.0
        else:
            blame += SLIGHT_WEIGHT if claim.degree is Degree.SLIGHT else 1.0
    for clause in clauses(plain):
        for match in _PRAISE_WORDS.finditer(clause):
            if is_negated(clause, *match.span()):
                blame += 1.0
            else:
                praise += 1.0
        for match in _BLAME_WORDS.finditer(clause):
            if is_negated(clause, *match.span()) or _LITTLE_OF.search(clause[: match.start()]):
                praise += 1.0
            else:
                blame += 1.0
    return Balance(praise, blame)


def beside_verdict(text: str) -> str:
    """A text without the sentences that state its verdict."""
    return "".join(part for part in _SENTENCE.findall(text) if not _VERDICT.search(part))


def compare(text: str, quality: float) -> Agreement:
    """Hold a text's words against the verdict that stands with them.

    Args:
        quality: the verdict on [0, 1], higher is better.
    """
    words = balance(text).value
    if abs(words) < CLEAR or MIDDLE[0] <= quality < MIDDLE[1]:
        return Agreement.OPEN
    return Agreement.AGREES if (words > 0) == (quality >= MIDDLE[1]) else Agreement.CONTRADICTS


def feature_signs(text: str) -> dict[Attribute, int]:
    """What a text says of each attribute: 1 fine, -1 faulty, 0 nothing, or as much for as against it."""
    votes = dict.fromkeys(Attribute, 0)
    for claim in claims_of(text):
        votes[claim.attribute] += 1 if claim.degree is Degree.NONE else -1
    return {attribute: (vote > 0) - (vote < 0) for attribute, vote in votes.items()}
