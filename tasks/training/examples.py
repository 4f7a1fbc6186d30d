"""Training examples: one at a time as objects, all of them as a sequence over the mapped training set."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.errors import StageError
from tasks.records import Split, Task
from tasks.shards import digest
from tasks.training_set import MediumRow, Ragged, TrainingSet


@dataclass(frozen=True)
class Example:
    """One row of EXAMPLES; ``preference`` is NaN unless the task is a pair."""

    example_id: str
    task: Task
    split: Split
    ids: tuple[str, ...]
    answers: tuple[str, ...]
    targets_S5: NDArray[np.float64]
    preference: float


class MappedExamples(Sequence[Example]):
    """Examples of one split, by task and id; an example becomes an object when it is asked for."""

    def __init__(self, data: TrainingSet, split: Split, rows: Mapping[Task, range | NDArray[np.int64]]) -> None:
        self._set, self._split, self._rows = data, split, dict(rows)

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """Build one example, or those of a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        for task, rows in self._rows.items():
            if 0 <= number < len(rows):
                row = self._set.example(int(rows[number]))
                return Example(row.example_id, task, self._split, *row[1:])
            number -= len(rows)
        msg = f"there are {len(self)} examples, none of number {index}"
        raise IndexError(msg)

    @property
    def counts(self) -> dict[Task, int]:
        """Examples per task."""
        return {task: len(rows) for task, rows in self._rows.items()}

    def of(self, task: Task) -> "MappedExamples":
        """The examples of one task."""
        return MappedExamples(self._set, self._split, {task: self._rows.get(task, range(0))})

    def media(self) -> Ragged:
        """Which media each example shows, by their numbers in the set."""
        parts = [self._set.ragged(rows) for rows in self._rows.values()]
        ends = np.cumsum([0, *(part.starts[-1] for part in parts)])
        starts = [part.starts[:-1] + end for part, end in zip(parts, ends, strict=False)]
        return Ragged(np.concatenate([*starts, ends[-1:]]), np.concatenate([part.codes for part in parts]))

    def medium(self, medium_id: str) -> MediumRow:
        """Row of one medium of this split.

        Raises:
            StageError: the split has no such medium.
        """
        return self._set.media.row(self._set.media.find(medium_id, self._split))

    @property
    def shown(self) -> NDArray[np.int64]:
        """Numbers of the distinct media that the examples show, in the order of their ids."""
        return self._shown

    @cached_property
    def _shown(self) -> NDArray[np.int64]:
        return np.unique(self.media().codes).astype(np.int64)

    def frame(self) -> pd.DataFrame:
        """Rows of SET_MEDIA of the shown media."""
        return self._set.media.frame(self.shown)

    def without(self, broken: frozenset[str]) -> "MappedExamples":
        """The examples that show none of the media ``broken``."""
        if not broken:
            return self
        codes = np.array([self._set.media.find(medium, self._split) for medium in sorted(broken)])
        kept: dict[Task, range | NDArray[np.int64]] = {}
        for task, rows in self._rows.items():
            ragged = self._set.ragged(rows)
            owner = np.repeat(np.arange(len(rows)), np.diff(ragged.starts))
            lost = np.unique(owner[np.isin(ragged.codes, codes)])
            kept[task] = np.delete(np.asarray(rows, np.int64), lost)
        return MappedExamples(self._set, self._split, kept)


def open_examples(folder: Path, split: Split, shares: Mapping[str, float]) -> MappedExamples:
    """Examples of ``split`` whose task has a share, proven to show media of this split alone.

    Args:
        folder: a training set.

    Raises:
        StageError: the set is missing or broken, a split leaks, or a task with a share has no example in this split.
    """
    data = TrainingSet(folder)
    data.check_split(split)
    wanted = {task for task, share in shares.items() if share > 0}
    rows = {task: data.rows(split, task) for task in Task if task in wanted}
    for task in sorted(wanted - {str(task) for task, found in rows.items() if found}):
        msg = f"split {split} has no example of task {task!r}: give it share 0 in params.yaml, or collect more media"
        raise StageError(msg)
    return MappedExamples(data, split, rows)


def of_contents(examples: MappedExamples, share: float) -> MappedExamples:
    """The examples that show a part of the contents alone; a smaller share keeps a part of a larger one's.

    Contents of images and of videos are ordered by a hash of their id; the first ``share`` of each are kept, rounded
    up. A pair stays if both its contents do: pairs become fewer by about the square of the share.

    Args:
        share: in (0, 1].

    Raises:
        StageError: a task is left without an example.
    """
    if share >= 1.0:
        return examples
    media = examples.frame()
    kinds: dict[str, str] = dict(zip(media["content_id"], media["modality"], strict=True))
    lost: set[str] = set()
    for kind in set(kinds.values()):
        alike = sorted((c for c in kinds if kinds[c] == kind), key=lambda content: digest("examples_share", content))
        lost.update(alike[math.ceil(share * len(alike)) :])
    owners = zip(media["id"], media["content_id"], strict=True)
    kept = examples.without(frozenset(medium for medium, content in owners if content in lost))
    for task, count in kept.counts.items():
        if not count:
            msg = (
                f"examples_share {share:g} leaves no example of task {str(task)!r}: raise it, or give that task share 0"
            )
            raise StageError(msg)
    return kept


def by_task(examples: Sequence[Example], shares: Mapping[str, float]) -> dict[Task, Sequence[Example]]:
    """The examples of every task with a share, in the order of ``shares``; within a task their order stays.

    Raises:
        StageError: a task with a share has no example.
    """
    tasks = [Task(task) for task, share in shares.items() if share > 0]
    found: dict[Task, Sequence[Example]] = {
        task: examples.of(task) if isinstance(examples, MappedExamples) else [e for e in examples if e.task == task]
        for task in tasks
    }
    for task, members in found.items():
        if not members:
            msg = f"task {str(task)!r} has a share and no example is left"
            raise StageError(msg)
    return found


def media_numbers(groups: Mapping[Task, Sequence[Example]]) -> dict[Task, Ragged]:
    """Which media each example of each task shows, by numbers that all tasks share."""
    known: dict[str, int] = {}
    found: dict[Task, Ragged] = {}
    for task, examples in groups.items():
        if isinstance(examples, MappedExamples):
            found[task] = examples.media()
            continue
        codes = [[known.setdefault(medium, len(known)) for medium in example.ids] for example in examples]
        starts = np.cumsum([0, *map(len, codes)])
        found[task] = Ragged(starts, np.array([code for row in codes for code in row], dtype=np.int32))
    return found
