"""The stage: rewards rise, what stays stays to the bit, what cannot be used is counted, and kills change no byte."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from models.grpo import GrpoRule
from models.quality_lmm import QualityLMM
from models.rewards import KINDS
from tasks.errors import ConfigError, GateError, StageError
from tasks.instructions import ImportedSource
from tasks.records import REJECTS
from tasks.shards import read_table, write_json
from tasks.stage import Place, build_config
from tasks.training import teach
from tasks.training.freezing import bits_of
from tasks.training.rollouts import Drawing, Rollouts
from tasks.training.teaching_course import ColdStart
from tests.tasks.killed import Course, assert_kill_changes_no_byte
from tests.tasks.tiny_teaching import CONFIG, TRAINING

DEPS = ("collect", "distort", "review", "assemble", "validate", "pretrain")


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_pretrained: Callable[[Path], None]) -> Place:
    write_pretrained(line)
    return place_for(line, "teach")


def changed(**values: Any) -> teach.Config:
    return dataclasses.replace(CONFIG, **values)


def drawing(**values: Any) -> Drawing:
    return dataclasses.replace(CONFIG.drawing, **values)


def again(place: Place, name: str) -> Place:
    return Place(place.root, place.work / name, place.work / name / "out")


def history(place: Place) -> list[dict[str, Any]]:
    return json.loads((place.out / "history.json").read_text())


def moved(place: Place) -> set[str]:
    """Parts whose bits are not the pre-trained model's."""
    names = ("image_encoder", "motion_extractor", "projector", "motion_projector", "language_model")
    folders = (place.root / "artifacts" / "pretrain" / "model", place.out / "model")
    before, after = (QualityLMM.from_pretrained(folder) for folder in folders)
    return {name for name in names if not _same(getattr(before, name), getattr(after, name))}


def _same(one: Any, other: Any) -> bool:
    return bits_of(one.state_dict()) == bits_of(other.state_dict())


WARM = changed(cold_start=ColdStart(steps=2, batch_examples=4, learning_rate=1e-4), drawing=drawing(most_tokens=70))
"""For a model that is fluent already."""


@pytest.fixture
def fluent(place: Place, write_fluent: Callable[[Path], None]) -> Place:
    write_fluent(place.root)
    return place


def test_every_step_tells_what_answers_earned_and_only_what_is_named_moves(fluent: Place):
    place = fluent
    report = teach.run(WARM, place)
    rows = history(place)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    told = {"reward", "format", "wasted", "unread", "tokens", "unended", "kl", "clipped"}
    assert all(told <= row.keys() for row in rows)
    assert {name for row in rows for name in row if name.startswith("answer_")} == {f"answer_{kind}" for kind in KINDS}
    assert all(0.0 <= row[name] <= 1.0 for row in rows for name in ("format", "wasted", "unread", "unended", "clipped"))
    assert rows[0]["kl"] == 0.0
    assert report.first["reward"] == pytest.approx(rows[0]["reward"], abs=1e-6)
    assert moved(place) == {"language_model", "projector", "motion_projector"}
    assert report.steps == {"cold_start": 2, "teacher": 4}
    assert set(report.tasks) == set(report.examples) == set(KINDS)
    assert report.probe_before.keys() == report.probe_after.keys() == {"all", *KINDS}
    assert report.rejected == {}
    assert json.loads((place.out / "teacher.json").read_text()) == {"question": "short", "tags": "free"}


