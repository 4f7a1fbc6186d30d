"""The student as a scorer, with onnxruntime alone: NumPy, Pillow, no torch, no text tower, no language model."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from models.errors import MissingWeightsError, ModelError
from models.rali.views import TileView
from models.scorers.onnx_session import onnx_session
from models.scorers.protocol import Pixels, Sampling

LAYOUT_FILE: Final = "rali.json"
ONNX_FILE: Final = "student.onnx"
NAME: Final = "rali"

_DIGITS: Final = 6
"""Scores are rounded here, as the built-in scorers' are."""


class RaliScorer:
    """A student's folder as a :class:`models.scorers.protocol.Scorer`.

    Its scores are on the scale of what it was distilled from, [0, 1]; nothing is calibrated afterwards.

    Args:
        folder: of a student. threads: inside one forward pass; by default the machine's cores, at most four.

    Raises:
        MissingWeightsError: a file is not there.
        ModelError: it is not a student's.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.folder = folder
        layout, data = _stored(folder)
        self.view, self.frames = TileView.from_json(layout["view"]), int(layout["frames"])
        self.layout = layout
        self._version = f"{NAME}-{hashlib.sha256(data).hexdigest()[:12]}"
        self._session = onnx_session(data, str(folder / ONNX_FILE), threads)

    @property
    def name(self) -> str:
        """``rali``."""
        return NAME

    @property
    def version(self) -> str:
        """Hash of the network."""
        return self._version

    @property
    def sampling(self) -> Sampling:
        """Single frames of a video, as they are stored."""
        return Sampling.FRAMES

    def raw(self, frames_THWC: Pixels) -> float:
        """Quality of a medium from its frames."""
        return self.of_tiles(self.view.of(frames_THWC))

    def of_tiles(self, tiles_MHWC: Pixels) -> float:
        """Quality of a medium from its tiles."""
        return float(self._session.run(["score"], {"tiles": tiles_MHWC[None]})[0][0])

    def score(self, frames_THWC: Pixels) -> float:
        """Quality in [0, 1], higher is better."""
        return round(min(max(self.raw(frames_THWC), 0.0), 1.0), _DIGITS)


def is_student(folder: Path) -> bool:
    """Whether a model's folder holds a student."""
    return (folder / LAYOUT_FILE).is_file()


def _stored(folder: Path) -> tuple[dict[str, Any], bytes]:
    try:
        layout = json.loads((folder / LAYOUT_FILE).read_text())
        data = (folder / ONNX_FILE).read_bytes()
    except FileNotFoundError as error:
        msg = f"RALI student: {error.filename} is missing; make it with dvc repro rali, or fetch vital-rali"
        raise MissingWeightsError(msg) from error
    except ValueError as error:
        msg = f"{folder / LAYOUT_FILE} is not JSON ({error}): fetch or make the student again"
        raise ModelError(msg) from error
    if not isinstance(layout, dict) or not {"view", "frames", "parameters"} <= layout.keys():
        msg = f"{folder / LAYOUT_FILE} is not a student's layout: fetch or make the student again"
        raise ModelError(msg)
    return layout, data
