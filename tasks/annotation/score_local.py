"""The stage ``score`` on this machine: threads decode ahead into a bounded queue, scorers find their media ready.

Pillow, PyAV and onnxruntime release the interpreter lock, so one thread per core decodes media and asks the
scorers that take a medium at a time. Scorers that share passes or a GPU are asked in the caller's thread, group by
group.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from tasks.annotation.panel import Job, Judged, Panel, PanelConfig, Seat, Seen, groups_of
from tasks.pool import read_media
from tasks.stage import Place


class LocalEngine:
    """Scores in this process.

    Attributes:
        seats: the admitted scorers.
    """

    def __init__(self, config: PanelConfig, place: Place, ahead: int) -> None:
        """Load the scorers.

        Args:
            config: who scores.
            place: where media lie.
            ahead: media, decoded or being decoded, that wait for scorers at most; at least one group and one per core.

        Raises:
            ModelError: a scorer is unknown or its weights are missing.
        """
        self._panel, self._place, self._ahead = Panel.convene(config), place, ahead

    @property
    def seats(self) -> tuple[Seat, ...]:
        """The admitted scorers, in order."""
        return self._panel.seats

    def judged(self, jobs: Sequence[Job]) -> Iterator[Judged]:
        """Judge all jobs, in order, group by group."""
        workers = os.cpu_count() or 1
        size = self._panel.rows
        room = max(self._ahead, workers, size)
        waiting: deque[list[Future[Seen]]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="score")
        try:
            for group in groups_of(jobs, size):
                while len(waiting) * size + len(group) > room:
                    yield self._judge(waiting.popleft())
                waiting.append([pool.submit(self._look, job) for job in group])
            while waiting:
                yield self._judge(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _look(self, job: Job) -> Seen:
        return self._panel.look(job, read_media(self._place, job.row))

    def _judge(self, group: list[Future[Seen]]) -> Judged:
        started = time.perf_counter()
        seen = [future.result() for future in group]
        ready = time.perf_counter()
        outcomes = self._panel.judge(seen)
        if any(seat.shared for seat in self.seats):
            return Judged(outcomes, ready - started, time.perf_counter() - ready)
        return Judged(outcomes, sum(one.decode_s for one in seen), sum(one.score_s for one in seen))
