"""Telemetry of paid calls: tokens, cost and latency of every answer, in a table of its own beside the answers.

It takes no part in results. Shards lie in the answer store under ``calls/``, written before the answers that they
belong to, so that an answer's cost is known wherever the answer is used.
"""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from infra.object_store import ObjectStore
from tasks.errors import StageError
from tasks.records import RowSchema
from tasks.shards import frame_of, write_json
from tasks.stage import Place

_S, _F, _I = pa.string(), pa.float64(), pa.int64()
CALLS: Final = RowSchema(
    "calls",
    pa.schema(
        {
            "call": _S,  # Question.key, which is also the idempotency key
            "at": _F,  # when the answer came, seconds since 1970
            "content": _S,
            "judge": _S,
            "model": _S,  # asked for
            "served_model": _S,  # as the server says
            "prompt_version": _S,
            "round": _I,
            "account": _S,
            "mode": _S,  # live or batch
            "tokens_in": _I,
            "tokens_out": _I,
            "estimated": pa.bool_(),  # the server did not say how many tokens
            "cost": _F,
            "latency_s": _F,  # of the attempt that succeeded; of a batch, of the whole batch
            "attempts": _I,
            "doubtful": _I,  # broken-off attempts that may have been paid, counted in cost unless replayed
            "replayed": pa.bool_(),  # the server answered from its store of idempotency keys
        }
    ),
    ("call", "at"),
)
"""One row per answered call."""

_FOLDER: Final = "calls"


@dataclass(frozen=True)
class Call:
    """What one answer took; the rest of its row is the question."""

    at: float
    served_model: str | None
    account: str
    mode: str
    tokens_in: int
    tokens_out: int
    estimated: bool
    cost: float
    latency_s: float
    attempts: int
    doubtful: int
    replayed: bool


def call_row(key: str, question: dict[str, Any], call: Call) -> dict[str, Any]:
    """Row of ``CALLS``."""
    asked = {name: question[name] for name in ("content", "judge", "model", "prompt_version", "round")}
    return {"call": key, **asked, **asdict(call)}


def put_calls(store: ObjectStore, rows: Iterable[dict[str, Any]]) -> None:
    """Append rows to the store, grouped like answers by the first digit of the content hash."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["content"][0], []).append(row)
    for bucket, group in sorted(groups.items()):
        sink = io.BytesIO()
        pq.write_table(CALLS.to_arrow(frame_of(CALLS, group)), sink, compression="zstd")
        data = sink.getvalue()
        store.put_if_absent(f"{_FOLDER}/{bucket}/{hashlib.sha256(data).hexdigest()[:32]}.parquet", data)


def write_costs(place: Place, stage: str, rows: Iterable[dict[str, Any]], account: str) -> None:
    """Leave for the data set's card what the answers of a stage have cost, beside the stage's own telemetry.

    Args:
        place: of the stage.
        stage: its name.
        rows: calls whose answers the stage has used, whenever they were made.
        account: of this run; its calls are counted once more by themselves.
    """
    told: dict[str, dict[str, Any]] = {}
    for row in rows:
        role = told.setdefault(row["judge"], {"model": row["model"], "all": _nothing(), "new": _nothing()})
        for part in ("all", "new") if row["account"] == account else ("all",):
            for name, value in _took(row).items():
                role[part][name] += value
    write_json(place.root / ".work" / "telemetry" / f"{stage}_calls.json", told)


def _nothing() -> dict[str, float]:
    return {"calls": 0, "tokens_in": 0, "tokens_out": 0, "cost": 0.0}


def _took(row: dict[str, Any]) -> dict[str, float]:
    return {"calls": 1, **{name: row[name] for name in ("tokens_in", "tokens_out", "cost")}}


def stored_calls(store: ObjectStore, buckets: Iterable[str]) -> list[dict[str, Any]]:
    """All rows of some buckets.

    Raises:
        StageError: an object there is no shard of calls.
    """
    found: dict[tuple[str, float], dict[str, Any]] = {}
    for bucket in sorted(set(buckets)):
        for name in store.list(f"{_FOLDER}/{bucket}/"):
            try:
                table = pq.read_table(io.BytesIO(store.get(name)), schema=CALLS.schema)
            except pa.ArrowInvalid as error:
                msg = f"{name} in the store {store.url} is not a shard of calls: {error}"
                raise StageError(msg) from error
            found |= {(row["call"], row["at"]): row for row in table.to_pylist()}
    return [found[key] for key in sorted(found)]
