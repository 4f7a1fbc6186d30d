"""Official checkpoints of FAST-VQA and DOVER: every tensor is used by name and shape, or the file is refused."""

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import MissingWeightsError, ModelError

_SHOWN: Final = 6
_SCALAR: Final = np.float64().__reduce__()[0]
_HARMLESS: Final[list[Any]] = [
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as NumPy 1 wrote it
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64)),
]
"""NumPy's numbers: the official training code keeps its correlations beside the weights."""


def fill(network: nn.Module, path: Path) -> None:
    """Load a checkpoint into a network, and make it ready for inference.

    Args:
        network: whose tensors have the checkpoint's names.
        path: a file of ``torch.save``: the tensors by name, or a dictionary that keeps them under ``state_dict``.

    Raises:
        MissingWeightsError: the file is not there.
        ModelError: it is damaged, or tensors are missing, left over, of another shape or no floats where such are due.
    """
    state = _read(path)
    own = network.state_dict()
    shared = own.keys() & state.keys()
    faults = [
        *_listed("missing", own.keys() - state.keys()),
        *_listed("left over", state.keys() - own.keys()),
        *_listed("of another shape or kind", (name for name in shared if _differs(own[name], state[name]))),
    ]
    if faults:
        msg = f"{path.name} does not fit {type(network).__name__}: {'; '.join(faults)}"
        raise ModelError(msg)
    network.load_state_dict(state, strict=True)
    network.requires_grad_(requires_grad=False).eval()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        msg = f"{path} is missing"
        raise MissingWeightsError(msg) from error
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        msg = f"{path.name} is damaged or no checkpoint ({' '.join(str(error).split())[:160]}): replace the file"
        raise ModelError(msg) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        msg = f"{path.name} holds no tensors by name: replace the file"
        raise ModelError(msg)
    return dict(state)


def _differs(own: Tensor, found: Tensor) -> bool:
    """Indices must be equal, for they are part of the architecture; weights may be floats of any precision."""
    if own.is_floating_point():
        return own.shape != found.shape or not found.is_floating_point()
    return not torch.equal(own, found)


def _listed(what: str, names: Iterable[str]) -> list[str]:
    found = sorted(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return [f"{len(found)} {what}: {', '.join(found[:_SHOWN])}{more}"] if found else []
