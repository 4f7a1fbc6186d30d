"""Photos and clips that a command line names: files, and folders searched for media."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from tasks.errors import MediaError
from tasks.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES

T = TypeVar("T")


@dataclass(frozen=True)
class Named:
    """A medium to work on, or why there is none under that name."""

    path: Path
    problem: MediaError | None = None


def find_media(names: Sequence[str]) -> list[Named]:
    """Resolve names in order; folders are searched recursively, hidden files left out, files sorted by path."""
    return [named for name in names for named in _resolve(name)]


def _resolve(name: str) -> Iterator[Named]:
    path = Path(name)
    if not name:
        yield Named(path, MediaError("missing", "an empty name names no file"))
        return
    try:
        there, folder = path.exists(), path.is_dir()
    except OSError as error:  # a name that no file system takes, a folder that may not be entered
        yield Named(path, MediaError("unreadable", f"cannot be read: {error.strerror}"))
        return
    if folder:
        closed: list[Named] = []
        found = sorted(_media_in(path, closed))
        yield from closed
        yield from (Named(file) for file in found)
        if not found and not closed:
            yield Named(path, MediaError("empty_folder", "the folder holds no photos or clips"))
    elif there:
        yield Named(path)
    else:
        yield Named(path, MediaError("missing", "there is no such file or folder"))


def _media_in(folder: Path, closed: list[Named]) -> Iterator[Path]:
    """Media below a folder; folders that cannot be listed are added to ``closed``."""

    def refused(error: OSError) -> None:
        closed.append(Named(Path(error.filename), MediaError("unreadable", f"cannot be listed: {error.strerror}")))

    for place, folders, files in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
                yield Path(place) / name


def with_progress(items: Iterable[T], label: str, total: int) -> Iterable[T]:
    """The same items, with a progress bar and the time left on stderr if a person is watching more than one of them."""
    if total < 2 or not sys.stderr.isatty():
        return items
    from tqdm import tqdm

    return tqdm(items, desc=label, unit="file", leave=False, total=total)


def tell_problem(path: Path, error: Exception, *, as_json: bool) -> None:
    """Say why a medium was rejected: a JSON object among the results, or a line on stderr."""
    if as_json:
        reason = {"reason": error.reason} if isinstance(error, MediaError) else {}
        click.echo(json.dumps({"path": str(path), **reason, "error": str(error)}))
    else:
        click.echo(f"vital: {printable(str(path))}: {error}", err=True)


def printable(text: str) -> str:
    """The text with escapes for what is no printable character: a file's name must not command a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
