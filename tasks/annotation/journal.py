"""The journal of one writer: lines of JSON that a kill cannot take back, until they are in the store.

A line is an intent (about to be asked, with the price it may cost at most if somebody is paid), its taking back, an
answer (with the call that brought it), the head that names the account, or the time of the commit. A line that a kill
or a full disk has torn counts as absent, and spoils no other.
"""

import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.errors import StageError

log = logging.getLogger(__name__)


class Journal:
    """Appends from any number of threads; lines are in the kernel's hands when ``write`` returns, on disk if durable.

    Raises:
        StageError: another process is writing this journal.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._lock = path, threading.Lock()
        self._handle = _locked(path)
        self._torn = not _ends_whole(self._handle)
        self._flushing, self._written, self._synced = threading.Lock(), 0, 0
        _sync_folder(path.parent)  # its name must outlive a power cut as well

    def write(self, entries: Iterable[dict[str, Any]], *, durable: bool = True) -> None:
        """Append entries."""
        data = "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries).encode()
        with self._lock:
            if self._torn:
                data = b"\n" + data
            self._torn = True
            while data:
                data = data[os.write(self._handle, data) :]
            self._torn = False
            self._written += 1
            ticket = self._written
        if durable:
            self._sync(ticket)

    def flush(self) -> None:
        """Put on disk what was written."""
        self._sync(self._written)

    def _sync(self, ticket: int) -> None:
        """Wait until a write is on disk; writes that came while another was being flushed share one flush."""
        with self._flushing:
            if self._synced < ticket:
                upto = self._written
                os.fsync(self._handle)
                self._synced = upto

    def entries(self) -> Iterator[dict[str, Any]]:
        """What a killed writer has left; lines that a kill or a full disk has torn are left out and told."""
        found = read_lines(self._path)
        torn = sum(map(bool, self._path.read_bytes().split(b"\n"))) - len(found)
        if torn:
            log.warning("%s holds %d torn lines, which count as never written", self._path.name, torn)
        yield from found

    def clear(self) -> None:
        """Empty it: what it held is in the store."""
        with self._lock:
            os.ftruncate(self._handle, 0)
            self._torn = False

    def remove(self) -> None:
        """Delete and close it: everything is in the store."""
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close it; what was written stays."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _locked(path: Path) -> int:
    """Open and lock a journal; one that its owner removed meanwhile is opened anew."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            msg = f"another review is writing {path.name} in this workspace: wait for it, or stop it"
            raise StageError(msg) from error
        if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
            return handle
        os.close(handle)


def _ends_whole(handle: int) -> bool:
    size = os.fstat(handle).st_size
    return size == 0 or os.pread(handle, 1, size - 1) == b"\n"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_line(path: Path, entry: dict[str, Any]) -> None:
    """Append one line to a file that only grows, and put it on disk.

    A torn line that a kill has left is ended first, so that it spoils itself alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        torn = size > 0 and file.read(1) != b"\n"
        file.write((b"\n" if torn else b"") + json.dumps(entry, sort_keys=True).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of such a file; none if there is no file."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_bytes().split(b"\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # torn, or the end
        found.append(entry)
    return found
