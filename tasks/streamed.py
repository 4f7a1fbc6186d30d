"""Media that are decoded while training goes on: for pools that no disk holds as tensors.

Workers prepare the media of the next steps in the order of the steps, never more than a few steps ahead; what they
give equals, bit for bit, what :mod:`tasks.prepared` would have stored. A medium that does not decode is a reject, kept
in the work folder so that a run which was killed knows it; too many of them stop the run.
"""

import json
import time
from collections.abc import Iterator, Sequence, Sized
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self

import pandas as pd
import torch

from models.vision_encoder import VisualInput
from tasks.errors import MediaError, StageError
from tasks.prepared import PreparedMedia, Preparer, TileMotion, packed, prepare_media
from tasks.records import REJECTS
from tasks.shards import write_json

_NAMED: Final = 10
"""Rejects that an error names; all of them lie in the work folder."""


@dataclass(frozen=True)
class Streaming:
    """How media are read ahead; none of it changes what a step sees.

    Attributes:
        workers: media that are decoded at a time.
        kind: ``threads`` of this process, or ``processes``, which do not take turns with the training loop for the
            interpreter and send pixels through shared memory.
        ahead: steps whose media are prepared while one is trained on; bounds the memory.
        archives: where the archives lie if not in ``artifacts`` (see tasks.archives).
    """

    workers: int
    kind: Literal["threads", "processes"]
    ahead: int
    archives: str | None

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.workers < 1 or self.ahead < 0:
            raise ValueError("streaming needs workers >= 1 and ahead >= 0")


MediaWay = Literal["prepared", "streamed"]
"""Media are decoded before the first step and kept as tensors, or while training goes on; a step sees the same."""


class MediaOfRun(Protocol):
    """What a run may show: MappedExamples, for one."""

    @property
    def shown(self) -> Sized:
        """All media that the run may show, of which ``max_reject_share`` may be broken."""
        ...

    def medium(self, medium_id: str) -> Any:
        """The row that says what a medium is and where its bytes lie."""
        ...

    def frame(self) -> pd.DataFrame:
        """The rows of all shown media."""
        ...


