"""A CLIP model's folder, of which each tower reads its own part."""

from pathlib import Path
from typing import Any

import torch

from models.checkpoint import check_fit, require_files
from models.errors import ModelError


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
