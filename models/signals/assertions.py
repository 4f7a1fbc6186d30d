"""Rules of a single assertion, and the way from a describer's raw text to assertions that keep them.

A raw description may be any prose, also an LMM's. Polishing removes what is said about nothing measurable (praise, a
verdict on the overall quality); splitting makes one sentence one assertion, without its full stop; and an assertion is
told in the words of quality alone (``vocabulary``), because it may become training text.
"""

import re
from dataclasses import dataclass
from typing import Final

from models.signals.claims import parse_claim
from models.signals.vocabulary import foreign_in

VACUOUS: Final[tuple[str, ...]] = (
    r"(?:overall|general|visual|image|picture|video|perceptual|technical)(?: \w+)? quality",
    r"(?:good|high|great|excellent|decent|fair|poor|low|bad|acceptable|superior|average|mediocre) (?:overall )?quality",
    r"quality (?:is|looks|seems|appears|remains)",
    r"(?:looks?|seems?|appears?) (?:\w+ )?(?:good|great|nice|fine|bad|poor|okay|ok)(?= *(?:$|[.,;!?]))",
    r"(?:looks?|seems?|appears?|is|are) (?:\w+ )?(?:pleasing|pleasant|professional|beautiful|excellent|impressive)",
    r"(?:is|are) (?:\w+ )?(?:nice|great|awesome|perfect|acceptable)",
    r"(?:visually|aesthetically) (?:pleasing|appealing|attractive)",
    r"(?:pleasant|enjoyable|good|bad|poor) (?:viewing|visual) experience",
    r"well[ -](?:made|produced|captured|taken|shot)",
    r"as an ai|as a language model",
)
"""Patterns of phrases that say nothing measurable, or judge the whole."""

MAX_WORDS: Final = 40
MAX_CHARACTERS: Final = 300

_VACUOUS: Final = re.compile("|".join(rf"(?:{pattern})" for pattern in VACUOUS), re.IGNORECASE)
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)\s+|\n+", re.IGNORECASE)
_WRITTEN_OUT: Final = (
    (re.compile(r"\be\.\s?g\.,?(?=\s)", re.IGNORECASE), "such as"),
    (re.compile(r"\bi\.\s?e\.,?(?=\s)", re.IGNORECASE), "that is"),
)
"""Abbreviations within a sentence, in words."""
_NOUN: Final = r"(?!(?:is|are|has|have|can|looks?|seems?|shows?|the|no|not)\b)[a-z-]+"
_NOUNS: Final = rf"{_NOUN}(?: {_NOUN}){{0,2}}"
_FAULT_NOUN: Final = (
    r"(?:(?:visible|any|noticeable) )?(?:(?:motion|camera|compression|blocking) )?"
    r"(?:noise|grain|blur(?:ring|riness)?|blocks|blocking|blockiness|compression|artifacts|haze|shak(?:e|ing)|"
    r"stutter(?:ing)?|judder|jitter)"
)
"""Of one thing that a denial before ``and`` goes on to; whatever is worded otherwise is told by itself."""
_REST: Final = r"(?P<rest>(?: (?:is|are|can)\b.*)?)"
_NO: Final = r"(?P<lead>.*?)\b(?P<no>no|without|free of|free from)"
_DENIALS: Final = (
    rf"(?P<lead>.*?)\bneither (?P<first>{_NOUNS}) nor (?P<second>{_NOUNS}){_REST}",
    rf"{_NO} (?P<first>{_NOUNS}) n?or (?P<second>{_NOUNS}){_REST}",
    rf"{_NO} (?P<first>{_NOUNS}) and (?P<second>{_FAULT_NOUN})(?P<rest>)",
)
_DENIED: Final = tuple(re.compile(pattern, re.IGNORECASE) for pattern in _DENIALS)
"""Two things that are denied together."""
_CLAUSE_BORDER: Final = re.compile(
    r"\s*(?:,\s*(?:and|but|while|yet)\s+|;\s*|,\s+|\s+(?:and|but|while|yet)\s+)", re.IGNORECASE
)
_JOINT: Final = re.compile(r"\s*(?:,\s*(?:and|but|while|yet)\s+|;\s*|\s+(?:and|but|while|yet)\s+)", re.IGNORECASE)
_LIST_MARK: Final = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")
_TOKEN: Final = re.compile(r"\w+|[^\w\s]")


def is_vacuous(text: str) -> bool:
    """Say whether the text praises, judges the whole, or otherwise says nothing measurable."""
    return _VACUOUS.search(text) is not None


