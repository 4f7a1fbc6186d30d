"""Weight files on this machine: their state, their hash, and how they come to their place whole or not at all."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final

from infra.errors import InfraError

Check = Callable[[Path], None]
"""Raises an error if a file may not be loaded."""

HASH_DIGITS: Final = 64
_COMMIT_DIGITS: Final = 40
_PIECE: Final = 1 << 20
_PICKLE: Final = b"\x80"
_WEIGHTS: Final = frozenset({".safetensors", ".bin", ".pt", ".pth"})
_REVISION: Final = Path("refs") / "main"


class State(StrEnum):
    """What is found at a file's place."""

    PRESENT = "present"
    MISSING = "missing"
    WRONG_HASH = "wrong hash"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    OTHER = "another model"


@dataclass(frozen=True)
class Finding:
    """State of a file or snapshot; ``sha256`` is empty if nothing was hashed, ``detail`` says what is wrong."""

    state: State
    sha256: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Wanted:
    """What a snapshot must hold beyond its configuration and what its index names.

    Attributes:
        files: by name; where any are named, nothing else is copied. shapes: of tensors in its safetensors files.
    """

    files: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


_ANYTHING: Final = Wanted()


def file_state(path: Path, sha256: str = "") -> Finding:
    """Look at one file: is it there, whole, and what was published?

    Args:
        path: the file.
        sha256: published hash or its first digits; empty if there is none.
    """
    if not path.is_file():
        return Finding(State.MISSING)
    if problem := _structure(path):
        return problem
    found = sha256_of(path)
    if not found.startswith(sha256):
        return Finding(State.WRONG_HASH, found, f"sha256 is {found}, published is {sha256}")
    return Finding(State.PRESENT, found)


def snapshot_state(folder: Path, wanted: Wanted = _ANYTHING) -> Finding:
    """Look at a snapshot in the hub's cache: its configuration, what its index names and what is wanted, whole.

    Args:
        folder: ``models--owner--name`` with ``refs/main`` and ``snapshots/<revision>``.
    """
    reference = folder / _REVISION
    if not reference.is_file():
        return Finding(State.MISSING)
    return content_state(folder / "snapshots" / reference.read_text().strip(), wanted)


def content_state(folder: Path, wanted: Wanted = _ANYTHING) -> Finding:
    """Look at the files of a snapshot."""
    if not (folder / "config.json").is_file():
        return Finding(State.MISSING, detail=f"no config.json in {folder}")
    try:
        named = _named_in_indexes(folder)
    except (ValueError, KeyError, AttributeError) as error:
        return Finding(State.DAMAGED, detail=f"an index of {folder} cannot be read ({error})")
    there = {path.name for path in folder.iterdir() if path.suffix in _WEIGHTS and path.exists()}
    return _lacking(folder, wanted, named - there, len(named)) or _of_weights(folder, there, wanted)


def _named_in_indexes(folder: Path) -> set[str]:
    """Weight files that the indexes of a snapshot name."""
    indexes = [json.loads(index.read_text())["weight_map"] for index in folder.glob("*.index.json")]
    return {shard for index in indexes for shard in index.values()}


def _lacking(folder: Path, wanted: Wanted, shards: set[str], named: int) -> Finding | None:
    """What a snapshot lacks of the files that are wanted, and of those that its indexes name."""
    if absent := [name for name in wanted.files if not (folder / name).is_file()]:
        return Finding(State.TRUNCATED, detail=f"{len(absent)} of {len(wanted.files)} files lack, first {absent[0]}")
    if shards:
        return Finding(State.TRUNCATED, detail=f"{len(shards)} of {named} weight files lack, first {min(shards)}")
    return None


def _of_weights(folder: Path, there: set[str], wanted: Wanted) -> Finding:
    """Whether weight files are whole, and those of the model that is wanted."""
    if not there:
        return Finding(State.TRUNCATED, detail="it holds no weight file")
    for name in sorted(there):
        if problem := _structure(folder / name):
            return problem
    shown = [folder / name for name in there if name.endswith(".safetensors")]
    return _other_model(shown, wanted) or Finding(State.PRESENT)


def _other_model(files: Sequence[Path], wanted: Wanted) -> Finding | None:
    """Whether tensors of a snapshot have other shapes than those wanted, or are not there."""
    if not wanted.shapes:
        return None
    shapes = {name: tuple(entry["shape"]) for path in files for name, entry in _tensors(path).items()}
    for name, shape in wanted.shapes.items():
        if shapes.get(name) != shape:
            found = f"is {list(shapes[name])}" if name in shapes else "is not there"
            return Finding(State.OTHER, detail=f"{name} {found}, and {list(shape)} is wanted")
    return None


def check_blobs(folder: Path, wanted: Wanted = _ANYTHING) -> None:
    """Compare the files of a snapshot that the hub's client has fetched with their hashes, the names of its blobs.

    A snapshot that fails is forgotten: its revision is no longer the main one.

    Raises:
        InfraError: a file is not whole, or not what the hub says.
    """
    finding = snapshot_state(folder, wanted)
    if finding.state is State.PRESENT:
        for path in sorted(snapshot_content(folder).rglob("*")):
            blob = path.resolve()
            if _is_hash(blob.name, HASH_DIGITS) and sha256_of(blob) != blob.name:
                finding = Finding(State.WRONG_HASH, detail=f"{path.name} is not what the hub says")
    if finding.state is not State.PRESENT:
        (folder / _REVISION).unlink(missing_ok=True)
        msg = f"the snapshot in {folder} is {finding.state} ({finding.detail}): remove the folder and fetch it again"
        raise InfraError(msg)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def place_file(source: Path, target: Path, sha256: str) -> None:
    """Copy a file to its place under a temporary name, check the copy's hash, and rename it.

    Raises:
        InfraError: the disk is full, the copy differs, or another process writes the same file.
    """
    size = source.stat().st_size
    check_room(target, size)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.incoming")
    with full_disk_told(target, size), locked(part) as copy, _removed_if_left(part):
        copy.truncate(0)
        with source.open("rb") as original:
            shutil.copyfileobj(original, copy, _PIECE)
        copy.flush()
        os.fsync(copy.fileno())
        if sha256_of(part) != sha256:
            msg = f"the copy of {source} differs from it: is another program writing to it?"
            raise InfraError(msg)
        part.replace(target)


