"""Which examples a step holds: a function of the seed and of the step's number, whatever happened before.

Tasks come in exact shares. Within a task every example is drawn once before any is drawn again. Two orders do that:
``shuffled`` computes any step from its number alone; ``companions`` deals step after step and prefers examples about
media that the step shows anyway, because the image encoder runs once per medium and step.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.errors import StageError
from tasks.records import Task
from tasks.training.shuffle import Shuffle
from tasks.training_set import Ragged

_DECIMALS: Final = 4
"""Shares have at most so many decimals: the sequence of tasks repeats after at most 10,000 x their sum slots."""


class Turn(NamedTuple):
    """One example of a step, by its number among the examples of its task.

    ``visits`` chooses the views of its media, which take turns: one for all of them, or one each.
    """

    task: Task
    number: int
    visits: tuple[int, ...]


class Order(Protocol):
    """Draws the examples of steps."""

    def step(self, number: int) -> list[Turn]:
        """Examples of step ``number``, counted from 0."""
        ...


class ShareCycle:
    """Task of each example slot; after any number of slots no task is one or more ahead of its share.

    The task that lags its share most comes next (ties: the first in ``shares``). In whole numbers, so that the sequence
    repeats exactly and the count of every task at any slot is known without walking there.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        """Work out one period.

        Raises:
            StageError: a share is negative, none is positive, or one has more than four decimals.
        """
        parts = [Fraction(str(share)) * 10**_DECIMALS for share in shares.values()]
        if not parts or min(parts) < 0 or sum(parts) <= 0:
            raise StageError("task shares must be >= 0 and one of them must be positive")
        if any(part.denominator != 1 for part in parts):
            msg = f"task shares have at most {_DECIMALS} decimals: {dict(shares)}"
            raise StageError(msg)
        unit = math.gcd(*map(int, parts))
        self._weights = np.array([int(part) // unit for part in parts])
        self.period = int(self._weights.sum())
        self._sequence = self._walk()
        dealt = np.cumsum(self._sequence[:, None] == np.arange(len(parts)), axis=0)
        self._counts = np.concatenate([np.zeros((1, len(parts)), np.int64), dealt])

    def _walk(self) -> NDArray[np.int64]:
        counts = np.zeros_like(self._weights)
        sequence = np.empty(self.period, dtype=np.int64)
        for slot in range(self.period):
            lag = np.where(self._weights > 0, self._weights * (slot + 1) - counts * self.period, -self.period)
            sequence[slot] = np.argmax(lag)
            counts[sequence[slot]] += 1
        return sequence

    def tasks(self, start: int, stop: int) -> NDArray[np.int64]:
        """Task numbers of the slots from ``start`` to before ``stop``."""
        return self._sequence[np.arange(start, stop) % self.period]

    def counts(self, slot: int) -> NDArray[np.int64]:
        """How many of each task lie before ``slot``."""
        whole, rest = divmod(slot, self.period)
        return whole * self._weights + self._counts[rest]


class Shuffled:
    """Every task in an order of its own that is new in each epoch; needs no memory, whatever the number of examples.

    A medium's view is chosen by the epoch and the example's number: examples of one medium start with different views,
    and each shows another one in the next epoch.
    """

    def __init__(self, sizes: Mapping[Task, int], shares: Mapping[str, float], seed: int, batch: int) -> None:
        """Remember how many examples each task has.

        Raises:
            StageError: the shares are impossible.
        """
        self._cycle, self._batch = ShareCycle(shares), batch
        self._tasks = list(shares)
        self._sizes, self._seed = dict(sizes), seed
        self._shuffle = lru_cache(maxsize=2 * len(sizes))(self._make_shuffle)

    def step(self, number: int) -> list[Turn]:
        """Examples of step ``number``, in the order of their slots."""
        start, stop = number * self._batch, (number + 1) * self._batch
        slots, before = self._cycle.tasks(start, stop), self._cycle.counts(start)
        turns: dict[int, Turn] = {}
        for kind in np.unique(slots).tolist():
            places = np.flatnonzero(slots == kind).tolist()
            positions = before[kind] + np.arange(len(places))
            turns.update(zip(places, self._turns(kind, positions), strict=True))
        return [turns[slot] for slot in range(self._batch)]

    def _turns(self, kind: int, positions: NDArray[np.int64]) -> list[Turn]:
        task = Task(self._tasks[kind])
        epochs, inside = np.divmod(positions, self._sizes[task])
        index = np.empty_like(inside)
        for epoch in np.unique(epochs).tolist():
            index[epochs == epoch] = self._shuffle(kind, epoch)(inside[epochs == epoch])
        return [Turn(task, one, (one + epoch,)) for one, epoch in zip(index.tolist(), epochs.tolist(), strict=True)]

    def _make_shuffle(self, kind: int, epoch: int) -> Shuffle:
        return Shuffle(self._sizes[Task(self._tasks[kind])], [self._seed, kind, epoch])


class Companions:
    """Pairs first, since they need most media; then, per task, examples about media that the step shows already.

    Dealt step after step and kept, so that a step that was dealt costs nothing and a later one is reached by dealing
    those before it.
    """

    def __init__(self, media: Mapping[Task, Ragged], shares: Mapping[str, float], seed: int, batch: int) -> None:
        """Index the examples by medium.

        Args:
            media: for each task with a share, the media of its examples.

        Raises:
            StageError: the shares are impossible.
        """
        self._cycle, self._batch = ShareCycle(shares), batch
        numbers = {Task(task): number for number, task in enumerate(shares)}
        self._turns = {task: _Turns(ragged, [seed, numbers[task]]) for task, ragged in media.items()}
        self._eager = sorted(self._turns, key=lambda task: (-self._turns[task].widest, self._turns[task].size))
        self._numbers = numbers
        self._visits: dict[int, int] = {}
        self._dealt: list[list[Turn]] = []

    def step(self, number: int) -> list[Turn]:
        """Examples of step ``number``: task after task."""
        while len(self._dealt) <= number:
            self._dealt.append(self._deal(len(self._dealt)))
        return self._dealt[number]

    def _deal(self, number: int) -> list[Turn]:
        counts = self._cycle.counts((number + 1) * self._batch) - self._cycle.counts(number * self._batch)
        shown: dict[int, None] = {}
        turns: list[Turn] = []
        for task in self._eager:
            for _ in range(int(counts[self._numbers[task]])):
                index, media = self._turns[task].next(shown)
                turns.append(Turn(task, index, tuple(self._visits.get(medium, 0) for medium in media)))
                shown.update(dict.fromkeys(media))
        self._visits.update({medium: self._visits.get(medium, 0) + 1 for medium in shown})
        return turns


class _Turns:
    """The examples of one task, dealt epoch by epoch in an order of their own, each once per epoch."""

    def __init__(self, media: Ragged, seed: Sequence[int]) -> None:
        self._media, self._seed = media, list(seed)
        self.size = len(media.starts) - 1
        counts = np.diff(media.starts)
        self.widest = int(counts.max())
        by_medium = np.argsort(media.codes, kind="stable")
        self._codes = media.codes[by_medium]
        self._owners = np.repeat(np.arange(self.size), counts)[by_medium]
        self._epoch = self._place = self._remaining = 0
        self._order, self._left = np.empty(0, np.int64), np.empty(0, bool)

    def next(self, shown: Mapping[int, None]) -> tuple[int, list[int]]:
        """An example that needs no medium beyond ``shown`` if one is left in this epoch, else the next in order."""
        if not self._remaining:
            self._order = np.random.default_rng([*self._seed, self._epoch]).permutation(self.size)
            self._left = np.ones(self.size, bool)
            self._epoch, self._place, self._remaining = self._epoch + 1, 0, self.size
        index = self._companion(shown)
        if index is None:
            while not self._left[self._order[self._place]]:
                self._place += 1
            index = int(self._order[self._place])
        self._left[index] = False
        self._remaining -= 1
        return index, self._media_of(index)

    def _companion(self, shown: Mapping[int, None]) -> int | None:
        for medium in shown:
            first, end = np.searchsorted(self._codes, np.array([medium, medium + 1], self._codes.dtype))  # no upcast
            for index in self._owners[first:end].tolist():
                if self._left[index] and all(other in shown for other in self._media_of(index)):
                    return index
        return None

    def _media_of(self, index: int) -> list[int]:
        return self._media.codes[self._media.starts[index] : self._media.starts[index + 1]].tolist()