@dataclass(frozen=True)
class Sifted:
    """What is left of a raw description: ``kept`` texts, and for each ``dropped`` sentence the rule that it broke."""

    kept: tuple[str, ...]
    dropped: tuple[str, ...]


def polish(raw: str) -> list[str]:
    """Remove vacuous clauses; what is left of each sentence is kept only if it still is a sentence of its own."""
    return [text for sentence in sentences_of(raw) if (text := _polished(sentence))]


def without_last_sentence(raw: str) -> str:
    """A text that was cut off somewhere, without the sentence that the cut is in."""
    return "".join(raw[: match.end()] for match in list(_SENTENCE_END.finditer(raw.rstrip()))[-1:]).rstrip()


def sentences_of(raw: str) -> list[str]:
    """Sentences of a raw description, without list marks, and with abbreviations in words."""
    for abbreviation, words in _WRITTEN_OUT:
        raw = abbreviation.sub(words, raw)
    listed = (_LIST_MARK.sub("", " ".join(sentence.split())).strip() for sentence in _SENTENCE_END.split(raw))
    return [sentence for sentence in listed if sentence.strip(" .!?;,")]


def _polished(sentence: str) -> str:
    text = sentence
    if is_vacuous(text):
        clauses = [clause for clause in _CLAUSE_BORDER.split(text) if not is_vacuous(clause)]
        text = next((clause for clause in clauses if parse_claim(clause) is not None), "")
    text = text.strip(" .!?;,")
    return text[:1].upper() + text[1:]


def split(sentence: str) -> list[str]:
    """Split a sentence at the joints between claims about different attributes; otherwise return it whole."""
    return [part[0].upper() + part[1:] for part in (part.strip(" .!?;,") for part in _parted(sentence)) if part]


def _parted(sentence: str) -> list[str]:
    if apart := _denied_apart(sentence):
        return apart
    parts, pending = [], ""
    pieces = _JOINT.split(sentence)
    joints = _JOINT.findall(sentence)
    for index, piece in enumerate(pieces):
        pending = f"{pending}{joints[index - 1]}{piece}" if pending else piece
        here = parse_claim(pending)
        following = parse_claim(pieces[index + 1]) if index + 1 < len(pieces) else None
        if here and following and here.attribute is not following.attribute:
            parts.append(pending)
            pending = ""
    return [*parts, pending]


def _denied_apart(sentence: str) -> list[str]:
    """Two sentences that deny one fault each, of one that denies both; none if it is not of that kind."""
    for pattern in _DENIED:
        if match := pattern.fullmatch(sentence):
            said = match.groupdict("")
            head = f"{said['lead']}{said.get('no', 'no')}"
            texts = [f"{head} {said[name]}{said['rest']}" for name in ("first", "second")]
            claims = [parse_claim(text) for text in texts]
            if all(claim is not None and claim.fault is None for claim in claims) and len(set(claims)) > 1:
                return texts
    return []


def assertions_of(raw: str) -> list[str]:
    """Polish and split a raw description; repeated assertions are dropped."""
    return list(sift(raw).kept)


def sift(raw: str) -> Sifted:
    """Polish and split a raw description, and count what falls away."""
    kept: list[str] = []
    dropped: list[str] = []
    for sentence in sentences_of(raw):
        parts = split(polished) if (polished := _polished(sentence)) else []
        problems = [problem_of(part) for part in parts]
        kept += [part for part, problem in zip(parts, problems, strict=True) if problem is None]
        dropped += [problem for problem in problems if problem is not None] if parts else ["vacuous"]
    distinct = tuple(dict.fromkeys(kept))
    return Sifted(distinct, (*dropped, *["repeated"] * (len(kept) - len(distinct))))


def problem_of(text: str) -> str | None:
    """Why a text cannot stand as one assertion, or None; the rule for describers' text and for judges' revisions."""
    words = len(text.split())
    checks = (
        ("too short", words < 2),
        ("too long", len(text) > MAX_CHARACTERS or words > MAX_WORDS),
        ("control characters", not text.isprintable()),
        ("not a bare sentence", text != text.strip() or text[-1:] in set(".!?;,")),
        ("more than one sentence", _SENTENCE_END.search(text) is not None),
        ("vacuous", is_vacuous(text)),
    )
    return next((problem for problem, broken in checks if broken), None) or foreign_in(text)


def token_count(text: str) -> int:
    """Words and punctuation marks."""
    return len(_TOKEN.findall(text))
