"""One training loop for every stage that trains: a page long, everything else is a callback.

A step draws its examples from the step's *number* alone, so the data position is the step, and a run that was killed
continues to the same loss curve. Processes take its micro-batches in turn, and each loss is divided by the number of
examples of the whole step, so that any number of processes trains to the same curve, up to the order of sums. What
differs between machines (one process, ZeRO on many) is the engine.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from tasks import group
from tasks.errors import StageError
from tasks.training.config import TrainingConfig, learning_rate
from tasks.training.cost import CostMeter, Share, StepCost, peak_flops
from tasks.training.engine import Objective, TrainingBatch, build_engine, device_of, recomputed

B = TypeVar("B", bound=TrainingBatch)
B_co = TypeVar("B_co", bound=TrainingBatch, covariant=True)


class Batches(Protocol[B_co]):
    """Examples of each step, a pure function of the step's number; in every step some process has some."""

    def step(self, number: int) -> Sequence[B_co]:
        """This process's micro-batches of one step; all processes ask for the same steps."""
        ...


@dataclass(frozen=True)
class StepRecord:
    """What one step measured; ``task_losses`` are means over the step's examples of each task."""

    step: int
    learning_rate: float
    loss: float
    grad_norm: float
    examples: int
    task_losses: dict[str, float]


class Callback:
    """What happens around the loop; every method may be left out.

    Attributes:
        everywhere: whether all processes do it; otherwise the leader alone.
    """

    everywhere = False

    def begin(self, trainer: "Trainer[Any]") -> None:
        """Before the first step; may restore ``trainer`` to a later one."""

    def after_step(self, trainer: "Trainer[Any]", record: StepRecord) -> None:
        """After each optimizer step."""

    def end(self, trainer: "Trainer[Any]") -> None:
        """After the last step."""


_Told = tuple[int, int, dict[str, list[float]]]
"""Place of a micro-batch in its step, number of its examples, and their losses per task."""


@dataclass(frozen=True)
class _Size:
    """What processes tell each other about a micro-batch before they compute it."""

    examples: int
    encodes: bool


@dataclass(frozen=True)
class _Computed:
    """A micro-batch and what became of it; see ``_Told``."""

    number: int
    examples: int
    losses: dict[str, Tensor]

    def told(self) -> _Told:
        return self.number, self.examples, {task: values.tolist() for task, values in self.losses.items()}


