"""A model that lies in a folder is asked as it was taught, wherever it is opened from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from models.quality_lmm import QualityLMM
from tasks.errors import StageError
from tasks.evaluation.subjects.courses import line_course, one_stage_course
from tasks.evaluation.subjects.opening import open_subject
from tasks.shards import write_json


@pytest.fixture
def folder(line: Path, write_pretrained: Callable[[Path], None]) -> Path:
    write_pretrained(line)
    return line / "artifacts" / "pretrain" / "model"


def test_a_model_of_the_line_is_asked_as_in_pre_training(folder: Path):
    assert open_subject(str(folder)).course == line_course(QualityLMM.from_pretrained(folder))


def test_the_one_stage_baseline_remembers_that_it_describes_and_judges_in_one_answer(folder: Path):
    write_json(folder / "course.json", {"course": "one_stage"})
    course = open_subject(str(folder)).course
    assert course == one_stage_course(QualityLMM.from_pretrained(folder))
    assert course.way == "one_answer"


def test_a_course_that_there_is_none_of_is_told(folder: Path):
    write_json(folder / "course.json", {"course": "three_stage"})
    with pytest.raises(StageError, match="no course 'three_stage'"):
        open_subject(str(folder))
