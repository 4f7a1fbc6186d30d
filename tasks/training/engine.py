"""What runs a step of the training loop, by one protocol: one process here, DeepSpeed's ZeRO in ``zero_engine``."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from tasks import group
from tasks.errors import ConfigError, StageError
from tasks.training.config import Recompute, TrainingConfig

_NO_DECAY_BELOW: Final = 2
"""Vectors (biases, norms, layer scales) are not decayed, as in the authors' trainer."""
_LAYERED: Final = {"encoder": "image_encoder", "decoder": "language_model"}
"""Part with repeated layers -> the model's name for it."""
_RECOMPUTED: Final[dict[Recompute, tuple[str, ...]]] = {
    "none": (),
    "encoder": ("encoder",),
    "decoder": ("decoder",),
    "both": ("encoder", "decoder"),
}
MOMENTS: Final = ("exp_avg", "exp_avg_sq")
"""AdamW's running means, by torch's names."""


class TrainingBatch(Protocol):
    """What the loop needs to know of a batch."""

    @property
    def example_ids(self) -> Sequence[str]:
        """The examples it holds."""
        ...

    @property
    def encodes(self) -> bool:
        """Whether the encoder's layers run for it; those of the decoder always do."""
        ...


B_contra = TypeVar("B_contra", bound=TrainingBatch, contravariant=True)


class Objective(Protocol[B_contra]):
    """A model with its losses."""

    @property
    def model(self) -> nn.Module:
        """The network; its parameters that require a gradient are trained."""
        ...

    def losses(self, batch: B_contra) -> dict[str, Tensor]:
        """Per task, the losses ``[examples]`` of the batch's examples."""
        ...


class Engine(Protocol):
    """Computes gradients and applies them; every process of a group calls each method in the same order."""

    @property
    def trained(self) -> Mapping[str, nn.Parameter]:
        """The parameters that require a gradient, by name."""
        ...

    def check(self, rounds: Sequence[Sequence[bool]]) -> None:
        """Refuse micro-batches that the processes could not compute together, in all processes alike.

        Args:
            rounds: per round of a step, whether the encoder's layers run for the micro-batch of each process.

        Raises:
            StageError: they run in some processes of a round only, and the engine takes the processes for equal.
        """
        ...

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """The objective's losses of a micro-batch, detached, computed in the precision of the configuration."""
        ...

    def backward(self, divisor: float) -> None:
        """Add the gradient of the sum of the last losses, divided by ``divisor``; infinity adds zeros.

        What all processes add is one gradient.
        """
        ...

    def update(self, rate: float, *, valid: bool) -> float:
        """Clip and apply the step's gradient.

        Args:
            valid: False applies nothing; neither does a gradient that is not finite.

        Returns:
            The gradient's global norm before clipping.
        """
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Trained weights, buffers and moments by name, whole, whatever the engine: what a checkpoint has to keep.

        The leader gets all of them, other processes any part.
        """
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`tensors` of any engine gave.

        Raises:
            StageError: the tensors belong to another model.
        """
        ...

    def close(self) -> None:
        """Leave the model in the objective as a plain one with whole, trained weights."""
        ...


def build_engine(objective: Objective[Any], config: TrainingConfig) -> Engine:
    """The engine that the configuration names.

    Raises:
        StageError: every parameter is frozen.
    """
    if config.engine == "single":
        return SingleEngine(objective, config)
    from tasks.training.zero_engine import ZeroEngine  # noqa: PLC0415 - DeepSpeed takes seconds to import

    return ZeroEngine(objective, config)


def device_of(config: TrainingConfig) -> torch.device:
    """Where this process computes: its own GPU, or the CPU.

    Raises:
        ConfigError: there is no GPU for it.
    """
    if config.device == "cpu":
        return torch.device("cpu")
    here = group.current()
    if here.local_rank >= torch.cuda.device_count():
        msg = f"process {here.rank} has no GPU of its own: {gpus_told()}; lower training.processes, or device: cpu"
        raise ConfigError(msg)
    torch.cuda.set_device(here.local_rank)
    return torch.device("cuda", here.local_rank)


def wanted_processes(config: TrainingConfig) -> int:
    """Processes that the configuration asks for.

    Raises:
        ConfigError: this process would have to start more of them than there are GPUs.
    """
    alone = group.current().size == 1
    if alone and config.device == "cuda" and torch.cuda.device_count() < config.processes:
        msg = (
            f"training.processes is {config.processes} on device cuda, and {gpus_told()}: lower it, or start the stage "
            "with torchrun on several machines"
        )
        raise ConfigError(msg)
    return config.processes


