"""Bytes of one medium, out of the archives of ``collect`` and ``distort``: on this machine, or in a store by ranges."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from infra.object_store import ObjectStore, open_store
from tasks.pool import read_media
from tasks.stage import Place


@dataclass(frozen=True)
class Archives:
    """Where the archives lie; it can be sent to another process.

    Attributes:
        place: the workspace.
        url: None for the workspace's ``artifacts``; else a folder or ``s3://bucket/prefix`` that holds every archive
            as ``<stage>/media/<shard>``. Endpoint and credentials come from the environment (infra.object_store).
    """

    place: Place
    url: str | None

    def read(self, row: Any) -> bytes:
        """Bytes of one medium; ``row`` names stage, shard, offset and length.

        Raises:
            StageError: an archive of the workspace is missing or short.
            InfraError: an archive of the store is missing or short, or the store does not answer.
        """
        if self.url is None:
            return read_media(self.place, row)
        return _opened(self.url).get_range(f"{row.stage}/media/{row.shard}", int(row.offset), int(row.length))


@lru_cache(maxsize=8)
def _opened(url: str) -> ObjectStore:
    """One client per process and store."""
    return open_store(url)
