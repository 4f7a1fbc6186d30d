"""The three steps on planted media: what is told in texts and scores can be seen, so a student must find it."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import Qwen2Config, Qwen2Model

from models.rali.codebook import Recipe
from models.rali.head import BasisHead
from models.rali.image_towers import CompactTower
from models.rali.student import RaliStudent
from models.rali.text_towers import DecoderTextTower
from models.rali.views import TileView
from tasks.errors import StageError
from tasks.tiles import Tiles
from tasks.training.config import TrainingConfig
from tasks.training.rali_course import (
    AlignConfig,
    BuildConfig,
    FitConfig,
    Workshop,
    align,
    build,
    fit,
    spread,
    start_tower,
)
from tasks.training.rali_lessons import Lessons, Seen, Stacked, TileBatches, embedded, said_of

VIEW = TileView("fragments", 28, 28, 1)
TRAINING = TrainingConfig(
    engine="single", seed=1, threads=1, precision="float32", steps=150, batch_examples=32, micro_batches=1,
    learning_rate=4e-3, weight_decay=0.0, warm_up_share=0.05, clip_norm=1.0, checkpoint_every=100,
)  # fmt: skip
ALIGN = AlignConfig(True, 0.07, False, False, "masked", None)
BUILD = BuildConfig(True, 12, True, Recipe(24, 16, "buckets", 0))
FIT = FitConfig(True, 1.0, "basis", 300, 2e-2)
WORDS = ("clean", "a little noisy", "noisy", "very noisy")


class Planted(Tiles):
    """Noise of known strength on a grey of known lightness, the same at every visit."""

    versions = 1

    def __init__(self, levels: dict[str, tuple[int, float]]) -> None:
        self._levels = levels

    @property
    def ids(self) -> list[str]:
        return sorted(self._levels)

    def read(self, medium: str, visit: int = 0) -> torch.Tensor:
        del visit
        noise, light = self._levels[medium]
        rng = np.random.default_rng(int(medium[1:]))
        pixels = 255 * light + (2 + 14 * noise) * rng.standard_normal((2, 28, 28, 3))
        return torch.from_numpy(np.clip(pixels, 0, 255).astype(np.uint8))


class Letters:
    """A tokenizer of letters."""

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        assert not add_special_tokens
        return [ord(letter) % 64 for letter in text]


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    rng = np.random.default_rng(0)
    levels = {f"m{number}": (int(rng.integers(4)), float(rng.uniform(0.3, 0.7))) for number in range(128)}
    texts = {
        name: [f"{WORDS[noise]} and {'bright' if light > 0.5 else 'dark'}", f"it is {WORDS[noise]}"]
        for name, (noise, light) in levels.items()
    }
    scores = {name: 0.9 - 0.2 * noise - 0.05 * light for name, (noise, light) in levels.items()}
    seen = Seen(Planted(levels), CompactTower(VIEW, 16, 24))  # every compact tower measures the same
    return Workshop(tmp_path, tmp_path / "telemetry", seen, Lessons(texts, scores, 128), TRAINING)


def _towers(shop: Workshop) -> tuple[CompactTower, DecoderTextTower]:
    torch.manual_seed(0)
    tower = CompactTower(VIEW, 16, 24).eval()
    start_tower(tower, shop)
    config = Qwen2Config(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1)
    config.num_attention_heads = config.num_key_value_heads = 2
    tokenizer: Any = Letters()
    return tower, DecoderTextTower(Qwen2Model(config).eval(), tokenizer, "chunks", 64, 16)


def _student(shop: Workshop, tower: CompactTower, config: FitConfig = FIT) -> tuple[RaliStudent, dict[str, Any]]:
    head, _ = build(tower, shop, BUILD, config.tau)
    student = RaliStudent(tower, head, VIEW, 1)
    return student, fit(student, shop, config, shop.work / "out")


def test_alignment_finds_what_the_texts_say(shop: Workshop):
    tower, text = _towers(shop)
    frozen = {name: value.clone() for name, value in text.decoder.state_dict().items()}
    told = align(tower, text, shop, ALIGN, shop.work / "out")
    assert told["steps"] == 150
    assert told["loss_last"] < 0.5 * told["loss_first"]
    assert told["recall_at_1"] >= 0.9
    assert told["temperature"] == pytest.approx(0.07, abs=1e-6)
    assert told["lengths"].over == 0
    assert all(torch.equal(value, frozen[name]) for name, value in text.decoder.state_dict().items())


def test_the_temperature_learns_where_it_may(shop: Workshop):
    few = dataclasses.replace(shop, training=dataclasses.replace(TRAINING, steps=5))
    told = align(*_towers(shop), few, dataclasses.replace(ALIGN, learn_temperature=True), shop.work / "out")
    assert told["temperature"] != pytest.approx(0.07, abs=1e-6)


def test_a_finished_alignment_is_taken_back(shop: Workshop):
    few = dataclasses.replace(shop, training=dataclasses.replace(TRAINING, steps=3))
    tower, text = _towers(shop)
    first = align(tower, text, few, ALIGN, shop.work / "out")
    other, text = _towers(shop)
    second = align(other, text, few, ALIGN, shop.work / "out")
    assert {name: first[name] for name in ("loss_last", "recall_at_1")} == {
        name: second[name] for name in ("loss_last", "recall_at_1")
    }
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in tower.state_dict().items())


def test_tuning_brings_scores_to_their_range_and_keeps_them_in_order(shop: Workshop):
    tower, text = _towers(shop)
    align(tower, text, shop, ALIGN, shop.work / "out")
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    student, told = _student(shop, tower)
    assert told["before"]["std_ratio"] < 0.5  # Eq. 3 has no temperature
    assert 0.8 <= told["after"]["std_ratio"] <= 1.2
    assert told["after"]["srcc"] >= 0.9
    assert told["after"]["rmse"] < told["before"]["rmse"]
    assert all(torch.equal(value, before[name]) for name, value in student.tower.state_dict().items())


def test_scores_alone_can_train_the_tower_too(shop: Workshop):
    tower, _ = _towers(shop)
    before = tower.joint.weight.clone()
    student, told = _student(shop, tower, dataclasses.replace(FIT, trained="all", steps=60))
    assert not torch.equal(student.tower.state_dict()["joint.weight"], before)
    assert told["after"]["rmse"] < told["before"]["rmse"]


def test_without_tuning_equation_3_is_applied_as_it_is(shop: Workshop):
    tower, _ = _towers(shop)
    student, told = _student(shop, tower, dataclasses.replace(FIT, enabled=False))
    assert set(told) == {"before"}
    head, _ = build(tower, shop, BUILD, 1.0)
    assert all(torch.equal(value, student.head.state_dict()[name]) for name, value in head.state_dict().items())


def test_scores_that_hardly_leave_the_mean_are_warned_of(shop: Workshop, caplog: pytest.LogCaptureFixture):
    tower, _ = _towers(shop)
    untuned = dataclasses.replace(FIT, enabled=False)
    head, _ = build(tower, shop, dataclasses.replace(BUILD, recipe=Recipe(8, 4, "buckets", 0)), 8.0)
    told = fit(RaliStudent(tower, head, VIEW, 1), shop, untuned, shop.work / "out")
    assert told["before"]["std_ratio"] < 0.3  # the softer the weights, the nearer to the mean
    assert f"scores have {told['before']['std_ratio']:.2f} of the targets' standard deviation" in caplog.text
    caplog.clear()
    head, _ = build(tower, shop, BUILD, 0.02)
    told = fit(RaliStudent(tower, head, VIEW, 1), shop, untuned, shop.work / "out")
    assert told["before"]["std_ratio"] > 0.3
    assert not caplog.text


def test_the_head_is_made_of_the_towers_own_embeddings(shop: Workshop):
    tower, _ = _towers(shop)
    plain = dataclasses.replace(BUILD, compress=False)
    head, told = build(tower, shop, plain, 0.5)
    assert isinstance(head, BasisHead)
    assert torch.equal(head.get_buffer("components"), torch.eye(16))
    assert (told["explained"], head.tau) == (1.0, 0.5)
    media = sorted(shop.lessons.scores)
    rows = torch.nn.functional.normalize(embedded(tower, shop.seen, media, shop.device), dim=1)
    scores = torch.tensor([shop.lessons.scores[name] for name in media])
    lowest = scores <= head.scores[0] + 1e-3
    assert head.vectors[0].norm() <= 1.0 + 1e-5
    assert (rows[lowest] @ head.vectors[0]).min() > 0.0


def test_one_medium_with_a_text_is_not_enough(shop: Workshop):
    lonely = dataclasses.replace(shop, lessons=Lessons({"m0": ["dark"]}, {}, 1))
    with pytest.raises(StageError, match="two media with texts"):
        align(*_towers(shop), lonely, ALIGN, shop.work / "out")


def test_stacked_media_come_back_in_their_order():
    tiles = [torch.full((count, 2, 2, 3), number, dtype=torch.uint8) for number, count in enumerate((3, 1, 3, 2, 1))]
    stacked = Stacked.of(tiles)
    assert stacked.members == [[0, 2], [1, 4], [3]]
    tower: Any = SimpleNamespace(judge=lambda batch: batch.float().flatten(1).mean(dim=1, keepdim=True))
    assert stacked.through(tower, torch.device("cpu"))[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_tower_measures_a_medium_once(shop: Workshop):
    calls: list[int] = []
    tower = CompactTower(VIEW, 16, 24)
    measure = tower.measure
    tower.measure = lambda tiles: calls.append(len(tiles)) or measure(tiles)  # type: ignore[method-assign,func-returns-value]
    seen = Seen(shop.seen.tiles, tower)
    first = seen.read("m3", 0)
    assert torch.equal(seen.read("m3", 5), first)
    assert calls == [2]
    tiles = shop.seen.tiles.read("m3")[None]
    with torch.no_grad():
        assert torch.allclose(tower.judge(first[None]), tower(tiles), atol=1e-6)


def test_texts_of_a_medium_take_turns_and_every_medium_comes_once(shop: Workshop):
    batches = TileBatches(sorted(shop.lessons.texts), shop.seen, dataclasses.replace(TRAINING, batch_examples=64))
    steps = [batches.step(number)[0] for number in range(4)]
    assert sorted(steps[0].example_ids + steps[1].example_ids) == sorted(shop.lessons.texts)
    first = dict(zip(steps[0].example_ids, said_of(shop.lessons.texts, steps[0]), strict=True))
    later = [
        (name, text)
        for step in steps[2:]
        for name, text in zip(step.example_ids, said_of(shop.lessons.texts, step), strict=True)
        if name in first
    ]
    assert len(later) == 64
    assert all(text != first[name] for name, text in later)


def test_the_spread_of_scores():
    wanted = np.array([0.1, 0.5, 0.9, 0.4])
    found = np.array([0.4, 0.5, 0.6, 0.55])
    told = spread(found, wanted)
    assert told["std_ratio"] == pytest.approx(found.std() / wanted.std(), abs=1e-6)
    assert told["rmse"] == pytest.approx(((found - wanted) ** 2).mean() ** 0.5, abs=1e-6)
    assert told["srcc"] == pytest.approx(spearmanr(found, wanted).statistic, abs=1e-6)
    assert spread(np.full(4, 0.5), wanted)["srcc"] == 0.0
