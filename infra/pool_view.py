"""What DVC sees of a pool folder: all of it, or, where it holds what DVC cannot hash, a digest of how it looks.

DVC stops at a dead link or a name that is no UTF-8, waits at a pipe for ever, and passes over a folder that is a DVC
project itself, while ``collect`` records or reads each of them. So a workspace looks at its pool through a link of its
own, below which ``.dvcignore`` holds. Where DVC can look, it does; where it cannot, that file hides the whole pool and
holds the digest instead. ``collect`` depends on both.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from infra.errors import InfraError
from infra.text_files import settle_text

LINK: Final = ".pool"
"""Of a workspace: the folder that is its pool."""

IGNORED: Final = ".dvcignore"

POOL: Final = "data/pool"
"""The checkout's pool."""

_ALWAYS: Final = "/.work\n/data\n/.store\n/artifacts/base\n"
_STEERS_DVC: Final = (".dvc", IGNORED)


def link_pool(root: Path, pool: Path | None) -> None:
    """Make a workspace's link to its pool and its view of it; None if the pool is no folder.

    Raises:
        OSError: the workspace cannot be written.
    """
    link = root / LINK
    if link.is_symlink() and (pool is None or link.readlink() != pool):
        link.unlink()
    if pool is None:
        settle_text(root / IGNORED, _ALWAYS)
        return
    if not link.is_symlink():
        link.symlink_to(pool)
    refresh_view(root)


def refresh_view(root: Path) -> None:
    """Have ``.dvcignore`` of a workspace say how its pool looks now; written only if it says otherwise.

    Raises:
        InfraError: it is the checkout, whose pool is tracked as it is, and something there cannot be hashed.
        OSError: the workspace cannot be written.
    """
    if (root / LINK).is_symlink():
        settle_text(root / IGNORED, _ALWAYS + _view(root / LINK))
    elif odd := unhashable(root / POOL):
        msg = (
            f"{root / POOL} holds {odd[0]!a}, which DVC cannot track: take it out (photos and clips of your own "
            "go into another folder: vital run --pool FOLDER)"
        )
        raise InfraError(msg)


def unhashable(pool: Path) -> list[str]:
    """Paths relative to a pool that DVC cannot hash or must not follow, sorted.

    These are dead links, links to folders, pipes, sockets and devices, what may not be read, names that are no UTF-8,
    and what would steer DVC within the pool. Other hidden files and folders are not looked at.
    """
    return sorted(os.path.relpath(entry.path, pool) for entry in _entries(pool) if not _is_hashable(entry))


def _view(pool: Path) -> str:
    if all(_is_hashable(entry) for entry in _entries(pool)):
        return f"/{LINK}/**/.*\n"
    return f"# {_looks(pool)}\n/{LINK}/*\n"


def _entries(folder: Path | str) -> Iterator["os.DirEntry[str]"]:
    """Everything in a folder and below but what is hidden; what steers DVC is told and not entered."""
    try:
        with os.scandir(folder) as found:
            shown = [entry for entry in found if entry.name in _STEERS_DVC or not entry.name.startswith(".")]
    except OSError:  # collect says which folder and why
        return
    for entry in shown:
        yield entry
        if entry.name not in _STEERS_DVC and entry.is_dir(follow_symlinks=False):
            yield from _entries(entry.path)


def _is_hashable(entry: "os.DirEntry[str]") -> bool:
    if entry.name in _STEERS_DVC or not _is_text(entry.name):
        return False
    if entry.is_dir(follow_symlinks=False):
        return os.access(entry.path, os.R_OK | os.X_OK)
    return _is_file(entry) and os.access(entry.path, os.R_OK)


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # links in a circle
        return False


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _looks(pool: Path) -> str:
    """Digest of names, kinds, sizes, times of change and readability: no file is read for it."""
    sha = hashlib.sha256()
    for path, entry in sorted((os.path.relpath(entry.path, pool), entry) for entry in _entries(pool)):
        told = f"{_kind(entry)} {os.access(entry.path, os.R_OK)}"
        sha.update(os.fsencode(path) + b"\0" + told.encode() + b"\0")
    return sha.hexdigest()


def _kind(entry: "os.DirEntry[str]") -> str:
    """A file as its size and time of change, anything else as the kind of thing that it is."""
    try:
        found = entry.stat()
    except OSError:
        return "leads nowhere"
    if stat.S_ISREG(found.st_mode):
        return f"{found.st_size} {found.st_mtime_ns}"
    return f"{stat.S_IFMT(found.st_mode)} {entry.is_symlink()}"
