import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.quality_lmm import QualityLMM
from models.vision_encoder import encoder_state
from tasks.errors import StageError
from tasks.records import Split, Task
from tasks.stage import Place
from tasks.training import warm_up
from tasks.training.batches import BatchConfig
from tasks.training.examples import Example
from tasks.training.objective import LossConfig
from tasks.training.trainer import TrainingConfig

LOSSES = LossConfig(
    head="fused", level_space="levels", prefix_weight=0.01, prefix_tokens="before_level", pair="thurstone",
    pair_scale=5.0, davidson_tie=1.0, pair_level_weight=0.0, pair_prefix_weight=0.0, text="focal", focal_alpha=1.0,
    focal_beta=2.0,
)  # fmt: skip
TRAINING = TrainingConfig(
    engine="single", seed=5, threads=1, precision="float32", steps=4, batch_examples=4, micro_batches=1,
    learning_rate=1e-3, weight_decay=0.05, warm_up_share=0.1, clip_norm=1.0, checkpoint_every=2,
)  # fmt: skip
CONFIG = warm_up.Config(
    decoders=("small", "large"),
    control=True,
    train_projectors=True,
    max_examples=4000,
    sample_share=0.1,
    max_reject_share=0.1,
    batches=BatchConfig(order="companions", grouping="dealt", normalise="examples"),
    losses=LOSSES,
    training=TRAINING,
)
SHARES = {"single": 0.5, "pair": 0.25, "distortion": 0.25}


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_pretrained: Callable[[Path], None]) -> Place:
    write_pretrained(line)
    return place_for(line, "warm_up")


def _parts(model: QualityLMM) -> dict[str, dict[str, torch.Tensor]]:
    names = ("projector", "motion_projector", "language_model")
    return {name: getattr(model, name).state_dict() for name in names} | {"encoder": encoder_state(model)}


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("projectors", [True, False])
def test_zero_is_the_swap_alone_and_warm_up_moves_the_decoder_alone(place: Place, projectors: bool):  # noqa: FBT001
    report = warm_up.run(dataclasses.replace(CONFIG, train_projectors=projectors), place)
    vital = _parts(QualityLMM.from_pretrained(place.root / "artifacts" / "pretrain" / "model"))
    for decoder in CONFIG.decoders:
        base = _parts(QualityLMM.from_pretrained(place.root / "artifacts" / "base" / decoder))
        zero, warm, control = (
            _parts(QualityLMM.from_pretrained(place.out / decoder / name)) for name in ("zero", "warm", "control")
        )
        assert _same(zero["encoder"], vital["encoder"])
        assert all(_same(zero[name], base[name]) for name in base if name != "encoder")
        assert _same(warm["encoder"], vital["encoder"])
        assert _same(control["encoder"], base["encoder"])
        assert not _same(warm["language_model"], base["language_model"])
        assert _same(warm["projector"], base["projector"]) is not projectors
        assert _same(warm["motion_projector"], base["motion_projector"]) is not projectors
        assert not _same(warm["language_model"], control["language_model"])
        assert (place.out / decoder / "warm" / "history.json").is_file()
    assert set(report.frozen_sha256) == {f"{v}-{d}" for v in ("warm", "control") for d in CONFIG.decoders}
    assert report.contents <= 3


def test_the_warm_up_asks_as_pre_training_did_and_so_does_its_control(place: Place):
    folder = place.root / "artifacts" / "pretrain" / "model"
    model = QualityLMM.from_pretrained(folder)
    model.question = "asked"
    model.save_pretrained(folder)
    warm_up.run(dataclasses.replace(CONFIG, decoders=("large",)), place)
    styles = {
        name: QualityLMM.from_pretrained(place.out / "large" / name).question for name in ("zero", "warm", "control")
    }
    assert styles == dict.fromkeys(styles, "asked")


def test_the_sample_is_a_share_of_pre_training_in_its_task_shares(place: Place):
    # The pre-training recipe of the fixture counts 120 examples, a sixth of which is 20.
    config = dataclasses.replace(CONFIG, decoders=("small",), control=False, sample_share=1 / 6)
    report = warm_up.run(config, place)
    assert report.examples == {"distortion": 5, "pair": 5, "single": 10}
    assert set(report.loss_last) == {"warm-small"}
    assert not (place.out / "small" / "control").exists()


def test_a_finished_decoder_is_not_trained_again(place: Place, monkeypatch: pytest.MonkeyPatch):
    first = warm_up.run(CONFIG, place)

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(warm_up, "fit", never)
    assert warm_up.run(CONFIG, place) == first


def test_a_decoder_on_another_encoder_is_refused(place: Place):
    folder = place.root / "artifacts" / "base" / "large"
    model = QualityLMM.from_pretrained(folder)
    with torch.no_grad():
        next(model.image_encoder.parameters()).view(-1)[0].add_(1.0)
    model.save_pretrained(folder)
    with pytest.raises(StageError, match="decoder large does not stand on"):
        warm_up.run(CONFIG, place)


def _examples(counts: dict[str, int]) -> list[Example]:
    return [
        Example(f"{task}{i}", Task(task), Split.WARM_UP, (f"m{i}",), ("x",), np.zeros((0, 5)), float("nan"))
        for task, count in counts.items()
        for i in range(count)
    ]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(1, 200))
def test_a_sample_keeps_every_tasks_share(single: int, pair: int, distortion: int, wanted: int):
    examples = _examples({"single": single, "pair": pair, "distortion": distortion})
    sample = warm_up.keep_distribution(examples, SHARES, wanted, 3)
    scale = min(wanted, single / 0.5, pair / 0.25, distortion / 0.25)
    for task, share in SHARES.items():
        count = sum(example.task == task for example in sample)
        assert abs(count - scale * share) <= 0.5 or count == 1
    assert len({example.example_id for example in sample}) == len(sample)
    assert sample == warm_up.keep_distribution(list(examples), SHARES, wanted, 3)


def test_an_empty_sample_is_an_error():
    with pytest.raises(StageError, match="empty"):
        warm_up.keep_distribution(_examples({"single": 4, "pair": 4, "distortion": 4}), SHARES, 0, 3)
