"""A CLIP model's folder, of which each tower reads its own part, and where it is."""

from pathlib import Path
from typing import Any

import torch

from models.checkpoint import check_fit, require_files
from models.errors import MissingWeightsError, ModelError
from models.weights import CLIP, snapshot_folder


def clip_home(root: Path, weights: str) -> Path:
    """The folder that a config means by ``weights``: one relative to ``root``, or the hub's snapshot of that name.

    Raises:
        MissingWeightsError: the snapshot is not on this machine; the message says what belongs where.
    """
    return snapshot_folder(CLIP) if weights == CLIP else root / weights


def lacking_clip(root: Path, weights: str) -> str | None:
    """What this machine lacks for it, one line; None if it is there."""
    try:
        there = (clip_home(root, weights) / "config.json").is_file()
    except MissingWeightsError as error:
        return str(error)
    return None if there else f"a CLIP model in {weights}"


def load_part(part: type[Any], folder: Path, names: tuple[str, ...] = ()) -> Any:
    """Read one of CLIP's towers with its projection, as float32; nothing is fetched.

    Args:
        part: transformers' class of the tower. names: files that must be there beside ``config.json``.

    Raises:
        MissingWeightsError: the folder is incomplete.
        ModelError: it is no CLIP.
    """
    require_files(folder, ("config.json", *names), "CLIP tower", f"put a CLIP model's files into {folder}")
    try:
        clip, info = part.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError) as error:
        msg = f"{folder} does not load as {part.__name__}: {error}"
        raise ModelError(" ".join(msg.split())) from error
    check_fit(folder, {**info, "unexpected_keys": ()})  # the whole CLIP has the other tower beside
    return clip
