"""What one device holds while it trains: weights, gradients, optimizer and activations, under ZeRO (arXiv 1910.02054).

Stage 0 is one process, or copies that average gradients. Stage 1 cuts the optimizer's state into one part per device,
stage 2 the gradients too, stage 3 the weights too, frozen ones included. Frozen weights have no gradient and no state
in any stage. Buffers are those that DeepSpeed allocates for the settings of ``infra/deepspeed``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from models.footprint import AUTOCAST, BFLOAT16, FLOAT32, HELD, Flow, Numerics, Sample, Step, footprint, peak_bytes
from models.model_size import PARTS, ModelSize
from tasks.errors import ConfigError

_FLOAT32: Final = 4
_MOMENTS: Final = 2
"""AdamW keeps two moments per weight, in float32."""

ZERO_STAGES: Final = (0, 1, 2, 3)
_GRADIENTS_CUT: Final = 2
_WEIGHTS_CUT: Final = 3

CHECKPOINTING: Final[dict[str, frozenset[str]]] = {
    "none": frozenset(),
    "encoder": frozenset({"image_encoder"}),
    "decoder": frozenset({"decoder"}),
    "both": frozenset({"image_encoder", "decoder"}),
}
"""Value of ``training.recompute`` -> parts whose layers run again in backward instead of keeping what they made."""

WEIGHTS: Final[dict[str, tuple[Numerics, Numerics]]] = {
    "float32": (AUTOCAST, AUTOCAST),
    "frozen-bfloat16": (AUTOCAST, HELD),
    "bfloat16": (BFLOAT16, BFLOAT16),
}
"""How weights are held when products are bfloat16 -> bytes in parts that learn, and in frozen ones."""


@dataclass(frozen=True)
class Sharding:
    """How training is spread.

    Attributes:
        stage: ZeRO stage.
        devices: number of devices.
        buffer: numbers in a buffer that gradients are reduced in; no larger than all gradients is needed.
        buffers: how many of them there are.
        gathered: numbers of weights that stage 3 holds gathered at one time, at most.
    """

    stage: int
    devices: int
    buffer: int = 0
    buffers: int = 0
    gathered: int = 0


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device.

    Attributes:
        weights, gradients: as the engine holds them.
        optimizer: both moments, and the float32 copy of trained weights where there is one.
        buffers: for communication.
        activations: most at one time.
        update: most that the optimizer's step takes beyond its state; activations are gone by then.
    """

    weights: float
    gradients: float
    optimizer: float
    buffers: float
    activations: float
    update: float

    @property
    def peak(self) -> float:
        """Most bytes at one time."""
        held = self.weights + self.gradients + self.optimizer + self.buffers
        return held + max(self.activations, self.update)


@dataclass(frozen=True)
class Load:
    """What has to fit.

    Attributes:
        step: how it is computed, without checkpointing.
        longest: the largest examples that come.
        most: examples of a device in a step: no micro batch needs more.
        runs: parts that run.
        one_by_one: whether AdamW updates one tensor after the other, as torch does on a processor.
    """

    size: ModelSize
    step: Step
    longest: tuple[tuple[Sample, ...], ...]
    most: int
    runs: tuple[str, ...] = PARTS
    one_by_one: bool = False


@dataclass(frozen=True)
class Fit:
    """The micro batch that fits (0: none), the checkpointing that it takes, and its memory (if none fits, of one)."""

    micro_batch: int
    checkpointing: str
    memory: DeviceMemory


def read_sharding(checkout: Path, stage: int, devices: int) -> Sharding:
    """The sharding of a ZeRO stage with the buffers of its DeepSpeed configuration.

    Raises:
        ConfigError: there is no such stage, or its configuration cannot be read.
    """
    if stage not in ZERO_STAGES:
        msg = f"there is no ZeRO stage {stage}; the stages are {', '.join(map(str, ZERO_STAGES))}"
        raise ConfigError(msg)
    if stage == 0:
        return Sharding(0, devices)
    path = checkout / "infra" / "deepspeed" / f"zero{stage}.json"
    try:
        settings: dict[str, Any] = json.loads(path.read_text())["zero_optimization"]
        gathered = 0
        if stage >= _WEIGHTS_CUT:
            gathered = int(settings["stage3_max_live_parameters"]) + int(settings["stage3_prefetch_bucket_size"])
        buffers = 2 if settings["overlap_comm"] else 1
        return Sharding(stage, devices, int(settings["reduce_bucket_size"]), buffers, gathered)
    except (OSError, ValueError, KeyError) as error:
        msg = f"{path} holds no configuration of ZeRO stage {stage}: {error}"
        raise ConfigError(msg) from error


