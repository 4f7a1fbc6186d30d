import json
from typing import Any

import pytest

from tasks.errors import StageError
from tasks.exchange.export import export_text
from tasks.exchange.formats import Imported, Options, import_records
from tasks.exchange.human_lists import Keys, keys_of, modality_of
from tasks.exchange.json_text import cut
from tasks.exchange.tables import HUMAN_SCORES
from tasks.human_scale import Meaning, Polarity

STARS = Meaning(Polarity.MOS, 1, 5)


def read(values: list[dict], meaning: Meaning | None = STARS, **keys: str) -> Imported:
    return import_records(cut(json.dumps(values), "x"), "x.json", Options(meaning, **keys))


def refused(values: list[dict], told: str, **keys: Any) -> None:
    with pytest.raises(StageError, match=told):
        read(values, **keys)


@pytest.mark.parametrize(
    ("record", "media", "score", "modality"),
    [
        ({"image": "a.jpg", "gt_score": 3.0}, "image", "gt_score", "image"),
        ({"video": "a.mp4", "ann_type": "mos", "mos": "3.000"}, "video", "mos", "video"),
        ({"video_path": "a.mp4", "mos": 3, "level": 2}, "video_path", "mos", "video"),
        ({"img_path": "a.mp4", "mos": 3.0}, "img_path", "mos", "video"),
        ({"img_path": "a.JPG", "mos": 3.0}, "img_path", "mos", "image"),
        ({"id": "a.jpg->3.0", "image": "x/a.jpg"}, "image", "id", "image"),
        ({"id": "a.jpg->3.0", "image": "x/a.jpg", "gt_score": 3.0}, "image", "gt_score", "image"),
    ],
)
def test_scores_are_found_wherever_lists_keep_them(record: dict, media: str, score: str, modality: str):
    row = read([record]).frame.iloc[0]
    assert (row["media_key"], row["score_key"], row["modality"]) == (media, score, modality)
    assert (row["score"], row["quality"]) == (3.0, 0.5)


def test_spreads_are_read_and_scaled():
    row = read([{"image": "a.jpg", "mos": 3, "std": 0.5}, {"image": "b.jpg", "mos": 4, "std": 1}]).frame.iloc[0]
    assert (row["std"], row["quality_std"]) == (0.5, 0.125)


def test_undeclared_and_unknown_is_refused():
    refused([{"image": "a.jpg", "mos": 3}], "nobody says what its scores", meaning=None)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"mos": 3}, "no key for its path: name one by --media-key"),
        ({"image": "a.jpg", "video": "a.mp4", "mos": 3}, "several keys that may hold its path: image, video"),
        ({"image": "a.jpg"}, "no key for its score: name one by --score-key"),
        ({"image": "a.jpg", "mos": 3, "gt_score": 4}, "several keys that may hold its score"),
        ({"image": "a.jpg", "mos": None}, "no finite number under 'mos'"),
        ({"image": "a.jpg", "mos": True}, "no finite number"),
        ({"image": "a.jpg", "mos": "3,5"}, "no finite number"),
        ({"image": "a.jpg", "mos": "nan"}, "no finite number"),
        ({"image": "a.jpg", "mos": "1e999"}, "no finite number"),
        ({"image": "a.jpg", "mos": float("inf")}, "no finite number"),
        ({"image": "a.jpg", "mos": 10**400}, "'a.jpg' has no finite number under 'mos'"),
        ({"image": "a.jpg", "mos": 3, "std": 10**400}, "record 0 has the standard deviation"),
        ({"image": "a.jpg", "mos": [3]}, "no finite number"),
        ({"image": "a.jpg", "id": "a.jpg->good"}, "no finite number"),
        ({"image": "a.jpg", "id": "a.jpg->3.5", "mos": 3}, "has the score 3, and its id says 3.5"),
        ({"image": "a.jpg", "mos": 6}, "outside the declared scale 1 to 5"),
        ({"image": "a.jpg", "mos": 3, "std": -1}, "standard deviation -1"),
        ({"image": "", "mos": 3}, "no usable path"),
        ({"image": ["a.jpg"], "mos": 3}, "no usable path"),
        ({"image": "a\u0007.jpg", "mos": 3}, "no usable path"),
        ({"image": "a.mp4", "mos": 3}, "stands under 'image' and is named like a video"),
        ({"video": "a.png", "mos": 3}, "named like a image"),
        ({"img_path": "a", "mos": 3}, "neither the key 'img_path' nor the suffix"),
    ],
)
def test_what_is_ambiguous_or_damaged_is_refused(record: dict, told: str):
    refused([record], told)


