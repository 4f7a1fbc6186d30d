import json

import pytest

from tasks.errors import StageError
from tasks.exchange.export import export_text
from tasks.exchange.formats import Imported, Options, import_records, survey_of
from tasks.exchange.instructions import assertions_in
from tasks.exchange.json_text import cut
from tasks.exchange.tables import DESCRIPTIONS

ANSWER = (
    "The image shows a dog on a lawn. The image has good quality, and the edges are crisp. Noise is strong; "
    "the lighting is sufficient. Overall, it is visually pleasing."
)
RECORD = {
    "id": "livefb/1.jpg",
    "image": "livefb/1.jpg",
    "conversations": [
        {"from": "human", "value": "Describe and evaluate the quality of the image.\n<image>"},
        {"from": "gpt", "value": ANSWER},
    ],
}


def read(**changes: object) -> Imported:
    return import_records(cut(json.dumps([RECORD | changes]), "x"), "x", Options())


def test_an_answer_is_split_into_single_assertions_with_their_attributes():
    row = read().frame.iloc[0]
    assert list(row["assertions"]) == ["The edges are crisp", "Noise is strong", "The lighting is sufficient"]
    assert list(row["attributes"]) == ["sharpness", "noise", "exposure"]
    assert list(row["dropped"]) == [
        "not about quality alone: The image shows a dog on a lawn.",
        "vacuous: Overall, it is visually pleasing.",
    ]
    assert row["answer"] == ANSWER
    assert survey_of("x", read()).told.startswith("3 single assertions, 2 sentences dropped, ")


def test_nothing_is_left_of_praise_and_the_reason_is_told():
    assert assertions_in("It looks great!") == ([], ["vacuous: It looks great!"])
    assert assertions_in("Blurry.") == ([], ["too short: Blurry."])
    assert assertions_in("") == ([], [])
    assert assertions_in("Noise is strong. Noise is strong.")[0] == [("Noise is strong", "noise")]


def test_sentences_end_where_they_end_for_the_describer():
    told = "There are compression artifacts, e.g. blocking. Noise is visible, i.e. grain."
    kept = ["There are compression artifacts, such as blocking", "Noise is visible, that is grain"]
    assert assertions_in(told) == (list(zip(kept, ("compression", "noise"), strict=True)), [])


def test_a_round_trip_is_exact_and_a_change_reaches_the_file():
    found = read(id=17, split="train")
    text, changed = export_text(DESCRIPTIONS, found.frame)
    assert (json.loads(text), changed) == ([RECORD | {"id": 17, "split": "train"}], 0)
    found.frame.loc[0, "answer"] = "Noise is strong."
    assert json.loads(export_text(DESCRIPTIONS, found.frame)[0])[0]["conversations"][1]["value"] == "Noise is strong."


def test_a_record_of_several_turns_is_a_reject_and_the_others_are_imported():
    records = [RECORD | {"id": str(n), "image": f"{n}.jpg"} for n in range(4)]
    records[0] = records[0] | {"conversations": RECORD["conversations"] * 2}
    records[2] = records[2] | {"image": "2.txt", "video": None}
    found = import_records(cut(json.dumps(records), "x"), "x", Options())
    assert found.frame[["row", "path"]].values.tolist() == [[1, "1.jpg"], [3, "3.jpg"]]
    assert found.rejects[["id", "reason"]].values.tolist() == [["0", "several_turns"], ["2", "several_media_keys"]]
    assert survey_of("x", found).told.startswith("2 records rejected, ")
    assert json.loads(export_text(DESCRIPTIONS, found.frame)[0]) == [records[1], records[3]]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"conversations": []}, "no conversation of one question and one answer"),
        ({"conversations": RECORD["conversations"] * 2}, "several_turns: record 0 has 2 questions"),
        ({"conversations": [RECORD["conversations"][0], "x"]}, "no conversation of one question"),
        ({"conversations": [{"from": "human"}, {"from": "gpt", "value": "x"}]}, "has no text under 'value'"),
        ({"conversations": RECORD["conversations"][::-1]}, "no conversation of one question"),
        ({"video": "a.mp4"}, "needs one of image"),
        ({"image": 3}, "no usable path"),
    ],
)
def test_other_conversations_are_refused(changes: dict, told: str):
    with pytest.raises(StageError, match=told):
        read(**changes)
