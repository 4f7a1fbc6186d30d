"""Does a model mean what it says? Its score of an image against its score of its own words, and words against verdicts.

Works on recorded answers, those of models that were asked just now included: a JSON list with, per image, the score
with the image, the score from the text alone, and the texts. What is not readable is counted by its reason and left
out, never guessed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from models.errors import ModelError
from models.instruments.contradiction import Against, against_people, gap
from models.instruments.word_balance import Agreement, balance, compare
from tasks.errors import StageError
from tasks.evaluation.recorded import DIGITS, Comparing, paired, read_answers, read_records, rounded, told_shares
from tasks.human_scale import Meaning, Polarity

SCHEMA: Final = 1
READOUT: Final = "number"
"""The model wrote its score as a number, unless the readout is told to be another; every figure is of that readout."""
GAPS: Final = {"mean_abs_difference": "difference_N", "level_flip": "flip_N", "two_level_flip": "far_flip_N"}
"""Name in a report -> field of :class:`models.instruments.contradiction.Gap` that it averages."""
_EXCERPT: Final = 400


@dataclass(frozen=True)
class Keys:
    """Where a record keeps what; a text that is left out is not compared.

    Attributes:
        medium: names the image. image_score, text_score: of the model, with the image and from the text alone.
        human: score of people; None if there is none.
        image_text, text_text: what the model wrote with the image, and from the text alone.
    """

    medium: str = "image"
    image_score: str = "overall_score"
    text_score: str = "reasoning_score"
    human: str | None = "gt_score"
    image_text: str | None = "perception_text"
    text_text: str | None = "reasoning_text"


@dataclass(frozen=True)
class Options:
    """How recorded answers are read and compared.

    Attributes:
        low, high: ends of the model's scale, higher is better.
        human: what people's scores mean; None if there are none.
        readout: how the model's scores came about; told with every figure.
    """

    low: float
    high: float
    human: Meaning | None
    comparing: Comparing = field(default_factory=Comparing)
    readout: str = READOUT

    @property
    def model(self) -> Meaning:
        """What the model's scores mean."""
        return Meaning(Polarity.MOS, self.low, self.high)


@dataclass(frozen=True)
class Answer:
    """A record as it is compared: scores on [0, 1], higher is better."""

    medium: str
    image: float
    text: float
    human: float | None
    image_text: str | None
    text_text: str | None


def read_file(path: Path, keys: Keys, options: Options) -> tuple[list[Answer], dict[str, int]]:
    """Read recorded answers; see ``tasks.evaluation.recorded.read_answers``.

    Raises:
        StageError: the file is no JSON list of records, none is left, or more than the limit were left out.
    """
    records = read_records(path, f"{keys.image_score} and {keys.text_score}")
    return read_answers(path, records, partial(_answer, keys=keys, options=options), options.comparing)


def _answer(record: Any, keys: Keys, options: Options) -> Answer | str:
    """A record, or why it cannot be compared."""
    if not isinstance(record, dict) or not isinstance(record.get(keys.medium), str):
        return "no_medium"
    image = _quality(record, keys.image_score, options.model)
    text = _quality(record, keys.text_score, options.model)
    human = None if keys.human is None or options.human is None else _quality(record, keys.human, options.human)
    for score in (image, text, human):
        if isinstance(score, str):
            return score
    texts = [_text(record, key) for key in (keys.image_text, keys.text_text)]
    return Answer(record[keys.medium], cast("float", image), cast("float", text), cast("float | None", human), *texts)


def _quality(record: Mapping[str, Any], key: str, meaning: Meaning) -> float | str:
    """A score on [0, 1], higher is better, or what is wrong with it."""
    number = _number(record.get(key))
    if number is None:
        return f"no_number:{key}"
    return meaning.quality(number) if meaning.low <= number <= meaning.high else f"out_of_scale:{key}"


