import pytest

from models.errors import ModelError
from models.questions import STYLES, question_of

TASKS = ("single", "pair", "distortion", "description", "perception", "inference", "assessment")


def test_prompt_decoupling_asks_nothing_of_any_task():
    assert {question_of(task, "empty", is_video=video) for task in TASKS for video in (False, True)} == {""}


def test_every_task_has_a_question_of_its_own_that_names_the_modality_and_pairs_ask_as_singles_do():
    for video, word, other in ((False, "image", "video"), (True, "video", "image")):
        asked = {task: question_of(task, "asked", is_video=video) for task in TASKS}
        assert asked["pair"] == asked["single"]
        assert len(set(asked.values())) == len(TASKS) - 1
        assert all(word in text and other not in text and text.endswith(("?", ".")) for text in asked.values())


def test_an_unknown_task_is_an_error_under_both_styles():
    for style in STYLES:
        with pytest.raises(ModelError, match="'assess'"):
            question_of("assess", style, is_video=False)
