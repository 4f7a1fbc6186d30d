"""Where candidates come from: a folder, an S3 prefix, or a manifest that names media one by one.

A medium that cannot be had is a ``MediaError`` of its own, ``missing`` or ``unreadable``; a pool that cannot be had (no
such folder, a server that does not answer) stops the stage.
"""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from infra.errors import InfraError, MissingObjectError
from infra.object_store import ObjectStore, check_key, open_store
from tasks.errors import MediaError, StageError
from tasks.media import read_file

MANIFEST_SUFFIXES: Final = frozenset({".txt", ".lst"})


class Pool(Protocol):
    """Where candidates come from."""

    def names(self) -> list[str]:
        """All files, sorted."""
        ...

    def read(self, key: str) -> bytes:
        """Bytes of one file.

        Raises:
            MediaError: ``missing`` or ``unreadable``.
        """
        ...

    def uri(self, key: str) -> str:
        """What the source column says of it."""
        ...

    def versions(self) -> dict[str, str]:
        """Key -> mark of the bytes that lie there, which changes with them; of a pool that keeps none, nothing."""
        ...


@dataclass(frozen=True)
class FolderPool:
    """A folder and everything below it, except hidden files and folders; links to folders are not followed."""

    folder: Path

    def names(self) -> list[str]:
        """Paths relative to the folder, sorted: files, dead links and the like, and folders that cannot be listed."""
        found: list[Path] = []

        def refused(error: OSError) -> None:
            if Path(error.filename) == self.folder:
                msg = f"the pool {self.folder} cannot be listed: {error.strerror}"
                raise StageError(msg) from error
            found.append(Path(error.filename))

        for parent, folders, files in os.walk(self.folder, onerror=refused):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [Path(parent, name) for name in files if not name.startswith(".")]
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def read(self, key: str) -> bytes:
        """Bytes of one file.

        Raises:
            MediaError: ``missing``, a link to nothing, or ``unreadable``.
        """
        path = self.folder / key
        if path.is_dir():
            raise MediaError("unreadable", "the folder cannot be listed")
        return read_file(path)

    def uri(self, key: str) -> str:
        """The relative path, so that tables do not depend on where the pool lies; bytes that are no text are told."""
        return os.fsencode(key).decode(errors="backslashreplace")

    def versions(self) -> dict[str, str]:
        """None: reading a file costs less than being wrong about it."""
        return {}


@dataclass(frozen=True)
class StorePool:
    """Objects below an S3 prefix; all requests share one client."""

    url: str
    endpoint: str | None

    def names(self) -> list[str]:
        """Object keys relative to the prefix, sorted, without hidden objects and folder markers."""
        names = (key for key in self._store.list("") if not key.endswith("/"))
        return sorted(name for name in names if not any(part.startswith(".") for part in PurePosixPath(name).parts))

    def read(self, key: str) -> bytes:
        """Bytes of one object.

        Raises:
            MediaError: ``missing``, an object that has gone, or ``unreadable``.
            InfraError: the server does not answer, or refuses.
        """
        return _read_object(self._store, key)

    def uri(self, key: str) -> str:
        """The object's URL."""
        return f"{self.url.rstrip('/')}/{key}"

    def versions(self) -> dict[str, str]:
        """The server's entity tags."""
        return self._store.tags("")

    @cached_property
    def _store(self) -> ObjectStore:
        return open_store(self.url, endpoint=self.endpoint)


@dataclass(frozen=True)
class ManifestPool:
    """A text file that names one medium a line: ``s3://bucket/key``, or a path relative to the manifest's folder."""

    path: Path
    endpoint: str | None
    _buckets: dict[str, ObjectStore] = field(default_factory=dict, repr=False, compare=False)

    def names(self) -> list[str]:
        """The lines, sorted, each once; empty lines and lines that begin with # say nothing.

        Raises:
            StageError: the file is no UTF-8 text, or a line is a URL of another kind.
        """
        lines = [line.strip() for line in self._text().splitlines()]
        for number, line in enumerate(lines, start=1):
            foreign = "://" in line and not line.startswith(("s3://", "#"))
            if foreign or line.startswith("s3:///"):
                msg = f"the manifest {self.path}, line {number}: {line!r} is neither s3://BUCKET/KEY nor a path"
                raise StageError(msg)
        return sorted({line for line in lines if line and not line.startswith("#")})

    def read(self, key: str) -> bytes:
        """Bytes of one medium.

        Raises:
            MediaError: ``missing``, a line that names nothing that is there, or ``unreadable``.
            InfraError: the server does not answer, or refuses.
        """
        if key.startswith("s3://"):
            bucket, _, name = key.removeprefix("s3://").partition("/")
            if bucket not in self._buckets:
                self._buckets.setdefault(bucket, open_store(f"s3://{bucket}", endpoint=self.endpoint))
            return _read_object(self._buckets[bucket], name)
        return read_file(self.path.parent / key)

    def uri(self, key: str) -> str:
        """The line itself."""
        return key

    def versions(self) -> dict[str, str]:
        """None: asking for each line costs about as much as reading it."""
        return {}

    def _text(self) -> str:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            said = "is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
            msg = f"the manifest {self.path} {said}: write one path or s3:// URI a line"
            raise StageError(msg) from error
        if "\0" in text:
            msg = f"the manifest {self.path} is no UTF-8 text: write one path or s3:// URI a line"
            raise StageError(msg)
        return text


def _read_object(store: ObjectStore, key: str) -> bytes:
    try:
        check_key(key)
    except InfraError as error:
        raise MediaError("unreadable", str(error)) from error
    try:
        return store.get(key)
    except MissingObjectError as error:
        raise MediaError("missing", str(error)) from error


def open_pool(pool: str, endpoint: str | None, root: Path) -> Pool:
    """Return the pool that ``collect.pool`` names: a folder or manifest relative to ``root``, or an S3 prefix.

    Raises:
        StageError: the folder or manifest does not exist, or it is another file.
    """
    if "://" in pool:
        return StorePool(pool, endpoint)
    path = root / pool
    if path.is_file() and path.suffix in MANIFEST_SUFFIXES:
        return ManifestPool(path, endpoint)
    if path.is_file():
        ends = " or ".join(sorted(MANIFEST_SUFFIXES))
        msg = f"the pool {pool} is a file and no manifest (their names end in {ends}): name the folder that it lies in"
        raise StageError(msg)
    if not path.is_dir():
        msg = f"the pool {pool} does not exist: run dvc pull for the sample pool, or set collect.pool"
        raise StageError(msg)
    return FolderPool(path)
