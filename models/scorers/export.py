"""Turn a trained network into its shipped twins: safetensors and ONNX."""

import io
import warnings

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from models.scorers.built_in import BUILT_INS
from models.scorers.networks import RawOnly

_OPSET = 18
_EXAMPLE_SIDE = 416
"""Not the side of any view, so that no size is baked in by accident."""


def to_safetensors(network: nn.Module) -> bytes:
    """Weights and running statistics, in the order of their names."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(network.state_dict().items())}
    return save(state)


def to_onnx(name: str, network: nn.Module) -> bytes:
    """ONNX twin: the view's arrays in, ``raw`` ``[N]`` out; every axis but colour (and fixed sides) may vary."""
    built_in = BUILT_INS[name]
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, size=(2, _EXAMPLE_SIDE, _EXAMPLE_SIDE + 64, 3), dtype=np.uint8)
    view = tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in built_in.view(frames))
    axes = {
        label: {axis: f"{label}_{axis}" for axis in range(part.ndim - 1)}
        for label, part in zip(built_in.inputs, view, strict=True)
    }
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracing exporter announces its age and the checks it traces through
        torch.onnx.export(
            RawOnly(network).eval(),
            view,
            buffer,  # type: ignore[arg-type] - the tracing exporter takes a file, too
            input_names=list(built_in.inputs),
            output_names=["raw"],
            dynamic_axes={**axes, "raw": {0: "items"}},
            opset_version=_OPSET,
            dynamo=False,
        )
    return buffer.getvalue()
