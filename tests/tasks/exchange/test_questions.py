import json
from pathlib import Path

import pytest

from tasks.errors import StageError
from tasks.exchange.export import export_text
from tasks.exchange.formats import Imported, Options, import_file, import_records
from tasks.exchange.json_text import cut
from tasks.exchange.tables import QUESTIONS

QUESTION = {
    "video": "1.mp4",
    "question": "How sharp is it?",
    "answers": ["Sharp", "Blurred", "", ""],
    "video_type": "Natural",
    "quality_concern": "CONCERN_Technical",
    "question_type": "what/how",
    "context": "Global",
    "correct_choice": "B",
    "correct_ans": "Blurred",
}


def read(**changes: object) -> Imported:
    return import_records(cut(json.dumps([QUESTION | changes]), "x"), "x", Options())


def test_a_question_is_scored_by_its_letter():
    found = read(correct_ans="Rather blurred")
    row = found.frame.iloc[0]
    assert (row["letter"], row["answer"], row["told_answer"], row["consistent"]) == (
        "B",
        "Blurred",
        "Rather blurred",
        False,
    )
    assert list(row["options"]) == ["Sharp", "Blurred"]
    assert found.problems == ["question 0 (1.mp4): B is 'Blurred', told as 'Rather blurred'"]
    assert read().problems == []


def test_open_questions_have_an_answer_in_words_and_cannot_contradict():
    found = read(question_type="open_ended", answers=["Other words", "", "", ""], correct_choice="A")
    assert found.frame.iloc[0]["answer"] == "Blurred"
    assert found.frame.iloc[0]["consistent"] is None
    assert found.problems == []


@pytest.mark.parametrize("letter", ["C", "", "AB", "b", "1"])
def test_a_letter_that_names_no_option_is_refused(letter: str):
    with pytest.raises(StageError, match="2 options, and the right one is"):
        read(correct_choice=letter)


def test_missing_texts_are_refused():
    with pytest.raises(StageError, match="no text under 'correct_ans'"):
        read(correct_ans=None)
    with pytest.raises(StageError, match="no text under 'answers'"):
        read(answers=["Sharp", None])


def test_a_corrected_answer_reaches_the_file():
    found = read(correct_ans="Rather blurred")
    found.frame.loc[0, "told_answer"] = "Blurred"
    text, changed = export_text(QUESTIONS, found.frame)
    assert changed == 1
    assert json.loads(text) == [QUESTION]


def test_the_released_list_has_31_inconsistent_answers_of_622(shared_data: Path):
    found = import_file(shared_data / "labels" / "vital_series" / "qbvideo_dev_single.json", Options())
    frame = found.frame
    assert len(frame) == 892
    assert frame["kind"].value_counts().to_dict() == {"what/how": 328, "yes-or-no": 294, "open_ended": 270}
    assert frame["consistent"].notna().sum() == 622
    assert (frame["consistent"] == False).sum() == len(found.problems) == 31  # noqa: E712 - a column with nulls
    assert {len(options) for options in frame.loc[frame["kind"] == "yes-or-no", "options"]} == {2}
