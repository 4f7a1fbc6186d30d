"""DeepSpeed's ZeRO behind the engine's protocol; the one module that knows DeepSpeed.

Stage 1 spreads the optimizer's state over the processes, stage 2 also the gradients, stage 3 also the layers' weights,
frozen ones included. Weights, gradients and moments are float32 and the forward pass runs under autocast, as in one
process, so the stages give the same numbers.

Examples differ: a process may see a clip, and run the motion extractor, in a micro-batch where another sees pictures
alone. ZeRO assumes equal processes: stages 2 and 3 reduce gradients in the order in which backward passes make them,
and stage 3 gathers weights module by module, so such a difference would add up unlike gradients, or wait for ever.
Therefore DeepSpeed is shown the repeated layers of encoder and decoder alone, and the other trained parameters, called
loose, as direct parameters of one frame around the objective: stage 3 then gathers those at its beginning, and an
anchor makes their gradients, zeros for unused ones, arrive last and in one order. That every process runs the same
repeated layers is checked before a step is computed.
"""

import json
import logging
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from infra.workspace import CHECKOUT
from tasks import group
from tasks.errors import StageError
from tasks.training.config import TrainingConfig
from tasks.training.engine import (
    MOMENTS,
    Objective,
    autocast,
    build_optimizer,
    check_names,
    device_of,
    moved,
    repeated_layers,
    trained_parameters,
)

STAGES: Final = {"zero1": 1, "zero2": 2, "zero3": 3}
"""Engine -> ZeRO stage."""


class ZeroEngine:
    """A step in every process of the group; see ``tasks.training.engine.Engine``."""

    def __init__(self, objective: Objective[Any], config: TrainingConfig) -> None:
        self._stage, self._device, self._group = STAGES[config.engine], device_of(config), group.current()
        self._objective = objective
        self.trained = trained_parameters(objective.model)
        self._frame = _Frame(objective, config, self.trained)
        self._deepspeed = _import_deepspeed(config.device)
        group.join()
        optimizer = build_optimizer(self.trained, config)
        if self._stage == 3:
            self._deepspeed.utils.set_z3_leaf_modules(self._frame, list({type(layer) for layer in self._frame.layers}))
        self._engine: Any = self._deepspeed.initialize(
            model=self._frame, optimizer=optimizer, config=zero_config(config, self.trained.values())
        )[0]
        self._start_moments()

    def check(self, rounds: Sequence[Sequence[bool]]) -> None:
        """See ``Engine``. Stage 3 would wait for ever in the forward pass, stage 2 add up unlike gradients."""
        if self._stage > 1 and self._frame.encodes and any(len(set(turn)) > 1 for turn in rounds):
            msg = (
                f"engine zero{self._stage} needs every process to run the same layers, and in a micro-batch some have "
                "no medium for their encoder: use zero1, or micro-batches that all hold a medium"
            )
            raise StageError(msg)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """See ``Engine``."""
        self._loss = self._engine(moved(batch, self._device))
        return self._frame.take_losses()

    def backward(self, divisor: float) -> None:
        """See ``Engine``. DeepSpeed averages over processes what is a sum here."""
        self._engine.backward(self._loss / divisor * self._group.size, scale_wrt_gas=False)
        del self._loss

    def update(self, rate: float, *, valid: bool) -> float:
        """See ``Engine``."""
        if not valid:
            self._engine.optimizer.zero_grad()
            return float("nan")
        if self._stage == 1:  # which reduces only now, parameter by parameter, those that have a gradient
            for parameter in self.trained.values():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        for settings in self._engine.optimizer.param_groups:
            settings["lr"] = rate
        self._engine.step()  # applies nothing if the norm is not finite
        return float(self._engine.get_global_grad_norm())

    def tensors(self) -> dict[str, Tensor]:
        """See ``Engine``; gathered one parameter at a time, into the leader's memory."""
        utils, state = self._deepspeed.utils, {}
        for name, parameter in self.trained.items():
            self._keep(state, f"model.{name}", utils.safe_get_full_fp32_param(parameter))
            for key in MOMENTS:
                self._keep(state, f"optimizer.{key}.{name}", utils.safe_get_full_optimizer_state(parameter, key))
            self._keep(state, f"optimizer.step.{name}", self._moments()[0]["step"])
        for name, buffer in self._objective.model.named_buffers():
            self._keep(state, f"buffer.{name}", buffer)
        return state

    def _keep(self, state: dict[str, Tensor], name: str, tensor: Tensor) -> None:
        if self._group.leads:
            state[name] = tensor.detach().cpu().clone()

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See ``Engine``."""
        check_names(self.trained, state)
        utils = self._deepspeed.utils
        reach = "local" if self._stage == 3 else "full"
        set_weight = getattr(utils, f"safe_set_{reach}_fp32_param")
        set_moment = getattr(utils, f"safe_set_{reach}_optimizer_state")
        for name, parameter in self.trained.items():
            value = state[f"model.{name}"].to(self._device)
            with self._whole(parameter):
                parameter.data.copy_(value)
            set_weight(parameter, self._part(value, parameter))
            for key in MOMENTS:
                moment = state[f"optimizer.{key}.{name}"].to(self._device)
                set_moment(parameter, self._part(moment, parameter), key)
        step = state[f"optimizer.step.{next(iter(self.trained))}"]
        for moments in self._moments():
            moments["step"].copy_(step)
        for name, buffer in self._objective.model.named_buffers():
            buffer.copy_(state[f"buffer.{name}"])

    def _part(self, value: Tensor, parameter: Any) -> Tensor:
        """What of a parameter's values this process keeps, padded at the end.

        Under stage 3 DeepSpeed's setter of whole values fails where a size is no multiple of the number of processes.
        """
        if self._stage < 3:
            return value
        length = parameter.partition_numel()
        padded = nn.functional.pad(value.flatten(), (0, length * self._group.size - value.numel()))
        return padded.narrow(0, length * self._group.rank, length)

    def close(self) -> None:
        """See ``Engine``. Afterwards this engine is of no use."""
        fresh: dict[int, nn.Parameter] = {}
        for parameter in self._frame.parameters():
            with self._whole(parameter):
                data = parameter.detach().clone()
            fresh[id(parameter)] = nn.Parameter(data.cpu() if self._stage == 3 else data, parameter.requires_grad)
        self._engine.destroy()
        if self._stage == 3:
            from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK  # noqa: PLC0415

            FWD_MODULE_STACK.clear()  # it would keep the frame, and the model, alive
        for module in self._objective.model.modules():
            module._parameters = {  # noqa: SLF001 - stage 3 has put a dictionary of its own there
                name: None if parameter is None else fresh.get(id(parameter), parameter)
                for name, parameter in module._parameters.items()  # noqa: SLF001
            }
        self.trained = {name: fresh[id(parameter)] for name, parameter in self.trained.items()}
        del self._engine, self._frame

    def _whole(self, parameter: nn.Parameter) -> Any:
        """Context in which a parameter has all its values; what the leader changes in it, all get."""
        return self._deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=self._stage == 3)

    def _flats(self) -> list[Tensor]:
        """This process's parts of all trained weights, of which the optimizer knows."""
        zero = self._engine.optimizer
        return zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups

    def _moments(self) -> list[dict[str, Tensor]]:
        return [self._engine.optimizer.optimizer.state[flat] for flat in self._flats()]

    def _start_moments(self) -> None:
        """Give AdamW its state now: DeepSpeed links parameters to it once, after the first group's first update."""
        zero = self._engine.optimizer
        for flat in self._flats():
            zeros = {key: torch.zeros_like(flat, requires_grad=False) for key in MOMENTS}
            zero.optimizer.state[flat] = {"step": torch.tensor(0.0), **zeros}
        if self._stage < 3:
            zero._lazy_init_hp_params_optimizer_state()  # noqa: SLF001 - else nothing could be restored before an update


