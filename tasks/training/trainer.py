"""One training loop for every stage that trains: a page long, everything else is a callback.

A step draws its examples from the step's *number* alone, so the data position is the step, and a run that was killed
continues to the same loss curve. What differs between machines (one process, later ZeRO on many) is the engine.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from tasks.errors import StageError

_NO_DECAY_BELOW = 2
"""Vectors (biases, norms, layer scales) are not decayed, as in the authors' trainer."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained; every number changes the result (VITAL section 4, implementation details).

    Attributes:
        engine: what runs a step; ``single`` is one process.
        threads: CPU threads; they order the sums, so they belong to the result.
        precision: ``bfloat16`` computes under autocast; weights and optimizer stay float32.
        steps: optimizer steps.
        batch_examples: examples per step; a pair is one example with two media.
        micro_batches: parts that a step's examples are computed in, to bound memory; the gradient is the same.
        warm_up_share: share of the steps over which the rate rises linearly; it then falls as a cosine to 0.
        clip_norm: bound on the gradient's global L2 norm.
        checkpoint_every: steps between checkpoints.
    """

    engine: Literal["single"]
    seed: int
    threads: int
    precision: Literal["float32", "bfloat16"]
    steps: int
    batch_examples: int
    micro_batches: int
    learning_rate: float
    weight_decay: float
    warm_up_share: float
    clip_norm: float
    checkpoint_every: int

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("threads", "steps", "batch_examples", "micro_batches", "checkpoint_every"):
            if getattr(self, name) < 1:
                msg = f"{name} must be at least 1"
                raise ValueError(msg)
        if not 0.0 <= self.warm_up_share < 1.0:
            raise ValueError("warm_up_share must lie in [0, 1)")
        if self.learning_rate <= 0.0 or self.clip_norm <= 0.0:
            raise ValueError("learning_rate and clip_norm must be positive")


class TrainingBatch(Protocol):
    """What the loop needs to know of a batch."""

    @property
    def example_ids(self) -> Sequence[str]:
        """The examples it holds."""
        ...


B = TypeVar("B", bound=TrainingBatch)
B_co = TypeVar("B_co", bound=TrainingBatch, covariant=True)
B_contra = TypeVar("B_contra", bound=TrainingBatch, contravariant=True)


class Batches(Protocol[B_co]):
    """Examples of each step, a pure function of the step's number."""

    def step(self, number: int) -> Sequence[B_co]:
        """Micro-batches of one step."""
        ...


class Objective(Protocol[B_contra]):
    """A model with its losses."""

    @property
    def model(self) -> nn.Module:
        """The network; its parameters that require a gradient are trained."""
        ...

    def losses(self, batch: B_contra) -> dict[str, Tensor]:
        """Per task, the losses ``[examples]`` of the batch's examples."""
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
    """What happens around the loop; every method may be left out."""

    def begin(self, trainer: "Trainer[Any]") -> None:
        """Before the first step; may restore ``trainer`` to a later one."""

    def after_step(self, trainer: "Trainer[Any]", record: StepRecord) -> None:
        """After each optimizer step."""

    def end(self, trainer: "Trainer[Any]") -> None:
        """After the last step."""


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Rate of step ``step`` (from 0): linear over the warm-up share, then a cosine that would reach 0 at ``steps``."""
    rising = round(config.warm_up_share * config.steps)
    if step < rising:
        return config.learning_rate * (step + 1) / (rising + 1)
    done = (step - rising) / max(1, config.steps - rising)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


class SingleEngine:
    """One process: autocast, backward, clipping, AdamW (betas .9 and .999, VITAL's training scripts)."""

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        self._config = config
        self.trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
        if not self.trained:
            raise StageError("nothing is left to train: every parameter is frozen")
        self._buffers = dict(model.named_buffers())
        decayed = [p for p in self.trained.values() if p.ndim >= _NO_DECAY_BELOW]
        plain = [p for p in self.trained.values() if p.ndim < _NO_DECAY_BELOW]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=config.learning_rate)

    def autocast(self) -> torch.autocast:
        """Context of the forward pass."""
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._config.precision == "bfloat16")

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one micro-batch's share of the step's loss."""
        loss.backward()

    def update(self, rate: float, *, valid: bool) -> float:
        """Clip and apply the step's gradient; returns its norm before clipping. ``valid`` False applies nothing."""
        norm = float(nn.utils.clip_grad_norm_(list(self.trained.values()), self._config.clip_norm))
        if valid and math.isfinite(norm):
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """Trained weights, buffers and optimizer moments by name; what a checkpoint has to keep."""
        state = {f"model.{name}": tensor.detach() for name, tensor in self.trained.items()}
        state |= {f"buffer.{name}": tensor for name, tensor in self._buffers.items()}
        for name, parameter in self.trained.items():
            for key, value in self._optimizer.state[parameter].items():
                state[f"optimizer.{key}.{name}"] = value
        return state

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what :meth:`tensors` gave.

        Raises:
            StageError: the tensors belong to another model.
        """
        expected = {f"model.{name}" for name in self.trained}
        if {name for name in state if name.startswith("model.")} != expected:
            raise StageError("the checkpoint belongs to another model or another choice of frozen parts")
        for name, parameter in self.trained.items():
            parameter.copy_(state[f"model.{name}"])
            self._optimizer.state[parameter] = {
                key: state[f"optimizer.{key}.{name}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{key}.{name}" in state
            }
        for name, buffer in self._buffers.items():
            buffer.copy_(state[f"buffer.{name}"])


@dataclass
class Trainer(Generic[B]):
    """The loop. ``step`` counts finished optimizer steps; ``history`` holds a record for each."""

    objective: Objective[B]
    batches: Batches[B]
    config: TrainingConfig
    callbacks: Sequence[Callback] = ()
    step: int = 0
    history: list[StepRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Seed and build the engine."""
        torch.set_num_threads(self.config.threads)
        torch.manual_seed(self.config.seed)
        self.engine = SingleEngine(self.objective.model, self.config)

    def fit(self) -> list[StepRecord]:
        """Train to the last step and return the history.

        Raises:
            StageError: a loss or gradient is not finite; the message names the step's examples.
        """
        for callback in self.callbacks:
            callback.begin(self)
        while self.step < self.config.steps:
            record = self._train_step()
            self.step += 1
            self.history.append(record)
            for callback in self.callbacks:
                callback.after_step(self, record)
        for callback in self.callbacks:
            callback.end(self)
        return self.history

    def _train_step(self) -> StepRecord:
        micro_batches = self.batches.step(self.step)
        examples = sum(len(batch.example_ids) for batch in micro_batches)
        sums: dict[str, list[float]] = {}
        for batch in micro_batches:
            with self.engine.autocast():
                losses = self.objective.losses(batch)
            self.engine.backward(torch.cat(list(losses.values())).sum() / examples)
            for task, values in losses.items():
                sums.setdefault(task, []).extend(values.detach().tolist())
        means = {task: math.fsum(values) / len(values) for task, values in sorted(sums.items())}
        total = math.fsum(value for values in sums.values() for value in values) / examples
        rate = learning_rate(self.step, self.config)
        norm = self.engine.update(rate, valid=math.isfinite(total))
        if not (math.isfinite(total) and math.isfinite(norm)):
            ids = [example for batch in micro_batches for example in batch.example_ids]
            msg = f"step {self.step}: loss {total}, gradient norm {norm}; the step's examples are {', '.join(ids)}"
            raise StageError(msg)
        return StepRecord(self.step, rate, total, norm, examples, means)


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
