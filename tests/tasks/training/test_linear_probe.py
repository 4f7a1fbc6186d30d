import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.probe_head import QualityProbe
from models.quality_lmm import QualityLMM, VisualFeatures
from models.vision_encoder import encoder_state
from tasks.errors import ConfigError, StageError
from tasks.pool import load_candidates, read_media
from tasks.prepared import decode_medium, prepare_medium
from tasks.records import OPINIONS, REJECTS
from tasks.shards import frame_of, read_table, write_table
from tasks.stage import Place, build_config
from tasks.training import linear_probe
from tasks.training.freezing import bits_of
from tasks.training.trainer import TrainingConfig
from tests.tasks.killed import Course, assert_kill_changes_no_byte

TRAINING = TrainingConfig(
    engine="single", seed=5, threads=1, precision="float32", steps=6, batch_examples=8, micro_batches=2,
    learning_rate=1e-2, weight_decay=0.05, warm_up_share=0.1, clip_norm=1.0, checkpoint_every=2, peak_flops=1e9,
)  # fmt: skip
CONFIG = linear_probe.Config(
    layers=(1, 2), width=16, readout="centres", control=True, max_examples=None, kept="float32", standardise=True,
    max_reject_share=0.1, training=TRAINING,
)  # fmt: skip


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_pretrained: Callable[[Path], None]) -> Place:
    write_pretrained(line)
    return place_for(line, "linear_probe")


def test_heads_learn_and_encoders_keep_their_bits(place: Place):
    report = linear_probe.run(CONFIG, place)
    pretrained = QualityLMM.from_pretrained(place.root / "artifacts" / "pretrain" / "model")
    base = QualityLMM.from_pretrained(place.root / "artifacts" / "base" / "small")
    start = torch.Generator().manual_seed(TRAINING.seed)
    for name, source in (("model", pretrained), ("control", base)):
        probe = QualityProbe.from_pretrained(place.out / name)
        assert bits_of(encoder_state(probe)) == bits_of(encoder_state(source))
        assert probe.spec == source.spec
        fresh = QualityProbe(source.image_encoder, source.motion_extractor, source.spec, (1, 2), 16)
        fresh.head.start_anew(start.manual_seed(TRAINING.seed))
        assert not torch.equal(probe.head.inner.weight, fresh.head.inner.weight)
        assert len(json.loads((place.out / name / "history.json").read_text())) == 6
        assert len(report.frozen_sha256[name]) == 64
    assert report.frozen_sha256["model"] != report.frozen_sha256["control"]
    assert (report.features, report.parameters) == (4 * 48 * 2 + 64, (448 * 16 + 16) + (16 * 5 + 5))
    assert report.loss_first["model"]["all"] == pytest.approx(np.log(5), abs=0.1)  # a new head knows nothing


def test_only_the_head_has_gradients_and_optimizer_state(place: Place):
    linear_probe.run(CONFIG, place)
    stored = load_file(place.work / "model" / "checkpoint.safetensors")
    names = {name for name in stored if name.startswith(("model.", "optimizer."))}
    parts = ("inner.weight", "inner.bias", "outer.weight", "outer.bias")
    assert {name for name in names if name.startswith("model.")} == {f"model.head.{part}" for part in parts}
    moments = {f"optimizer.{key}.head.{part}" for part in parts for key in ("exp_avg", "exp_avg_sq", "step")}
    assert {name for name in names if name.startswith("optimizer.")} == moments


def test_it_learns_from_opinions_of_the_training_contents_alone(place: Place):
    pool = load_candidates(place)
    opinions = read_table(place.root / "artifacts" / "score" / "opinions.parquet", OPINIONS)
    train = pool[pool["split"] == "train"]
    report = linear_probe.run(CONFIG, place)
    assert report.media == len(train) == 21
    assert report.contents == train["content_id"].nunique()
    mu = opinions.set_index("id").loc[train["id"], "mu"]
    wanted = np.histogram(mu, [0, 0.2, 0.4, 0.6, 0.8, 1.0])[0][::-1]
    assert list(report.levels.values()) == wanted.tolist()
    assert list(report.levels) == ["high", "good", "fair", "poor", "low"]
    assert read_table(place.out / "rejects.parquet", REJECTS).empty


def test_a_medium_of_the_best_quality_possible_is_learnt(place: Place):
    file = place.root / "artifacts" / "score" / "opinions.parquet"
    opinions = read_table(file, OPINIONS)
    write_table(file, OPINIONS, opinions.assign(mu=1.0))  # mos 100: the released code's label has no class
    report = linear_probe.run(dataclasses.replace(CONFIG, control=False), place)
    assert report.levels == {"high": 21, "good": 0, "fair": 0, "poor": 0, "low": 0}
    assert not (place.out / "control").exists()


def test_a_long_training_learns_its_own_media(place: Place):
    training = dataclasses.replace(TRAINING, steps=400, checkpoint_every=400, batch_examples=21, micro_batches=1)
    report = linear_probe.run(dataclasses.replace(CONFIG, control=False, training=training), place)
    assert report.loss_last["model"]["all"] < 0.6 * _entropy(report)


def _entropy(report: linear_probe.Report) -> float:
    """The least loss of a head that knows how often each level occurs and nothing else."""
    shares = np.array([count for count in report.levels.values() if count]) / report.media
    return float(-(shares * np.log(shares)).sum())