def place_snapshot(source: Path, folder: Path, wanted: Wanted = _ANYTHING) -> str:
    """Copy the files of a snapshot into the hub's cache, and name it the main revision when all are there.

    Args:
        source: a folder with ``config.json``, or a ``models--owner--name`` folder of another cache.
        folder: ``models--owner--name`` of this machine's cache.

    Returns:
        The revision: the hub's, if the folder's name tells it, else a hash of the names and sizes of its files.

    Raises:
        InfraError: it is not complete, or the disk is full.
    """
    source = snapshot_content(source)
    finding = content_state(source, wanted)
    if finding.state is not State.PRESENT:
        msg = f"{source} is not a whole snapshot: {finding.detail}"
        raise InfraError(msg)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    if wanted.files:
        files = [source / name for name in sorted(wanted.files)]
    size = sum(path.stat().st_size for path in files)
    check_room(folder, size)
    revision = source.name if _is_hash(source.name, _COMMIT_DIGITS) else _revision_of(source, files)
    part = folder / "snapshots" / f".{revision}.incoming"
    with full_disk_told(folder, size), _removed_if_left(part):
        for path in files:
            copy = part / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        shutil.rmtree(folder / "snapshots" / revision, ignore_errors=True)
        part.rename(folder / "snapshots" / revision)
        _write_reference(folder, revision)
    return revision


def _write_reference(folder: Path, revision: str) -> None:
    (folder / _REVISION).parent.mkdir(parents=True, exist_ok=True)
    reference = (folder / _REVISION).with_name(".main.incoming")
    reference.write_text(revision)
    reference.replace(folder / _REVISION)


@contextmanager
def _removed_if_left(part: Path) -> Iterator[None]:
    """Remove an unfinished file or folder, of this call or of one that was killed."""
    if part.is_dir():
        shutil.rmtree(part)
    try:
        yield
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def snapshot_content(folder: Path) -> Path:
    """The folder that holds a snapshot's files: itself, or the main revision of a folder of the hub's cache."""
    reference = folder / _REVISION
    return folder / "snapshots" / reference.read_text().strip() if reference.is_file() else folder


@contextmanager
def locked(part: Path) -> Iterator[BinaryIO]:
    """Open an unfinished file for appending, alone.

    Raises:
        InfraError: another process has it.
    """
    file = part.open("ab")
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"another process is writing {part}: wait for it"
            raise InfraError(msg) from error
        yield file
        file.flush()
    finally:
        with suppress(OSError):  # of a full disk, which flush has told
            file.close()


@contextmanager
def full_disk_told(target: Path, size: int) -> Iterator[None]:
    """Turn the error of a full disk into one line.

    Raises:
        InfraError: there is no room for ``size`` bytes of ``target``.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        raise _no_room(target, size) from error


def check_room(target: Path, size: int) -> None:
    """Refuse to begin what cannot end.

    Raises:
        InfraError: the disk of ``target`` has less than ``size`` bytes left.
    """
    place = target
    while not place.exists():
        place = place.parent
    if shutil.disk_usage(place).free < size:
        raise _no_room(target, size)


def _no_room(target: Path, size: int) -> InfraError:
    needs = f", which needs {size / 1e6:.0f} MB" if size else ""
    msg = f"no space left on the disk for {target}{needs}: free some, or set TORCH_HOME or HF_HUB_CACHE to another disk"
    return InfraError(msg)


def _structure(path: Path) -> Finding | None:
    """What the shape of a file says without its hash: cut, or no weights at all; None if nothing is wrong."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
    if not size:
        return Finding(State.TRUNCATED, detail=f"{path.name} has no bytes")
    if path.suffix == ".safetensors":
        return _safetensors(path, size)
    if head.startswith(b"PK"):
        whole = zipfile.is_zipfile(path)
        return None if whole else Finding(State.TRUNCATED, detail=f"{path.name} ends before its table of contents")
    if head.startswith(_PICKLE):
        return None
    return Finding(State.DAMAGED, detail=f"{path.name} is not a file of weights; it begins with {head!r}")


def _safetensors(path: Path, size: int) -> Finding | None:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        end = max(entry["data_offsets"][1] for entry in (_tensors(path) if length < size else {}).values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Finding(State.TRUNCATED, detail=f"{path.name} has no whole header ({error})")
    if 8 + length + end > size:
        return Finding(State.TRUNCATED, detail=f"{path.name} has {size} of {8 + length + end} bytes")
    return None


def _tensors(path: Path) -> dict[str, Any]:
    """Entries of a safetensors file's header."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _is_hash(name: str, digits: int) -> bool:
    return len(name) == digits and set(name) <= set("0123456789abcdef")


def _revision_of(folder: Path, files: list[Path]) -> str:
    listing = [f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in files]
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()[:_COMMIT_DIGITS]
