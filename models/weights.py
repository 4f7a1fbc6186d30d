"""Published weights that VITAL can use, by name: the official scorers', the motion extractor's, base models', CLIP's.

Records only; nothing is read or fetched here. :func:`check_plain` says whether a file holds tensors and no code.
"""

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from models.errors import MissingWeightsError, ModelError
from models.scorers import records

HUB: Final = "https://huggingface.co"

_BASES: Final = {
    "OpenGVLab/InternVL3-1B-hf": 1900,
    "OpenGVLab/InternVL3-2B-hf": 4200,
    "OpenGVLab/InternVL3-8B-hf": 15900,
    "OpenGVLab/InternVL3-14B-hf": 30300,
}
"""Snapshots of the hub that the paper's profile trains (``DECODERS`` names them), and about their megabytes."""
RELEASED_ENCODER: Final = "JZHWS/VITAL-Vision-Encoder-300M"
RELEASED_PROBE: Final = "JZHWS/VITAL-Linear-Probe"
RELEASED: Final = {
    "JZHWS/VITAL-Base-8B": 16000,
    "JZHWS/VITAL-Assistant-8B": 16000,
    "JZHWS/VITAL-Warm-up-1B": 2000,
    "JZHWS/VITAL-Warm-up-2B": 4300,
    "JZHWS/VITAL-Warm-up-14B": 30400,
    RELEASED_ENCODER: 700,
    RELEASED_PROBE: 700,
}
"""The VITAL authors' own checkpoints (README of jzhws/VITAL-Series), and megabytes by their sizes."""
_RELEASED_LICENCE: Final = "MIT, as its page says"
_NO_LICENCE: Final = "none is stated on its page"
_CLIP_LICENCE: Final = "none is stated on its page; OpenAI's repository of CLIP: MIT"
_BASE_LICENCE: Final = "MIT (language model: Qwen2.5's licence)"
SLOWFAST: Final = "SLOWFAST_8x8_R50.pyth"
"""File of the motion extractor's weights (Kinetics-400)."""
_SLOWFAST_ORIGIN: Final = f"https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/{SLOWFAST}"
_SLOWFAST_MEGABYTES: Final = 277
CLIP: Final = "openai/clip-vit-large-patch14"
"""The paper's backbone of a student without a language model (RALI)."""
_CLIP_FILES: Final = ("config.json", "model.safetensors", "tokenizer.json")
"""What its towers read; the page has the same weights in formats of other frameworks too."""
_CLIP_SHAPES: Final = {
    "logit_scale": (),
    "text_model.embeddings.position_embedding.weight": (77, 768),
    "text_model.embeddings.token_embedding.weight": (49408, 768),
    "text_projection.weight": (768, 768),
    "vision_model.embeddings.patch_embedding.weight": (1024, 3, 14, 14),
    "vision_model.embeddings.position_embedding.weight": (257, 1024),
    "vision_model.encoder.layers.23.mlp.fc1.weight": (4096, 1024),
    "visual_projection.weight": (768, 1024),
}
"""Tensors by which a ViT-L/14 with tiles of 224 px and a joint space of 768 is known."""
_CLIP_MEGABYTES: Final = 1713
_REVISION: Final = ("refs", "main")


@dataclass(frozen=True)
class WeightRecord:
    """One file or hub snapshot.

    Attributes:
        name: the file's name, or the hub's name of the snapshot (``owner/model``).
        owners: what needs it.
        origin: URL of the file, or the snapshot's page.
        licence: under which it is published.
        sha256: published hash, all of its 64 digits or the first ones; empty if none is known.
        megabytes: about its size.
        path: where it belongs on this machine; of a snapshot its folder in the hub's cache.
        snapshot: whether it is a snapshot.
        files: of a snapshot, those that must be there and are fetched; empty leaves that to its index.
        shapes: of some tensors of a snapshot's safetensors, by which the right one is known.
    """

    name: str
    owners: tuple[str, ...]
    origin: str
    licence: str
    sha256: str
    megabytes: int
    path: Path
    snapshot: bool
    files: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def instruction(self) -> str:
        """What to do by hand, one line."""
        if self.snapshot:
            these = f", of it {', '.join(self.files)}," if self.files else ""
            return f"put the snapshot {self.name} ({self.origin}){these} into {self.path}: vital weights add FOLDER"
        return f"put {self.name} into {self.path.parent} (from {self.origin}): vital weights add FILE"