def test_features_with_a_large_common_mean_are_learnt_if_they_are_made_standard(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    own = QualityProbe.visual_features

    def far_from_0(self: QualityProbe, inputs: Any) -> list[VisualFeatures]:
        return [VisualFeatures(one.tiles_PSC + 30.0, one.motion_TM) for one in own(self, inputs)]

    monkeypatch.setattr(QualityProbe, "visual_features", far_from_0)
    training = dataclasses.replace(TRAINING, steps=120, checkpoint_every=120, batch_examples=21, micro_batches=1)
    config = dataclasses.replace(CONFIG, control=False, training=training)
    raw = linear_probe.run(dataclasses.replace(config, standardise=False), place)
    other = Place(place.root, place.work / "standard", place.work / "standard" / "out")
    standard = linear_probe.run(config, other)
    assert raw.loss_last["model"]["all"] > 0.9 * _entropy(raw)
    assert standard.loss_last["model"]["all"] < 0.3 * _entropy(standard)
    assert standard.parameters == raw.parameters


def test_the_published_head_says_of_raw_features_what_the_trained_one_says_of_standard_ones(place: Place):
    linear_probe.run(CONFIG, place)
    pool = load_candidates(place)
    for name in ("model", "control"):
        probe = QualityProbe.from_pretrained(place.out / name)
        media = [
            prepare_medium(decode_medium(read_media(place, row), row["modality"], probe.spec), probe.spec)
            for _, row in pool[pool["split"] == "train"].iterrows()
        ]
        raw_NF = probe.gathered(probe.visual_features(media))
        deviation_F = raw_NF.double().std(dim=0, unbiased=False)
        floor = 0.01 * float((deviation_F**2).mean() ** 0.5)
        standard_NF = (raw_NF.double() - raw_NF.double().mean(dim=0)) / deviation_F.clamp(min=floor)
        kept = load_file(place.work / name / "checkpoint.safetensors")
        w1, b1, w2, b2 = (
            kept[f"model.head.{part}"].double() for part in ("inner.weight", "inner.bias", "outer.weight", "outer.bias")
        )
        trained_N5 = (standard_NF @ w1.T + b1) @ w2.T + b2
        with torch.no_grad():
            published_N5 = probe(raw_NF).double()
        assert float(trained_N5.std()) > 1e-3
        assert torch.allclose(published_N5, trained_N5, atol=1e-5)


def test_without_opinions_there_is_nothing_to_learn(place: Place):
    write_table(place.root / "artifacts" / "score" / "opinions.parquet", OPINIONS, frame_of(OPINIONS, []))
    with pytest.raises(StageError, match="no medium of the split train has an opinion"):
        linear_probe.run(CONFIG, place)


def test_every_medium_is_shown_once_before_any_again():
    config = dataclasses.replace(TRAINING, batch_examples=7)

    class Rows:
        ids = [f"m{n}" for n in range(21)]  # noqa: RUF012 - stands in for an attribute

        def __len__(self) -> int:
            return len(self.ids)

        def rows(self, numbers: list[int]) -> torch.Tensor:
            return torch.tensor(numbers)[:, None].float()

    rows: Any = Rows()
    batches = linear_probe.ProbeBatches(linear_probe.Samples(rows, np.arange(21) % 5), config)
    for part in batches.step(4):
        numbers = [Rows.ids.index(name) for name in part.example_ids]
        assert part.pooled_NF[:, 0].tolist() == numbers
        assert part.class_N.tolist() == [number % 5 for number in numbers]
    epochs = [[name for step in steps for part in batches.step(step) for name in part.example_ids]
              for steps in (range(3), range(3, 6))]  # fmt: skip
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(Rows.ids)
    assert epochs[0] != epochs[1]
    assert len(batches.step(0)) == 2


def test_a_bound_is_kept_and_nothing_else_is_encoded(place: Place):
    report = linear_probe.run(dataclasses.replace(CONFIG, max_examples=9), place)
    assert report.media == sum(report.levels.values()) == 9
    assert next((place.work / "features").iterdir()).stat().st_size < 9 * 448 * 4 * 2 + 4096


@pytest.mark.parametrize("layers", [[], [0, 1], [1, 1]])
def test_layers_are_different_and_counted_from_one(layers: list[int]):
    values = dataclasses.asdict(CONFIG) | {"layers": layers}
    with pytest.raises(ConfigError, match="layers must name different layers"):
        build_config(linear_probe.Config, "linear_probe", values)


def test_a_bound_of_no_medium_is_refused():
    with pytest.raises(ConfigError, match="max_examples must be at least 1, or null"):
        build_config(linear_probe.Config, "linear_probe", dataclasses.asdict(CONFIG) | {"max_examples": 0})


@pytest.mark.long  # the default suite kills pretrain, whose course these stages share
def test_a_run_killed_in_training_ends_with_the_same_bytes(place: Place, tmp_path: Path):
    shutil.rmtree(place.root / ".work")
    training = dataclasses.replace(TRAINING, steps=120, checkpoint_every=5)
    params = dataclasses.asdict(dataclasses.replace(CONFIG, training=training))
    deps = ("collect", "distort", "score", "base", "pretrain")
    course = Course("linear_probe", params, deps, "model/checkpoint.safetensors", "control/history.json")
    assert_kill_changes_no_byte(place.root, tmp_path / "whole", course)
