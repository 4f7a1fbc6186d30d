"""Batch files of an OpenAI-compatible endpoint: upload, create, look up by our own key, poll, download.

A batch carries our key in its metadata. Before one is submitted it is looked up by that key, so a process that was
killed at any point, even between sending and hearing of it, finds what it has paid for.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from infra.errors import EndpointUnavailableError
from infra.lmm_endpoint import Endpoint

KEY: Final = "vital_key"
"""Name of our key in a batch's metadata."""

_GONE: Final = frozenset({"failed", "cancelled", "cancelling"})
_OPEN: Final = frozenset({"validating", "in_progress", "finalizing"})
_MOST_LISTED: Final = 5000


@dataclass(frozen=True)
class Batch:
    """A batch as the provider tells of it.

    Attributes:
        name: its id.
        done: nothing more will come.
        files: of results and of errors.
    """

    name: str
    done: bool
    files: tuple[str, ...]


def find_batch(endpoint: Endpoint, key: str) -> Batch | None:
    """The batch with our key; None if there is none, or it failed as a whole (then nothing was paid)."""

    def search(client: Any) -> Batch | None:
        for number, batch in enumerate(client.batches.list(limit=100)):
            if number >= _MOST_LISTED:
                break
            if (batch.metadata or {}).get(KEY) == key and batch.status not in _GONE:
                return _told(batch)
        return None

    return endpoint.guarded(search)


def submit_batch(endpoint: Endpoint, key: str, path: str, bodies: Mapping[str, Mapping[str, Any]]) -> Batch:
    """Upload requests (custom id -> body) and create a batch with our key; only after ``find_batch`` found none."""
    lines = [
        json.dumps({"custom_id": name, "method": "POST", "url": f"/v1{path}", "body": body})
        for name, body in bodies.items()
    ]
    data = ("\n".join(lines) + "\n").encode()

    def submit(client: Any) -> Batch:
        file = client.files.create(file=(f"{key}.jsonl", io.BytesIO(data)), purpose="batch")
        made = client.batches.create(
            input_file_id=file.id, endpoint=f"/v1{path}", completion_window="24h", metadata={KEY: key}
        )
        return _told(made)

    return endpoint.guarded(submit)


def await_batch(endpoint: Endpoint, batch: Batch, pause: Callable[[], None], patience: int = 5) -> Batch:
    """Look at a batch until it is done; ``pause`` is called between looks and may raise to give up.

    Raises:
        EndpointUnavailableError: ``patience`` looks in a row failed.
    """
    failed = 0
    while not batch.done:
        pause()
        try:
            batch = endpoint.guarded(lambda client, name=batch.name: _told(client.batches.retrieve(name)))
            failed = 0
        except EndpointUnavailableError:
            failed += 1
            if failed >= patience:
                raise
    return batch


def read_batch(endpoint: Endpoint, batch: Batch) -> dict[str, dict[str, Any]]:
    """Bodies of the successful answers by custom id; lines with errors are left out."""
    found: dict[str, dict[str, Any]] = {}
    for name in batch.files:
        content: bytes = endpoint.guarded(lambda client, name=name: client.files.content(name).content)
        for line in content.split(b"\n"):
            custom, body = _read_line(endpoint, line)
            if custom is not None and body is not None:
                found[custom] = body
    return found


def _read_line(endpoint: Endpoint, line: bytes) -> tuple[str | None, dict[str, Any] | None]:
    try:
        entry = endpoint.read_json(line)
    except (ValueError, RecursionError):
        return None, None
    response = entry.get("response") if isinstance(entry, dict) else None
    if not isinstance(response, dict) or response.get("status_code") != 200:
        return None, None
    custom, body = entry.get("custom_id"), response.get("body")
    return (custom, body) if isinstance(custom, str) and isinstance(body, dict) else (None, None)


def _told(batch: Any) -> Batch:
    files = tuple(name for name in (batch.output_file_id, batch.error_file_id) if isinstance(name, str))
    done = batch.status not in _OPEN
    return Batch(batch.id, done, files if done else ())