@pytest.mark.parametrize(("key", "named"), [("image", None), ("path", "path")])
def test_a_record_without_a_path_is_named_with_what_it_has(key: str, named: str | None):
    records = [{key: "a.jpg", "mos": 3}, {"file": "b.jpg", "mos": 4}, {key: "c.jpg", "mos": 4}]
    told = f"1 of 3 records have no key '{key}' for the path, the first is record 1 \\(its keys: 'file', 'mos'\\): add"
    refused(records, told, **({"media_key": named} if named else {}))


def test_repeated_media_are_refused():
    refused([{"image": "a.jpg", "mos": 3}, {"image": "a.jpg", "mos": 4}], "'a.jpg' has 2 scores")


def test_other_keys_can_be_named():
    row = read([{"file": "a.jpg", "stars": 3}], media_key="file", score_key="stars").frame.iloc[0]
    assert (row["path"], row["score"], row["modality"]) == ("a.jpg", 3.0, "image")
    records = cut('[{"image": "a", "mos": 1, "gt_score": 2}]', "x")
    assert keys_of(records, None, "gt_score", "x") == Keys("image", "gt_score")


def test_a_bitmap_whose_suffix_was_cut_is_an_image():
    assert modality_of("BID/DatabaseImage0001.JP", "image", "x") == "image"
    assert modality_of("no_suffix", "video", "x") == "video"


def test_changes_of_rows_reach_the_file_and_nothing_else_does():
    text = (
        '[{"id": "a.jpg->3.00", "image": "a.jpg", "gt_score": 3.00, "std": 0.50},\n'
        ' {"id": "b.jpg->4", "image": "b.jpg", "gt_score": 4, "std": 1}]'
    )
    frame = import_records(cut(text, "x"), "x", Options(STARS)).frame
    assert export_text(HUMAN_SCORES, frame) == (text, 0)
    frame.loc[0, ["score", "quality", "path"]] = [2.0, 0.25, "c.jpg"]
    told, changed = export_text(HUMAN_SCORES, frame)
    assert changed == 1
    assert told == text.replace("a.jpg->3.00", "a.jpg->2.0").replace('"image": "a.jpg"', '"image": "c.jpg"').replace(
        'gt_score": 3.00', 'gt_score": 2.0'
    )
    frame.loc[0, "score"] = 5.0
    with pytest.raises(StageError, match=r"quality 0\.25 is not what the score 5\.0 means"):
        export_text(HUMAN_SCORES, frame)


def test_a_quoted_score_stays_quoted_and_a_spread_can_change():
    frame = read([{"video": "a.mp4", "mos": "3.50", "std": 1}]).frame
    frame.loc[0, ["score", "quality", "std", "quality_std"]] = [4.0, 0.75, 0.5, 0.125]
    assert json.loads(export_text(HUMAN_SCORES, frame)[0]) == [{"video": "a.mp4", "mos": "4.0", "std": 0.5}]


@pytest.mark.parametrize("edits", [{"score": None}, {"score": 6.0, "quality": 1.25}, {"quality": None}])
@pytest.mark.parametrize("more", [{}, {"std": 0.5}])
def test_scores_that_cannot_be_are_not_exported(edits: dict[str, Any], more: dict[str, Any]):
    frame = read([{"image": "a.jpg", "mos": 3} | more]).frame
    for column, value in edits.items():
        frame.loc[0, column] = value
    with pytest.raises(StageError, match=r"row 0 \(a\.jpg\): (the score .* is no number on its scale|quality None)"):
        export_text(HUMAN_SCORES, frame)


def test_the_meaning_of_a_row_is_one_and_holds_for_dmos():
    frame = read([{"image": "a.jpg", "mos": 4}], Meaning(Polarity.DMOS, 1, 5)).frame
    assert json.loads(export_text(HUMAN_SCORES, frame)[0]) == [{"image": "a.jpg", "mos": 4}]
    frame["polarity"] = "up"
    with pytest.raises(StageError, match=r"row 0 \(a\.jpg\): polarity up from 1\.0 to 5\.0 is none"):
        export_text(HUMAN_SCORES, frame)


@pytest.mark.parametrize("kept", [[0, 1], [1, 2], [1], [0, 2]])
def test_a_table_that_lost_rows_is_still_a_list(kept: list[int]):
    values = [{"image": f"{n}.jpg", "mos": n + 1} for n in range(3)]
    frame = read(values).frame.iloc[kept]
    assert json.loads(export_text(HUMAN_SCORES, frame)[0]) == [values[n] for n in kept]
    with pytest.raises(StageError, match="no rows"):
        export_text(HUMAN_SCORES, frame.iloc[:0])
