"""What happens around the training loop: checkpoints, progress, speed."""

import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from tasks.errors import StageError
from tasks.shards import write_json
from tasks.training.cost import StepCost
from tasks.training.trainer import Callback, StepRecord, Trainer

log = logging.getLogger(__name__)

_HISTORY: Final = "history."
_TASK: Final = "task_losses."
_PLAIN_FIELDS: Final = tuple(field.name for field in dataclasses.fields(StepRecord) if field.name != "task_losses")


class Checkpoint(Callback):
    """Keep one file from which a killed run continues: weights, optimizer, data position, history.

    The file appears whole or not at all; it is safetensors, so reading it runs no code. It holds whole tensors by
    parameter name, whatever the engine and the number of processes, so a run may continue under others.
    """

    everywhere = True

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
            if values["config"] != trainer.config.lasting():
                msg = f"{self._path.name} was written under another training configuration: delete {self._path}"
                raise StageError(msg)
            state = _Stored(file)
            trainer.engine.restore(state)
            trainer.history[:] = _history_of(state)
        trainer.step = values["step"]
        if trainer.group.leads:
            log.info("continuing after step %d of %d", trainer.step, trainer.config.steps)

    def after_step(self, trainer: Trainer[Any], record: StepRecord) -> None:
        """Write the file every few steps, and after the last."""
        if (record.step + 1) % self._every == 0 or trainer.step == trainer.config.steps:
            self.save(trainer)

    def save(self, trainer: Trainer[Any]) -> None:
        """Write the file now; the other processes wait for the leader."""
        tensors = trainer.engine.tensors()
        trainer.group.led(lambda: self._write(tensors, trainer))

    def _write(self, tensors: dict[str, Tensor], trainer: Trainer[Any]) -> None:
        values = {"step": trainer.step, "config": trainer.config.lasting()}
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()} | _history_tensors(trainer.history)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        safetensors.torch.save_file(whole, temporary, metadata={"vital": json.dumps(values)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(self._path)


class _Stored(Mapping[str, Tensor]):
    """The tensors of an open checkpoint, each read when it is asked for: a whole one may be larger than the memory."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._names = frozenset(file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _history_tensors(history: Sequence[StepRecord]) -> dict[str, Tensor]:
    """A float64 column per field and task, NaN where a step lacks the task; a header could not hold long histories."""
    tasks = sorted({task for record in history for task in record.task_losses})
    columns = {name: [getattr(record, name) for record in history] for name in _PLAIN_FIELDS}
    columns |= {f"{_TASK}{task}": [r.task_losses.get(task, math.nan) for r in history] for task in tasks}
    return {f"{_HISTORY}{name}": torch.tensor(values, dtype=torch.float64) for name, values in columns.items()}


def _history_of(state: Mapping[str, Tensor]) -> list[StepRecord]:
    """Turn the columns of a checkpoint back into records."""
    columns = {n.removeprefix(_HISTORY): state[n].tolist() for n in sorted(state) if n.startswith(_HISTORY)}
    tasks = [name.removeprefix(_TASK) for name in columns if name.startswith(_TASK)]
    records = []
    for row in range(len(columns["step"])):
        losses = {task: columns[f"{_TASK}{task}"][row] for task in tasks}
        values = {name: columns[name][row] for name in _PLAIN_FIELDS}
        values |= {name: int(values[name]) for name in ("step", "examples")}
        records.append(StepRecord(**values, task_losses={t: v for t, v in losses.items() if not math.isnan(v)}))
    return records


class Progress(Callback):
    """A progress bar on stderr with the time left, the smoothed loss, examples per second and the MFU."""

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
        if self._bar is not None and trainer.cost is not None:
            figures = trainer.cost.figures()
            told = {"loss": f"{self._loss:.4f}", "samples/s": f"{figures['samples_per_s']:.1f}"}
            self._bar.set_postfix(told | {"MFU": f"{figures['mfu']:.1%}"}, refresh=False)
            self._bar.update()

    def end(self, trainer: Trainer[Any]) -> None:
        """Close the bar."""
        del trainer
        if self._bar is not None:
            self._bar.close()


class Speed(Callback):
    """Measure what the run costs; logged and kept beside the work, never among the outputs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started = 0.0
        self._costs: list[StepCost] = []

    def begin(self, trainer: Trainer[Any]) -> None:
        """Start the clock."""
        del trainer
        self._started, self._costs = time.perf_counter(), []

    def after_step(self, trainer: Trainer[Any], record: StepRecord) -> None:
        """Count."""
        del record
        if trainer.cost is not None:
            self._costs.append(trainer.cost)

    def end(self, trainer: Trainer[Any]) -> None:
        """Report the whole run, checkpoints and all; nothing if no step was left to do."""
        if not self._costs:
            return
        total = StepCost(
            seconds=time.perf_counter() - self._started,
            wait_s=math.fsum(cost.wait_s for cost in self._costs),
            examples=sum(cost.examples for cost in self._costs),
            tokens=sum(cost.tokens for cost in self._costs),
            flops=math.fsum(cost.flops for cost in self._costs),
            peak_bytes=max(cost.peak_bytes for cost in self._costs),
            peak_flops=self._costs[-1].peak_flops,
        )
        figures = total.figures()
        log.info(
            "%d samples in %.1f s by %d process(es) of engine %s: %.1f samples/s, %.0f tokens/s, MFU %.1f %% of %.3g "
            "FLOP/s, %.1f %% of the time waiting for data, %.2f GB memory at most",
            *(total.examples, total.seconds, trainer.group.size, trainer.config.engine, figures["samples_per_s"]),
            *(figures["tokens_per_s"], 100 * figures["mfu"], total.peak_flops, 100 * figures["data_wait_share"]),
            figures["peak_memory_gb"],
        )
        who = {"processes": trainer.group.size, "engine": trainer.config.engine}
        values = dataclasses.asdict(total) | figures | who
        write_json(self._path, {name: round(v, 6) if isinstance(v, float) else v for name, v in values.items()})