def _number(value: Any) -> float | None:
    """A finite number, or a text that is one, as some files have it."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if np.isfinite(number) else None


def _text(record: Mapping[str, Any], key: str | None) -> str | None:
    value = record.get(key) if key else None
    return value if isinstance(value, str) and value.strip() else None


def measure(answers: Sequence[Answer], rejected: Mapping[str, int], source: str, options: Options) -> dict[str, Any]:
    """Compare scores with scores, and words with verdicts.

    Returns:
        A report of plain values: equal answers give equal bytes.
    """
    image_N = np.array([answer.image for answer in answers])
    text_N = np.array([answer.text for answer in answers])
    replicates = options.comparing.replicates([answer.medium for answer in answers])
    found = gap(image_N, text_N)
    gaps = {name: replicates.mean(getattr(found, key)) for name, key in GAPS.items()}
    people = _people(answers, image_N, text_N)
    return {
        "schema": SCHEMA,
        "source": source,
        "readout": options.readout,
        "scale": [options.low, options.high],
        "human": None if options.human is None or people is None else asdict(options.human),
        "compared": len(answers),
        "rejected": dict(rejected),
        "bootstrap": options.comparing.told(),
        "gaps": told_shares(gaps),
        "difference_on_scale": round(float(found.difference_N.mean()) * (options.high - options.low), DIGITS),
        "people": None if people is None else {name: rounded(vars(value)) for name, value in vars(people).items()},
        "words": {
            "image": _words((answer.image_text, answer.image) for answer in answers),
            "text": _words((answer.text_text, answer.text) for answer in answers),
        },
        "examples": _examples(answers, options.comparing.examples),
    }


def _people(answers: Sequence[Answer], image_N: Any, text_N: Any) -> Against | None:
    human = [answer.human for answer in answers if answer.human is not None]
    return against_people(image_N, text_N, human) if len(human) == len(answers) else None


def _words(pairs: Iterable[tuple[str | None, float]]) -> dict[str, int]:
    counts: Counter[str] = Counter({str(kind): 0 for kind in Agreement} | {"no_text": 0})
    for text, quality in pairs:
        counts["no_text" if text is None else str(compare(text, quality))] += 1
    return dict(sorted(counts.items()))


def _examples(answers: Sequence[Answer], wanted: int) -> list[dict[str, Any]]:
    """The widest gaps first; equal ones in the order of their names."""
    order = sorted(answers, key=lambda answer: (-abs(answer.image - answer.text), answer.medium))[:wanted]
    return [
        {
            "medium": answer.medium,
            "image": round(answer.image, DIGITS),
            "text": round(answer.text, DIGITS),
            "words": None if answer.image_text is None else round(balance(answer.image_text).value, 3),
            "wrote": (answer.image_text or "")[:_EXCERPT],
        }
        for answer in order
    ]


def compare_recorded(paths: Sequence[Path], keys: Keys, options: Options) -> dict[str, Any]:
    """Report on files of recorded answers, one per model; every further model is paired with the first.

    Returns:
        ``files``: a report each; ``differences``: gaps of the first less those of each other, on the images of both.

    Raises:
        StageError: a file cannot be read, or holds too little that can be compared.
    """
    read = [read_file(path, keys, options) for path in paths]
    reports = []
    for path, (answers, rejected) in zip(paths, read, strict=True):
        try:
            reports.append(measure(answers, rejected, path.name, options))
        except ModelError as error:
            msg = f"{path}: {error}"
            raise StageError(msg) from error
    (first, _), *others = read
    names = [path.name for path in paths]
    differences = [
        {"first": names[0], "second": name, **_difference(first, answers, options)}
        for name, (answers, _) in zip(names[1:], others, strict=True)
    ]
    return {"schema": SCHEMA, "files": reports, "differences": differences}


def _difference(first: Sequence[Answer], second: Sequence[Answer], options: Options) -> dict[str, Any]:
    pairs = paired(first, second)
    if not pairs:
        return {"shared": 0, "gaps": None}
    replicates = options.comparing.replicates([one.medium for one, _ in pairs])
    gaps = [gap([one.image for one in side], [one.text for one in side]) for side in zip(*pairs, strict=True)]
    apart = {name: replicates.mean(getattr(gaps[0], key) - getattr(gaps[1], key)) for name, key in GAPS.items()}
    return {"shared": len(pairs), "gaps": told_shares(apart)}
