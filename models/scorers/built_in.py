"""The six built-in scorers at run time: shipped weights, one card each, ONNX by default, torch for parity and training.

The ONNX path imports neither torch nor a table library; a photograph pays for NumPy, Pillow and onnxruntime alone.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from models.errors import MissingWeightsError, ModelError
from models.scorers import views
from models.scorers.onnx_session import onnx_session
from models.scorers.protocol import Calibration, Pixels, Sampling, check_frames
from models.scorers.screen import on_screen
from models.scorers.views import View, ViewFunction

Backend = Literal["onnx", "torch"]
Forward = Callable[[View], NDArray[np.float32]]

WEIGHTS: Final = Path(__file__).parent / "weights"
"""Per scorer: ``<name>.safetensors``, its twin ``<name>.onnx``, and the card ``<name>.json``."""

_DIGITS: Final = 6
"""Calibrated scores are rounded here, so that the last bits of a runtime's sums do not reach the tables."""
_REBUILD: Final = "restore it from the repository, or train it: python -m tasks.annotation.train_scorers --help"


@dataclass(frozen=True)
class BuiltIn:
    """What distinguishes one built-in scorer from the others.

    Attributes:
        name: key.
        view: frames as a screen shows them -> what the network sees.
        inputs: names of the view's arrays, the ONNX inputs.
        sampling: which frames of a video it wants.
        idea: the published scorer whose view of quality it takes.
    """

    name: str
    view: ViewFunction
    inputs: tuple[str, ...]
    sampling: Sampling
    idea: str


@dataclass(frozen=True)
class Card:
    """The contents of ``<name>.json`` that scoring needs."""

    version: str
    calibration: Calibration
    sha256: dict[str, str]


class BuiltInScorer:
    """A built-in scorer with its weights; see :class:`models.scorers.protocol.Scorer`."""

    def __init__(self, built_in: BuiltIn, card: Card, forward: Forward) -> None:
        self._built_in, self._card, self._forward = built_in, card, forward

    @property
    def name(self) -> str:
        """Key in ``BUILT_INS``."""
        return self._built_in.name

    @property
    def version(self) -> str:
        """Release and hash of weights and calibration."""
        return self._card.version

    @property
    def sampling(self) -> Sampling:
        """Which frames of a video it wants."""
        return self._built_in.sampling

    def raw_items(self, frames_THWC: Pixels) -> NDArray[np.float32]:
        """Uncalibrated scores ``[N]`` of the frames, or of the clips; of any size, the screen's is theirs."""
        check_frames(frames_THWC)
        return self._forward(self._built_in.view(on_screen(frames_THWC)))

    def raw(self, frames_THWC: Pixels) -> float:
        """Mean uncalibrated score over frames or clips."""
        return float(self.raw_items(frames_THWC).astype(np.float64).mean())

    def score(self, frames_THWC: Pixels) -> float:
        """Calibrated score in [0, 1]."""
        return round(self._card.calibration(self.raw(frames_THWC)), _DIGITS)


BUILT_INS: Final[dict[str, BuiltIn]] = {
    scorer.name: scorer
    for scorer in (
        BuiltIn("fragments", views.fragments, ("clips",), Sampling.SCREEN_CLIPS, "FAST-VQA"),
        BuiltIn("two_branch", views.two_branch, ("crops", "whole"), Sampling.SCREEN_FRAMES, "DOVER"),
        BuiltIn("level_probs", views.whole, ("pixels",), Sampling.SCREEN_FRAMES, "Q-Align"),
        BuiltIn("multiscale_attention", views.whole, ("pixels",), Sampling.SCREEN_FRAMES, "TOPIQ"),
        BuiltIn("multi_task", views.multi_task, ("patches",), Sampling.SCREEN_FRAMES, "LIQE"),
        BuiltIn("ranking", views.ranking, ("crops",), Sampling.SCREEN_FRAMES, "QualiCLIP"),
    )
}
"""Name -> built-in scorer, in the order of the paper's six."""


def load_built_in(
    name: str, backend: Backend = "onnx", folder: Path = WEIGHTS, threads: int | None = None
) -> BuiltInScorer:
    """Load a built-in scorer.

    Args:
        name: key of ``BUILT_INS``.
        backend: ``onnx`` (fast start, no torch) or ``torch``.
        folder: where weights and card lie.
        threads: threads inside one forward pass; by default the machine's cores, at most four.

    Raises:
        ModelError: unknown name, or a file that is not what its card says.
        MissingWeightsError: a file is not there.
    """
    if name not in BUILT_INS:
        msg = f"unknown built-in scorer {name!r}; known are {', '.join(BUILT_INS)}"
        raise ModelError(msg)
    if backend not in ("onnx", "torch"):
        msg = f"unknown backend {backend!r}; known are onnx and torch"
        raise ModelError(msg)
    card = read_card(folder / f"{name}.json")
    suffix = ".onnx" if backend == "onnx" else ".safetensors"
    data = _checked(folder / f"{name}{suffix}", card)
    forward = _onnx_forward(data, BUILT_INS[name], threads) if backend == "onnx" else _torch_forward(data, name)
    return BuiltInScorer(BUILT_INS[name], card, forward)


def built_in_version(name: str, folder: Path = WEIGHTS) -> str:
    """Version of a built-in scorer without loading its weights."""
    return read_card(folder / f"{name}.json").version


def read_card(path: Path) -> Card:
    """Read a scorer's card.

    Raises:
        MissingWeightsError: it is not there.
        ModelError: it is not a card.
    """
    data = _bytes(path)
    try:
        values: dict[str, Any] = json.loads(data)
        knots = values["calibration"]
        calibration = Calibration(tuple(map(float, knots["raw"])), tuple(map(float, knots["quality"])))
        return Card(str(values["version"]), calibration, dict(values["sha256"]))
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path.name} is not a scorer's card ({error}): {_REBUILD}"
        raise ModelError(msg) from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        msg = f"{path} is missing: {_REBUILD}"
        raise MissingWeightsError(msg) from error


def _checked(path: Path, card: Card) -> bytes:
    data = _bytes(path)
    if hashlib.sha256(data).hexdigest() != card.sha256.get(path.suffix.removeprefix(".")):
        msg = f"{path} is damaged or does not belong to its card {path.stem}.json: {_REBUILD}"
        raise ModelError(msg)
    return data


def _onnx_forward(data: bytes, built_in: BuiltIn, threads: int | None) -> Forward:
    session = onnx_session(data, f"{built_in.name}.onnx", threads)

    def forward(view: View) -> NDArray[np.float32]:
        return np.asarray(session.run(["raw"], dict(zip(built_in.inputs, view, strict=True)))[0], dtype=np.float32)

    return forward


def _torch_forward(data: bytes, name: str) -> Forward:
    import torch  # noqa: PLC0415 - the default backend does not need it
    from safetensors.torch import load  # noqa: PLC0415

    from models.scorers.networks import NETWORKS  # noqa: PLC0415 - it needs torch

    network = NETWORKS[name]()
    try:
        network.load_state_dict(load(data), strict=True)
    except RuntimeError as error:
        msg = f"{name}.safetensors does not fit the network of this version of VITAL: {_REBUILD}"
        raise ModelError(msg) from error
    network.eval()

    def forward(view: View) -> NDArray[np.float32]:
        with torch.inference_mode():
            return network(*(torch.from_numpy(np.ascontiguousarray(part)) for part in view))["raw"].numpy()

    return forward
