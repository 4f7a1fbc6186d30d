"""Models that were asked about media: what reports tell of each of them, and how several are compared.

Shape legend: ``N`` media.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.instruments.replicates import Replicates
from models.sampling import Sampling
from tasks.errors import StageError
from tasks.evaluation.recorded import Comparing, told_shares
from tasks.evaluation.subjects.asking import drawing
from tasks.evaluation.subjects.course import Course, describe
from tasks.evaluation.subjects.protocol import Asked, Shown, Subject

Floats = NDArray[np.float64]


class Told(Protocol):
    """What one model said about all media."""

    @property
    def name(self) -> str:
        """Of the model, unlike those of the others."""
        ...

    @property
    def course(self) -> Course:
        """By which it was asked."""
        ...

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """Of each medium that was not rejected; ``path`` names it."""
        ...

    @property
    def rejected(self) -> Mapping[str, int]:
        """How many media were, for each reason."""
        ...


@dataclass(frozen=True)
class Describing:
    """How a subject describes media before it is read.

    Attributes:
        sampling: of descriptions. seed: that drawn ones hang on.
    """

    subject: Subject
    sampling: Sampling
    seed: int

    def texts(self, course: Course, media: Sequence[Shown]) -> list[str]:
        """Descriptions of media."""
        return describe(self.subject, course, media, drawing(self.sampling, media, self.seed))


def verdict_questions(
    course: Course, media: Sequence[Shown], describing: Describing, read: Callable[[Sequence[Asked]], Any]
) -> list[Asked]:
    """Questions whose next token is the level word; courses with a description have the subject write it first.

    Args:
        read: what is asked of the subject about such questions. It is tried on one before anything is written, so that
            who cannot be read says so first.

    Raises:
        StageError: the course leaves verdicts free. And what ``read`` raises.
    """
    describes = course.way != "judge"
    if describes or not course.opening:
        read([course.verdict_of(media[0], "")])
    if not course.opening:
        raise StageError(
            "answers are left free, so that nobody knows which token is the level word: force an opening with --opening"
        )
    texts = describing.texts(course, media) if describes else [""] * len(media)
    return [course.verdict_of(medium, text) for medium, text in zip(media, texts, strict=True)]


def about(told: Told) -> dict[str, Any]:
    """Who was asked how about how much, as a report holds it."""
    return {
        "model": told.name,
        "course": {name: list(value) if isinstance(value, tuple) else value for name, value in _course(told)},
        "media": len(told.records),
        "contents": len({record["path"] for record in told.records}),
        "rejected": dict(told.rejected),
    }


def _course(told: Told) -> list[tuple[str, Any]]:
    return list(asdict(told.course).items())


def replicates_of(told: Told, comparing: Comparing) -> Replicates:
    """Of contents; every medium is one of its own."""
    return comparing.replicates([record["path"] for record in told.records])


def means(values: Mapping[str, Floats], replicates: Replicates) -> dict[str, Any]:
    """Mean of each figure over media, with its interval, as a report holds it."""
    return told_shares({name: replicates.mean(values_N) for name, values_N in values.items()})


def differences(told: Sequence[Told], figures: Sequence[Mapping[str, Floats]], comparing: Comparing) -> list[Any]:
    """Figures of the first model less those of each other, on the media of both.

    Args:
        figures: of each model, each ``[N]`` over its records, named alike.
    """
    return [
        {"first": told[0].name, "second": other.name, **_difference((told[0], other), (figures[0], theirs), comparing)}
        for other, theirs in zip(told[1:], figures[1:], strict=True)
    ]


def _difference(
    told: tuple[Told, Told], figures: tuple[Mapping[str, Floats], Mapping[str, Floats]], comparing: Comparing
) -> dict[str, Any]:
    places = {record["path"]: number for number, record in enumerate(told[1].records)}
    pairs = [(n, places[one["path"]]) for n, one in enumerate(told[0].records) if one["path"] in places]
    if not pairs:
        return {"shared": 0, "figures": None}
    ours, theirs = (list(side) for side in zip(*pairs, strict=True))
    replicates = comparing.replicates([told[0].records[n]["path"] for n in ours])
    apart = {name: values_N[ours] - figures[1][name][theirs] for name, values_N in figures[0].items()}
    return {"shared": len(pairs), "figures": means(apart, replicates)}