@dataclass
class Trainer(Generic[B]):
    """The loop. ``step`` counts finished optimizer steps; ``history`` holds a record for each.

    Attributes:
        cost: what the last step cost.
    """

    objective: Objective[B]
    batches: Batches[B]
    config: TrainingConfig
    callbacks: Sequence[Callback] = ()
    step: int = 0
    history: list[StepRecord] = field(default_factory=list)
    cost: StepCost | None = None

    def __post_init__(self) -> None:
        """Build the engine."""
        torch.set_num_threads(self.config.threads)
        self.group = group.current()
        self.engine = build_engine(self.objective, self.config)

    def fit(self) -> list[StepRecord]:
        """Train to the last step and return the history.

        Raises:
            StageError: a loss or gradient is not finite; the message names the step's examples. Or the engine cannot
            compute the processes' micro-batches of a step together.
        """
        callbacks = [callback for callback in self.callbacks if callback.everywhere or self.group.leads]
        for callback in callbacks:
            callback.begin(self)
        if self.step < self.config.steps:
            model = self.objective.model
            with CostMeter(model, device_of(self.config)) as meter, recomputed(model, self.config.recompute):
                self._train(meter, callbacks)
        for callback in callbacks:
            callback.end(self)
        self.engine.close()
        return self.history

    def _train(self, meter: CostMeter, callbacks: Sequence[Callback]) -> None:
        peak = self._peak_flops()
        while self.step < self.config.steps:
            record, shares = self._train_step(meter)
            self.cost = StepCost.of(shares, record.examples, meter.seconds(), peak)
            self.step += 1
            self.history.append(record)
            for callback in callbacks:
                callback.after_step(self, record)

    def _peak_flops(self) -> float:
        """Peak of all processes; those that are measured are measured at the same time, as they will compute."""
        self.group.gather(None)
        config = self.config
        return sum(self.group.gather(config.peak_flops or peak_flops(device_of(config), config.precision)))

    def _train_step(self, meter: CostMeter) -> tuple[StepRecord, list[Share]]:
        meter.begin()
        batches = self.batches.step(self.step)
        meter.ready(sum(len(batch.example_ids) for batch in batches))
        everybodys = self.group.gather([_Size(len(batch.example_ids), batch.encodes) for batch in batches])
        rounds = _rounds(everybodys)
        self.engine.check([[size.encodes for size in turn] for turn in rounds])
        total = sum(size.examples for part in everybodys for size in part)
        spare = self._spare(batches, everybodys)
        computed = [self._compute(number, batch, total, meter) for number, batch in enumerate(batches)]
        for _ in rounds[len(batches) :]:  # every process computes as often, if need be nothing
            self._compute_nothing(spare)
        found = self.group.gather(([item.told() for item in computed], meter.share()))
        told = sorted(item for part, _ in found for item in part)
        return self._finish(total, told, batches), [share for _, share in found]

    def _compute(self, number: int, batch: B, total: int, meter: CostMeter) -> _Computed:
        """Add a micro-batch's gradient; chance, where a model has any, depends on step and micro-batch alone."""
        number = number * self.group.size + self.group.rank
        seed = np.random.SeedSequence([self.config.seed, self.step, number]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(seed))
        with meter.computing():
            losses = self.engine.forward(batch)
        with meter.computing(backward=True):
            self.engine.backward(total)
        return _Computed(number, len(batch.example_ids), losses)

    def _spare(self, batches: Sequence[B], everybodys: Sequence[Sequence[_Size]]) -> B:
        """What this process computes for company: its last micro-batch, or one that is lent to it if it has none."""
        own = batches[-1] if batches else None
        lent = own if all(everybodys) else self.group.sent(own, _lender(everybodys))
        return cast("B", lent if own is None else own)

    def _compute_nothing(self, spare: B) -> None:
        """Take part in what the others do together, with a gradient of zero."""
        self.engine.forward(spare)
        self.engine.backward(math.inf)

    def _finish(self, total: int, told: Sequence[_Told], batches: Sequence[B]) -> StepRecord:
        """Apply the gradient and record the step.

        Raises:
            StageError: loss or gradient is not finite, in all processes alike.
        """
        sums: dict[str, list[float]] = {}
        for _, _, losses in told:
            for task, values in losses.items():
                sums.setdefault(task, []).extend(values)
        means = {task: math.fsum(values) / len(values) for task, values in sorted(sums.items())}
        loss = math.fsum(value for values in sums.values() for value in values) / total
        rate = learning_rate(self.step, self.config)
        norm = self.engine.update(rate, valid=math.isfinite(loss))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            own = [example for batch in batches for example in batch.example_ids]
            ids = ", ".join(itertools.chain.from_iterable(self.group.gather(own)))
            msg = f"step {self.step}: loss {loss}, gradient norm {norm}; the step's examples are {ids}"
            raise StageError(msg)
        return StepRecord(self.step, rate, loss, norm, sum(count for _, count, _ in told), means)


def _lender(everybodys: Sequence[Sequence[_Size]]) -> int:
    """The process with most micro-batches: its last is lent to those that have none."""
    return max(range(len(everybodys)), key=lambda rank: len(everybodys[rank]))


def _rounds(everybodys: Sequence[Sequence[_Size]]) -> list[list[_Size]]:
    """What the processes compute at the same time, round by round; who has no more computes its spare."""
    lent = everybodys[_lender(everybodys)][-1:]
    parts = [part or lent for part in everybodys]
    return [[part[min(turn, len(part) - 1)] for part in parts] for turn in range(max(map(len, parts)))]


def history_rows(history: Sequence[StepRecord]) -> list[dict[str, float | int | None]]:
    """Rows for the published loss curve: one per step, one column per task; a task the step did not hold is None."""
    tasks = sorted({task for record in history for task in record.task_losses})
    return [
        {
            **{key: value for key, value in dataclasses.asdict(record).items() if key != "task_losses"},
            **{f"loss_{task}": record.task_losses.get(task) for task in tasks},
        }
        for record in history
    ]