def test_a_run_that_stops_anywhere_ends_with_the_same_bytes(fluent: Place, monkeypatch: pytest.MonkeyPatch):
    place = fluent
    iterated = dataclasses.replace(WARM, drawing=dataclasses.replace(WARM.drawing, num_iterations=2))
    whole, halved = again(place, "whole"), again(place, "halved")
    report = teach.run(iterated, whole)
    step, stops = Rollouts.step, [1, 3]  # before and behind the first checkpoint

    def stopping(self: Rollouts, number: int) -> Any:
        if stops and number == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(Rollouts, "step", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            teach.run(iterated, halved)
    assert teach.run(iterated, halved) == report
    assert teach.run(iterated, halved) == report
    files = sorted(path.relative_to(whole.out) for path in whole.out.rglob("*") if path.is_file())
    assert {"history.json", "examples.json", "rejects.parquet", "teacher.json"} <= {str(path) for path in files}
    for file in files:
        assert (whole.out / file).read_bytes() == (halved.out / file).read_bytes(), file
    rows = history(whole)
    assert rows[0]["reward"] == rows[1]["reward"] != rows[2]["reward"]  # two steps learn from the same answers
    assert report.first["reward"] > 0.0


def test_the_encoder_may_learn_too_and_then_media_are_pixels(fluent: Place):
    place = fluent
    parts = ("image_encoder", "motion_extractor", "projector", "motion_projector", "decoder")
    training = dataclasses.replace(TRAINING, steps=2, batch_examples=6, recompute="decoder")
    teach.run(dataclasses.replace(WARM, trained=parts, training=training, probe_tasks=0), place)
    assert "image_encoder" in moved(place)
    plain = again(place, "plain")
    training = dataclasses.replace(training, recompute="none")
    teach.run(dataclasses.replace(WARM, trained=parts, training=training, probe_tasks=0), plain)
    assert history(plain)[0]["tokens"] == history(place)[0]["tokens"]  # drawing is not disturbed by recomputation
    assert history(plain)[0]["reward"] == history(place)[0]["reward"]


def test_a_policy_that_never_earns_anything_is_told(place: Place, caplog: pytest.LogCaptureFixture):
    config = changed(cold_start=ColdStart(0, 1, 1e-3), training=dataclasses.replace(TRAINING, weight_decay=0.1))
    report = teach.run(config, place)
    assert "so nothing was taught: lengthen the cold start" in caplog.text
    assert report.last["wasted"] == 1.0


def test_broken_media_are_counted_and_too_many_fail(fluent: Place):
    place = fluent
    root = place.root / "rated"
    root.mkdir()
    for number in range(4):
        Image.new("RGB", (90, 70), (60 * number, 80, 40)).save(root / f"{number}.png")
    (root / "1.png").write_bytes((root / "1.png").read_bytes()[:50])
    paths = [f"{number}.png" for number in range(5)]
    frame = pd.DataFrame({"path": paths, "modality": "image", "quality": [0.1, 0.3, 0.5, 0.7, 0.9]})
    frame.to_parquet(place.root / "rated.parquet")
    source = ImportedSource("rated.parquet", "rated")
    beside = dataclasses.replace(WARM, sources=(source,), probe_tasks=0)
    report = teach.run(beside, place)
    assert report.rejected == {"medium_rejected": 2, "missing": 1, "truncated": 1}
    rejects = read_table(place.out / "rejects.parquet", REJECTS)
    assert set(rejects["id"]) == {"0:1.png", "0:4.png", "score 0:1.png", "score 0:4.png"}
    with pytest.raises(StageError, match="do not decode"):
        teach.run(dataclasses.replace(beside, max_reject_share=0.01), again(place, "strict"))


def test_the_gate_is_asked_where_the_line_is(place: Place):
    write_json(place.root / "artifacts" / "validate" / "results.json", {"success": False})
    with pytest.raises(GateError, match="did not pass validation"):
        teach.run(CONFIG, place)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trained": []}, "one at least"),
        ({"splits": ["held_out"]}, "splits"),
        ({"splits": []}, "splits or sources"),
        ({"shares": {"rating": 1.0}}, "shares must name"),
        ({"shares": {"score": 0.0}}, "shares must name"),
        ({"probe_tasks": -1}, "probe_tasks"),
        (
            {"drawing": {"group": 5, "most_tokens": 9, "temperature": 1.0, "num_iterations": 1}},
            "multiple of drawing.group",
        ),
        (
            {"drawing": {"group": 3, "most_tokens": 9, "temperature": 1.0, "num_iterations": 3}},
            "drawing.num_iterations",
        ),
        ({"drawing": {"group": 1, "most_tokens": 9, "temperature": 1.0, "num_iterations": 1}}, "at least 2"),
        ({"drawing": {"group": 3, "most_tokens": 9, "temperature": 0.0, "num_iterations": 1}}, "above 0"),
        ({"engine": "verl"}, "engine"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str):
    section = json.loads(json.dumps(dataclasses.asdict(CONFIG))) | values
    with pytest.raises(ConfigError, match=message):
        build_config(teach.Config, "teach", section)


@pytest.mark.long  # the default suite stops the stage in one process
def test_a_run_killed_in_training_ends_with_the_same_bytes(fluent: Place, tmp_path: Path):
    training = dataclasses.replace(TRAINING, steps=12)
    params = dataclasses.asdict(dataclasses.replace(WARM, training=training))
    course = Course("teach", params, DEPS, "teacher/checkpoint.safetensors", "history.json")
    assert_kill_changes_no_byte(fluent.root, tmp_path / "whole", course)


@pytest.mark.long  # tests/models/test_grpo.py has a smaller model in the default suite
def test_a_tiny_model_raises_its_reward(place: Place):
    training = dataclasses.replace(
        TRAINING, steps=100, batch_examples=48, micro_batches=1, learning_rate=1e-3, warm_up_share=0.1
    )
    config = changed(
        shares={"score": 0.5, "pair": 0.5},
        cold_start=ColdStart(steps=90, batch_examples=16, learning_rate=1e-2),
        drawing=drawing(group=8, most_tokens=80),
        objective=GrpoRule(clip=0.2, beta=0.0, scale="std", average="sequence"),
        training=dataclasses.replace(training, checkpoint_every=100),
        probe_tasks=0,
    )
    report = teach.run(config, place)
    assert "kl" not in report.last
    assert report.last["reward"] - report.first["reward"] >= 0.3
