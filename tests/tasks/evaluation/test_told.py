"""What is told of models that were asked: who cannot be read says so first, and shared media pair."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.sampling import Sampling
from tasks.errors import StageError
from tasks.evaluation.recorded import Comparing
from tasks.evaluation.subjects.course import Course, without_opening
from tasks.evaluation.subjects.protocol import Shown
from tasks.evaluation.told import Describing, about, differences, verdict_questions
from tests.tasks.evaluation.planted_minds import Said

COURSE = Course("two_stage", "Describe it.", "", "It says: {description}")
MEDIUM = Shown(Path("a.png"), False, None)


def nobody() -> Any:
    """A subject that must not be asked to describe anything."""
    return None


@pytest.mark.parametrize("course", [COURSE, without_opening(COURSE)])
def test_who_cannot_be_read_says_so_before_anything_is_written(course: Course):
    def refuses(_: Any) -> None:
        raise StageError("is an endpoint and gives no layers")

    with pytest.raises(StageError, match="endpoint"):
        verdict_questions(course, [MEDIUM], Describing(nobody(), Sampling(), 0), refuses)


def test_free_answers_have_no_place_to_read():
    with pytest.raises(StageError, match="force an opening"):
        verdict_questions(without_opening(COURSE), [MEDIUM], Describing(nobody(), Sampling(), 0), lambda _: None)


def test_figures_that_are_not_defined_for_both_are_left_out_of_a_difference():
    one = Said("one", [{"path": name} for name in "abcd"])
    other = Said("other", [{"path": name} for name in "dcbx"], rejected={"truncated": 1})
    figures = [{"x": np.array([1.0, 2.0, np.nan, 4.0])}, {"x": np.array([1.0, 5.0, 3.0, 9.0])}]
    (apart,) = differences([one, other], figures, Comparing(n_bootstrap=10))
    assert apart["shared"] == 3
    assert apart["figures"]["x"]["value"] == pytest.approx(((2 - 3) + (4 - 1)) / 2)
    assert apart["figures"]["x"]["samples"] == 2
    told = about(other)
    assert (told["media"], told["rejected"], told["course"]["way"]) == (4, {"truncated": 1}, "judge")
