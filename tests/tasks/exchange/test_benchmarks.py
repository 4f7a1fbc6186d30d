import json
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import StageError
from tasks.exchange.benchmarks import import_benchmark
from tasks.exchange.instruction_rows import ImportedInstructions
from tasks.exchange.json_text import cut, read_records
from tasks.records import INSTRUCTIONS, MEDIUM_MARK

VIDEO = {
    "video": "12.mp4",
    "question": "How is the stability?",
    "answers": ["Good", "Bad", "", ""],
    "question_type": "what/how",
    "quality_concern": "CONCERN_Temporal",
    "correct_choice": "B",
    "correct_ans": "Bad",
}
IMAGE = {
    "type": 0,
    "concern": 2,
    "question": "Is the roof clear?",
    "image": "3.png",
    "answers": ["No", "Yes"],
    "correct_choice": "A",
    "correct_ans": "No",
}


def read(*records: dict[str, Any], root: Path | None = None) -> ImportedInstructions:
    found = import_benchmark(cut(json.dumps(list(records)), "x"), "bench", root)
    INSTRUCTIONS.to_arrow(found.frame)
    return found


def test_questions_of_both_lists_are_asked_without_a_word_on_how_to_answer():
    found = read(VIDEO, IMAGE)
    video, image = found.frame.to_dict("records")
    assert video["questions"] == [f"{MEDIUM_MARK}\nHow is the stability?\nA. Good\nB. Bad"]
    assert (video["media"], video["modalities"], video["kind"]) == (["12.mp4"], ["video"], "what_how")
    assert (video["letter"], video["answers"], video["split"], video["source"]) == ("B", ["B"], "held_out", "bench")
    assert (image["kind"], image["options"], image["letter"]) == ("yes_no", ["No", "Yes"], "A")
    assert read(IMAGE | {"type": 2}).frame.iloc[0]["kind"] == "what_how"


def test_the_letter_stands_where_the_words_say_otherwise():
    found = read(VIDEO | {"correct_ans": "Good"})
    assert found.frame.iloc[0]["letter"] == "B"
    assert list(found.notes.values()) == [1]


def test_a_question_about_two_clips_shows_both():
    told = read(VIDEO | {"video": "1.mp4_cat_2.mp4.mp4"}).frame.iloc[0]
    assert told["media"] == ["1.mp4", "2.mp4"]
    assert told["questions"][0].startswith(f"{MEDIUM_MARK}\n{MEDIUM_MARK}\nHow")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question_type": "open_ended", "correct_choice": "", "answers": ["", "", "", ""]}, "open_ended"),
        ({"question": ""}, "no_question"),
        ({"answers": "Good"}, "no_question"),
        ({"answers": ["Good"]}, "no_right_option"),
        ({"correct_choice": "C"}, "no_right_option"),
        ({"correct_choice": "AB"}, "no_right_option"),
        ({"video": None}, "no_path"),
        ({"image": "a.png"}, "no_path"),
        ({"video": "a.xyz"}, "unknown_modality"),
    ],
)
def test_questions_that_cannot_be_scored_by_letter_are_rejected(changes: dict[str, Any], reason: str):
    assert read(IMAGE, VIDEO | changes).rejects["reason"].tolist() == [reason]


def test_missing_media_are_rejected_and_nothing_at_all_is_an_error(tmp_path: Path):
    (tmp_path / "3.png").write_bytes(b"x")
    assert read(VIDEO, IMAGE, root=tmp_path).rejects["reason"].tolist() == ["missing_medium"]
    with pytest.raises(StageError, match="none of 1 records"):
        read(VIDEO, root=tmp_path)


def test_the_authors_development_list_of_q_bench_video(shared_data: Path):
    records = read_records(shared_data / "labels" / "vital_series" / "qbvideo_dev_single.json")
    found = import_benchmark(records, "q_bench_video", None)
    assert found.frame["kind"].value_counts().to_dict() == {"what_how": 328, "yes_no": 294}
    assert found.rejects["reason"].value_counts().to_dict() == {"open_ended": 270}
    assert list(found.notes.values()) == [31]
