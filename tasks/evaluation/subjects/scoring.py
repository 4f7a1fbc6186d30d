"""Qualities that subjects give, by a named readout: expectation over the level words, or the word that was written.

Shape legend: ``N`` questions, ``C`` level words.
"""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from models.instruments.readout import WordReadout
from tasks.errors import StageError
from tasks.evaluation.subjects.course import Course, Drawing, Said, verdicts
from tasks.evaluation.subjects.protocol import Asked, Floats, Shown, Subject

ScoreReadout = Literal["expectation", "word"]
READOUTS: Final[tuple[ScoreReadout, ...]] = ("expectation", "word")


def centres(words: int) -> Floats:
    """Centres of equal parts of [0, 1], ``[C]``, best first: the quality of each of so many level words."""
    return 1.0 - (np.arange(words) + 0.5) / words


def check_place(course: Course) -> None:
    """Refuse expectations of answers that describe and judge without a forced opening.

    Raises:
        StageError: nobody knows where in such an answer the level word is.
    """
    if course.way == "one_answer" and not course.opening:
        raise StageError(
            "a free answer that describes and judges has its level word anywhere, so that no expectation can be read "
            "at its place: ask for --readout word, or force an opening"
        )


def expectations(subject: Subject, asked: Sequence[Asked], words: Sequence[str]) -> list[float]:
    """Expectation of the quality over the words' probabilities after each opening, each in [0, 1]."""
    if not asked:
        return []
    return [float(value) for value in subject.word_probabilities(asked, words) @ centres(len(words))]


def word_quality(verdict: str, words: Sequence[str]) -> float | None:
    """Quality of the level word that a verdict states; None if it states none, or several."""
    level = WordReadout(tuple(words))(verdict)
    return None if level is None else float(centres(len(words))[level])


def image_qualities(
    subject: Subject, course: Course, media: Sequence[Shown], told: Sequence[str], how: Drawing, readout: ScoreReadout
) -> list[float | None]:
    """Qualities of media that are shown, after the descriptions ``told``."""
    if readout == "expectation":
        check_place(course)
        asked = [course.verdict_of(medium, text) for medium, text in zip(media, told, strict=True)]
        return [*expectations(subject, asked, course.words)]
    if course.way == "one_answer" and not course.opening:  # the free answer holds its verdict
        said = [Said(text, text) for text in told]
    else:
        said = verdicts(subject, course, media, told, how)
    return [word_quality(one.verdict, course.words) for one in said]


def text_qualities(
    subject: Subject, course: Course, media: Sequence[Shown], told: Sequence[str], how: Drawing, readout: ScoreReadout
) -> list[float | None]:
    """Qualities that follow from the descriptions ``told`` alone."""
    asked = [course.text_verdict_of(medium, text) for medium, text in zip(media, told, strict=True)]
    if readout == "expectation":
        return [*expectations(subject, asked, course.words)]
    answers = subject.answers(asked, how.answering(1, course.verdict_tokens))
    pairs = zip(media, answers, strict=True)
    return [word_quality(f"{course.opening_of(medium)} {text}", course.words) for medium, text in pairs]
