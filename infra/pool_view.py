"""What DVC sees of a pool folder: everything but the entries that it cannot hash.

DVC stops at a dead link or a name that is no UTF-8, and waits at a pipe for ever, while ``collect`` records each with a
reason. So a workspace looks at its pool through a link of its own, below which ``.dvcignore`` holds; that file names
what DVC passes over, and ``collect`` depends on it as on the pool.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Final

from infra.errors import InfraError

LINK: Final = "pool"
"""Of a workspace: the folder that is its pool."""

IGNORED: Final = ".dvcignore"

POOL: Final = "data/pool"
"""The checkout's pool."""

_ALWAYS: Final = "/.work\n/data\n/.store\n/artifacts/base\n"
_NO_PATTERN: Final = re.compile("[\x00-\x20\ud800-\udfff]")
"""What a file name may hold and a pattern may not: spaces, control characters, and Python's stand-ins for bytes."""
_ANY_SUCH: Final = "[!!-\ud7ff\ue000-\U0010ffff]"
"""The pattern of any one of them."""


def link_pool(root: Path, pool: Path | None) -> None:
    """Make a workspace's link to its pool; None if the pool is no folder.

    Raises:
        OSError: the workspace cannot be written.
    """
    link = root / LINK
    if link.is_symlink() and (pool is None or link.readlink() != pool):
        link.unlink()
    if pool is not None and not link.is_symlink():
        link.symlink_to(pool)


def refresh_view(root: Path) -> None:
    """Have ``.dvcignore`` name what DVC cannot hash of a workspace's pool now; written only if it says otherwise.

    Raises:
        InfraError: it is the checkout, whose pool is tracked as it is, and something there cannot be hashed.
    """
    link, file = root / LINK, root / IGNORED
    if (root / "data").is_symlink():  # a workspace
        hidden = [f"/{LINK}/**/.*\n", *(_lines(link, path) for path in unhashable(link))] if link.is_symlink() else []
        text = _ALWAYS + "".join(hidden)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
    elif odd := unhashable(root / POOL):
        msg = (
            f"{root / POOL} holds {odd[0]!a}, which DVC cannot track: take it out (photos and clips of your own "
            "go into another folder: vital run --pool FOLDER)"
        )
        raise InfraError(msg)


def unhashable(pool: Path) -> list[str]:
    """Paths relative to a pool that DVC cannot hash or must not follow, sorted.

    These are dead links, links to folders, pipes, sockets and devices, what may not be read, and names that are no
    UTF-8. Hidden files and folders are not looked at.
    """
    found: list[Path] = []
    unlisted: list[OSError] = []
    for parent, folders, files in os.walk(pool, onerror=unlisted.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = [Path(parent, name) for name in (*folders, *files) if not name.startswith(".")]
        found += [path for path in shown if path.is_symlink() and path.is_dir()]
        found += [path for path in shown if not path.is_dir() and not (_readable(path) and _is_text(path.name))]
        found += [path for path in shown if path.is_dir() and not _is_text(path.name)]
    found += [path for path in (Path(error.filename) for error in unlisted) if path != pool]
    return sorted({path.relative_to(pool).as_posix() for path in found})


def _readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _lines(pool: Path, path: str) -> str:
    """The pattern that matches a path and nothing else; a comment tells a file that is collected from a later one."""
    comment = ""
    if _readable(pool / path):
        with (pool / path).open("rb") as file:
            comment = f"# {hashlib.file_digest(file, 'sha256').hexdigest()}\n"
    escaped = re.sub(r"([\\*?\[\]])", r"\\\1", path)
    return f"{comment}/{LINK}/{_NO_PATTERN.sub(_ANY_SUCH, escaped)}\n"
