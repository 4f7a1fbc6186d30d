"""Qualities by their readout, against sums made by hand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_lmm import make_model

from models.levels import CENTRES, LEVELS
from models.sampling import Sampling
from tasks.errors import StageError
from tasks.evaluation.subjects.course import Course, Drawing, describe, without_opening
from tasks.evaluation.subjects.line import LineSubject
from tasks.evaluation.subjects.protocol import Asked, Shown
from tasks.evaluation.subjects.scoring import (
    centres,
    check_place,
    expectations,
    image_qualities,
    text_qualities,
    word_quality,
)

COURSE = Course("judge", "Describe it.", "Rate it.", "A person says: {description} Rate the {medium}.")
HOW = Drawing(Sampling(), [0])


@pytest.fixture(scope="module")
def subject() -> LineSubject:
    return LineSubject("tiny", make_model())


@pytest.fixture(scope="module")
def shown(subject: LineSubject, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    path = tmp_path_factory.mktemp("media") / "a.png"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    return subject.open(path)


def test_centres_are_those_of_the_levels():
    assert np.allclose(centres(5), CENTRES)
    assert centres(2).tolist() == [0.75, 0.25]


def test_an_expectation_is_the_sum_that_a_hand_would_make(subject: LineSubject, shown: Shown):
    (found,) = expectations(subject, [COURSE.verdict_of(shown, "")], LEVELS)
    after_V = _after(subject, shown)
    weights = [math.exp(float(after_V[token])) for token in subject.model.level_ids]
    by_hand = sum(w * q for w, q in zip(weights, (0.9, 0.7, 0.5, 0.3, 0.1), strict=True)) / sum(weights)
    assert found == pytest.approx(by_hand, abs=1e-6)


def _after(subject: LineSubject, shown: Shown) -> Any:
    """Logits of what follows the opening, from the model's training pass."""
    ids, mask = subject.model.answer_ids(["The quality of the image is good"], end=False)
    return subject.model.logits(subject.model([shown.content], ids, mask, "Rate it.")[0, -1:])[0].detach()


@pytest.mark.parametrize(
    ("verdict", "quality"),
    [
        ("The quality of the image is good.", 0.7),
        ("The quality of the image is low", 0.1),
        ("It is good, or poor", None),
        ("no idea", None),
    ],
)
def test_a_word_is_the_centre_of_its_part_of_the_scale(verdict: str, quality: float | None):
    found = word_quality(verdict, LEVELS)
    assert found is None if quality is None else found == pytest.approx(quality)


@dataclass
class Scripted:
    """A subject that says what it is told to, and keeps what it was asked."""

    says: str
    asked: list[Asked]
    name: str = "scripted"

    def answers(self, asked: Sequence[Asked], answering: Any) -> list[str]:
        del answering
        self.asked += asked
        return [self.says] * len(asked)


@pytest.mark.parametrize("way", ["judge", "one_answer"])
def test_words_are_read_where_each_course_says_its_verdict(way: Any):
    course = Course(way, "Describe it.", "Rate it.", "A person says: {description} Rate it.")
    medium, subject = Shown(Path("a.png"), False, None), Scripted("fair.", [])
    told = describe(subject, course, [medium], HOW)  # type: ignore[arg-type]
    seen = image_qualities(subject, course, [medium], told, HOW, "word")  # type: ignore[arg-type]
    read = text_qualities(subject, course, [medium], told, HOW, "word")  # type: ignore[arg-type]
    assert seen == read == [pytest.approx(0.5)]
    verdict, blind = subject.asked[1:]
    assert verdict.medium is medium
    assert ("fair. The quality" in verdict.opening) == (way == "one_answer")
    assert blind.medium is None
    assert blind.question == "A person says: fair. Rate it."


def test_a_free_answer_of_both_has_no_place_for_an_expectation():
    course = Course("one_answer", "Describe it, then rate it.", "", "{description}")
    check_place(course)
    with pytest.raises(StageError, match="level word anywhere"):
        check_place(without_opening(course))
