"""Where a process computes, on the CPU or on the machine's first GPU, and how exactly."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch

from infra.needs import gpu_memories_gb
from tasks.errors import ConfigError

DeviceName = Literal["cpu", "cuda"]
AskedDevice = Literal["auto", "cpu", "cuda"]
"""``auto`` is the GPU if the machine shows one."""
PrecisionName = Literal["float32", "bfloat16"]

_USUAL: Final[dict[str, PrecisionName]] = {"cpu": "float32", "cuda": "bfloat16"}
"""Precision where none is asked for."""


def device_named(name: DeviceName) -> torch.device:
    """The device of that name.

    Raises:
        ConfigError: this machine shows no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("the device cuda is asked for, and this machine shows no GPU: ask for cpu")
    return torch.device(name)


def lacking(name: DeviceName) -> list[str]:
    """What this machine lacks for the device, in words; nothing if it lacks nothing."""
    return ["1 GPU for device: cuda, none found"] if name == "cuda" and not gpu_memories_gb() else []


@dataclass(frozen=True)
class Computing:
    """Where a model's weights lie and how exactly it computes.

    Attributes:
        device: the CPU or the first GPU.
        precision: type of weights and products; ``float32`` never means TF32.
    """

    device: torch.device
    precision: PrecisionName

    @property
    def dtype(self) -> torch.dtype:
        """The precision as torch has it."""
        return torch.float32 if self.precision == "float32" else torch.bfloat16


ON_CPU: Final = Computing(torch.device("cpu"), "float32")


def computing(device: AskedDevice = "auto", precision: PrecisionName | None = None) -> Computing:
    """What is asked for, on this machine.

    Args:
        precision: None is float32 on the CPU and bfloat16 on a GPU.

    Raises:
        ConfigError: this machine shows no GPU, or a name is unknown.
    """
    for what, name, names in (("device", device, AskedDevice), ("precision", precision, PrecisionName)):
        if name is not None and name not in get_args(names):
            msg = f"{what} {name!r} is unknown: there are {', '.join(get_args(names))}"
            raise ConfigError(msg)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = device_named(device)
    return Computing(found, precision or _USUAL[found.type])