def numerics_of(flows: Mapping[str, Flow], precision: str, weights: str) -> dict[str, Numerics]:
    """Bytes of a number in each part.

    Args:
        precision: of products, as in params.
        weights: one of ``WEIGHTS``; with ``float32`` products it changes nothing.

    Raises:
        ConfigError: there is no such way to hold weights.
    """
    if weights not in WEIGHTS:
        msg = f"unknown weights {weights!r}; there are {', '.join(WEIGHTS)}"
        raise ConfigError(msg)
    if precision == "float32":
        return dict.fromkeys(flows, FLOAT32)
    learning, frozen = WEIGHTS[weights]
    return {part: learning if flow is Flow.TRAINED else frozen for part, flow in flows.items()}


def device_memory(
    parameters: Mapping[str, int], step: Step, sharding: Sharding, activations: float, largest: int | None = None
) -> DeviceMemory:
    """Memory of one device.

    Args:
        parameters: part -> number of parameters.
        activations: most bytes of activations at one time.
        largest: numbers in the largest trained tensor, where AdamW updates one after the other; None where it updates
            all together.
    """
    held = {part: count * step.numerics[part].weights for part, count in parameters.items()}
    trained = [part for part, flow in step.flows.items() if flow is Flow.TRAINED]
    learning = sum(parameters[part] for part in trained)
    weights, gradients = float(sum(held.values())), float(sum(held[part] for part in trained))
    number = max((step.numerics[part].weights for part in trained), default=0)
    cut, devices = sharding.stage, sharding.devices
    if cut >= _WEIGHTS_CUT:
        weights = weights / devices + weights * min(1.0, sharding.gathered / sum(parameters.values()))
    share = learning / (devices if cut >= 1 else 1)
    numbers = _MOMENTS + (cut >= 1 or number < _FLOAT32)  # DeepSpeed keeps a float32 copy even of float32 weights
    return DeviceMemory(
        weights=weights,
        gradients=gradients / (devices if cut >= _GRADIENTS_CUT else 1),
        optimizer=share * _FLOAT32 * numbers,
        buffers=float(min(sharding.buffer, learning) * sharding.buffers * number),
        activations=activations,
        update=_FLOAT32 * (share * (2 if cut >= 1 else 1) if largest is None or cut >= 1 else 2.0 * largest),
        # together: the root of a moment, and DeepSpeed's flat gradient; one by one: the root and its quotient
    )


def memory_of(load: Load, sharding: Sharding, checkpointed: frozenset[str], examples: int) -> DeviceMemory:
    """Memory of one device for a micro batch of so many examples of the largest kind."""
    step = replace(load.step, checkpointed=checkpointed)
    costs = (footprint(load.size, list(example) * examples, step) for example in load.longest)
    activations = max(peak_bytes({part: cost[part] for part in load.runs}) for cost in costs)
    trained = [part for part, flow in step.flows.items() if flow is Flow.TRAINED]
    largest = max((load.size.largest[part] for part in trained), default=0) if load.one_by_one else None
    return device_memory(load.size.parameters, step, sharding, activations, largest)


def fit(load: Load, sharding: Sharding, capacity: float, checkpointing: str | None = None) -> Fit:
    """The least recomputation with which one example of the largest kind fits, and how many of them fit then.

    Recomputation costs FLOPs and a smaller micro batch costs none, so the micro batch gives way first.

    Args:
        capacity: bytes that there are.
        checkpointing: one of ``CHECKPOINTING`` if it is not to be chosen here.

    Raises:
        ConfigError: there is no such checkpointing.
    """
    if checkpointing is not None and checkpointing not in CHECKPOINTING:
        msg = f"unknown checkpointing {checkpointing!r}; there are {', '.join(CHECKPOINTING)}"
        raise ConfigError(msg)
    learning = {part for part in load.runs if load.step.flows[part] is not Flow.IDLE}
    useful = [name for name, parts in CHECKPOINTING.items() if parts <= learning]
    names = useful if checkpointing is None else [checkpointing]
    least = {name: memory_of(load, sharding, CHECKPOINTING[name], 1) for name in names}
    for name in sorted(names, key=lambda name: _recomputed(load, CHECKPOINTING[name])):
        if least[name].peak <= capacity:
            micro_batch = _most(load, sharding, CHECKPOINTING[name], capacity)
            return Fit(micro_batch, name, memory_of(load, sharding, CHECKPOINTING[name], micro_batch))
    name = min(names, key=lambda name: least[name].peak)
    return Fit(0, name, least[name])


def _most(load: Load, sharding: Sharding, checkpointed: frozenset[str], capacity: float) -> int:
    """Most examples that fit; one does."""
    counts = range(load.most, 1, -1)
    return next((n for n in counts if memory_of(load, sharding, checkpointed, n).peak <= capacity), 1)


def _recomputed(load: Load, checkpointed: frozenset[str]) -> float:
    costs = footprint(load.size, list(load.longest[0]), replace(load.step, checkpointed=checkpointed))
    return sum(cost.again for cost in costs.values())
