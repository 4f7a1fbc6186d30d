"""What travels with the repository in the seed remote, and whether what lies here is what the DVC files name.

After ``git pull`` the DVC files may name other bytes than those that were pulled before. The comparison hashes the
files themselves (some 30 MB), without DVC, whose start alone takes longer.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import yaml

from infra.dvc_store import cache_folder
from infra.dvc_tree import cached_listing, folder_listing, listing_hash
from infra.errors import InfraError


class InputState(StrEnum):
    """How an input compares with its DVC file.

    ABSENT: there is no file. CURRENT: it is what the DVC file names. OLD: it is something else that DVC has a listing
    of, so nothing of it can get lost. CHANGED: somebody has changed it since.
    """

    ABSENT = "absent"
    CURRENT = "current"
    OLD = "old"
    CHANGED = "changed"


@dataclass(frozen=True)
class TravellingInput:
    """An input that travels with the repository.

    Attributes:
        path: folder, relative to the checkout.
        file: DVC file to pull.
        record: command that makes the DVC file name what lies in the folder.
        state: how the two compare.
    """

    path: str
    file: str
    record: str
    state: InputState


_INPUTS: Final = (
    ("data", "data.dvc", "data.dvc", "dvc add data"),
    ("artifacts/base", "infra/base/dvc.yaml", "infra/base/dvc.lock", "dvc commit --force infra/base/dvc.yaml"),
)
"""Folder, DVC file to pull, file that names the folder's hash, command that records the folder."""


def travelling_inputs(checkout: Path) -> list[TravellingInput]:
    """Compare the sample pool and the base models with their DVC files.

    Raises:
        InfraError: a DVC file, or a file of the folder, cannot be read.
    """
    return [
        TravellingInput(path, file, record, _state(checkout, path, checkout / names))
        for path, file, names, record in _INPUTS
    ]


def _state(checkout: Path, path: str, names: Path) -> InputState:
    folder = checkout / path
    if folder.exists() and not names.is_file():
        return InputState.CURRENT  # nothing says what it should be
    try:
        listing = folder_listing(folder)
        if not listing:
            return InputState.ABSENT
        wanted, here = _wanted(names, path), listing_hash(listing)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        msg = f"cannot compare {folder} with {names}: {' '.join(str(error).split())}"
        raise InfraError(msg) from error
    if wanted in (None, here):
        return InputState.CURRENT
    return InputState.CHANGED if cached_listing(cache_folder(checkout), here) is None else InputState.OLD


def _wanted(names: Path, path: str) -> str | None:
    """The hash that a .dvc file or a lock gives a path; None if it does not name it."""
    content: dict[str, Any] = yaml.safe_load(names.read_text())
    entries = [content, *content.get("stages", {}).values()]
    hashes = {out["path"]: out["md5"] for entry in entries for out in entry.get("outs", [])}
    return hashes.get(path)
