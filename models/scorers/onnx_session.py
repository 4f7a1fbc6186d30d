"""An ONNX network ready to run on the CPU."""

import os
from typing import Any, Final

from models.errors import ModelError

_MOST_THREADS: Final = 4
"""The networks are too small to feed more cores."""


def onnx_session(data: bytes, what: str, threads: int | None = None) -> Any:
    """A session of onnxruntime.

    Args:
        what: names the network in an error. threads: by default the machine's cores, at most four.

    Raises:
        ModelError: the bytes are no network that this onnxruntime knows.
    """
    import onnxruntime  # noqa: PLC0415 - paid for when a network is loaded, not when its name is

    runtime: Any = onnxruntime
    states = runtime.capi.onnxruntime_pybind11_state

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or min(_MOST_THREADS, os.cpu_count() or 1)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except (states.InvalidProtobuf, states.InvalidGraph, states.Fail, states.InvalidArgument) as error:
        msg = f"{what} does not load as an ONNX network: {error}"
        raise ModelError(" ".join(msg.split())) from error