class _Frame(nn.Module):
    """What DeepSpeed sees: the repeated layers, the loose trained parameters, and the sum of the objective's losses.

    Attributes:
        layers: repeated layers that hold what the stage spreads.
        encodes: whether some of them are the encoder's.
    """

    def __init__(self, objective: Objective[Any], config: TrainingConfig, trained: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self._call, self._config = (objective,), config  # in a tuple, so that the model is no submodule
        layers = repeated_layers(objective.model)
        if STAGES[config.engine] < 3:
            layers = [layer for layer in layers if any(p.requires_grad for p in layer.parameters())]
        self.layers = nn.ModuleList(layers)
        self.encodes = not set(layers).isdisjoint(repeated_layers(objective.model, ["encoder"]))
        inside = {id(parameter) for parameter in self.layers.parameters()}
        self._loose = [parameter for parameter in trained.values() if id(parameter) not in inside]
        for number, parameter in enumerate(self._loose):
            self.register_parameter(f"loose_{number}", parameter)
        self._losses: dict[str, Tensor] = {}

    def forward(self, batch: Any) -> Tensor:
        """The sum of the objective's losses, which also depends on the anchor of the loose parameters.

        One tensor: stage 3 counts what leaves a module, and processes whose batches hold other tasks would differ.
        """
        anchor = _Anchor.apply(*self._loose) if self._loose else 0.0
        with autocast(self._config):
            losses = self._call[0].losses(batch)
        self._losses = {task: values.detach() for task, values in losses.items()}
        return torch.cat(list(losses.values())).sum() + anchor

    def take_losses(self) -> dict[str, Tensor]:
        """The losses of the last batch, detached."""
        losses, self._losses = self._losses, {}
        return losses


class _Anchor(torch.autograd.Function):
    """A zero that depends on parameters and adds zeros to their gradients.

    autograd runs what was created first last, and gives a parameter its gradient when all that it depends on has run:
    so gradients of anchored parameters come at the end of a backward pass, in their order here, used or not.
    """

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        """Zero."""
        ctx.shapes = [parameter.shape for parameter in parameters]
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Zeros that take no memory."""
        return tuple(gradient.new_zeros(()).expand(shape) for shape in ctx.shapes)


def zero_config(config: TrainingConfig, trained: Iterable[nn.Parameter]) -> dict[str, Any]:
    """DeepSpeed's configuration: the section of ``infra/deepspeed``, which changes no result, and params' numbers.

    The loop divides the loss by what the step holds, so micro-batches and processes need no counting here.
    """
    section: dict[str, Any] = json.loads((CHECKOUT / "infra" / "deepspeed" / f"{config.engine}.json").read_text())
    zero = section["zero_optimization"]
    size = sum(parameter.numel() for parameter in trained)
    zero["reduce_bucket_size"] = min(zero["reduce_bucket_size"], size + size % 2)  # it is allocated in full
    if config.device == "cpu":
        zero["overlap_comm"] = False
    return section | {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.clip_norm,
        "steps_per_print": None,
    }


def _import_deepspeed(device: str) -> Any:
    """Import DeepSpeed, quietly, for one kind of device.

    Raises:
        StageError: it is not installed.
    """
    os.environ["DS_ACCELERATOR"] = device
    os.environ.setdefault("LOCAL_RANK", "0")
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    try:
        import deepspeed  # noqa: PLC0415 - takes seconds
    except ImportError as error:
        msg = f"the ZeRO engines need DeepSpeed, which does not load here: {error}"
        raise StageError(msg) from error
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles for minutes on a CPU
    return deepspeed
