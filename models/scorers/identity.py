"""What a built-in scorer's version stands for: a hash of all that decides its scores."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Final

import numpy as np

from models.scorers.protocol import Calibration, Pixels
from models.scorers.screen import on_screen
from models.scorers.views import ViewFunction

_DIGITS: Final = 12
_PROBES: Final = ((90, 160), (500, 500), (720, 1280), (1300, 1100), (40, 700))
"""Heights and widths of pictures whose views are hashed: small, square, native, large, a strip."""


def identity(weights: bytes, twin: bytes, calibration: Calibration, view: ViewFunction) -> str:
    """Hash of the files, of the calibration, and of what the scorer sees of fixed pictures (size, crops, resampling).

    Args:
        weights: the safetensors file.
        twin: the ONNX file.
        calibration: of its raw score.
        view: frames at the size of a screen -> what the network sees.
    """
    state = hashlib.sha256()
    for part in (weights, twin, json.dumps(dataclasses.asdict(calibration)).encode(), *_seen(view)):
        state.update(len(part).to_bytes(8) + part)
    return state.hexdigest()[:_DIGITS]


def _seen(view: ViewFunction) -> Sequence[bytes]:
    rng = np.random.default_rng(0)
    return [part.tobytes() for height, width in _PROBES for part in view(on_screen(_probe(height, width, rng)))]


def _probe(height: int, width: int, rng: np.random.Generator) -> Pixels:
    """A picture with ramps and noise, ``[1, H, W, 3]``: wherever a crop lies, it looks different."""
    down, across = np.mgrid[:height, :width]
    ramp_HWC = np.stack([down * 255 // height, across * 255 // width, (down + across) % 256], axis=2)
    noise_HWC = rng.integers(-20, 21, ramp_HWC.shape)
    return np.clip(ramp_HWC + noise_HWC, 0, 255).astype(np.uint8)[None]
