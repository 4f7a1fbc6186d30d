"""Batches on their way, on disk before they are submitted: what was paid for is found again, whatever is asked next.

An entry is a file ``<key>.json``; what the batch has brought lies beside it in ``<key>.lines.json`` until every answer
is recorded. A question that is wanted again, in this part or another, is looked for here first.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from infra.lmm_batches import Line
from tasks.annotation.journal import append_line, read_lines
from tasks.errors import StageError
from tasks.shards import write_json

_LINES: Final = ".lines.json"


@dataclass(frozen=True)
class Expected:
    """What one request of a batch should take: tokens by params, in and out, and the price it was admitted at."""

    tokens: int
    price: float


@dataclass(frozen=True)
class Entry:
    """A batch: its key at the provider, whom it asks, where, and its questions by their keys."""

    key: str
    role: str
    host: str
    asked: Mapping[str, Expected]


class BatchRegister:
    """The batches of a workspace that are not settled.

    Args:
        folder: where it is kept.

    Raises:
        StageError: a file there is not an entry.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[str, Entry] = {}
        self._settled = {line["key"] for line in read_lines(self._settled_file)}
        self._place: dict[str, str] = {}
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            if not path.name.endswith(_LINES):
                self._take(_entry(path))

    @property
    def _settled_file(self) -> Path:
        return self._folder / "settled.jsonl"

    def is_settled(self, key: str) -> bool:
        """Whether everything that a batch has brought was used: it is of no use any more."""
        return key in self._settled

    def holding(self, question: str) -> Entry | None:
        """The batch that asks a question."""
        return self._entries.get(self._place.get(question, ""))

    def add(self, entry: Entry) -> None:
        """Put a batch on disk, before it is submitted."""
        write_json(self._folder / f"{entry.key}.json", asdict(entry))
        self._take(entry)

    def lines(self, entry: Entry) -> dict[str, Line] | None:
        """What the batch has brought, by the questions' keys; None if it has not been fetched."""
        path = self._folder / f"{entry.key}{_LINES}"
        if not path.is_file():
            return None
        return {name: Line(**line) for name, line in json.loads(path.read_text()).items()}

    def keep(self, entry: Entry, lines: Mapping[str, Line]) -> None:
        """Put on disk what the batch has brought; providers delete their files."""
        write_json(self._folder / f"{entry.key}{_LINES}", {name: asdict(line) for name, line in lines.items()})

    def forget(self, entry: Entry, questions: Iterable[str]) -> None:
        """Some questions of a batch are settled; with the last of them the batch is."""
        for question in questions:
            if self._place.get(question) == entry.key:
                del self._place[question]
        if not any(key == entry.key for key in self._place.values()):
            append_line(self._settled_file, {"key": entry.key})
            self._settled.add(entry.key)
            self._entries.pop(entry.key, None)
            (self._folder / f"{entry.key}.json").unlink(missing_ok=True)  # first: lines alone say nothing
            (self._folder / f"{entry.key}{_LINES}").unlink(missing_ok=True)

    def _take(self, entry: Entry) -> None:
        self._entries[entry.key] = entry
        self._place |= dict.fromkeys(entry.asked, entry.key)


def _entry(path: Path) -> Entry:
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        asked = {name: Expected(**expected) for name, expected in values.pop("asked").items()}
        return Entry(asked=asked, **values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path} is no entry of a batch that was submitted: move it away if you know that nothing is on its way"
        raise StageError(msg) from error
