"""Shards of the answer store: where rows about contents lie, so that a part of a review reads its own part of it.

A shard is an immutable Parquet object ``<folder>/<digit>/<low>-<high>-<time>-<hash>.parquet``: the first hex digit of
its contents' hashes, the first digits of the lowest and the highest of them, when it was committed, and its own hash.
Parts of a review are runs of content hashes, so in a store of any size few shards lie across one. Of several answers to
one question the one committed first holds: what was published stays what it was. Objects with shorter names, of earlier
versions, count as committed before all others and are read in full.
"""

import hashlib
import io
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.object_store import ObjectStore
from tasks.errors import StageError
from tasks.records import RowSchema
from tasks.shards import frame_of

_SHOWN: Final = 8
_NAMED: Final = 4


def put_rows(store: ObjectStore, folder: str, schema: RowSchema, rows: Iterable[dict[str, Any]], at: int) -> None:
    """Append rows with a column ``content``.

    Args:
        store: where to.
        folder: of the kind of rows.
        schema: of the rows.
        rows: any number.
        at: time of the commit, milliseconds since 1970; the same when a killed commit is repeated.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["content"][0], []).append(row)
    for digit, group in sorted(groups.items()):
        sink = io.BytesIO()
        pq.write_table(schema.to_arrow(frame_of(schema, group)), sink, compression="zstd")
        data = sink.getvalue()
        low, high = (pick(row["content"] for row in group)[:_SHOWN] for pick in (min, max))
        name = f"{low}-{high}-{at:013d}-{hashlib.sha256(data).hexdigest()[:32]}"
        store.put_if_absent(f"{folder}/{digit}/{name}.parquet", data)


def read_rows(
    store: ObjectStore, folder: str, schema: pa.Schema, contents: Collection[str] | None
) -> Iterator[dict[str, Any]]:
    """All rows about some contents, or with None about all, in the order in which they were committed.

    Raises:
        StageError: an object there is no shard of such rows.
    """
    names = sorted(map(_placed, store.list(f"{folder}/"))) if contents is None else _names(store, folder, contents)
    for _, name in names:
        try:
            table = pq.read_table(io.BytesIO(store.get(name)), schema=schema)
        except pa.ArrowInvalid as error:
            msg = f"{name} in the store {store.url} is not a shard of {folder}: {error}"
            raise StageError(msg) from error
        if contents is not None:
            table = table.filter(pc.field("content").isin(sorted(contents)))
        yield from table.to_pylist()


def _names(store: ObjectStore, folder: str, contents: Collection[str]) -> list[tuple[str, str]]:
    """Shards that may hold rows about some contents, with the time of their commit, earliest first."""
    by_digit: dict[str, list[str]] = {}
    for content in contents:
        by_digit.setdefault(content[0], []).append(content[:_SHOWN])
    found = []
    for digit, starts in by_digit.items():
        low, high = min(starts), max(starts)
        for name in store.list(f"{folder}/{digit}/"):
            fields = _fields(name)
            if len(fields) != _NAMED or (fields[0] <= high and fields[1] >= low):
                found.append(_placed(name))
    return sorted(found)


def _placed(name: str) -> tuple[str, str]:
    """Time of a shard's commit, the empty text for those of earlier versions, and its name."""
    fields = _fields(name)
    return (fields[2] if len(fields) == _NAMED else "", name)


def _fields(name: str) -> list[str]:
    return name.rpartition("/")[2].removesuffix(".parquet").split("-")
