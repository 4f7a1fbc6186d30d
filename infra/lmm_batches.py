"""Batch files of an OpenAI-compatible endpoint: upload, create, look up by our own key, poll, download.

A batch carries our key in its metadata, so a process that was killed at any point, even between sending and hearing of
it, finds what it has paid for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infra.errors import EndpointRefusedError, EndpointUnavailableError
from infra.lmm_endpoint import UNFIT, Endpoint
from infra.lmm_wire import is_answer, parameter_refused

KEY: Final = "vital_key"
"""Name of our key in a batch's metadata."""

OK: Final = 200
"""Status of a line that holds an answer."""

_OPEN: Final = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
_FAILED: Final = "failed"
_MOST_LISTED: Final = 5000


@dataclass(frozen=True)
class Batch:
    """A batch as the provider tells of it.

    Attributes:
        name: its id.
        done: nothing more will come; of a cancelled or expired batch there may be a part.
        files: of results and of errors.
    """

    name: str
    done: bool
    files: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """What became of one request of a batch.

    Attributes:
        status: of its answer; 0 where none was made (cancelled, expired).
        body: the answer; empty unless it is one.
        filtered: the provider's content filter refuses the request.
        parameter: that a refusal is about; None if it names none of ours.
    """

    status: int
    body: Mapping[str, Any]
    filtered: bool = False
    parameter: str | None = None

    @property
    def refuses(self) -> bool:
        """Whether the request itself is refused: asked again it would be refused again."""
        return self.filtered or self.status in UNFIT


def find_batch(endpoint: Endpoint, key: str) -> Batch | None:
    """The newest batch with our key that was not refused as a whole; None if there is none, so nothing was paid."""

    def search(client: Any) -> Batch | None:
        for number, batch in enumerate(client.batches.list(limit=100)):
            if number >= _MOST_LISTED:
                break
            if (batch.metadata or {}).get(KEY) == key and batch.status != _FAILED:
                return _told(batch, endpoint)
        return None

    return endpoint.guarded(search)


def submit_batch(endpoint: Endpoint, key: str, path: str, lines: Path, pause: Callable[[], None]) -> Batch:
    """Upload a file of request lines and create a batch with our key; only after ``find_batch`` found none.

    Args:
        endpoint: where to.
        key: in the metadata.
        path: of the requests.
        lines: the file; it is streamed, whatever its size.
        pause: called before a creation that may have gone through is looked for.

    Raises:
        EndpointRefusedError: the provider refuses it.
        EndpointUnavailableError: every attempt failed.
    """

    def upload(client: Any) -> str:
        with lines.open("rb") as file:
            return client.files.create(file=(f"{key}.jsonl", file), purpose="batch").id

    uploaded = endpoint.guarded(upload)

    def create(client: Any) -> Batch:
        made = client.batches.create(
            input_file_id=uploaded, endpoint=f"/v1{path}", completion_window="24h", metadata={KEY: key}
        )
        return _told(made, endpoint)

    for attempt in range(endpoint.config.attempts):
        try:
            return endpoint.guarded(create, attempts=1)
        except EndpointUnavailableError:
            pause()
            found = find_batch(endpoint, key)  # the answer may have been lost, and not the batch
            if found is not None:
                return found
            if attempt + 1 == endpoint.config.attempts:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def await_batch(endpoint: Endpoint, batch: Batch, pause: Callable[[], None]) -> Batch:
    """Look at a batch until it is done; ``pause`` is called between looks and may raise to give up.

    Raises:
        EndpointRefusedError: the provider refuses the batch as a whole.
        EndpointUnavailableError: every attempt of one look failed.
    """
    while not batch.done:
        pause()
        batch = endpoint.guarded(lambda client, name=batch.name: _told(client.batches.retrieve(name), endpoint))
    return batch


def read_batch(endpoint: Endpoint, batch: Batch, path: str) -> dict[str, Line]:
    """What became of each request, by custom id; requests that the provider says nothing of are absent."""
    found: dict[str, Line] = {}
    for name in batch.files:
        content: bytes = endpoint.guarded(lambda client, name=name: client.files.content(name).content)
        for line in content.split(b"\n"):
            read = _read_line(endpoint, line, path)
            if read is not None:
                found[read[0]] = read[1]
    return found


def _read_line(endpoint: Endpoint, line: bytes, path: str) -> tuple[str, Line] | None:
    try:
        entry = endpoint.read_json(line)
    except (ValueError, RecursionError):
        return None
    custom = entry.get("custom_id") if isinstance(entry, dict) else None
    if not isinstance(custom, str):
        return None
    response = entry.get("response")
    response = response if isinstance(response, dict) else {}
    status, body = response.get("status_code"), response.get("body")
    status, body = status if isinstance(status, int) else 0, body if isinstance(body, dict) else {}
    filtered = endpoint.is_filtered(body) or endpoint.is_filtered(entry)
    if status == OK and is_answer(path, body):
        return custom, Line(status, body)
    parameter = parameter_refused(body) if status in UNFIT else None
    return custom, Line(0 if status == OK else status, {}, filtered, parameter)


def _told(batch: Any, endpoint: Endpoint) -> Batch:
    if batch.status == _FAILED:
        msg = f"{endpoint.config.host} refuses a batch file as a whole: check model, parameters and batches.requests"
        raise EndpointRefusedError(msg)
    files = tuple(name for name in (batch.output_file_id, batch.error_file_id) if isinstance(name, str))
    done = batch.status not in _OPEN
    return Batch(batch.id, done, files if done else ())
