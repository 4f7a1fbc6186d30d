"""Where candidates come from: a folder, an S3 prefix, or a manifest that names media one by one."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from infra.object_store import ObjectStore, open_store
from tasks.errors import MediaError, StageError

MANIFEST_SUFFIXES: Final = frozenset({".txt", ".lst"})


class Pool(Protocol):
    """Where candidates come from."""

    def names(self) -> list[str]:
        """All files, sorted."""
        ...

    def read(self, key: str) -> bytes:
        """Bytes of one file."""
        ...

    def uri(self, key: str) -> str:
        """What the source column says of it."""
        ...


@dataclass(frozen=True)
class FolderPool:
    """A folder and everything below it, except hidden files and folders."""

    folder: Path

    def names(self) -> list[str]:
        """Paths relative to the folder, sorted."""
        paths = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))

    def read(self, key: str) -> bytes:
        """Bytes of one file."""
        return (self.folder / key).read_bytes()

    def uri(self, key: str) -> str:
        """The relative path, so that tables do not depend on where the pool lies."""
        return key


@dataclass(frozen=True)
class StorePool:
    """Objects below an S3 prefix."""

    url: str
    endpoint: str | None

    def names(self) -> list[str]:
        """Object keys relative to the prefix, sorted, without hidden objects and folder markers."""
        names = (key for key in self._store().list("") if not key.endswith("/"))
        return sorted(name for name in names if not any(part.startswith(".") for part in PurePosixPath(name).parts))

    def read(self, key: str) -> bytes:
        """Bytes of one object."""
        return self._store().get(key)

    def uri(self, key: str) -> str:
        """The object's URL."""
        return f"{self.url.rstrip('/')}/{key}"

    def _store(self) -> ObjectStore:
        return open_store(self.url, endpoint=self.endpoint)


@dataclass(frozen=True)
class ManifestPool:
    """A text file that names one medium a line: ``s3://bucket/key``, or a path relative to the manifest's folder."""

    path: Path
    endpoint: str | None

    def names(self) -> list[str]:
        """The lines, sorted, each once; empty lines and lines that begin with # say nothing."""
        lines = {line.strip() for line in self.path.read_text().splitlines()}
        return sorted(line for line in lines if line and not line.startswith("#"))

    def read(self, key: str) -> bytes:
        """Bytes of one medium.

        Raises:
            MediaError: ``missing``, a path that names no file.
        """
        if "://" in key:
            base, _, name = key.partition("://")[2].partition("/")
            return open_store(f"{key.partition('://')[0]}://{base}", endpoint=self.endpoint).get(name)
        try:
            return (self.path.parent / key).read_bytes()
        except OSError as error:
            raise MediaError("missing", f"the manifest names a file that cannot be read: {error.strerror}") from error

    def uri(self, key: str) -> str:
        """The line itself."""
        return key


def open_pool(pool: str, endpoint: str | None, root: Path) -> Pool:
    """Return the pool that ``collect.pool`` names: a folder or manifest relative to ``root``, or an S3 prefix.

    Raises:
        StageError: the folder or manifest does not exist.
    """
    if "://" in pool:
        return StorePool(pool, endpoint)
    path = root / pool
    if path.is_file() and path.suffix in MANIFEST_SUFFIXES:
        return ManifestPool(path, endpoint)
    if not path.is_dir():
        msg = f"the pool {pool} does not exist: run dvc pull for the sample pool, or set collect.pool"
        raise StageError(msg)
    return FolderPool(path)
