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
from models.rewards import KINDS, KindWeights, RewardRule
from tasks.errors import ConfigError, GateError, StageError
from tasks.instructions import ImportedSource
from tasks.records import REJECTS
from tasks.shards import read_table, write_json
from tasks.stage import Place, build_config
from tasks.training import teach
from tasks.training.freezing import bits_of
from tasks.training.rollouts import Drawing, Rollouts
from tasks.training.teach import ColdStart
from tasks.training.teach_trl import TrlConfig
from tasks.training.trainer import TrainingConfig
from tests.tasks.killed import Course, assert_kill_changes_no_byte

TRAINING = TrainingConfig(
    engine="single", seed=5, threads=1, precision="float32", steps=4, batch_examples=12, micro_batches=2,
    learning_rate=2e-3, weight_decay=0.0, warm_up_share=0.0, clip_norm=1.0, checkpoint_every=2, peak_flops=1e9,
)  # fmt: skip
ONE = KindWeights(1.0, 1.0)
CONFIG = teach.Config(
    engine="own",
    splits=("train", "warm_up"),
    sources=(),
    shares={"score": 0.5, "degradation": 0.25, "pair": 0.25},
    max_reject_share=0.1,
    trained=("decoder", "projector", "motion_projector"),
    question="short",
    head="fused",
    cold_start=ColdStart(steps=6, batch_examples=8, learning_rate=5e-3),
    drawing=Drawing(group=3, most_tokens=24, temperature=1.0, num_iterations=1),
    rewards=RewardRule("free", "step", 0.35, ONE, ONE, ONE),
    objective=GrpoRule(clip=0.2, beta=0.01, scale="std", average="sequence"),
    probe_tasks=2,
    training=TRAINING,
    trl=TrlConfig("Qwen/Qwen2.5-VL-7B-Instruct", "sdpa", 3136, 100352),
)
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


def test_every_step_tells_what_answers_earned_and_only_what_is_named_moves(place: Place):
    report = teach.run(CONFIG, place)
    rows = history(place)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    told = {"reward", "format", "wasted", "unread", "tokens", "unended", "kl", "clipped"}
    assert all(told <= row.keys() for row in rows)
    assert {name for row in rows for name in row if name.startswith("answer_")} == {f"answer_{kind}" for kind in KINDS}
    assert all(0.0 <= row[name] <= 1.0 for row in rows for name in ("format", "wasted", "unread", "unended", "clipped"))
    assert rows[0]["kl"] == 0.0
    assert report.first["reward"] == pytest.approx(rows[0]["reward"], abs=1e-6)
    assert moved(place) == {"language_model", "projector", "motion_projector"}
    assert report.steps == {"cold_start": 6, "teacher": 4}
    assert report.loss_last["all"] < report.loss_first["all"]
    assert set(report.tasks) == set(report.examples) == set(KINDS)
    assert report.probe_before.keys() == report.probe_after.keys() == {"all", *KINDS}
    assert report.rejected == {}
    assert json.loads((place.out / "teacher.json").read_text()) == {"question": "short", "tags": "free"}


@pytest.mark.slow
def test_a_tiny_model_raises_its_reward(place: Place):
    training = dataclasses.replace(TRAINING, steps=60, batch_examples=48, micro_batches=1, learning_rate=1e-2)
    config = changed(
        shares={"score": 1.0, "pair": 1.0},
        cold_start=ColdStart(steps=60, batch_examples=16, learning_rate=1e-2),
        drawing=drawing(group=8, most_tokens=70),
        objective=GrpoRule(clip=0.2, beta=0.0, scale="std", average="sequence"),
        training=dataclasses.replace(training, checkpoint_every=100),
        probe_tasks=0,
    )
    report = teach.run(config, place)
    assert "kl" not in report.last
    assert report.last["reward"] - report.first["reward"] >= 0.3