class StreamedMedia:
    """Media by id, prepared on demand and ahead of demand; use it as a context.

    Attributes:
        ahead: steps that :meth:`foresee` wants to know.
        broken: empty: which media do not decode is found out on the way.
        waited_s: seconds that reading had to wait for workers so far.
    """

    def __init__(self, preparer: Preparer, media: MediaOfRun, streaming: Streaming, work: Path) -> None:
        """Take back the rejects of a run that was killed; workers start when they are needed.

        Args:
            work: folder that keeps the rejects, a file each; processes of one run share it.
        """
        self.ahead, self.broken, self.waited_s = streaming.ahead, frozenset[str](), 0.0
        self._preparer, self._media, self._streaming, self._work = preparer, media, streaming, work
        self._rejected = {row["id"]: row for row in self._kept()}
        self._pending: dict[tuple[str, int], Future[TileMotion | dict[str, str]]] = {}
        self._workers: Executor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._workers is not None:
            self._workers.shutdown(cancel_futures=True)

    @property
    def rejects(self) -> pd.DataFrame:
        """REJECTS rows of all processes so far, sorted."""
        frame = pd.DataFrame.from_records(self._kept(), columns=REJECTS.columns)
        return frame.sort_values(list(REJECTS.key), ignore_index=True)

    def foresee(self, wanted: Sequence[tuple[str, int]]) -> None:
        """Start on media (id, visit) that will be read, in this order; others that wait are dropped."""
        keys = dict.fromkeys(self._key(medium, visit) for medium, visit in wanted)
        for key in [key for key in self._pending if key not in keys]:
            self._pending.pop(key).cancel()
        for key in keys:
            if key not in self._pending and key[0] not in self._rejected:
                self._pending[key] = self._submit(*key)

    def read(self, medium_id: str, visit: int) -> VisualInput:
        """The medium as it is shown for the ``visit``-th time: its views take turns.

        Raises:
            MediaError: it does not decode; it is a reject now.
            StageError: that is one reject too many, or a worker died.
        """
        if medium_id not in self._rejected:
            outcome = self._outcome(self._key(medium_id, visit))
            if not isinstance(outcome, dict):
                tiles, motion = outcome
                return VisualInput(tiles.float(), None if motion is None else motion.float())
            self._reject(outcome)
        row = self._rejected[medium_id]
        raise MediaError(row["reason"], row["detail"])

    def _key(self, medium_id: str, visit: int) -> tuple[str, int]:
        return medium_id, visit % self._preparer.views.count

    def _outcome(self, key: tuple[str, int]) -> TileMotion | dict[str, str]:
        if key not in self._pending:
            self._pending[key] = self._submit(*key)
        started = time.perf_counter()
        try:
            return self._pending[key].result()
        except BrokenProcessPool as error:
            raise _died(key[0]) from error
        finally:
            self.waited_s += time.perf_counter() - started

    def _submit(self, medium_id: str, view: int) -> Future[TileMotion | dict[str, str]]:
        if self._workers is None:
            self._workers = _executor(self._streaming)
        try:
            return self._workers.submit(prepare_one, self._preparer, self._media.medium(medium_id), view)
        except BrokenProcessPool as error:
            raise _died(medium_id) from error

    def _reject(self, row: dict[str, str]) -> None:
        """Keep a reject; whether it is one too many is judged by those of all processes."""
        write_json(self._work / f"{row['id']}.json", row)
        self._rejected[row["id"]] = row
        kept, limit = self._kept(), self._preparer.preparation.max_reject_share
        total = len(self._media.shown)
        if len(kept) > limit * total:
            named = ", ".join(f"{one['id']} ({one['reason']})" for one in kept[:_NAMED])
            more = ", ..." if len(kept) > _NAMED else ""
            msg = (
                f"{len(kept)} of {total} media do not decode, more than the declared share {limit}: {named}{more}; "
                f"all are in {self._work}"
            )
            raise StageError(msg)

    def _kept(self) -> list[dict[str, str]]:
        return [json.loads(path.read_text()) for path in sorted(self._work.glob("*.json"))]


@contextmanager
def open_media(
    way: MediaWay, streaming: Streaming, preparer: Preparer, media: MediaOfRun, kept: Path, rejects: Path
) -> Iterator[PreparedMedia | StreamedMedia]:
    """The media of a training run, in the way that the configuration names; all processes of a group open them.

    Args:
        kept: folder of what is prepared. rejects: folder of what streaming rejects.

    Raises:
        StageError: more media are broken than ``max_reject_share`` allows.
    """
    if way == "prepared":
        yield prepare_media(kept, media.frame(), preparer.read, preparer.views, preparer.preparation)
        return
    with StreamedMedia(preparer, media, streaming, rejects) as streamed:
        yield streamed


def _died(medium_id: str) -> StageError:
    return StageError(
        f"a process that decodes media died while it read {medium_id} or one near it, perhaps for want of memory: "
        "lower streaming.workers or ahead and run again; the run goes on from its checkpoint"
    )


def prepare_one(preparer: Preparer, row: Any, view: int) -> TileMotion | dict[str, str]:
    """What a worker does: one view of one medium as half floats, or its reject row."""
    outcome = preparer.prepare(row, [view])
    return outcome if isinstance(outcome, dict) else packed(outcome[0])


def _executor(streaming: Streaming) -> Executor:
    if streaming.kind == "threads":
        return ThreadPoolExecutor(streaming.workers, thread_name_prefix="media")
    # spawn: a fork of a process that holds threads (torch's, Arrow's) can hang
    return ProcessPoolExecutor(streaming.workers, get_context("spawn"), torch.set_num_threads, (1,))
