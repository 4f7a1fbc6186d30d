"""How often a model changes its mind: repeated answers to one question, recorded as a JSON list per model.

Three estimators, each under both ways to take answers that cannot be read; see ``models.instruments.instability``.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.instruments.instability import (
    FAILED,
    Failures,
    instability,
    instability_difference,
    score_gap,
    unstable_shares,
)
from models.instruments.readout import NumberReadout, WordReadout
from tasks.evaluation.recorded import Comparing, paired, read_answers, read_records, rounded, told_shares

SCHEMA: Final = 1
FAILURES: Final[tuple[Failures, ...]] = ("own_class", "left_out")


@dataclass(frozen=True)
class Keys:
    """Where a record keeps what.

    Attributes:
        medium: names the image. answers: list of what the model answered. content: what the image shows, so that
            versions of one photograph are drawn together; None takes each image for a content.
    """

    medium: str = "image"
    answers: str = "answers"
    content: str | None = None


@dataclass(frozen=True)
class Options:
    """How repeated answers are read and compared.

    Attributes:
        readout: reads an answer; its name stands in the report.
        sampling: how the answers were drawn, as whoever recorded them says.
    """

    readout: WordReadout | NumberReadout
    sampling: Mapping[str, str]
    comparing: Comparing = field(default_factory=Comparing)


@dataclass(frozen=True)
class Asked:
    """An image and all that was answered about it."""

    medium: str
    content: str
    answers: tuple[str, ...]


def read_file(path: Path, keys: Keys, options: Options) -> tuple[list[Asked], dict[str, int]]:
    """Read recorded answers, as many for each image; see ``tasks.evaluation.recorded.read_answers``.

    Raises:
        StageError: the file is no JSON list of records, none is left, or more than the limit were left out.
    """
    records = read_records(path, keys.answers)
    lengths = Counter(len(texts) for r in records if isinstance(r, dict) and (texts := _texts(r.get(keys.answers))))
    usual = max(lengths, key=lambda length: (lengths[length], length), default=0)
    return read_answers(path, records, partial(_asked, keys=keys, wanted=usual), options.comparing)


def _asked(record: Any, keys: Keys, wanted: int) -> Asked | str:
    """A record, or why it is left out."""
    if not isinstance(record, dict) or not isinstance(record.get(keys.medium), str):
        return "no_medium"
    answers, content = _texts(record.get(keys.answers)), record.get(keys.content or keys.medium)
    if answers is None:
        return "no_answers"
    if len(answers) < 2:
        return "one_answer"
    if len(answers) != wanted:
        return "other_number_of_answers"
    if not isinstance(content, str):
        return "no_content"
    return Asked(record[keys.medium], content, answers)


def _texts(value: Any) -> tuple[str, ...] | None:
    is_list_of_texts = isinstance(value, list) and all(isinstance(text, str) for text in value)
    return tuple(value) if is_list_of_texts else None


def measure_recorded(paths: Sequence[Path], keys: Keys, options: Options) -> dict[str, Any]:
    """Report on files of repeated answers, one per model; every further model is paired with the first.

    Returns:
        ``files``: a report each; ``differences``: of the first less each other, on the images of both.

    Raises:
        StageError: a file cannot be read, or holds too little.
    """
    read = [read_file(path, keys, options) for path in paths]
    files = [_measured(path.name, asked, lost, options) for path, (asked, lost) in zip(paths, read, strict=True)]
    (first, _), *others = read
    differences = [
        {"first": paths[0].name, "second": path.name, **_difference(first, asked, options)}
        for path, (asked, _) in zip(paths[1:], others, strict=True)
    ]
    return {
        "schema": SCHEMA,
        "readout": _name(options.readout),
        "sampling": dict(options.sampling),
        "bootstrap": options.comparing.told(),
        "files": files,
        "differences": differences,
    }


def _name(readout: WordReadout | NumberReadout) -> dict[str, Any]:
    if isinstance(readout, WordReadout):
        return {"name": "word", "levels": list(readout.levels)}
    return {"name": "number", "scale": [readout.low, readout.high]}


def _measured(source: str, asked: Sequence[Asked], lost: Mapping[str, int], options: Options) -> dict[str, Any]:
    classes_NR = _classes(asked, options.readout)
    replicates = options.comparing.replicates([one.content for one in asked])
    shares = {kind: instability(classes_NR, kind, replicates) for kind in FAILURES}
    report: dict[str, Any] = {
        "source": source,
        "images": len(asked),
        "contents": len({one.content for one in asked}),
        "answers": classes_NR.shape[1],
        "left_out": dict(lost),
        "failed": int((classes_NR == FAILED).sum()),
        "unstable": {kind: told_shares(found) for kind, found in shares.items()},
        "examples": _examples(asked, classes_NR, options.comparing.examples),
    }
    if isinstance(options.readout, NumberReadout):
        report |= told_shares({"score_gap": replicates.mean(score_gap(_scores(asked, options.readout)))})
    return report


def _classes(asked: Sequence[Asked], readout: Callable[[str], int | None]) -> NDArray[np.int64]:
    found = [[readout(answer) for answer in one.answers] for one in asked]
    return np.array([[FAILED if c is None else c for c in row] for row in found], dtype=np.int64)


def _scores(asked: Sequence[Asked], readout: NumberReadout) -> NDArray[np.float64]:
    found = [[readout.quality(answer) for answer in one.answers] for one in asked]
    return np.array([[np.nan if score is None else score for score in row] for row in found])


def _difference(first: Sequence[Asked], second: Sequence[Asked], options: Options) -> dict[str, Any]:
    pairs = paired(first, second)
    if not pairs:
        return {"shared": 0, "unstable": None}
    ours, theirs = (_classes(side, options.readout) for side in zip(*pairs, strict=True))
    replicates = options.comparing.replicates([one.content for one, _ in pairs])
    gaps = {kind: instability_difference(ours, theirs, kind, replicates) for kind in FAILURES}
    return {"shared": len(pairs), "unstable": {kind: told_shares(found) for kind, found in gaps.items()}}


def _examples(asked: Sequence[Asked], classes_NR: NDArray[np.int64], wanted: int) -> list[dict[str, Any]]:
    """The least stable images, those with equal shares in the order of their names."""
    pairwise_N = unstable_shares(classes_NR, "own_class")["pairwise"]
    order = sorted(range(len(asked)), key=lambda n: (-pairwise_N[n], asked[n].medium))[:wanted]
    return [
        {
            "medium": asked[n].medium,
            **rounded({"pairwise": float(pairwise_N[n])}),
            "classes": [None if c == FAILED else int(c) for c in classes_NR[n]],
        }
        for n in order
    ]
