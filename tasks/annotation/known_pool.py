"""A pool that has been collected before: what is still the same is neither fetched from a server nor probed again."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from tasks.annotation.sources import Pool
from tasks.media import MediaInfo
from tasks.records import CANDIDATES, RowSchema
from tasks.shards import Placed, TableParts, digest, read_placed, read_table

_S: Final = pa.string()
FOUND: Final = RowSchema("found", pa.schema([("key", _S), ("version", _S), ("id", _S)]), ("key",))
"""Which candidate a version of an object in a pool is."""

FOLDER: Final = "found"
"""Where, in a work folder of ``collect``, the parts of that table lie."""


class KnownPool:
    """A pool, with what the last run with the same code and parameters has found in it: that is not probed again.

    Args:
        pool: where media come from.
        before: work folder of that run; None if there is none.
    """

    def __init__(self, pool: Pool, before: Path | None) -> None:
        self.names, self.uri, self._pool = pool.names, pool.uri, pool
        self._versions = pool.versions()
        self._folder, self._rows, self._ids = Path(), {}, {}
        if before is not None:
            self._folder = before / "out" / "media"
            rows = read_table(before / "out" / "candidates.parquet", CANDIDATES).to_dict("records")
            self._rows = {str(row["id"]): row for row in rows}
            seen = TableParts(before / FOLDER, FOUND).read()
            self._ids = {(row["key"], row["version"]): row["id"] for row in seen.to_dict("records")}

    def read(self, key: str) -> bytes:
        """Bytes of one file: from the earlier run's archive, if the pool says that the object is the same."""
        row = self._rows.get(self._ids.get((key, self._versions.get(key)), ""))
        if row is not None:
            data = read_placed(self._folder, Placed(row["shard"], row["offset"], row["length"]))
            if digest(data) == row["id"]:
                return data
        return self._pool.read(key)

    def info(self, data: bytes) -> MediaInfo | None:
        """What these bytes were found to be; None if nobody has looked, or they were refused."""
        row = self._rows.get(digest(data))
        if row is None:
            return None
        return MediaInfo(**{field.name: row[field.name] for field in fields(MediaInfo)})

    def found(self, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
        """Rows of ``FOUND`` for a chunk; none where the pool knows no versions."""
        ids = {row["source"]: row["id"] for row in rows}
        versions = ((key, self._versions.get(key), ids.get(self.uri(key))) for key in keys)
        return [{"key": key, "version": version, "id": id_} for key, version, id_ in versions if version and id_]
