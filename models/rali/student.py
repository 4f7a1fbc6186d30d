"""The student: an image tower and a head of basis vectors, with no text tower and no language model.

A folder holds ``rali.json`` (view, tower, head, what it was made from), ``head.safetensors``, the tower (``tower/``,
for CLIP a plain transformers folder; ``tower.safetensors`` for the compact one), and ``student.onnx``, which
``models/rali/runtime.py`` runs with onnxruntime alone. No pickle is written or read.

Shape legend: ``N`` media, ``M`` tiles of each, ``S`` side of a tile, ``D`` joint space.
"""

import dataclasses
import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.checkpoint import require_files, require_same_tensors, shapes_of
from models.errors import ModelError
from models.rali.clip_folder import clip_home
from models.rali.head import BasisHead
from models.rali.image_towers import ClipTower, CompactTower, Pooling
from models.rali.runtime import LAYOUT_FILE, ONNX_FILE
from models.rali.views import TileView

TowerKind = Literal["compact", "clip"]
Tower = CompactTower | ClipTower

_HEAD_FILE: Final = "head.safetensors"
_TOWER_FILE: Final = "tower.safetensors"
_TOWER_FOLDER: Final = "tower"
_OPSET: Final = 18


@dataclass(frozen=True)
class TowerSpec:
    """Which image tower.

    Attributes:
        width: of the joint space, and hidden: of the network of a block (``compact`` only).
        weights: folder of a CLIP model, relative to the workspace, or the hub's name of it, one of
            :func:`models.weights.weight_records` (``clip`` only).
        pooling: what CLIP says of a tile (``clip`` only).
    """

    kind: TowerKind
    width: int = 64
    hidden: int = 96
    weights: str = ""
    pooling: Pooling = "cls"

    def __post_init__(self) -> None:
        """Check that what the kind needs is there."""
        if self.kind == "clip" and not self.weights:
            raise ValueError("tower.kind clip needs tower.weights, the folder of a CLIP model")
        if self.width < 1 or self.hidden < 1:
            raise ValueError("tower.width and tower.hidden must be at least 1")

    def built(self, view: TileView, root: Path) -> Tower:
        """The tower before alignment: random weights (compact, from torch's generator), or CLIP's.

        Raises:
            ModelError: it does not take the view's tiles, or its files are missing.
        """
        if self.kind == "compact":
            return CompactTower(view, self.width, self.hidden).eval()
        return fitting(ClipTower.from_pretrained(clip_home(root, self.weights), self.pooling), view)


def fitting(tower: ClipTower, view: TileView) -> ClipTower:
    """A CLIP tower that takes the view's tiles.

    Raises:
        ModelError: it does not.
    """
    if tower.side != view.side:
        msg = f"the view makes tiles of {view.side} px, CLIP's vision model takes {tower.side}"
        raise ModelError(msg)
    return tower


class RaliStudent(nn.Module):
    """A medium's tiles to its quality in [0, 1], higher is better.

    Attributes:
        view: how frames become tiles. frames: of a video that are looked at.
        made_from: what the student was distilled from, for its card; JSON values.
    """

    def __init__(self, tower: Tower, head: BasisHead, view: TileView, frames: int) -> None:
        super().__init__()
        self.tower, self.head = tower, head
        self.view, self.frames = view, frames
        self.made_from: dict[str, Any] = {}

    def forward(self, tiles_NMHWC: Tensor) -> Tensor:
        """Scores ``[N]`` of media with the same number of uint8 tiles, within the basis scores' range."""
        return self.head(self.tower(tiles_NMHWC))

    @property
    def parameters_count(self) -> int:
        """Numbers that learn or were learnt, the projection's included."""
        return sum(value.numel() for value in self.state_dict().values())

    def save_pretrained(self, folder: Path) -> None:
        """Write the folder, with the ONNX twin."""
        folder.mkdir(parents=True, exist_ok=True)
        head = {name: value.detach().cpu().contiguous() for name, value in self.head.state_dict().items()}
        save_file(head, folder / _HEAD_FILE)
        if isinstance(self.tower, CompactTower):
            state = {name: value.detach().cpu().contiguous() for name, value in self.tower.state_dict().items()}
            save_file(state, folder / _TOWER_FILE)
            tower: dict[str, Any] = {"kind": "compact", "width": self.tower.width, "hidden": self.tower.hidden}
        else:
            self.tower.clip.save_pretrained(folder / _TOWER_FOLDER)
            tower = {"kind": "clip", "pooling": self.tower.pooling}
        bases, dims = self.head.vectors.shape
        layout = {
            "view": dataclasses.asdict(self.view),
            "frames": self.frames,
            "tower": tower,
            "head": {"width": self.tower.width, "dims": dims, "bases": bases, "tau": self.head.tau},
            "parameters": self.parameters_count,
            "made_from": self.made_from,
        }
        (folder / ONNX_FILE).write_bytes(self.onnx())
        (folder / LAYOUT_FILE).write_text(json.dumps(layout, indent=2, sort_keys=True) + "\n")

    @classmethod
    def from_pretrained(cls, folder: Path) -> "RaliStudent":
        """Read a folder that :meth:`save_pretrained` wrote, in evaluation mode; nothing else is loaded.

        Raises:
            MissingWeightsError: the folder is incomplete.
            ModelError: its content does not fit this version.
        """
        require_files(folder, (LAYOUT_FILE, _HEAD_FILE), "RALI student")
        layout: dict[str, Any] = json.loads((folder / LAYOUT_FILE).read_text())
        view = TileView.from_json(layout["view"])
        head = BasisHead(**layout["head"])
        _load(head, folder / _HEAD_FILE)
        student = cls(_stored_tower(folder, layout["tower"], view), head, view, layout["frames"])
        student.made_from = layout["made_from"]
        return student.eval()

    def onnx(self) -> bytes:
        """The ONNX twin: ``tiles`` uint8 ``[N, M, S, S, 3]`` to ``score`` ``[N]``; N and M may vary."""
        side, home = self.view.side, self.head.scores.device
        tiles = torch.randint(0, 256, (2, 2 * self.view.tiles, side, side, 3), dtype=torch.uint8)
        buffer = io.BytesIO()
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # the tracing exporter announces its age and the checks it traces through
            torch.onnx.export(
                self.cpu().eval(),
                (tiles,),
                buffer,  # type: ignore[arg-type] - the tracing exporter takes a file, too
                input_names=["tiles"],
                output_names=["score"],
                dynamic_axes={"tiles": {0: "media", 1: "tiles_of_each"}, "score": {0: "media"}},
                opset_version=_OPSET,
                dynamo=False,
            )
        self.to(home)
        return buffer.getvalue()


def _stored_tower(folder: Path, stored: Mapping[str, Any], view: TileView) -> Tower:
    if stored["kind"] not in get_args(TowerKind):
        msg = f"{folder / LAYOUT_FILE} names the tower {stored['kind']!r}; there are {', '.join(get_args(TowerKind))}"
        raise ModelError(msg)
    if stored["kind"] == "clip":
        return fitting(ClipTower.from_pretrained(folder / _TOWER_FOLDER, stored["pooling"]), view)
    tower = CompactTower(view, stored["width"], stored["hidden"])
    require_files(folder, (_TOWER_FILE,), "RALI student")
    _load(tower, folder / _TOWER_FILE)
    return tower.eval()


def _load(module: nn.Module, path: Path) -> None:
    state = load_file(path)
    require_same_tensors(shapes_of(state), shapes_of(module.state_dict()), f"{path} does not fit its student")
    module.load_state_dict(state)
