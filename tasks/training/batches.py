"""EXAMPLES rows become batches: which examples a step holds is a function of the seed and the step's number alone.

Tasks are mixed by declared shares, exactly and at every point of a run; within a task every example is seen once
before any is seen again, and within a step a medium is encoded once, whatever the number of its examples. A medium
that cannot be decoded takes its examples out, counted; nothing replaces it.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.quality_lmm import Medium
from tasks.errors import StageError
from tasks.records import EXAMPLES, Split, Task
from tasks.shards import read_table
from tasks.training.trainer import TrainingConfig


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


class MediumSource(Protocol):
    """Media by id: prepared pixels, or features of a frozen encoder."""

    @property
    def ids(self) -> frozenset[str]:
        """Media that decoded."""
        ...

    def read(self, medium_id: str, visit: int) -> Medium:
        """The medium as it is shown for the ``visit``-th time, counted from 0."""
        ...


@dataclass(frozen=True)
class Batch:
    """Examples with their media; ``B`` samples (a pair has two), ``E`` examples.

    Attributes:
        inputs: the distinct media, as pixels or as features of a frozen encoder.
        medium_B: which of ``inputs`` each sample shows.
        answers: one answer per sample.
        tasks: task of each example.
        example_B: number of the example that each sample belongs to.
        targets_B5: PMOD per sample, best first; zeros for text.
        preference_E: pairs: 1 first better, 0 second better, .5 tie; NaN otherwise.
        example_ids: ids of the examples.
    """

    inputs: list[Medium]
    medium_B: list[int]
    answers: list[str]
    tasks: list[Task]
    example_B: Tensor
    targets_B5: Tensor
    preference_E: Tensor
    example_ids: list[str]


def read_examples(path: Path) -> list[Example]:
    """Read an EXAMPLES table, sorted by id.

    Raises:
        StageError: the table is missing or broken.
    """
    records = read_table(path, EXAMPLES).sort_values("example_id", kind="stable").to_dict("records")
    return [
        Example(
            example_id=record["example_id"],
            task=Task(record["task"]),
            split=Split(record["split"]),
            ids=tuple(record["ids"]),
            answers=tuple(record["answers"]),
            targets_S5=np.array([list(row) for row in record["targets"]], np.float64).reshape(-1, 5),
            preference=float(np.nan if record["preference"] is None else record["preference"]),
        )
        for record in records
    ]


def check_splits(examples: Sequence[Example], candidates: pd.DataFrame, split: Split) -> None:
    """Prove that no content serves two parts of the line, and that every example of ``split`` shows its contents only.

    Raises:
        StageError: naming a content or an example that breaks it.
    """
    split_of_content: dict[str, str] = {}
    split_of: dict[str, str] = {}
    for medium, content, part in zip(candidates["id"], candidates["content_id"], candidates["split"], strict=True):
        split_of[medium] = part
        if split_of_content.setdefault(content, part) != part:
            msg = f"content {content} is in two splits: training would see what it is tested on"
            raise StageError(msg)
    for example in examples:
        found = {split_of.get(medium, "unknown") for medium in example.ids}
        if example.split != split or found != {str(split)}:
            msg = (
                f"example {example.example_id} of split {example.split} shows {sorted(found)} media, not {split} alone"
            )
            raise StageError(msg)


def select_examples(examples: Sequence[Example], split: Split, shares: Mapping[str, float]) -> list[Example]:
    """Examples of one split whose task has a share.

    Raises:
        StageError: a task with a share has no example in this split.
    """
    wanted = {task for task, share in shares.items() if share > 0}
    chosen = [example for example in examples if example.split == split and example.task in wanted]
    for task in sorted(wanted - {example.task for example in chosen}):
        msg = f"split {split} has no example of task {task!r}: give it share 0 in params.yaml, or collect more media"
        raise StageError(msg)
    return chosen


def task_sequence(shares: Mapping[str, float], slots: int) -> NDArray[np.int64]:
    """Task number of each example slot; after any number of slots every task is within one of its share.

    The task that lags its share most comes next (ties: the first in ``shares``), so the sequence is deterministic.
    """
    weights = np.array(list(shares.values()), dtype=np.float64)
    if len(weights) == 0 or (weights < 0).any() or weights.sum() <= 0:
        raise StageError("task shares must be >= 0 and one of them must be positive")
    weights = weights / weights.sum()
    counts = np.zeros(len(weights))
    sequence = np.empty(slots, dtype=np.int64)
    for slot in range(slots):
        task = int(np.argmax(np.where(weights > 0, weights * (slot + 1) - counts, -np.inf)))
        counts[task] += 1
        sequence[slot] = task
    return sequence


@dataclass(frozen=True)
class Draw:
    """One example of a step; ``visits`` tells how often each of its media was shown in earlier steps."""

    example: Example
    visits: tuple[int, ...]


class _Turns:
    """The examples of one task, dealt epoch by epoch in an order of their own, each once per epoch."""

    def __init__(self, examples: Sequence[Example], seed: Sequence[int]) -> None:
        self._examples, self._seed = examples, list(seed)
        self._of_medium: dict[str, list[int]] = {}
        for index, example in enumerate(examples):
            for medium in set(example.ids):
                self._of_medium.setdefault(medium, []).append(index)
        self._epoch = 0
        self._left: dict[int, None] = {}

    def next(self, shown: Mapping[str, None]) -> Example:
        """An example that needs no medium beyond ``shown`` if one is left in this epoch, else the next in order."""
        if not self._left:
            order = np.random.default_rng([*self._seed, self._epoch]).permutation(len(self._examples))
            self._left = dict.fromkeys(order.tolist())
            self._epoch += 1
        index = self._companion(shown)
        if index is None:
            index = next(iter(self._left))
        del self._left[index]
        return self._examples[index]

    def _companion(self, shown: Mapping[str, None]) -> int | None:
        for medium in shown:
            for index in self._of_medium.get(medium, ()):
                if index in self._left and all(other in shown for other in self._examples[index].ids):
                    return index
        return None


def plan_steps(examples: Sequence[Example], shares: Mapping[str, float], config: TrainingConfig) -> list[list[Draw]]:
    """Decide which examples every step holds.

    Pairs are dealt first, since they need most media; the other tasks then prefer examples about media that the step
    shows anyway, because the encoder, which runs once per medium and step, is what training pays for.

    Raises:
        StageError: a task with a share has no example.
    """
    by_task = {task: [example for example in examples if example.task == task] for task in shares}
    for task, share in shares.items():
        if share > 0 and not by_task[task]:
            msg = f"task {task!r} has a share and no example is left"
            raise StageError(msg)
    turns = {task: _Turns(found, [config.seed, number]) for number, (task, found) in enumerate(by_task.items())}
    eager = sorted(shares, key=lambda task: (-max((len(e.ids) for e in by_task[task]), default=0), len(by_task[task])))
    sequence = task_sequence(shares, config.steps * config.batch_examples).reshape(config.steps, -1)
    visits: dict[str, int] = {}
    plan: list[list[Draw]] = []
    for slots in sequence:
        counts = np.bincount(slots, minlength=len(by_task))
        shown: dict[str, None] = {}
        drawn: list[Example] = []
        for task in eager:
            for _ in range(int(counts[list(shares).index(task)])):
                drawn.append(turns[task].next(shown))
                shown.update(dict.fromkeys(drawn[-1].ids))
        plan.append([Draw(example, tuple(visits.get(medium, 0) for medium in example.ids)) for example in drawn])
        visits.update({medium: visits.get(medium, 0) + 1 for medium in shown})
    return plan


class Mixture:
    """Batches of a mixture of tasks."""

    def __init__(
        self, examples: Sequence[Example], media: MediumSource, shares: Mapping[str, float], config: TrainingConfig
    ) -> None:
        self._media, self._parts = media, config.micro_batches
        self._plan = plan_steps(examples, shares, config)

    def step(self, number: int) -> Sequence[Batch]:
        """Micro-batches of step ``number``."""
        draws = self._plan[number]
        bounds = np.linspace(0, len(draws), min(self._parts, len(draws)) + 1).round().astype(int)
        return _Parts([draws[start:end] for start, end in itertools.pairwise(bounds)], self._media)


class _Parts(Sequence[Batch]):
    """Micro-batches that are built when they are asked for: each process of a group reads the media of its own."""

    def __init__(self, parts: Sequence[Sequence[Draw]], media: MediumSource) -> None:
        self._parts, self._media = parts, media

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, number: Any) -> Any:
        return make_batch(self._parts[number], self._media)


def make_batch(draws: Sequence[Draw], media: MediumSource) -> Batch:
    """Build a batch; a medium that several examples show is read, and later encoded, once."""
    place: dict[str, int] = {}
    inputs: list[Medium] = []
    for draw in draws:
        for medium, visit in zip(draw.example.ids, draw.visits, strict=True):
            if medium not in place:
                place[medium] = len(inputs)
                inputs.append(media.read(medium, visit))
    examples = [draw.example for draw in draws]
    targets = [e.targets_S5 if len(e.targets_S5) else np.zeros((len(e.ids), 5)) for e in examples]
    return Batch(
        inputs=inputs,
        medium_B=[place[medium] for example in examples for medium in example.ids],
        answers=[answer for example in examples for answer in example.answers],
        tasks=[example.task for example in examples],
        example_B=torch.tensor([number for number, example in enumerate(examples) for _ in example.ids]),
        targets_B5=torch.tensor(np.concatenate(targets), dtype=torch.float32),
        preference_E=torch.tensor([example.preference for example in examples], dtype=torch.float32),
        example_ids=[example.example_id for example in examples],
    )
