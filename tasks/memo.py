"""The opinion store: a pure memo of calibrated scores by (content hash, scorer, scorer version).

Append-only, content-addressed Parquet shards under one URL, a folder or an S3 prefix, shared by clones and workers.
Deleting it changes what a run costs, never what it finds (DESIGN law 4). A shard that cannot be read, and
a value that is no score, count as absent.
"""

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from infra.dvc_store import shared_store
from infra.object_store import ObjectStore
from tasks.shards import digest

log = logging.getLogger(__name__)

_SCHEMA: Final = pa.schema([("content", pa.string()), ("score", pa.float64())])


def open_memo(root: Path) -> "OpinionMemo":
    """The memo of a workspace, in the store that ``vital store use`` has named (docs/storage.md).

    Raises:
        InfraError: the store's URL is of a kind that VITAL does not know.
    """
    return OpinionMemo(shared_store(root))


class OpinionMemo:
    """Scores that somebody has computed before.

    A shard holds scores of one scorer version; its key is a hash of its content, so equal work meets in one object.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def lookup(self, scorer: str, version: str) -> dict[str, float]:
        """All known scores of one scorer version, content hash -> score.

        Raises:
            InfraError: the store cannot be reached.
        """
        known: dict[str, float] = {}
        for key in self._store.list(f"{_prefix(scorer, version)}/"):
            try:
                table = pq.read_table(io.BytesIO(self._store.get(key)), schema=_SCHEMA)
            except (pa.ArrowException, OSError) as error:
                log.warning("opinion store: %s is not readable (%s) and counts as absent", key, error)
                continue
            rows = zip(table.column("content").to_pylist(), table.column("score").to_pylist(), strict=True)
            known.update((content, score) for content, score in rows if _is_score(score))
        return known

    def versions(self, scorer: str) -> int:
        """How many versions of a scorer have opinions.

        Raises:
            InfraError: the store cannot be reached.
        """
        folder = f"{_folder(scorer)}/"
        return len({key.removeprefix(folder).partition("/")[0] for key in self._store.list(folder)})

    def add(self, scorer: str, version: str, scores: Mapping[str, float]) -> None:
        """Remember scores of one scorer version, content hash -> score.

        Raises:
            ValueError: one is not in [0, 1].
            InfraError: the store cannot be reached.
        """
        wrong = {content: score for content, score in scores.items() if not _is_score(score)}
        if wrong:
            msg = f"{scorer} {version} gave what is no calibrated score in [0, 1]: {wrong}"
            raise ValueError(msg)
        if not scores:
            return
        rows = dict(sorted(scores.items()))
        table = pa.table({"content": list(rows), "score": list(rows.values())}, schema=_SCHEMA)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        self._store.put_if_absent(f"{_prefix(scorer, version)}/{digest(list(rows.items()))}.parquet", buffer.getvalue())


def _is_score(value: float | None) -> bool:
    return value is not None and 0.0 <= value <= 1.0


def _folder(scorer: str) -> str:
    """Folder of one scorer; a name may hold any character, a key may not."""
    return f"opinions/{digest(scorer)[:8]}-{''.join(c for c in scorer if c.isalnum() or c == '_')}"


def _prefix(scorer: str, version: str) -> str:
    """Folder of one scorer version; a version may hold any character, its hash none that a key forbids."""
    return f"{_folder(scorer)}/{digest(version)}"
