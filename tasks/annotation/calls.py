"""Telemetry of paid calls: tokens, cost and latency of every answer, in a table of its own beside the answers.

It takes no part in results. Shards lie in the answer store under ``calls/``, written before the answers that they
belong to, so that an answer's cost is known wherever the answer is used.
"""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from infra.object_store import ObjectStore
from tasks.annotation.answer_shards import put_rows, read_rows
from tasks.records import RowSchema
from tasks.shards import write_json
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


def put_calls(store: ObjectStore, rows: Iterable[dict[str, Any]], at: int) -> None:
    """Append rows to the store; see ``answer_shards.put_rows``."""
    put_rows(store, _FOLDER, CALLS, rows, at)


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


def stored_calls(store: ObjectStore, contents: Collection[str] | None = None) -> list[dict[str, Any]]:
    """All calls about some contents; without them, all that the store knows of.

    Raises:
        StageError: an object there is no shard of calls.
    """
    found = {(row["call"], row["at"]): row for row in read_rows(store, _FOLDER, CALLS.schema, contents)}
    return [found[key] for key in sorted(found)]
