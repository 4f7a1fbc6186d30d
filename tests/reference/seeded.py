"""Weights and inputs that the official networks and ours both get: derived from names and shapes, never from order."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def generator(name: str) -> np.random.Generator:
    """A generator that a name seeds."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))


def seed_weights(network: nn.Module) -> None:
    """Give every floating tensor values by its name and shape; indices stay as the network made them.

    Matrices keep the size of signals, norms are near one, and bias tables and channel scales are large enough that a
    fault in them shows.
    """
    state = network.state_dict()
    network.load_state_dict({name: _values(name, value) for name, value in state.items()}, strict=True)


def _values(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    noise = torch.from_numpy(generator(name).standard_normal(tensor.shape, dtype=np.float32))
    if name.endswith("bias_table"):
        return noise
    if name.endswith("gamma"):
        return 0.3 + 0.1 * noise
    if tensor.dim() >= 2:
        return noise / float(np.sqrt(tensor[0].numel()))
    return 1.0 + 0.1 * noise if name.endswith("weight") else 0.1 * noise


def clips(name: str, count: int, length: int, side: int) -> Tensor:
    """Normalised clips ``[N, 3, T, H, W]``: coarse patterns with noise, so that positions differ from each other."""
    coarse = generator(name).standard_normal((count, 3, length // 2, 8, 8), dtype=np.float32)
    smooth = nn.functional.interpolate(torch.from_numpy(coarse), size=(length, side, side), mode="nearest")
    return smooth + 0.3 * torch.from_numpy(generator(name + "+").standard_normal(smooth.shape, dtype=np.float32))


def frames(name: str, count: int, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Frames ``[T, H, W, 3]`` of noise."""
    return generator(name).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def shapes(network: nn.Module) -> dict[str, list[int]]:
    """Name -> shape of every tensor of the state."""
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def digest(values: np.ndarray[Any, Any]) -> str:
    """Hash of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:32]


def sample(frame_HWC: np.ndarray[Any, Any]) -> list[Any]:
    """Every 31st pixel of a frame: its values may differ in the last bit from one processor to another."""
    return frame_HWC[::31, ::31].tolist()


def offset(row: int, column: int, piece: int, high: int) -> int:
    """Where a fragment lies inside its cell, instead of a draw below ``high``."""
    return (row * 5 + column * 3 + piece * 7) % high
