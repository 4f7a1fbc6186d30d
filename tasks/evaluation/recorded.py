"""Answers that models gave elsewhere, recorded as JSON lists: how they are read, and how figures are told."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from models.correlation import resamples
from models.instruments.replicates import Replicates, Share
from tasks.errors import StageError

DIGITS: Final = 6
"""Decimals of figures in a report."""
_MAX_UNDEFINED: Final = 0.05


class About(Protocol):
    """What a model said about one medium."""

    @property
    def medium(self) -> str:
        """Its name."""
        ...


A = TypeVar("A", bound=About)


@dataclass(frozen=True)
class Comparing:
    """How recorded answers are compared.

    Attributes:
        n_bootstrap: replicates. seed: of their contents. confidence: of intervals.
        examples: media that are shown.
        max_reject_share: of records that are left out, above which the comparison fails.
    """

    n_bootstrap: int = 1000
    seed: int = 0
    confidence: float = 0.95
    examples: int = 10
    max_reject_share: float = 0.05

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.n_bootstrap < 1 or not 0 < self.confidence < 1 or not 0 <= self.max_reject_share <= 1:
            raise StageError("replicates must be positive, confidence in (0, 1) and the share of rejects in [0, 1]")

    def replicates(self, contents: Sequence[str]) -> Replicates:
        """Of the contents of some media, which are numbered as they come."""
        numbers = {content: number for number, content in enumerate(dict.fromkeys(contents))}
        drawn = resamples(len(numbers), self.n_bootstrap, self.seed)
        group_N = np.array([numbers[content] for content in contents], dtype=np.int64)
        return Replicates(group_N, drawn, self.confidence, _MAX_UNDEFINED)

    def told(self) -> dict[str, Any]:
        """The bootstrap as a report holds it."""
        return {"replicates": self.n_bootstrap, "seed": self.seed, "confidence": self.confidence}


def read_answers(
    path: Path, records: Sequence[Any], read: Callable[[Any], A | str], comparing: Comparing
) -> tuple[list[A], dict[str, int]]:
    """Read records one by one.

    Args:
        path: of the file that they come from. read: a record's answer, or why it is left out.

    Returns:
        Answers in their order, one per medium, and how many records were left out for each reason.

    Raises:
        StageError: none is left, or more than the limit were left out.
    """
    answers: dict[str, A] = {}
    reasons: Counter[str] = Counter()
    for record in records:
        found = read(record)
        if isinstance(found, str):
            reasons[found] += 1
        elif found.medium in answers:
            reasons["repeated"] += 1
        else:
            answers[found.medium] = found
    lost, told = sum(reasons.values()), dict(sorted(reasons.items()))
    if not answers or lost > comparing.max_reject_share * len(records):
        why = ", ".join(f"{reason} {count}" for reason, count in told.items())
        msg = f"{path}: {lost} of {len(records)} records cannot be compared ({why})"
        raise StageError(msg)
    return list(answers.values()), told


def paired(first: Sequence[A], second: Sequence[A]) -> list[tuple[A, A]]:
    """Answers of two models about the same media, in the order of the first."""
    of_second = {answer.medium: answer for answer in second}
    return [(one, of_second[one.medium]) for one in first if one.medium in of_second]


def read_records(path: Path, wanted: str) -> list[Any]:
    """Records of a JSON list; whether each is one is the caller's to see.

    Args:
        wanted: what each record must hold, for people.

    Raises:
        StageError: the file cannot be read, or is no list, or an empty one.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} cannot be read as JSON: {error}"
        raise StageError(msg) from error
    if not isinstance(records, list) or not records:
        msg = f"{path} is no list of records: each must hold {wanted}"
        raise StageError(msg)
    return records


def told_shares(shares: Mapping[str, Share]) -> dict[str, Any]:
    """Shares by name as a report holds them."""
    return {name: rounded(vars(share)) for name, share in shares.items()}


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with their floats rounded."""
    return {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in values.items()}
