"""The course of questions that is each kind of model's own."""

import json
from pathlib import Path
from typing import Final

from models.distortions import SEVERITY_WORDS
from models.quality_lmm import IMAGE_PREFIX, QualityLMM
from models.questions import question_of
from tasks.errors import StageError
from tasks.evaluation.subjects.course import DESCRIPTION, Course

COURSE_FILE: Final = "course.json"
"""In the folder of a model that was taught to answer in another way than pre-training's."""
_SENTENCE_TOKENS: Final = 48


def chat_course() -> Course:
    """How a model that talks is asked: which words there are stands in the question, as it has learnt none by heart."""
    words = "Answer with one of these words: {levels}."
    return Course(
        "judge",
        "Describe the quality of this {medium} in a few sentences: its sharpness, noise, exposure, contrast and "
        "colours, and whatever disturbs.",
        f"How would you rate the quality of this {{medium}}? {words}",
        "Somebody describes the quality of one {medium} like this: {description}\n"
        f"How would you rate the quality of that {{medium}}? {words}",
    )


def line_course(model: QualityLMM) -> Course:
    """How a model of the line is asked: as in training; openings tell its promptless tasks apart."""
    opening = " ".join(IMAGE_PREFIX.split()[:2])
    judge, describe = _asking("single", model), _asking("description", model)
    text = "{description}" if not judge else f"{{description}} {judge}"
    avoid = (opening, *(word.split()[0] for word in SEVERITY_WORDS))
    return Course("judge", describe, judge, text, avoid=avoid, description_tokens=_SENTENCE_TOKENS)


def one_stage_course(model: QualityLMM) -> Course:
    """How the one-stage baseline is asked, which describes and judges in one answer."""
    return Course("one_answer", _asking("assessment", model), "", _told_asking(model))


def two_stage_course(describer: QualityLMM) -> Course:
    """How a two-stage model is asked, its parts alike."""
    return Course("two_stage", _asking("perception", describer), "", _told_asking(describer))


def remembered_course(folder: Path, model: QualityLMM) -> Course:
    """How a model of the line is asked that lies in a folder: as it was taught, if the folder says how.

    Raises:
        StageError: it names a course that there is none of.
    """
    path = folder / COURSE_FILE
    if not path.is_file():
        return line_course(model)
    name = json.loads(path.read_text()).get("course")
    if name != "one_stage":
        msg = f"{path}: there is no course {name!r}; remove the file, and the model is asked as in pre-training"
        raise StageError(msg)
    return one_stage_course(model)


def _asking(task: str, model: QualityLMM) -> str:
    return question_of(task, model.question, is_video=False).replace("image", "{medium}")


def _told_asking(model: QualityLMM) -> str:
    """User text about a description, as ``models.two_stage.told`` has it."""
    return "\n".join(text for text in (DESCRIPTION, _asking("inference", model)) if text)
