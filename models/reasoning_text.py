"""Descriptions without their verdict: what gives the quality away in a text, and the text without those sentences.

Two-stage tuning infers quality from a description. A description that names the level, judges the whole, or holds a
score hands the answer over, and nothing would be inferred. Three kinds of leak are told apart:

* ``level``: a word of :data:`LEVEL_WORDS`, whatever it is said of ("Sharpness is low"): it is the answer's own token;
* ``verdict``: a judgement of the whole: a word of :data:`JUDGEMENTS`, the word quality, a rating or a verdict, or an
  overall impression;
* ``score``: a number on a scale ("7/10", "three out of five", "four stars"), or any number beside a word of rating.

Words count whole and in either case. ``fairly``, ``highly``, ``badly`` and ``poorly`` are adverbs of degree about one
attribute, and other tokens than the levels: they stay, as do ``higher``, ``lower`` and ``highlights``. A compound with
a hyphen holds its words ("low-light" leaks ``low``). A sentence that leaks is dropped whole, never rewritten.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from models.levels import LEVELS, Level

LeakKind = Literal["level", "verdict", "score"]

LEVEL_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "vital": LEVELS,
    "q_align": ("excellent", "good", "fair", "poor", "bad"),
    "q_instruct": ("good", "average", "poor"),
    "forms": ("better", "best", "worse", "worst", "poorer", "poorest", "fairer", "fairest"),
}
"""Scale -> its words. ``forms`` are inflections of them that name a place on the scale as well."""

JUDGEMENTS: Final = (
    "abysmal", "acceptable", "amazing", "appalling", "atrocious", "awful", "decent", "dreadful", "exceptional",
    "fantastic", "first-rate", "flawless", "great", "horrendous", "horrible", "immaculate", "impeccable", "inferior",
    "lousy", "magnificent", "marvelous", "mediocre", "nice", "okay", "outstanding", "passable", "perfect", "pleasant",
    "praise", "satisfactory", "second-rate", "splendid", "stunning", "subpar", "substandard", "superb", "superior",
    "terrible", "tolerable", "top-notch", "unacceptable", "unsatisfactory", "wonderful",
)  # fmt: skip
"""Words of praise and blame that name no attribute: each is a verdict on its own."""

VERDICT_LEVELS: Final[dict[Level, tuple[str, ...]]] = {
    "high": ("high", "excellent", "best", "exceptional", "flawless", "great", "outstanding", "perfect", "superb"),
    "good": ("good", "better", "decent", "satisfactory"),
    "fair": ("fair", "average", "acceptable", "mediocre", "medium", "moderate", "okay", "passable", "tolerable"),
    "poor": ("poor", "inferior", "poorer", "subpar", "substandard", "unsatisfactory", "worse"),
    "low": ("low", "bad", "abysmal", "awful", "dreadful", "horrible", "lousy", "terrible", "unacceptable", "worst"),
}
"""Level -> words of a verdict that mean it; the five of absolute category rating (excellent to bad) stand in order."""

_LEVEL_OF: Final[dict[str, Level]] = {word: level for level, words in VERDICT_LEVELS.items() for word in words}
_STRONGER: Final[dict[Level, Level]] = {"good": "high", "poor": "low"}
"""What ``very`` makes of a level; the others stay."""
_TURNED: Final[dict[str, Level]] = {"below average": "poor", "above average": "good"}

_ALL_LEVELS: Final = tuple(dict.fromkeys(word for words in LEVEL_WORDS.values() for word in words))
_LEVEL: Final = re.compile(rf"\b(?:{'|'.join(_ALL_LEVELS)})\b", re.IGNORECASE)
_FRAME: Final = r"(?<!frame )(?<!frame-)(?<!bit )(?<!bit-)(?<!refresh )(?<!refresh-)"
_RATING: Final = (
    rf"{_FRAME}rat(?:e|es|ed|ing|ings)\b(?! of (?:frames|motion|change)| plate)|"
    r"(?<!player )(?<!team )(?<!striker )scor(?:e|es|ed|ing)|d?mos|(?:mean|average) opinions?|verdicts?|"
    r"assess(?:es|ed|ing|ments?)?|evaluat(?:e|es|ed|ing|ions?)|ranked|rankings?|ranks? (?:at|among|above|below|in|as)|"
    r"grad(?:e|es) (?:it|this|the)|grades?(?=\s*[:=])|(?:the|its|my|this|a) grade|(?:its|my|the final) grading|"
    r"(?<!color )(?<!color-)graded"
)
_WHOLE: Final = (
    r"qualit(?:y|ies)|(?:overall|general|total|final) (?:\w+ )?(?:impression|appearance|look|feel|effect|experience|"
    r"result|evaluation)|(?:viewing|visual) experience|(?<=^)overall"
)
_PRAISED: Final = r"(?:fine|brilliant) (?:image|picture|photo|photograph|video|clip|shot|result|work)"
_VERDICT: Final = re.compile(rf"\b(?:{'|'.join(JUDGEMENTS)}|{_RATING}|{_WHOLE}|{_PRAISED})\b", re.IGNORECASE)
_NUMBER: Final = r"(?:\d+(?:\.\d+)?|one|two|three|four|five|six|seven|eight|nine|ten|zero|half)"
_STARS: Final = r"(?:\d(?:\.\d+)?|10|one|two|three|four|five|six|seven|eight|nine|ten|zero|half)"
"""No scale has more: fifty stars are on a flag."""
_ENDED: Final = r"(?=\s*(?:$|[^\w\s]|(?:for|in|on|at|by|to|from|because|and|but|or)\b))"
"""What follows "3 of 5" where nothing is counted ("9 of 10 windows")."""
_SCALED: Final = re.compile(
    rf"\b{_NUMBER}\s*/\s*(?:5|7|9|10|100)\b(?!\s*(?:s|sec|seconds?)\b)|"
    rf"\b{_NUMBER}(?: points?| stars?)? (?:out of|of a possible|on a scale)(?: {_NUMBER}\b)?|"
    rf"\b{_NUMBER} of (?:5|7|9|10|100|five|seven|nine|ten)\b{_ENDED}|\b{_NUMBER}[- ]point scale\b|"
    rf"\b{_STARS}[ -]stars?\b|\bhalf an? (?:star|point)\b|\bstars?\s*[:=]\s*{_NUMBER}\b|"
    rf"\b{_NUMBER} points?\b(?! of (?:light|view|contact))|\bscale (?:of|from) {_NUMBER}\b|"
    rf"\bmarks?(?: of|\s*[:=]) ?{_NUMBER}\b|</?answer>",
    re.IGNORECASE,
)
_RATED: Final = re.compile(rf"\b(?:{_RATING}|quality)\b", re.IGNORECASE)
_DIGITS: Final = re.compile(r"(?<![\w.])\d+(?:\.\d+)?%?(?!\w)")

_END: Final = re.compile(r"[.!?]+[\"'\u2019\u201d)\]]*(?=\s)|\n+")

_SUBJECT: Final = re.compile(rf"\b(?:{_RATING}|{_WHOLE})\b", re.IGNORECASE)
_WORD: Final = (
    rf"(?:(?P<turned>{'|'.join(_TURNED)})|(?P<very>(?:very|extremely|really|exceptionally) )?"
    rf"(?P<word>{'|'.join(_LEVEL_OF)}))\b"
)
_DEGREE: Final = (
    r"(?:\w+ly|very|quite|rather|somewhat|only|just|still|also|of|a|an|the|overall|as|to be|"
    r"considered|rated|deemed|judged)"
)
"""Words that may stand between "quality is" and its level: others ("is affected by low light") make it another's."""
_THING: Final = r"(?:image|picture|photo|photograph|video|clip|quality|impression|appearance|result|one)"
_OF_WHAT: Final = rf"(?: (?:of|for) (?:the|this|that|its) (?:\w+ )??{_THING}| (?:it|(?:the|this|that) {_THING}))?"
_SAID: Final = (
    (
        rf"\b(?:{_RATING}|{_WHOLE})\b{_OF_WHAT}[,:]?"
        rf"(?: (?:is|are|as|be|remains|seems|looks|it is|it's|i would say))?:? (?:{_DEGREE} ){{0,3}}?{_WORD}"
    ),
    rf"\b{_WORD}(?: (?:overall|general|visual|image|picture|video))*[ -]quality\b",
    rf"\b{_WORD} {_THING}\b",
)
"""Ways to name a level in a sentence that gives a verdict; what an earlier one finds is what is meant."""
_SAYINGS: Final = tuple(re.compile(pattern, re.IGNORECASE) for pattern in _SAID)
_DENIED: Final = re.compile(
    r"\b(?:not|never|neither|nor|hardly|far from|(?<!i )would|could|should|might|less than|more than|between|enough)\b|"
    r"n['\u2019]t\b",
    re.IGNORECASE,
)
_CLAUSE: Final = re.compile(r"[,;:]|\b(?:and|but|so|while|although)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Leak:
    """Something that gives the verdict away.

    Attributes:
        text: the words, as they stand there. start: where they begin in the text.
    """

    kind: LeakKind
    text: str
    start: int


@dataclass(frozen=True)
class Body:
    """A text without the sentences that leak.

    Attributes:
        text: the others, as they stood, in their order; may be empty.
        dropped: the sentences that leaked.
    """

    text: str
    dropped: tuple[str, ...]


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the space between them."""
    return [sentence for _, sentence in _sentences(text)]


def leaks(text: str) -> tuple[Leak, ...]:
    """Everything in a text that gives the verdict away, in its order; words are told once."""
    return tuple(leak for start, sentence in _sentences(text) for leak in _leaks_in(sentence, start))


def without_verdict(text: str) -> Body:
    """Drop the sentences that leak; what is left has no leak."""
    kept, dropped = "", []
    for start, sentence in _sentences(text):
        if _leaks_in(sentence, start):
            dropped.append(sentence)
        else:
            kept += f"{_border(kept)}{sentence}"
    return Body(kept, tuple(dropped))


def verdict_of(text: str) -> Level | None:
    """The level that a text's last verdict names: the last sentence that judges quality, the whole or a rating.

    Returns:
        None if no sentence gives a verdict, or the one that does names several levels or denies one: nothing is
        guessed.
    """
    for _, sentence in reversed(_sentences(text)):
        named = next((found for saying in _SAYINGS if (found := list(saying.finditer(sentence)))), [])
        if named and _SUBJECT.search(sentence):
            levels: set[Level] = {_level(match) for match in named}
            denied = any(_DENIED.search(_CLAUSE.split(sentence[: match.end()])[-1]) for match in named)
            return levels.pop() if len(levels) == 1 and not denied else None
    return None


def _level(match: "re.Match[str]") -> Level:
    if match["turned"]:
        return _TURNED[match["turned"].lower()]
    level = _LEVEL_OF[match["word"].lower()]
    return _STRONGER.get(level, level) if match["very"] else level


def _sentences(text: str) -> list[tuple[int, str]]:
    """Sentences with where they begin; a mark of the end that whitespace follows, or a new line, closes one."""
    found, start = [], 0
    for end in (*(match.end() for match in _END.finditer(text)), len(text)):
        sentence = text[start:end].strip()
        if sentence:
            found.append((start + text[start:end].index(sentence), sentence))
        start = end
    return found


def _border(kept: str) -> str:
    """What stands between sentences, so that they are found again as they are."""
    return "" if not kept else " " if _END.search(f"{kept[-3:]} ") else "\n"


def _leaks_in(sentence: str, start: int) -> list[Leak]:
    found = [*_of("score", _SCALED, sentence), *_of("level", _LEVEL, sentence), *_of("verdict", _VERDICT, sentence)]
    if _RATED.search(sentence):
        found += _of("score", _DIGITS, sentence)
    distinct: list[Leak] = []
    for leak in sorted(found, key=lambda leak: (leak.start, -len(leak.text))):
        if not distinct or leak.start >= distinct[-1].start + len(distinct[-1].text):
            distinct.append(leak)
    return [Leak(leak.kind, leak.text, start + leak.start) for leak in distinct]


def _of(kind: LeakKind, pattern: "re.Pattern[str]", sentence: str) -> list[Leak]:
    return [Leak(kind, match[0], match.start()) for match in pattern.finditer(sentence)]
