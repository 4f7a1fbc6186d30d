"""Immutable objects under one URL, a folder or an S3 prefix: what clones and workers share without a server.

An object is written once and never changed: ``put_if_absent`` is the only way in. A reader sees a whole object or
none, whatever happens to its writer.
"""

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from infra.errors import InfraError, MissingObjectError

_INCOMING: Final = ".incoming"
_STALE_S: Final = 24 * 3600
_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class ObjectStore(Protocol):
    """Write-once objects by key; a key is a relative POSIX path such as ``opinions/fragments/ab12.parquet``."""

    @property
    def url(self) -> str:
        """Where the objects lie."""
        ...

    def check(self) -> None:
        """Prove that the place can be reached.

        Raises:
            InfraError: it cannot; the message says what to mend.
        """
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Store ``data`` under ``key`` unless something is there already.

        Returns:
            True if this call stored it, False if the key existed (its content stays as it is). After a network failure
            that hid the first answer, a repeated S3 write may say False for an object of its own.
        """
        ...

    def get(self, key: str) -> bytes:
        """Return an object's bytes.

        Raises:
            MissingObjectError: there is no such object.
        """
        ...

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return ``length`` bytes of an object from ``offset`` on.

        Raises:
            MissingObjectError: there is no such object.
            InfraError: the object ends before.
        """
        ...

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object of any size to the file ``path``, which is written over; its folder must exist.

        Raises:
            MissingObjectError: there is no such object.
        """
        ...

    def exists(self, key: str) -> bool:
        """Say whether the object is there."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Return all keys that start with ``prefix`` (plain string prefix, "" for all), sorted."""
        ...

    def tags(self, prefix: str) -> dict[str, str]:
        """Like ``list``, with the entity tag that a server gives to an object's bytes; empty where there is none."""
        ...


def open_store(url: str, endpoint: str | None = None) -> ObjectStore:
    """Open the store at ``url``: a folder (``/path``, ``relative/path``, ``file:///path``) or ``s3://bucket/prefix``.

    Args:
        url: where the objects lie; a folder is made when the first object is put.
        endpoint: S3 server other than AWS; without it AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL are honoured.
            Credentials come from the environment (or boto3's other standard places), never from arguments.

    Raises:
        InfraError: the URL is of another kind or names no bucket.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        if not parts.netloc:
            msg = f"{url!r} names no bucket: write s3://BUCKET/PREFIX"
            raise InfraError(msg)
        from infra.s3_store import S3Store  # noqa: PLC0415 - S3 builds on this module; a folder needs none of it

        return S3Store(parts.netloc, parts.path.strip("/"), endpoint)
    if parts.scheme == "file":
        return FolderStore(Path(unquote(parts.path)))
    if parts.scheme or not url:
        msg = f"{url!r} is not a store: write a folder or s3://BUCKET/PREFIX"
        raise InfraError(msg)
    return FolderStore(Path(url))


def check_key(key: str) -> str:
    """Return ``key`` if it is a clean relative POSIX path.

    Raises:
        InfraError: it is empty, absolute, climbs with ``..``, or is not in its shortest form.
    """
    path = PurePosixPath(key)
    unclean = not path.parts or key.startswith("/") or ".." in path.parts or str(path) != key
    if unclean or "\\" in key or "\0" in key or path.parts[0] == _INCOMING:
        msg = f"{key!r} is not an object key: use a relative path such as opinions/ab12.parquet"
        raise InfraError(msg)
    return key


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` if keys can start with it ("" is the prefix of all).

    Raises:
        InfraError: it is absolute or climbs with ``..``.
    """
    if ".." in PurePosixPath(prefix).parts or prefix.startswith("/"):
        msg = f"{prefix!r} is not a key prefix: use a relative path"
        raise InfraError(msg)
    return prefix


def check_range(store: ObjectStore, key: str, length: int, data: bytes) -> bytes:
    """Return ``data``, a part of an object that was asked for, if it is whole.

    Raises:
        InfraError: it is shorter than ``length``.
    """
    if len(data) != length:
        msg = f"{key} in the store {store.url} is shorter than its index says: upload it again"
        raise InfraError(msg)
    return data


class FolderStore:
    """Objects as files below one folder; safe for any number of processes on one machine or a shared file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self._folder)

    def check(self) -> None:
        """Prove that the folder, or the nearest one above it that exists, is writable."""
        try:
            existing = next(folder for folder in (self._folder, *self._folder.parents) if folder.exists())
        except OSError as error:
            msg = f"{self.url} cannot be a store: {error.strerror}"
            raise InfraError(msg) from error
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            msg = f"the store {self.url} cannot be written: {existing} is no folder, or not yours to write to"
            raise InfraError(msg)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write to a temporary file, flush it to disk, and link it to its name: whole or absent, first writer wins."""
        path = self._folder / check_key(key)
        if path.is_file():
            return False
        with self._explained(f"write {key} to"):
            incoming = self._folder / _INCOMING
            incoming.mkdir(parents=True, exist_ok=True)
            self._sweep(incoming)
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=incoming)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fchmod(file.fileno(), 0o644)
                    os.fsync(file.fileno())
                stored = self._claim(Path(name), path)
            finally:
                Path(name).unlink(missing_ok=True)
            _sync_folder(path.parent)
        return stored

    def get(self, key: str) -> bytes:
        """Read the file."""
        with self._reading(key) as path:
            return path.read_bytes()

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Read a part of the file."""
        with self._reading(key) as path, path.open("rb") as file:
            file.seek(offset)
            return check_range(self, key, length, file.read(length))

    def fetch(self, key: str, path: Path) -> None:
        """Copy the file."""
        with self._reading(key) as source:
            shutil.copyfile(source, path)

    def exists(self, key: str) -> bool:
        """Look for the file."""
        return (self._folder / check_key(key)).is_file()

    def list(self, prefix: str) -> list[str]:
        """Walk the deepest folder that the prefix names."""
        start = self._folder / check_prefix(prefix).rpartition("/")[0]
        keys: list[str] = []
        for parent, folders, files in os.walk(start):
            if Path(parent) == self._folder and _INCOMING in folders:
                folders.remove(_INCOMING)
            base = Path(parent).relative_to(self._folder)
            keys += [(base / file).as_posix() for file in files]
        return sorted(key for key in keys if key.startswith(prefix))

    def tags(self, prefix: str) -> dict[str, str]:
        """Nothing: a file system has no such tags."""
        del prefix
        return {}

    def _claim(self, temporary: Path, path: Path) -> bool:
        """Give a finished file its name if nobody has it: by a hard link, or under a lock where links do not exist."""
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with (self._folder / _INCOMING / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if path.exists():
                    return False
                temporary.rename(path)
        return True

    def _sweep(self, incoming: Path) -> None:
        """Remove what writers killed long ago have left."""
        now = time.time()
        for entry in os.scandir(incoming):
            try:
                if entry.name != "lock" and now - entry.stat().st_mtime > _STALE_S:
                    Path(entry.path).unlink()
            except FileNotFoundError:
                continue

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self._folder / check_key(key)
        if not path.is_file():
            msg = f"the store {self.url} holds no object {key!r}"
            raise MissingObjectError(msg)
        try:
            yield path
        except OSError as error:
            msg = f"cannot read {key} from the store {self.url}: {error.strerror}"
            raise InfraError(msg) from error

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = (
                f"cannot {action} the store {self.url}: {error.strerror}; check the path, its owner and the free space"
            )
            raise InfraError(msg) from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
