"""Where a stage of one process computes: on the CPU or on the machine's first GPU."""

from typing import Literal

import torch

from infra.needs import gpu_memories_gb
from tasks.errors import ConfigError

DeviceName = Literal["cpu", "cuda"]


def device_named(name: DeviceName) -> torch.device:
    """The device of that name.

    Raises:
        ConfigError: this machine shows no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, and this machine shows no GPU: say device: cpu")
    return torch.device(name)


def lacking(name: DeviceName) -> list[str]:
    """What this machine lacks for the device, in words; nothing if it lacks nothing."""
    return ["1 GPU for device: cuda, none found"] if name == "cuda" and not gpu_memories_gb() else []