def gpus_told() -> str:
    """How many GPUs this machine shows, in words."""
    count = torch.cuda.device_count()
    return f"this machine shows {count} GPU{'' if count == 1 else 's'}"


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that require a gradient, by name.

    Raises:
        StageError: there is none.
    """
    trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    if not trained:
        raise StageError("nothing is left to train: every parameter is frozen")
    return trained


def check_names(trained: Mapping[str, object], state: Iterable[str]) -> None:
    """Refuse a checkpoint of another model.

    Raises:
        StageError: the trained weights in ``state`` are not ``trained``.
    """
    if {name for name in state if name.startswith("model.")} != {f"model.{name}" for name in trained}:
        raise StageError("the checkpoint belongs to another model or another choice of frozen parts")


def build_optimizer(trained: Mapping[str, nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (betas .9 and .999, VITAL's training scripts); matrices are decayed, vectors are not."""
    decayed = [p for p in trained.values() if p.ndim >= _NO_DECAY_BELOW]
    plain = [p for p in trained.values() if p.ndim < _NO_DECAY_BELOW]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.learning_rate)


def autocast(config: TrainingConfig) -> torch.autocast:
    """Context of a forward pass."""
    return torch.autocast(config.device, dtype=torch.bfloat16, enabled=config.precision == "bfloat16")


def moved(value: Any, device: torch.device) -> Any:
    """A batch (dataclasses, lists, tuples and mappings of tensors and other things) with its tensors on ``device``.

    Tensors of a new batch are on the CPU, so for the CPU there is nothing to move.
    """
    if device.type == "cpu":
        return value
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: moved(getattr(value, f.name), device) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(moved(item, device) for item in value)
    return value


def repeated_layers(model: nn.Module, parts: Iterable[str] = ("encoder", "decoder")) -> list[nn.Module]:
    """The layers of a quality LMM's encoder and decoder: what transformers can recompute, and what ZeRO-3 spreads.

    Args:
        parts: those of them that are asked for. A model that is no quality LMM has what it calls by the same names.
    """
    owners = [getattr(model, _LAYERED[part], None) for part in parts]
    modules = [module for owner in owners if isinstance(owner, nn.Module) for module in owner.modules()]
    return [module for module in modules if isinstance(module, GradientCheckpointingLayer)]


@contextmanager
def recomputed(model: nn.Module, parts: Recompute) -> Iterator[None]:
    """Let repeated layers of a model keep their inputs alone and compute the rest anew in the backward pass.

    transformers recomputes layers in training mode only. The mode is set on the layers themselves and not on what is in
    them, so that nothing else (dropout, statistics) behaves otherwise than without.

    Raises:
        ConfigError: the model has no such layers.
    """
    layers: list[Any] = repeated_layers(model, _RECOMPUTED[parts])
    if not layers and parts != "none":
        msg = f"training.recompute is {parts}, and the model has no layers there that can be recomputed"
        raise ConfigError(msg)
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.training = layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = _recompute  # noqa: SLF001 - where transformers looks for it
    yield
    for layer, mode in zip(layers, modes, strict=True):
        layer.training, layer.gradient_checkpointing = mode, False


def _recompute(function: Any, *inputs: Any) -> Any:
    return checkpoint(function, *inputs, use_reentrant=False)


class SingleEngine:
    """One process: autocast, backward, clipping, AdamW."""

    def __init__(self, objective: Objective[Any], config: TrainingConfig) -> None:
        self._objective, self._config, self._device = objective, config, device_of(config)
        self.trained = trained_parameters(objective.model)
        self._buffers = dict(objective.model.named_buffers())
        self._optimizer = build_optimizer(self.trained, config)

    def check(self, rounds: Sequence[Sequence[bool]]) -> None:
        """See :class:`Engine`; one process computes anything."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """See :class:`Engine`."""
        with autocast(self._config):
            losses = self._objective.losses(moved(batch, self._device))
        self._loss = torch.cat(list(losses.values())).sum()
        return {task: values.detach() for task, values in losses.items()}

    def backward(self, divisor: float) -> None:
        """See :class:`Engine`."""
        (self._loss / divisor).backward()
        del self._loss

    def update(self, rate: float, *, valid: bool) -> float:
        """See :class:`Engine`."""
        for parameter in self.trained.values():
            if parameter.grad is None:  # no example of the step used it: as under ZeRO, its gradient is zero
                parameter.grad = torch.zeros_like(parameter)
        norm = float(nn.utils.clip_grad_norm_(list(self.trained.values()), self._config.clip_norm))
        if valid and math.isfinite(norm):
            for settings in self._optimizer.param_groups:
                settings["lr"] = rate
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """See :class:`Engine`."""
        state = {f"model.{name}": tensor.detach() for name, tensor in self.trained.items()}
        state |= {f"buffer.{name}": tensor for name, tensor in self._buffers.items()}
        for name, parameter in self.trained.items():
            for key, value in self._optimizer.state[parameter].items():
                state[f"optimizer.{key}.{name}"] = value
        return state

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :class:`Engine`."""
        check_names(self.trained, state)
        for name, parameter in self.trained.items():
            parameter.copy_(state[f"model.{name}"])
            kept = {key: f"optimizer.{key}.{name}" for key in ("step", *MOMENTS) if f"optimizer.{key}.{name}" in state}
            self._optimizer.state[parameter] = {
                key: state[stored] if key == "step" else state[stored].to(parameter.device)
                for key, stored in kept.items()
            }
        for name, buffer in self._buffers.items():
            buffer.copy_(state[f"buffer.{name}"])

    def close(self) -> None:
        """See :class:`Engine`."""
