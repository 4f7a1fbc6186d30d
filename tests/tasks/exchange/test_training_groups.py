import json
from pathlib import Path

import pytest

from tasks.annotation.exports import Scale, authors_sample, write_authors
from tasks.errors import StageError
from tasks.exchange.export import export_text
from tasks.exchange.formats import Imported, Options, import_file, import_records
from tasks.exchange.json_text import cut
from tasks.exchange.tables import SAMPLES
from tasks.human_scale import Meaning, Polarity

SCALE = Scale(30.0, 80.0)
GOOD, POOR = "The quality of the image is good", "The quality of the image is poor"


def opinion(path: str, mean: float, answer: str = GOOD) -> dict:
    return authors_sample(path, "image", [mean - 2, mean + 2, mean, mean - 1, mean + 1, mean], answer, SCALE)


def text(path: str, answer: str, **more: str) -> dict:
    turns = [{"from": "human", "value": ""}, {"from": "gpt", "value": answer}]
    return {"image": path, **more, "conversations": turns}


GROUPS = [
    [opinion("a.jpg", 70.0), opinion("b.jpg", 40.0, POOR)],
    [opinion("a.jpg", 70.0) | {"label": 1}, opinion("b.jpg", 40.0, POOR) | {"label": 1}],
    [opinion("b.jpg", 40.0) | {"label": 2}, opinion("c.jpg", 41.0, POOR) | {"label": 2}],
    [text("b.webp", "relatively severe white noise")],
    [text("c.webp", "Noise is strong", quality="Noise is strong")],
    [text("c.webp", "a dog on a lawn")],
]


def read(groups: list[list[dict]]) -> Imported:
    return import_records(cut(json.dumps(groups), "x"), "x", Options())


def test_the_lines_own_export_comes_back_as_it_was(tmp_path: Path):
    write_authors(tmp_path, GROUPS)
    found = import_file(tmp_path / "authors.json", Options())
    assert found.table is SAMPLES
    assert found.problems == []
    frame = found.frame
    assert frame["group"].tolist() == [0, 0, 1, 1, 2, 2, 3, 4, 5]
    assert frame["task"].tolist() == [*["single"] * 2, *["pair"] * 4, "distortion", "description", "text"]
    assert frame["preference"].tolist()[2:6] == [1.0, 1.0, 0.5, 0.5]
    assert (frame.loc[6, "distortion"], frame.loc[6, "strength"]) == ("white_noise", 3)
    assert frame.loc[0, "mean"] == 70.0
    assert list(frame.loc[0, "target"]) == GROUPS[0][0]["target_dist"]
    assert export_text(SAMPLES, frame) == ((tmp_path / "authors.json").read_text(), 0)


def test_the_released_example_is_read(shared_data: Path):
    found = import_file(shared_data / "labels" / "vital_series" / "train_example.json", Options())
    frame = found.frame
    assert frame["task"].tolist() == ["single", "distortion", "distortion", "description", "description"]
    assert frame["modality"].tolist() == ["video", "video", "image", "video", "image"]
    assert frame["distortion"].tolist()[1:3] == ["h264_compression", "white_noise"]
    assert frame["strength"].tolist()[1:3] == [2, 3]
    assert len(frame.loc[0, "scores"]) == 6
    assert sum(frame.loc[0, "target"]) == pytest.approx(1.0023665, abs=1e-6)  # as released, not put right
    assert found.problems == ["group 0 has one opinion, and the released loss reads two"]


@pytest.mark.parametrize(
    ("group", "told"),
    [
        ([opinion("a.jpg", 70.0) | {"gt_score": 60.0}, opinion("b.jpg", 40.0)], "gt_score is not the mean of mos"),
        ([opinion("a.jpg", 70.0) | {"std": 9.0}, opinion("b.jpg", 40.0)], "std is not the population deviation"),
        ([opinion("a.jpg", 70.0) | {"id": "a.jpg->1"}, opinion("b.jpg", 40.0)], "the id does not end with gt_score"),
        ([text("a.jpg", "Noise is strong", quality="Noise is weak")], "quality is not the answer"),
        ([opinion("a.jpg", 70.0) | {"label": 1}, opinion("b.jpg", 4e1) | {"label": 0}], "is no pair of two samples"),
        ([opinion("a.jpg", 70.0) | {"label": 1}], "is no pair of two samples"),
        (
            [text("a.jpg", "x y"), {"video": "a.mp4", "conversations": text("", "z w")["conversations"]}],
            "mixes images",
        ),
    ],
)
def test_contradictions_are_told_and_nothing_is_put_right(group: list[dict], told: str):
    found = read([group])
    assert told in " ".join(found.problems)
    assert json.loads(export_text(SAMPLES, found.frame)[0]) == [group]


@pytest.mark.parametrize(
    ("sample", "told"),
    [
        ({"conversations": text("", "x")["conversations"]}, "needs one of image, video"),
        (text("a.jpg", "  "), "has no answer"),
        ({"image": "a.jpg", "conversations": []}, "has no answer"),
        (text("a.jpg", "x") | {"target_dist": [1, 0]}, "a target of 2 levels"),
        (text("a.jpg", "x") | {"target_dist": [1, 0, 0, 0, None]}, "no list of finite numbers under 'target_dist'"),
        (text("a.jpg", "x") | {"mos": "63"}, "no list of finite numbers under 'mos'"),
        (text("a.jpg", "x") | {"label": 3}, "labels are 1"),
        (text("a.jpg", "x") | {"label": [1]}, "labels are 1"),
        (text("a.jpg", "x") | {"mos": []}, "sample 0 has no list of finite numbers under 'mos'"),
        (text("a.jpg", "x") | {"mos": [10**400]}, "sample 0 has no list of finite numbers under 'mos'"),
        (text("a.jpg", "x") | {"gt_score": 10**400}, "sample 0 has no finite number under 'gt_score'"),
        (text("a.jpg", "x") | {"std": "1"}, "sample 0 has no finite number under 'std'"),
    ],
)
def test_damaged_samples_are_refused(sample: dict, told: str):
    with pytest.raises(StageError, match=told):
        read([[sample]])


def test_changed_answers_reach_both_places_and_labels_follow_preferences():
    frame = read(GROUPS).frame
    frame.loc[7, "answer"] = "Noise is weak"
    frame.loc[[2, 3], "preference"] = 0.0
    told, changed = export_text(SAMPLES, frame)
    assert changed == 3
    groups = json.loads(told)
    assert groups[4] == [text("c.webp", "Noise is weak", quality="Noise is weak")]
    assert [sample["label"] for sample in groups[1]] == [0, 0]
    assert groups[0] == GROUPS[0]


def test_training_samples_have_no_polarity():
    with pytest.raises(StageError, match="has no polarity"):
        import_records(cut(json.dumps(GROUPS), "x"), "x", Options(Meaning(Polarity.MOS, 0, 1)))
