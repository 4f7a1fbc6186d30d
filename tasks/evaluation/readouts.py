"""One generation, read in several ways: the level word, the expectation over the level words, a number.

Every figure names its readout, because the same model gets unlike figures by unlike ones. What a readout cannot read is
counted and left out of its figures alone.

Shape legend: ``N`` media.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np

from models.correlation import STATISTICS, agreement, bootstrap, interval, resamples
from tasks.evaluation.recorded import DIGITS, Comparing

SCHEMA: Final = 1
_MAX_UNDEFINED: Final = 0.05


@dataclass(frozen=True)
class Read:
    """What was read about one medium.

    Attributes:
        medium: its name. verdict: what the model said.
        qualities: by readout, on [0, 1], higher is better; None where it reads nothing.
        human: people's quality, on [0, 1], higher is better; None if there is none.
        content: what the medium shows.
    """

    medium: str
    verdict: str
    qualities: Mapping[str, float | None]
    human: float | None
    content: str


@dataclass(frozen=True)
class Model:
    """What was read of one model's answers.

    Attributes:
        rejected: media that it could not be asked about, by reason.
        conditions: how it was asked, in a sentence.
    """

    name: str
    reads: Sequence[Read]
    rejected: Mapping[str, int]
    conditions: str


def measure(models: Sequence[Model], readouts: Sequence[str], comparing: Comparing) -> dict[str, Any]:
    """Report on models, a row for each readout of each.

    Returns:
        Plain values; people's part is None where fewer than three media have a score.
    """
    return {
        "schema": SCHEMA,
        "bootstrap": comparing.told(),
        "models": [
            {
                "source": model.name,
                "conditions": model.conditions,
                "images": len(model.reads),
                "rejected": dict(model.rejected),
                "readouts": [_row(model.reads, name, comparing) for name in readouts],
                "apart": [_apart(model.reads, *pair) for pair in combinations(readouts, 2)],
                "examples": [_example(read) for read in model.reads[: comparing.examples]],
            }
            for model in models
        ],
    }


def _row(reads: Sequence[Read], name: str, comparing: Comparing) -> dict[str, Any]:
    kept = [read for read in reads if read.qualities[name] is not None]
    quality_N = np.array([read.qualities[name] for read in kept], dtype=np.float64)
    return {
        "readout": name,
        "read": len(kept),
        "failed": len(reads) - len(kept),
        "mean": _rounded(quality_N.mean()) if kept else None,
        "std": _rounded(quality_N.std()) if kept else None,
        "people": _people(kept, name, comparing),
    }


def _people(kept: Sequence[Read], name: str, comparing: Comparing) -> dict[str, Any] | None:
    """Agreement of one readout with people, each statistic with its interval over contents."""
    scored = [read for read in kept if read.human is not None]
    if len(scored) < 3:
        return None
    own_N = np.array([read.qualities[name] for read in scored], dtype=np.float64)
    human_N = np.array([read.human for read in scored], dtype=np.float64)
    found = agreement(own_N, human_N)
    bounds: dict[str, tuple[float, float] | None] = dict.fromkeys(STATISTICS)
    if not found.note:
        numbers = {content: number for number, content in enumerate(dict.fromkeys(read.content for read in scored))}
        groups = [numbers[read.content] for read in scored]
        drawn = resamples(len(numbers), comparing.n_bootstrap, comparing.seed)
        replicates = bootstrap(own_N, human_N, groups, drawn)
        bounds = {key: interval(replicates[key], comparing.confidence, _MAX_UNDEFINED) for key in STATISTICS}
    cells = {key: _cell(getattr(found, key), bounds[key]) for key in STATISTICS}
    return {"samples": len(scored), "contents": len({read.content for read in scored}), "note": found.note, **cells}


def _cell(value: float | None, bounds: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = bounds or (None, None)
    return {"value": _rounded(value), "low": _rounded(low), "high": _rounded(high)}


def _apart(reads: Sequence[Read], first: str, second: str) -> dict[str, Any]:
    """How far two readouts of the same generations lie apart."""
    pairs = [(read.qualities[first], read.qualities[second]) for read in reads]
    gaps = [abs(one - other) for one, other in pairs if one is not None and other is not None]
    return {"first": first, "second": second, "both": len(gaps), "mean": _rounded(np.mean(gaps)) if gaps else None}


def _example(read: Read) -> dict[str, Any]:
    qualities = {name: _rounded(value) for name, value in read.qualities.items()}
    return {"medium": read.medium, "verdict": read.verdict, "qualities": qualities, "human": _rounded(read.human)}


def _rounded(value: Any) -> float | None:
    return None if value is None else round(float(value), DIGITS)
