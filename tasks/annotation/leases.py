"""Leases on parts of a review: of several clones and workers on one store, one pays for a part and the others wait.

The store is write-once, so a lease is a row of objects ``leases/<part>/<number>.json``, each with its holder and the
time until which it holds; the last one counts, and whoever puts the next number first has the lease. It is renewed
while its holder lives and ended when the part is done; of a holder that was killed it runs out, and its own workspace,
whose journal nobody else can be writing, takes it again at once.
"""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infra.errors import InfraError
from infra.object_store import ObjectStore
from tasks.shards import digest

log = logging.getLogger(__name__)

LEASE_S: Final = 600.0
"""How long one object holds; renewed at half of it."""

_LOOK_S: Final = 2.0


@dataclass(frozen=True)
class _Held:
    number: int
    holder: str
    until: float


@contextmanager
def lease(store: ObjectStore, part: str, workspace: Path, seconds: float = LEASE_S) -> Iterator[None]:
    """Hold the lease on a part; waits for whoever has it.

    Args:
        store: that the holders share.
        part: what is leased.
        workspace: of the holder.
        seconds: how long one object holds.
    """
    holder = f"{socket.gethostname()}:{digest(str(workspace.resolve()))[:12]}"
    number = _take(store, part, holder, seconds)
    stop = threading.Event()
    renewing = threading.Thread(
        target=_renew, args=(store, part, _Held(number, holder, 0.0), seconds, stop), daemon=True
    )
    renewing.start()
    try:
        yield
    finally:
        stop.set()
        renewing.join()
        last = _last(store, part)
        if last is not None and last.holder == holder:
            _put(store, part, _Held(last.number + 1, holder, 0.0))


def _take(store: ObjectStore, part: str, holder: str, seconds: float) -> int:
    told = False
    while True:
        last = _last(store, part)
        if last is None or last.holder == holder or last.until <= time.time():
            number = 0 if last is None else last.number + 1
            if _put(store, part, _Held(number, holder, time.time() + seconds)):
                return number
            continue
        if not told:
            until = time.strftime("%H:%M:%S", time.localtime(last.until))
            log.info("review: %s is asking about this part; waiting for it, or until %s", last.holder, until)
            told = True
        time.sleep(min(_LOOK_S, max(0.05, last.until - time.time())))


def _renew(store: ObjectStore, part: str, held: _Held, seconds: float, stop: threading.Event) -> None:
    number = held.number
    while not stop.wait(seconds / 2):
        number += 1
        try:
            mine = _put(store, part, _Held(number, held.holder, time.time() + seconds))
        except InfraError as error:  # answers are in the journal; the worst is that somebody else asks too
            log.warning("review: the lease could not be renewed: %s", error)
            number -= 1
            continue
        if not mine:
            log.warning("review: somebody else has taken the lease; the first answer to a question will hold")
            return


def _last(store: ObjectStore, part: str) -> _Held | None:
    names = store.list(f"leases/{part}/")
    if not names:
        return None
    values: dict[str, Any] = json.loads(store.get(names[-1]))
    return _Held(int(names[-1].rpartition("/")[2].removesuffix(".json")), values["holder"], values["until"])


def _put(store: ObjectStore, part: str, held: _Held) -> bool:
    data = json.dumps({"holder": held.holder, "until": held.until}).encode()
    return store.put_if_absent(f"leases/{part}/{held.number:08d}.json", data)
