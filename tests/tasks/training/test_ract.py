"""The stage: a teacher for each data set, texts that hold no score, and an encoder that learns them for one reader."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from models.grpo import GrpoRule
from models.quality_lmm import QualityLMM
from models.reasoning_text import leaks
from models.rewards import KindWeights, RewardRule
from tasks.data_sets import DataSet
from tasks.errors import StageError
from tasks.pool import load_candidates
from tasks.records import EXPLANATIONS, REJECTS
from tasks.shards import read_table
from tasks.stage import Place
from tasks.training import ract
from tasks.training.freezing import bits_of
from tasks.training.ract import reader_bits
from tasks.training.ract_labels import LabelRule
from tasks.training.rollouts import Drawing
from tasks.training.teaching_course import ColdStart, Teaching
from tasks.training.trainer import Trainer, TrainingConfig

TRAINING = TrainingConfig(
    engine="single", seed=3, threads=1, precision="float32", steps=4, batch_examples=6, micro_batches=1,
    learning_rate=2e-3, weight_decay=0.0, warm_up_share=0.0, clip_norm=1.0, checkpoint_every=2, peak_flops=1e9,
)  # fmt: skip
ONE = KindWeights(1.0, 1.0)
CONFIG = ract.Config(
    data_sets=(
        DataSet("blurred", ("original", "gaussian_blur"), None, ()),
        DataSet("noisy", ("original", "white_noise", "jpeg"), "image", ()),
    ),
    splits=("train", "warm_up"),
    max_reject_share=0.0,
    teachers=Teaching(
        shares={"score": 0.75, "degradation": 0.25},
        trained=("image_encoder", "projector", "decoder"),
        question="short",
        head="fused",
        cold_start=ColdStart(steps=1, batch_examples=4, learning_rate=1e-4),
        drawing=Drawing(group=3, most_tokens=70, temperature=1.0, num_iterations=1),
        rewards=RewardRule("free", "step", 0.35, ONE, ONE, ONE),
        objective=GrpoRule(clip=0.2, beta=0.01, scale="std", average="sequence"),
        probe_tasks=2,
        training=dataclasses.replace(TRAINING, steps=2, learning_rate=1e-4),
    ),
    labels=LabelRule("text", 2, 1.0, 80, "drop", None, 8),
    reader="noisy",
    trained=("image_encoder",),
    views=1,
    training=TRAINING,
)


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_fluent: Callable[[Path], None]) -> Place:
    write_fluent(line)
    return place_for(line, "ract")


def changed(**values: Any) -> ract.Config:
    return dataclasses.replace(CONFIG, **values)


def labels(place: Place) -> pd.DataFrame:
    return read_table(place.out / "labels.parquet", EXPLANATIONS)


def test_three_steps_leave_the_reader_its_bits_and_move_the_encoder(place: Place):
    report = ract.run(CONFIG, place)
    pool = load_candidates(place).set_index("id")
    pool = pool[pool["split"].isin(["train", "warm_up"])]
    assert set(report.teachers) == set(report.media) == {"blurred", "noisy"}
    originals = (pool["severity"] == 0) & (pool["modality"] == "image")
    assert report.media["noisy"] == originals.sum() + pool["distortion"].isin(["white_noise", "jpeg"]).sum()
    assert report.media["blurred"] == (pool["severity"] == 0).sum() + (pool["distortion"] == "gaussian_blur").sum()

    texts = labels(place)
    assert set(texts["source"]) == {"blurred", "noisy"}
    assert report.labels == {name: int((texts["source"] == name).sum()) for name in ("blurred", "noisy")}
    for row in texts.to_dict("records"):
        assert row["content_id"] == pool.loc[row["id"], "content_id"]
        assert not leaks(row["text"])
    kinds = {name: set(pool.loc[rows["id"], "distortion"].dropna()) for name, rows in texts.groupby("source")}
    assert kinds["blurred"] == {"gaussian_blur"}
    assert kinds["noisy"] <= {"white_noise", "jpeg"}

    reader = QualityLMM.from_pretrained(place.out / "teachers" / "noisy" / "model")
    learnt = QualityLMM.from_pretrained(place.out / "model")
    assert reader_bits(learnt) == reader_bits(reader) == report.reader_sha256
    for name in ("language_model", "projector", "motion_projector", "motion_extractor"):
        assert bits_of(getattr(learnt, name).state_dict()) == bits_of(getattr(reader, name).state_dict()), name
    assert bits_of(learnt.image_encoder.state_dict()) != bits_of(reader.image_encoder.state_dict())
    encoder = sum(parameter.numel() for parameter in learnt.image_encoder.parameters())
    assert report.trained_parameters == encoder
    other = QualityLMM.from_pretrained(place.out / "teachers" / "blurred" / "model")
    assert reader_bits(other) != reader_bits(reader)
    told = json.loads((place.out / "ract.json").read_text())
    assert [one["name"] for one in told["data_sets"]] == ["blurred", "noisy"]
    assert (told["reader"], told["question"], told["tags"]) == ("noisy", "short", "free")


def test_a_run_that_stops_anywhere_ends_with_the_same_bytes(place: Place, monkeypatch: pytest.MonkeyPatch):
    whole = Place(place.root, place.work / "whole", place.work / "whole" / "out")
    ract.run(CONFIG, whole)
    fits, stops = Trainer.fit, [2, 5]  # in the first teacher's answers and in the learning from labels

    def stopping(self: Trainer[Any]) -> Any:
        counted.append(1)
        if stops and len(counted) == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt
        return fits(self)

    counted: list[int] = []
    monkeypatch.setattr(Trainer, "fit", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            ract.run(CONFIG, place)
    ract.run(CONFIG, place)
    files = [path.relative_to(whole.out) for path in whole.out.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"labels.parquet", "history.json", "ract.json"}
    assert [str(path) for path in files if (place.out / path).read_bytes() != (whole.out / path).read_bytes()] == []


def test_what_nobody_can_learn_from_fails_with_its_reason(place: Place, write_pretrained: Callable[[Path], None]):
    write_pretrained(place.root)  # it has never seen an answer
    training = dataclasses.replace(CONFIG.teachers.training, weight_decay=0.1)  # or nothing would move
    config = changed(teachers=dataclasses.replace(CONFIG.teachers, training=training))
    with pytest.raises(StageError, match=r"has said nothing of blurred that can be learnt \(mostly no_thought\)"):
        ract.run(config, place)


def test_media_that_do_not_decode_are_told_once(place: Place):
    pool = load_candidates(place)
    broken = pool[(pool["severity"] == 0) & (pool["split"] == "train") & (pool["modality"] == "image")].iloc[0]
    archive = place.root / "artifacts" / "collect" / "media" / broken["shard"]
    with archive.open("r+b") as file:
        file.seek(int(broken["offset"]))
        file.write(b"\0" * int(broken["length"]))
    with pytest.raises(StageError, match="do not decode"):
        ract.run(CONFIG, place)
    report = ract.run(changed(max_reject_share=0.2), place)
    rejects = read_table(place.out / "rejects.parquet", REJECTS)
    told = rejects[rejects["id"] == broken["id"]]
    assert len(told) == 1
    assert set(rejects["stage"]) == {"ract"}
    assert broken["id"] not in set(labels(place)["id"])
    assert report.rejected[str(told["reason"].iloc[0])] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data_sets": CONFIG.data_sets[:1]}, "two at least"),
        ({"data_sets": (CONFIG.data_sets[0],) * 2}, "a name of its own"),
        ({"reader": "none"}, "reader must name one of the data sets, blurred, noisy"),
        ({"trained": ("decoder",)}, "what reads for them stays"),
        ({"trained": ()}, "trained must name"),
        ({"splits": ()}, "every data set have sources"),
        ({"training": dataclasses.replace(TRAINING, engine="zero1")}, "one process"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        changed(**values)
