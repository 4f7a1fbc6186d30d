"""What happens around the training loop: checkpoints, progress, speed."""

import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from tqdm import tqdm

from tasks.errors import StageError
from tasks.shards import atomic, write_json
from tasks.training.trainer import Callback, StepRecord, Trainer

log = logging.getLogger(__name__)

_RANDOM: Final = "random.torch"


class Checkpoint(Callback):
    """Keep one file from which a killed run continues: weights, optimizer, random state, data position, history.

    The file appears whole or not at all; it is safetensors, so reading it runs no code.
    """

    def __init__(self, path: Path, every: int) -> None:
        self._path, self._every = path, every

    def begin(self, trainer: Trainer[Any]) -> None:
        """Continue from the file if there is one.

        Raises:
            StageError: the file was written under another configuration, or for another model.
        """
        if not self._path.is_file():
            return
        with safetensors.safe_open(self._path, framework="pt") as file:
            values = json.loads(file.metadata()["vital"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if values["config"] != dataclasses.asdict(trainer.config):
            msg = f"{self._path.name} was written under another training configuration: delete {self._path}"
            raise StageError(msg)
        torch.set_rng_state(state.pop(_RANDOM))
        trainer.engine.restore(state)
        trainer.step = values["step"]
        trainer.history[:] = [StepRecord(**record) for record in values["history"]]
        log.info("continuing after step %d of %d", trainer.step, trainer.config.steps)

    def after_step(self, trainer: Trainer[Any], record: StepRecord) -> None:
        """Write the file every few steps, and after the last."""
        if (record.step + 1) % self._every == 0 or trainer.step == trainer.config.steps:
            self.save(trainer)

    def save(self, trainer: Trainer[Any]) -> None:
        """Write the file now."""
        values = {
            "step": trainer.step,
            "config": dataclasses.asdict(trainer.config),
            "history": [dataclasses.asdict(record) for record in trainer.history],
        }
        tensors = {name: tensor.contiguous() for name, tensor in trainer.engine.tensors().items()}
        tensors[_RANDOM] = torch.get_rng_state()
        with atomic(self._path) as file:
            file.write(safetensors.torch.save(tensors, metadata={"vital": json.dumps(values)}))


class Progress(Callback):
    """A progress bar on stderr with the time left, the smoothed loss and examples per second."""

    def __init__(self, description: str, smoothing: float = 0.05) -> None:
        self._description, self._smoothing = description, smoothing
        self._bar: tqdm[Any] | None = None
        self._loss = 0.0

    def begin(self, trainer: Trainer[Any]) -> None:
        """Open the bar where the run stands."""
        steps = trainer.config.steps
        self._bar = tqdm(total=steps, initial=trainer.step, desc=self._description, unit="step", mininterval=1.0)

    def after_step(self, trainer: Trainer[Any], record: StepRecord) -> None:
        """Move the bar."""
        first = trainer.step == 1 or self._loss == 0.0
        self._loss = record.loss if first else self._loss + self._smoothing * (record.loss - self._loss)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{self._loss:.4f}", refresh=False)
            self._bar.update()

    def end(self, trainer: Trainer[Any]) -> None:
        """Close the bar."""
        del trainer
        if self._bar is not None:
            self._bar.close()


class Speed(Callback):
    """Measure examples per second; logged and kept beside the work, never among the outputs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started, self._examples = 0.0, 0

    def begin(self, trainer: Trainer[Any]) -> None:
        """Start the clock."""
        del trainer
        self._started, self._examples = time.monotonic(), 0

    def after_step(self, trainer: Trainer[Any], record: StepRecord) -> None:
        """Count."""
        del trainer
        self._examples += record.examples

    def end(self, trainer: Trainer[Any]) -> None:
        """Report."""
        del trainer
        seconds = time.monotonic() - self._started
        rate = self._examples / seconds if seconds > 0 else 0.0
        log.info("%d examples in %.1f s: %.1f examples/s", self._examples, seconds, rate)
        write_json(
            self._path, {"examples": self._examples, "seconds": round(seconds, 3), "examples_per_s": round(rate, 2)}
        )
