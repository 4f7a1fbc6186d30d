"""Hand-written records in the layouts of the four data sets of VITAL-Assistant."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import StageError
from tasks.exchange.conversations import DATA_SETS, import_instructions
from tasks.exchange.instruction_rows import ImportedInstructions
from tasks.exchange.json_text import cut
from tasks.records import INSTRUCTIONS, MEDIUM_MARK, REJECTS


def talk(*texts: str, text: str = "value") -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], text: told} for n, told in enumerate(texts)]


Q_PATHWAY = {
    "id": "spaq_koniq/1.jpg",
    "image": "spaq_koniq/1.jpg",
    "conversations": talk(
        "Describe and evaluate the quality of the image.\n<|image|>", "It is blurry, and so its quality is poor."
    ),
}
AESMMIT = {
    "id": "17",
    "image": "pictures/17.jpg",
    "conversations": talk(
        "<image>\nHow is the composition?", "It is balanced.", "Is it colorful?\nA. Yes\nB. No", "B. No"
    ),
    "type": "perception",
    "qtype": "composition",
}
VQA2_CLIP = {
    "id": 3,
    "image": "LSVQ/3.mp4",
    "frames per sec": 29.97,
    "gt_score": 61.5,
    "conversations": talk("The frames:<image>\nThe motion:<image>\nWhich problem do you see?\nA. Noise\nB. Shake", "B"),
}
OMNIVQA = {
    "id": "c",
    "image": "clips/c.mp4",
    "frames per sec": 25,
    "task_mark": "technical",
    "conversations": talk("<image>\nIs the motion smooth?\nA. Yes\nB. No", "Yes.", "Why?", "No frame is repeated."),
}


def read(source: str, *records: dict[str, Any], root: Path | None = None) -> ImportedInstructions:
    found = import_instructions(cut(json.dumps(list(records)), "x"), source, root)
    INSTRUCTIONS.to_arrow(found.frame)
    REJECTS.to_arrow(found.rejects)
    return found


def row(source: str, record: dict[str, Any]) -> dict[str, Any]:
    found = read(source, record)
    assert found.rejects.empty
    return found.frame.iloc[0].to_dict()


def test_q_pathway_describes_an_image_in_one_turn():
    told = row("q_pathway", Q_PATHWAY)
    assert told["media"] == ["spaq_koniq/1.jpg"]
    assert told["modalities"] == ["image"]
    assert told["questions"] == [f"Describe and evaluate the quality of the image.\n{MEDIUM_MARK}"]
    assert told["answers"] == ["It is blurry, and so its quality is poor."]
    assert (told["kind"], told["options"], told["letter"], told["split"]) == ("open", [], None, "train")


def test_aesmmit_asks_in_several_turns_and_ends_with_a_choice():
    told = row("aesmmit", AESMMIT)
    assert told["questions"] == [f"{MEDIUM_MARK}\nHow is the composition?", "Is it colorful?\nA. Yes\nB. No"]
    assert told["answers"] == ["It is balanced.", "B. No"]
    assert (told["kind"], told["options"], told["letter"]) == ("yes_no", ["Yes", "No"], "B")


def test_vqa2_keeps_clips_under_image_and_shows_frames_and_motion_in_one_place():
    found = read("vqa2", VQA2_CLIP)
    told = found.frame.iloc[0]
    assert (told["media"], told["modalities"]) == (["LSVQ/3.mp4"], ["video"])
    assert told["questions"] == [
        f"The frames:{MEDIUM_MARK}\nThe motion:\nWhich problem do you see?\nA. Noise\nB. Shake"
    ]
    assert (told["kind"], told["letter"]) == ("which", "B")
    assert list(found.notes.values()) == [1]
    still = VQA2_CLIP | {"image": "koniq/4.jpg", "conversations": talk("<image>\nRate it.", "Good")}
    del still["frames per sec"]
    assert row("vqa2", still)["modalities"] == ["image"]


@pytest.mark.parametrize("source", ["vqa2", "omnivqa"])
def test_turns_may_stand_under_content(source: str):
    record = OMNIVQA | {"conversations": talk("<video>\nIs it smooth?", "Yes.", text="content")}
    assert row(source, record)["answers"] == ["Yes."]
    with pytest.raises(StageError, match="no_text"):
        read("aesmmit", AESMMIT | {"conversations": record["conversations"]})


def test_omnivqa_answers_by_the_words_of_an_option_are_letters():
    told = row("omnivqa", OMNIVQA | {"conversations": OMNIVQA["conversations"][:2]})
    assert (told["answers"], told["letter"], told["kind"]) == (["Yes."], "A", "yes_no")
    both = row("omnivqa", OMNIVQA)
    assert (both["letter"], both["kind"]) == (None, "open")  # of the last turn


def test_several_media_stand_where_their_placeholders_stood():
    record = {
        "image": ["a.jpg", "b.jpg"],
        "conversations": talk("First <image> then <|image|>. Which is sharper?", "The first."),
    }
    told = row("q_pathway", record)
    assert told["media"] == ["a.jpg", "b.jpg"]
    assert told["questions"] == [f"First {MEDIUM_MARK} then {MEDIUM_MARK}. Which is sharper?"]
    later = record | {"conversations": talk("<image>\nHow is it?", "Sharp.", "And <image>?", "Less so.")}
    assert [text.count(MEDIUM_MARK) for text in row("q_pathway", later)["questions"]] == [1, 1]


def test_a_medium_without_placeholder_is_shown_first_and_text_alone_shows_none():
    found = read("q_pathway", Q_PATHWAY | {"conversations": talk("How is it?", "Blurry.")})
    assert found.frame.iloc[0]["questions"] == [f"{MEDIUM_MARK}\nHow is it?"]
    assert list(found.notes.values()) == [1]
    told = row("q_pathway", {"id": 1, "conversations": talk("What is noise?", "Grain.")})
    assert (told["media"], told["content_id"]) == ([], None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"conversations": None}, "no_conversation"),
        ({"conversations": []}, "no_conversation"),
        ({"conversations": ["x"]}, "no_conversation"),
        ({"conversations": talk("<image>\nHow?")}, "speakers"),
        ({"conversations": talk("<image>\nHow?", "So.", "And?")}, "speakers"),
        ({"conversations": [{"from": "gpt", "value": "So."}, {"from": "human", "value": "How?"}]}, "speakers"),
        ({"conversations": [{"from": "system", "value": "Judge."}, *talk("How?", "So.")]}, "speakers"),
        ({"conversations": talk("<image>\nHow?", "  ")}, "empty_answer"),
        ({"conversations": talk("<image>", "So.")}, "empty_question"),
        ({"conversations": [{"from": "human", "value": 3}, {"from": "gpt", "value": "So."}]}, "no_text"),
        ({"conversations": talk("<image><image>\nHow?", "So.")}, "placeholders"),
        ({"image": ["a.jpg", "b.jpg"]}, "placeholders"),
        ({"image": None}, "placeholders"),
        ({"conversations": talk("<image>\nHow?<|im_end|>", "So.")}, "reserved_token"),
        ({"conversations": talk("<image>\nHow?", "So.</img>")}, "reserved_token"),
        ({"conversations": talk(f"<image>\nHow {MEDIUM_MARK}?", "So.")}, "reserved_token"),
        ({"image": "https://host/1.jpg"}, "no_path"),
        ({"image": 5}, "no_path"),
        ({"image": "../1.jpg"}, "outside_root"),
        ({"image": "/data/1.jpg"}, "outside_root"),
        ({"image": "1.xyz"}, "unknown_modality"),
        ({"image": "1.mp4"}, "other_modality"),
        ({"video": "1.mp4"}, "several_media_keys"),
    ],
)
def test_what_is_no_conversation_about_its_media_is_rejected_with_a_reason(changes: dict[str, Any], reason: str):
    found = read("q_pathway", Q_PATHWAY, Q_PATHWAY | changes)
    assert len(found.frame) == 1
    assert found.rejects[["stage", "id", "reason"]].to_numpy().tolist() == [["import", "1", reason]]
    assert found.rejects["detail"].str.len().gt(5).all()


def test_media_are_looked_for_below_the_root(tmp_path: Path):
    (tmp_path / "spaq_koniq").mkdir()
    (tmp_path / "spaq_koniq" / "1.jpg").write_bytes(b"x")
    absolute = Q_PATHWAY | {"image": str(tmp_path / "spaq_koniq" / "1.jpg"), "conversations": talk("How?", "So.")}
    found = read("q_pathway", Q_PATHWAY, Q_PATHWAY | {"image": "spaq_koniq/2.jpg"}, absolute, root=tmp_path)
    assert found.frame["media"].map(list).tolist() == [["spaq_koniq/1.jpg"]] * 2
    assert found.rejects["reason"].tolist() == ["missing_medium"]


def test_a_repeated_conversation_is_a_reject_and_another_about_the_same_medium_is_not():
    found = read("aesmmit", AESMMIT, AESMMIT | {"id": "18"}, AESMMIT | {"conversations": talk("<image>\nHow?", "So.")})
    assert len(found.frame) == 2
    assert found.frame["content_id"].nunique() == 1
    assert found.rejects[["id", "reason"]].to_numpy().tolist() == [["1", "duplicate"]]


def test_a_file_without_any_usable_record_and_an_unknown_data_set_are_errors():
    with pytest.raises(StageError, match="none of 1 records can be used; the first is rejected as no_path"):
        read("aesmmit", AESMMIT | {"image": 5})
    with pytest.raises(StageError, match=f"there are {', '.join(DATA_SETS)}"):
        read("other", AESMMIT)