def weight_records() -> dict[str, WeightRecord]:
    """All published weights by name, scorers' first; places follow TORCH_HOME and HF_HUB_CACHE."""
    found: dict[str, WeightRecord] = {}
    for owner, scorer in records().items():
        for file in scorer.weights:
            snapshot = file.path.parts[-2:] == _REVISION
            path = file.path.parents[1] if snapshot else file.path
            name = _hub_name(path) if snapshot else path.name
            owners = (*found[name].owners, owner) if name in found else (owner,)
            found[name] = WeightRecord(
                name, owners, file.origin, file.licence, file.sha256, file.megabytes, path, snapshot
            )
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    torch_home = Path(os.environ.get("TORCH_HOME", cache / "torch"))
    slowfast = torch_home / "hub" / "checkpoints" / SLOWFAST  # where torch.hub puts it
    owners = ("motion extractor",)
    found[SLOWFAST] = WeightRecord(
        SLOWFAST, owners, _SLOWFAST_ORIGIN, "Apache-2.0", "", _SLOWFAST_MEGABYTES, slowfast, snapshot=False
    )
    hub = next(record.path.parent for record in found.values() if record.snapshot)
    for name, megabytes in _BASES.items():
        path = hub / f"models--{name.replace('/', '--')}"
        owner = f"decoder {name.partition('/')[2].removesuffix('-hf').lower()}"
        found[name] = WeightRecord(name, (owner,), f"{HUB}/{name}", _BASE_LICENCE, "", megabytes, path, snapshot=True)
    for name, megabytes in RELEASED.items():
        path = hub / f"models--{name.replace('/', '--')}"
        owner = f"released {name.partition('/')[2]}"
        licence = _NO_LICENCE if name == RELEASED_ENCODER else _RELEASED_LICENCE
        found[name] = WeightRecord(name, (owner,), f"{HUB}/{name}", licence, "", megabytes, path, snapshot=True)
    found[CLIP] = _clip(hub)
    return found


def _clip(hub: Path) -> WeightRecord:
    return WeightRecord(
        name=CLIP,
        owners=("rali",),
        origin=f"{HUB}/{CLIP}",
        licence=_CLIP_LICENCE,
        sha256="",
        megabytes=_CLIP_MEGABYTES,
        path=hub / f"models--{CLIP.replace('/', '--')}",
        snapshot=True,
        files=_CLIP_FILES,
        shapes=_CLIP_SHAPES,
    )


def snapshot_folder(name: str) -> Path:
    """Folder with the files of a hub snapshot's present revision.

    Args:
        name: the hub's name (``owner/model``), one of :func:`weight_records`.

    Raises:
        MissingWeightsError: the snapshot is not on this machine; the message says what belongs where.
    """
    record = weight_records()[name]
    reference = record.path.joinpath(*_REVISION)
    folder = record.path / "snapshots" / (reference.read_text().strip() if reference.is_file() else "")
    if not (folder / "config.json").is_file():
        raise MissingWeightsError(record.instruction)
    return folder


def check_plain(path: Path) -> None:
    """Load a pickle of tensors as loaders will, without running code of it; safetensors and other files hold none.

    Raises:
        ModelError: the file is broken, or holds more than tensors and plain values.
    """
    if path.suffix not in {".pt", ".pth", ".pyth", ".bin", ".ckpt"}:
        return
    if is_torchscript(path):
        msg = f"{path.name} is not a file of tensors alone: it is a TorchScript archive, which holds code"
        raise ModelError(msg)
    import torch  # noqa: PLC0415 - seconds that only who brings weights pays

    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError, AttributeError) as error:
        said = " ".join(str(error).split())[:160]
        msg = f"{path.name} is not a file of tensors alone (torch.load with weights_only=True says: {said})"
        raise ModelError(msg) from error


def is_torchscript(path: Path) -> bool:
    """Say whether a file is a TorchScript archive, which holds code; OpenAI publishes CLIP so."""
    import zipfile  # noqa: PLC0415

    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _hub_name(folder: Path) -> str:
    return folder.name.removeprefix("models--").replace("--", "/")
