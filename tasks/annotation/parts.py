"""Work that is cut into parts which survive a kill, done by several processes with one progress bar; rows of tables."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, TypeVar

import pandas as pd
from tqdm import tqdm

Job = TypeVar("Job")


def each_part(work: Callable[[Job], int], jobs: Sequence[Job], processes: int, bar: tqdm) -> None:
    """Call ``work`` on every job; it stores its own results and returns how many items it did.

    Args:
        work: a module-level function.
        jobs: picklable; order does not matter.
        processes: 1 works in this process.
        bar: progress bar that counts items.
    """
    if processes <= 1 or len(jobs) <= 1:
        for job in jobs:
            bar.update(work(job))
        return
    # spawn: a fork of a process that holds threads (Arrow's, tqdm's) can hang
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(work, job) for job in jobs]):
            bar.update(done.result())


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows as plain mappings."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def counts_of(values: Iterable[object]) -> dict[str, int]:
    """How often each value occurs, in the order of the values' names."""
    return dict(sorted(Counter(str(value) for value in values).items()))
