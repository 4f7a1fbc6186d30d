"""DVC's way of naming a folder's content, read and computed without DVC: a listing of MD5 by path, and its hash.

A folder that DVC tracks is an object of its own in the cache: the JSON listing of its files, named by the MD5 of that
JSON with ``.dir`` behind it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_LISTED: Final = ".dir"
_OBJECTS: Final = "files/md5"

Listing = dict[str, str]
"""Path relative to the folder -> MD5 of the file's bytes."""


def folder_listing(folder: Path) -> Listing:
    """Hash every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _md5_of(path) for path in files}


def listing_hash(listing: Mapping[str, str]) -> str:
    """What DVC calls a folder with this content."""
    return hashlib.md5(listing_object(listing), usedforsecurity=False).hexdigest() + _LISTED


def listing_object(listing: Mapping[str, str]) -> bytes:
    """The object by which DVC stores a folder with this content; :func:`listing_hash` names it."""
    entries = [{"md5": listing[path], "relpath": path} for path in sorted(listing)]
    return json.dumps(entries, sort_keys=True).encode()


def cached_listing(cache: Path, name: str) -> Listing | None:
    """Listing of a folder that DVC's cache holds under this name; None if it holds none, or a damaged one."""
    path = cached_object(cache, name)
    if not name.endswith(_LISTED) or not path.is_file():
        return None
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() + _LISTED != name:
        return None
    return {entry["relpath"]: entry["md5"] for entry in json.loads(content)}


def cached_object(cache: Path, name: str) -> Path:
    """Where DVC's cache keeps the object of this name."""
    return cache / object_key(name)


def object_key(name: str) -> str:
    """Key of an object in DVC's cache and in its remotes."""
    return f"{_OBJECTS}/{name[:2]}/{name[2:]}"


def below(listing: Mapping[str, str], inner: str) -> str | None:
    """Hash of a file or folder inside a listed folder, as DVC gives it; None if it is not there."""
    if inner in listing:
        return listing[inner]
    inside = {path.removeprefix(f"{inner}/"): md5 for path, md5 in listing.items() if path.startswith(f"{inner}/")}
    return listing_hash(inside) if inside else None


def _md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
