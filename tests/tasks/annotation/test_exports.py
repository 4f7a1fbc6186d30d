import json
from pathlib import Path

import pytest

from models.errors import ModelError
from models.opinion import compatible_opinion, compatible_pmod
from tasks.annotation.exports import Scale, authors_groups, authors_sample, instructions, scale_of, write_authors
from tasks.records import Split, Task

SCALE = Scale(30.0, 80.0)


@pytest.fixture
def released(shared_data: Path) -> list[list[dict]]:
    return json.loads((shared_data / "labels" / "vital_series" / "train_example.json").read_text())


def test_the_released_opinion_record_is_reproduced(released: list[list[dict]]):
    real = released[0][0]
    spread = 5 * real["std"] / real["std_norm"]
    low = real["gt_score"] - real["gt_score_norm"] / 5 * spread
    answer = real["conversations"][1]["value"]
    ours = authors_sample(real["video"], "video", real["mos"], answer, Scale(low, low + spread))
    assert list(ours) == list(real)
    assert ours["conversations"] == real["conversations"]
    assert ours["id"] == real["id"]
    for key in ("gt_score", "gt_score_norm", "std", "std_norm", "alpha", "beta", "raw_diff"):
        assert ours[key] == pytest.approx(real[key], abs=1e-9), key
    assert ours["diff"] == pytest.approx(real["diff"], abs=3e-9)  # sums the target's differences, times 4.5 to .5
    for key in ("mos", "level_probs_org", "target_dist"):
        assert ours[key] == pytest.approx(real[key], abs=1e-9), key


def test_text_groups_have_the_keys_of_the_released_ones(released: list[list[dict]]):
    groups = authors_groups(EXAMPLES, MEDIA, OPINIONS)
    ours = {tuple(group[0]) for group in groups if len(group) == 1}
    theirs = {tuple(group[0]) for group in released[1:] if "image" in group[0]}
    assert ours == theirs


def medium(key: str, stage: str) -> dict:
    return {"id": key, "stage": stage, "modality": "image", "source": "photos/Cat.JPEG"}


MEDIA = {"a": medium("a", "collect"), "b": medium("b", "distort"), "c": medium("c", "distort")}
OPINIONS = {
    "a": {"scores": [0.8, 0.7, 0.75, 0.8, 0.7, 0.75]},
    "b": {"scores": [0.3, 0.35, 0.3, 0.25, 0.4, 0.2]},
    "c": {"scores": [0.5] * 6},
}


def example(
    task: Task, ids: list[str], answers: list[str], split: Split = Split.TRAIN, preference: float | None = None
):
    return {
        "example_id": "-".join([task, *ids]),
        "task": task,
        "modality": "image",
        "split": split,
        "ids": ids,
        "answers": answers,
        "targets": [],
        "preference": preference,
    }


GOOD, POOR = "The quality of the image is good", "The quality of the image is poor"
EXAMPLES = [
    example(Task.SINGLE, ["a"], [GOOD]),
    example(Task.SINGLE, ["b"], [POOR]),
    example(Task.SINGLE, ["c"], ["The quality of the image is fair"]),
    example(Task.SINGLE, ["held"], [GOOD], Split.HELD_OUT),
    example(Task.PAIR, ["a", "b"], [GOOD, POOR], preference=1.0),
    example(Task.PAIR, ["b", "a"], [POOR, GOOD], preference=0.0),
    example(Task.PAIR, ["a", "c"], [GOOD, GOOD], preference=0.5),
    example(Task.DISTORTION, ["b"], ["relatively severe white noise"]),
    example(Task.DESCRIPTION, ["b"], ["Noise is strong"]),
]


def test_groups_are_what_the_released_loader_reads():
    groups = authors_groups(EXAMPLES, MEDIA, OPINIONS)
    labels = [[member["label"] for member in group] for group in groups if "label" in group[0]]
    assert labels == [[1, 1], [0, 0], [2, 2]]
    singles = [group for group in groups if "mos" in group[0] and "label" not in group[0]]
    assert [[member["image"] for member in group] for group in singles] == [
        ["collect/a.jpeg", "distort/b.webp"],
        ["distort/c.webp", "collect/a.jpeg"],  # the odd one gets the first as company
    ]
    assert all(len(member["target_dist"]) == 5 for group in singles for member in group)
    assert groups[-1] == [
        {
            "image": "distort/b.webp",
            "quality": "Noise is strong",
            "conversations": [{"from": "human", "value": ""}, {"from": "gpt", "value": "Noise is strong"}],
        }
    ]
    assert not any("held" in json.dumps(group) for group in groups)


def test_the_scale_is_the_corpus_range_and_never_empty():
    assert scale_of(OPINIONS.values()) == Scale(pytest.approx(30.0), pytest.approx(75.0))  # type: ignore[arg-type]
    alone = scale_of([{"scores": [0.5]}])
    assert (alone.low, alone.high) == (49.5, 50.5)
    assert scale_of([]) == Scale(0.0, 100.0) or scale_of([]).low < scale_of([]).high


def test_unanimous_scorers_give_a_finite_target_that_keeps_the_mean():
    sample = authors_sample("x.jpg", "image", [55.0] * 6, GOOD, SCALE)
    assert sample["std"] == 0
    assert sum(sample["target_dist"]) == pytest.approx(1, abs=0.2)
    assert sample["raw_diff"] < 0.51
    found = compatible_opinion(55.0, 0.0, low=30.0, high=80.0)
    assert found.target_5.tolist() == compatible_pmod(55.0, 0.0, low=30.0, high=80.0).tolist()
    with pytest.raises(ModelError, match="low must be below high"):
        compatible_opinion(1.0, 0.1, low=2.0, high=2.0)


def test_the_files_are_json_and_stable(tmp_path: Path):
    groups = authors_groups(EXAMPLES, MEDIA, OPINIONS)
    write_authors(tmp_path / "one", groups)
    write_authors(tmp_path / "two", groups)
    content = (tmp_path / "one" / "authors.json").read_bytes()
    assert content == (tmp_path / "two" / "authors.json").read_bytes()
    assert json.loads(content) == groups
    meta = json.loads((tmp_path / "one" / "authors_meta.json").read_text())["vital"]
    assert meta["length"] == len(groups)
    write_authors(tmp_path / "none", [])
    assert json.loads((tmp_path / "none" / "authors.json").read_text()) == []


def test_descriptions_of_a_sample_become_one_answer_in_the_style_of_q_instruct():
    more = [*EXAMPLES, example(Task.DESCRIPTION, ["b"], ["Contrast is low"]), example(Task.DESCRIPTION, ["a"], ["x y"])]
    found = instructions(more, MEDIA, Split.TRAIN)
    assert [record["id"] for record in found] == ["a", "b"]
    assert found[1] == {
        "id": "b",
        "image": "distort/b.webp",
        "conversations": [
            {"from": "human", "value": "<image>\nDescribe and evaluate the quality of the image."},
            {"from": "gpt", "value": "Noise is strong. Contrast is low."},
        ],
    }
    assert instructions(more, MEDIA, Split.HELD_OUT) == []
