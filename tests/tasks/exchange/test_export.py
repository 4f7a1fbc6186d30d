"""What somebody edits in a table stands in the exported file, or the export names the column and refuses."""

import json
from itertools import chain
from typing import Any

import pytest

from tasks.errors import StageError
from tasks.exchange.export import export_text
from tasks.exchange.formats import Imported, Options, import_records
from tasks.exchange.json_text import cut
from tasks.exchange.tables import HUMAN_SCORES
from tasks.human_scale import Meaning, Polarity

TURNS = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "Noise is strong."}]
RATED = [
    {"id": "a.jpg->3", "image": "a.jpg", "mos": 3, "std": 0.5},
    {"id": "b.jpg->4", "image": "b.jpg", "mos": 4, "std": 1},
]
OPINION = {"mos": [1.0, 3.0], "gt_score": 2.0, "std": 1.0, "target_dist": [0.2] * 5, "label": 1}
SAMPLES = [
    [{"id": f"{name}.jpg->2.0", "image": f"{name}.jpg", **OPINION, "conversations": TURNS} for name in pair]
    for pair in ("ab", "cd")
]
QUESTION = {
    "video": "1.mp4",
    "question": "How sharp is it?",
    "answers": ["Sharp", "Blurred", "", ""],
    "question_type": "what/how",
    "context": "Global",
    "correct_choice": "B",
    "correct_ans": "Blurred",
}
TOLD = [{"id": "1", "image": "a.jpg", "conversations": TURNS}]


def read(values: list[Any]) -> Imported:
    options = Options(Meaning(Polarity.MOS, 1, 5)) if values == RATED else Options()
    return import_records(cut(json.dumps(values), "x"), "x", options)


def edited(values: list[Any], row: int = 0, **edits: Any) -> Any:
    """The first object of the file that is exported after ``edits`` of a row, with what it has become."""
    found = read(values)
    for column, value in edits.items():
        found.frame.at[row, column] = value
    text, changed = export_text(found.table, found.frame)
    assert changed == 1
    return json.loads(text)


@pytest.mark.parametrize(
    ("edits", "keys"),
    [
        ({"scores": [2.0, 4.0]}, {"mos": [2.0, 4.0]}),
        ({"mean": 2.5}, {"gt_score": 2.5, "id": "a.jpg->2.5"}),
        ({"std": 0.25}, {"std": 0.25}),
        ({"target": [0.0, 0.0, 0.5, 0.5, 0.0]}, {"target_dist": [0.0, 0.0, 0.5, 0.5, 0.0]}),
        ({"preference": 0.5}, {"label": 2}),
    ],
)
def test_numbers_of_a_sample_reach_the_file(edits: dict[str, Any], keys: dict[str, Any]):
    assert edited(SAMPLES, **edits) == [[SAMPLES[0][0] | keys, SAMPLES[0][1]], SAMPLES[1]]


@pytest.mark.parametrize(
    ("edits", "keys"),
    [
        ({"options": ["Sharp", "Blurry"]}, {"answers": ["Sharp", "Blurry", "", ""]}),
        ({"kind": "yes-or-no"}, {"question_type": "yes-or-no"}),
        ({"context": "Local"}, {"context": "Local"}),
        ({"letter": "A"}, {"correct_choice": "A"}),
    ],
)
def test_columns_of_a_question_reach_the_file(edits: dict[str, Any], keys: dict[str, Any]):
    assert edited([QUESTION], **edits) == [QUESTION | keys]


def test_the_id_of_a_description_reaches_the_file():
    assert edited(TOLD, id="2") == [TOLD[0] | {"id": "2"}]


@pytest.mark.parametrize(
    ("values", "column", "value"),
    [
        (RATED, "modality", "video"),
        (SAMPLES, "modality", "video"),
        (SAMPLES, "task", "description"),
        (SAMPLES, "distortion", "white_noise"),
        (SAMPLES, "strength", 3),
        (SAMPLES, "media_key", "video"),
        (SAMPLES, "preference", None),
        (SAMPLES, "group", 7),
        ([QUESTION], "answer", "Sharp"),
        ([QUESTION], "concern", "Technical"),
        (TOLD, "assertions", ["Noise is weak"]),
        (TOLD, "tokens", 9),
        ([TOLD[0] | {"id": 1}], "id", "2"),
    ],
)
def test_a_column_that_the_file_cannot_say_is_named(values: list[Any], column: str, value: Any):
    found = read(values)
    last = found.frame.index[-1]
    found.frame[column] = found.frame[column].astype(object)
    found.frame.at[last, column] = value
    if column == "group":  # of rows that do not stand together
        found.frame[column] = [7, 1, 1, 7]
    with pytest.raises(StageError, match=rf"row {last} \(.*\): {column} was changed to .* would still say "):
        export_text(found.table, found.frame)


def test_the_declaration_of_a_list_is_that_of_all_its_rows():
    frame = read(RATED).frame
    frame.loc[1, ["low", "quality", "quality_std"]] = [0.0, 0.8, 0.2]
    with pytest.raises(StageError, match=r"row 1 \(b\.jpg\): low is that of the whole list, 1\.0, and here 0\.0"):
        export_text(HUMAN_SCORES, frame)


def test_samples_move_between_groups_that_stand_side_by_side():
    found = read(SAMPLES)
    for groups, sizes in (([0, 1, 1, 1], [1, 3]), ([0, 1, 2, 2], [1, 1, 2]), ([0, 0, 0, 0], [4])):
        frame = found.frame.assign(group=groups)
        told = json.loads(export_text(found.table, frame)[0])
        assert [len(group) for group in told] == sizes
        assert list(chain(*told)) == list(chain(*SAMPLES))


@pytest.mark.parametrize("kept", [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [2, 3], [3], [1, 2]])
def test_groups_that_lost_rows_are_still_groups(kept: list[int]):
    found = read(SAMPLES)
    told = json.loads(export_text(found.table, found.frame.iloc[kept])[0])
    flat = list(chain(*SAMPLES))
    assert told == [group for group in ([flat[n] for n in kept if n // 2 == pair] for pair in (0, 1)) if group]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "row 0: its column text is empty"),
        ('{"image": "a.jpg", "mos": 3}', r"row 0 \(a\.jpg\): std was changed to 0\.5, and .* still say None"),
        ('{"image": "a.jpg"}', "the table: 'a.jpg' has no finite number under 'mos'"),
        ('{"mos": 3}', "the table: 1 of 2 records have no key 'image'"),
        ("{", "row 0 is not a JSON list of objects"),
    ],
)
def test_a_text_that_lost_what_the_row_says_is_told(text: str | None, told: str):
    frame = read(RATED).frame
    frame.loc[0, "text"] = text
    with pytest.raises(StageError, match=told):
        export_text(HUMAN_SCORES, frame)
