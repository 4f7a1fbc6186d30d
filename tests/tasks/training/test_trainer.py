"""The loop on a model small enough to follow by hand."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tasks.errors import StageError
from tasks.training.callbacks import Checkpoint, Progress, Speed
from tasks.training.trainer import Callback, StepRecord, Trainer, TrainingConfig, history_rows, learning_rate

CONFIG = TrainingConfig(
    engine="single", seed=3, threads=1, precision="float32", steps=20, batch_examples=6, micro_batches=1,
    learning_rate=0.05, weight_decay=0.05, warm_up_share=0.2, clip_norm=1.0, checkpoint_every=7,
)  # fmt: skip


@dataclass(frozen=True)
class Points:
    x_N2: Tensor
    y_N: Tensor
    example_ids: list[str]
    encodes: bool = False


class Line:
    """Points on a noisy line, drawn by the step's number; ``poison`` makes one example infinite."""

    def __init__(self, config: TrainingConfig, poison: int | None = None) -> None:
        self._config, self._poison = config, poison

    def step(self, number: int) -> list[Points]:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(self._config.batch_examples, 2, generator=generator)
        y = x @ torch.tensor([1.0, -2.0]) + 0.5
        if number == self._poison:
            y[0] = torch.inf
        ids = [f"{number}-{i}" for i in range(len(x))]
        bounds = [round(k * len(x) / self._config.micro_batches) for k in range(self._config.micro_batches + 1)]
        return [Points(x[a:b], y[a:b], ids[a:b]) for a, b in itertools.pairwise(bounds)]


class Squares:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))

    def losses(self, batch: Points) -> dict[str, Tensor]:
        error = (self.model(batch.x_N2)[:, 0] - batch.y_N) ** 2
        half = len(error) // 2
        return {"left": error[:half], "right": error[half:]}


class StopError(Exception):
    pass


class StopAfter(Callback):
    def __init__(self, step: int) -> None:
        self._step = step

    def after_step(self, trainer: Trainer, record: StepRecord) -> None:
        if trainer.step == record.step + 1 == self._step + 1:
            raise StopError


def _run(
    config: TrainingConfig = CONFIG, callbacks: tuple = (), poison: int | None = None
) -> tuple[list[StepRecord], nn.Module]:
    objective = Squares()
    return Trainer(objective, Line(config, poison), config, callbacks).fit(), objective.model


def test_the_rate_rises_linearly_and_falls_as_a_cosine():
    config = dataclasses.replace(CONFIG, steps=100, warm_up_share=0.1, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[9] == pytest.approx(10 / 11)
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[99] < 0.001


def test_one_step_is_adamw_on_the_clipped_gradient():
    config = dataclasses.replace(CONFIG, steps=1, warm_up_share=0.0)
    history, model = _run(config)
    reference = Squares()
    (batch,) = Line(config).step(0)
    parameters = list(reference.model.parameters())
    loss = torch.cat(list(reference.losses(batch).values())).mean()
    loss.backward()
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in parameters if p.grad is not None))
    assert history[0].loss == pytest.approx(loss.item(), rel=1e-6)
    assert history[0].grad_norm == pytest.approx(norm, rel=1e-6)
    for parameter, trained in zip(parameters, model.parameters(), strict=True):
        assert parameter.grad is not None
        gradient = parameter.grad * min(1.0, 1.0 / norm)
        decay = 0.05 if parameter.ndim >= 2 else 0.0
        expected = parameter * (1 - 0.05 * decay) - 0.05 * gradient / (gradient.abs() + 1e-8)  # first AdamW step
        assert torch.allclose(trained, expected, atol=1e-6)


def test_the_same_seed_gives_the_same_curve_and_training_learns():
    first, second = _run()[0], _run()[0]
    assert first == second
    longer = _run(dataclasses.replace(CONFIG, steps=300))[0]
    assert sum(record.loss for record in longer[-10:]) < 0.2 * sum(record.loss for record in longer[:10])


@pytest.mark.parametrize("parts", [2, 3])
def test_micro_batches_leave_the_gradient_as_it_is(parts: int):
    whole, split = _run()[0], _run(dataclasses.replace(CONFIG, micro_batches=parts))[0]
    for a, b in zip(whole, split, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-4)
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_with_the_steps_examples_and_changes_nothing():
    objective = Squares()
    trainer = Trainer(objective, Line(CONFIG, poison=5), CONFIG, (StopAfter(4),))
    with pytest.raises(StopError):
        trainer.fit()
    before = [parameter.clone() for parameter in objective.model.parameters()]
    with pytest.raises(StageError, match=r"step 5: loss inf.*5-0, 5-1"):
        trainer.fit()
    assert trainer.step == len(trainer.history) == 5
    assert all(torch.equal(a, b) for a, b in zip(before, objective.model.parameters(), strict=True))


def test_a_run_with_everything_frozen_is_refused():
    objective = Squares()
    objective.model.requires_grad_(False)
    with pytest.raises(StageError, match="nothing is left to train"):
        Trainer(objective, Line(CONFIG), CONFIG)


def _interrupted(path: Path, at: int) -> None:
    with pytest.raises(StopError):
        _run(callbacks=(Checkpoint(path, CONFIG.checkpoint_every), StopAfter(at)))


@pytest.mark.parametrize("at", [3, 6, 12, 18])
def test_an_interrupted_run_continues_to_the_same_curve_and_weights(tmp_path: Path, at: int):
    path = tmp_path / "checkpoint.safetensors"
    _interrupted(path, at)
    assert path.is_file() == (at >= 6)
    resumed, model = _run(callbacks=(Checkpoint(path, CONFIG.checkpoint_every), Progress("test")))
    whole, reference = _run()
    assert resumed == whole
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    _interrupted(path, 12)
    other = dataclasses.replace(CONFIG, learning_rate=0.01)
    with pytest.raises(StageError, match="another training configuration"):
        _run(other, (Checkpoint(path, 7),))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    _interrupted(path, 12)
    objective = Squares()
    objective.model[0].requires_grad_(False)
    with pytest.raises(StageError, match="another model"):
        Trainer(objective, Line(CONFIG), CONFIG, (Checkpoint(path, 7),)).fit()


def test_speed_is_measured_beside_the_outputs(tmp_path: Path, read_json: Callable[[Path], dict]):
    _run(callbacks=(Speed(tmp_path / "speed.json"),))
    measured = read_json(tmp_path / "speed.json")
    assert measured["examples"] == 20 * 6
    assert measured["samples_per_s"] > 0


def test_history_rows_have_a_column_per_task_even_where_a_step_lacks_it():
    history = [StepRecord(0, 0.1, 1.0, 2.0, 4, {"pair": 1.0}), StepRecord(1, 0.1, 0.5, 2.0, 4, {"single": 0.5})]
    rows = history_rows(history)
    assert rows[0]["loss_pair"] == 1.0
    assert rows[0]["loss_single"] is None
    assert rows[1]["loss_single"] == 0.5
    assert [row["step"] for row in rows] == [0, 1]
    assert "task_losses" not in rows[0]


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"warm_up_share": 1.0}, {"learning_rate": 0.0}, {"clip_norm": -1.0}, {"micro_batches": 0}]
)
def test_impossible_configurations_are_refused(change: dict):
    with pytest.raises(ValueError, match="must"):
        dataclasses.replace(CONFIG, **change)
