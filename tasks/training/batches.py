"""Examples become batches: which examples a step holds is a function of the seed and the step's number alone.

Tasks are mixed by declared shares, exactly and at every point of a run; within a task every example is seen once
before any is seen again, and within a batch a medium is encoded once, whatever the number of its examples. A medium
that cannot be decoded takes its examples out, counted; nothing replaces it, and the step's loss is the mean over those
that are left. How a step is cut into batches, and among how many processes, changes neither its examples nor what each
of them contributes.
"""

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from models.quality_lmm import Medium
from models.vision_encoder import VisualInput
from tasks.errors import MediaError, StageError
from tasks.records import Task
from tasks.training.config import TrainingConfig
from tasks.training.draws import Companions, Order, Shuffled
from tasks.training.examples import Example, by_task, media_numbers

log = logging.getLogger(__name__)

T = TypeVar("T")
Shown = tuple[str, int]
"""A medium's id, and which visit it is: visits choose the view."""

_TEXTS: Final = (Task.DISTORTION, Task.DESCRIPTION)
_STEPS_KEPT: Final = 32
"""Drawn steps that are kept as objects: more than sources look ahead."""


@dataclass(frozen=True)
class BatchConfig:
    """How steps are made of examples.

    Attributes:
        order: ``companions`` prefers examples about media that the step shows anyway, and deals the steps one after the
            other; ``shuffled`` draws independently and reaches any step at once (see tasks.training.draws).
        grouping: how a step is cut into micro-batches and among processes: ``dealt`` in the order of drawing,
            ``length`` by length of sequence, so that little is padded.
        normalise: what the loss of a step's texts is the mean of: ``examples``, each the mean over its answer's tokens
            (the paper's 1/L), or ``tokens``, all valid ones of the step. Scored examples have one level each and count
            once.
    """

    order: Literal["companions", "shuffled"]
    grouping: Literal["dealt", "length"]
    normalise: Literal["examples", "tokens"]


class MediumSource(Protocol):
    """Media by id: prepared pixels, or features of a frozen encoder."""

    @property
    def broken(self) -> frozenset[str]:
        """Media that are known not to decode."""
        ...

    def read(self, medium_id: str, visit: int) -> Medium:
        """The medium as it is shown for the ``visit``-th time, counted from 0.

        Raises:
            MediaError: it does not decode.
        """
        ...


@runtime_checkable
class ForesightedSource(MediumSource, Protocol):
    """A source that prepares media before they are read."""

    @property
    def ahead(self) -> int:
        """How many steps ahead it wants to know."""
        ...

    def foresee(self, wanted: Sequence[Shown]) -> None:
        """Tell it all media of the step that is about to be read and of those after it, in order."""
        ...


class Lengths(Protocol):
    """Lengths of an example's sequences, in tokens."""

    def sequence(self, example: Example) -> int:
        """Visual and answer tokens of its longest sequence."""
        ...

    def answer(self, example: Example) -> int:
        """Answer tokens of all its sequences: those that a text loss averages."""
        ...


@dataclass(frozen=True)
class Material:
    """What a loop learns from: examples, their media, each task's share of a step, and how steps are made.

    ``lengths`` may be None where neither grouping nor normalisation asks for them.
    """

    examples: Sequence[Example]
    media: MediumSource
    shares: Mapping[str, float]
    batches: BatchConfig
    lengths: Lengths | None = None


def _alone(lost: list[str]) -> list[str]:
    return lost


@dataclass(frozen=True)
class RankShare:
    """Which part of every step this process computes.

    Attributes:
        rank, ranks: number of this process, and how many there are.
        gather: concatenates a list of example ids over all processes; called once per step by each of them.
    """

    rank: int
    ranks: int
    gather: Callable[[list[str]], list[str]]


ALONE: Final = RankShare(0, 1, _alone)
"""One process computes all."""


def any_pixels(inputs: Sequence[Medium]) -> bool:
    """Whether any of these media comes as pixels, and not as features of a frozen encoder."""
    return any(isinstance(medium, VisualInput) for medium in inputs)


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
        weight_E: weight of each example's loss in the step's mean; their mean over all examples of the step is 1.
        example_ids: ids of the examples.
    """

    inputs: list[Medium]
    medium_B: list[int]
    answers: list[str]
    tasks: list[Task]
    example_B: Tensor
    targets_B5: Tensor
    preference_E: Tensor
    weight_E: Tensor
    example_ids: list[str]

    @property
    def encodes(self) -> bool:
        """Whether the encoder runs for it: where a medium comes as pixels."""
        return any_pixels(self.inputs)


@dataclass(frozen=True)
class Draw:
    """One example of a step; ``visits`` chooses the view of each of its media, which take turns."""

    example: Example
    visits: tuple[int, ...]


class Mixture:
    """Batches of a mixture of tasks."""

    def __init__(self, material: Material, config: TrainingConfig, share: RankShare = ALONE) -> None:
        """Prepare the drawing.

        Raises:
            StageError: a task with a share has no example, the shares are impossible, lengths are needed and not
                given, or there are fewer examples in a step than processes.
        """
        if config.batch_examples < share.ranks:
            msg = f"a step of {config.batch_examples} examples has none for each of {share.ranks} processes"
            raise StageError(msg)
        batches = material.batches
        if material.lengths is None and (batches.grouping == "length" or batches.normalise == "tokens"):
            raise StageError("grouping by length and normalising by tokens need the lengths of sequences")
        self._material, self._config, self._share = material, config, share
        self._examples = by_task(material.examples, material.shares)
        self._order = self._make_order()
        self.draws = lru_cache(maxsize=_STEPS_KEPT)(self._draw)

    def step(self, number: int) -> list[Batch]:
        """This process's micro-batches of step ``number``; a batch whose examples are all broken is left out.

        Raises:
            StageError: no example of the step is left, in any process.
        """
        parts, share = self.parts(number), self._share
        mine = parts[share.rank :: share.ranks]
        self._foresee(number)
        media = [self._read(part) for part in mine]
        broken = [_incomplete(part, read) for part, read in zip(mine, media, strict=True)]
        lost = set(share.gather(list(itertools.chain.from_iterable(broken))))
        left = [draw.example for part in parts for draw in part if draw.example.example_id not in lost]
        if not left:
            msg = f"step {number}: none of its examples can be read: {', '.join(sorted(lost))}"
            raise StageError(msg)
        weights = self._weights(left)
        kept = [[draw for draw in part if draw.example.example_id not in lost] for part in mine]
        return [make_batch(part, read, weights) for part, read in zip(kept, media, strict=True) if part]

    def parts(self, number: int) -> list[Sequence[Draw]]:
        """All micro-batches of a step; those of a process are every ``ranks``-th, so that processes keep pace."""
        draws, lengths = self.draws(number), self._material.lengths
        if self._material.batches.grouping == "length" and lengths:
            draws = sorted(draws, key=lambda draw: (lengths.sequence(draw.example), draw.example.ids))
        return cut(draws, self._config.micro_batches, self._share.ranks)

    def _make_order(self) -> Order:
        config, shares = self._config, self._material.shares
        if self._material.batches.order == "companions":
            return Companions(media_numbers(self._examples), shares, config.seed, config.batch_examples)
        sizes = {task: len(found) for task, found in self._examples.items()}
        return Shuffled(sizes, shares, config.seed, config.batch_examples)

    def _draw(self, number: int) -> list[Draw]:
        """All examples of step ``number``, of all processes."""
        turns = self._order.step(number)
        examples = [self._examples[turn.task][turn.number] for turn in turns]
        return [
            Draw(example, turn.visits * (len(example.ids) // len(turn.visits)))
            for example, turn in zip(examples, turns, strict=True)
        ]

    def _foresee(self, number: int) -> None:
        source, share = self._material.media, self._share
        if isinstance(source, ForesightedSource):
            steps = range(number, min(number + source.ahead + 1, self._config.steps))
            parts = [part for step in steps for part in self.parts(step)[share.rank :: share.ranks]]
            source.foresee([shown for part in parts for shown in shown_by(part).items()])

    def _read(self, part: Sequence[Draw]) -> dict[str, Medium]:
        """The media of a micro-batch that decode."""
        media: dict[str, Medium] = {}
        for medium, visit in shown_by(part).items():
            try:
                media[medium] = self._material.media.read(medium, visit)
            except MediaError as error:
                log.info("medium %s is left out: %s", medium, error)
        return media

    def _weights(self, examples: Sequence[Example]) -> dict[str, float]:
        """Weight of each example's loss in the step, by id; ``examples`` are those of all processes that are left."""
        weights = {example.example_id: 1.0 for example in examples}
        texts = [example for example in examples if example.task in _TEXTS]
        if self._material.batches.normalise == "examples" or (lengths := self._material.lengths) is None or not texts:
            return weights
        tokens = [lengths.answer(example) for example in texts]
        mean = sum(tokens) / len(tokens)
        return weights | {example.example_id: count / mean for example, count in zip(texts, tokens, strict=True)}


def cut(items: Sequence[T], parts: int, ranks: int) -> list[Sequence[T]]:
    """Cut a step into ``parts`` parts of like size or a few more, as many for each rank; fewer if items are few."""
    wanted = min(-(-parts // ranks) * ranks, len(items) // ranks * ranks)
    bounds = np.linspace(0, len(items), wanted + 1).round().astype(int)
    return [items[start:end] for start, end in itertools.pairwise(bounds)]


def shown_by(draws: Sequence[Draw]) -> dict[str, int]:
    """Distinct media of a micro-batch, each with the visit of the first example that shows it."""
    visits: dict[str, int] = {}
    for draw in draws:
        for medium, visit in zip(draw.example.ids, draw.visits, strict=True):
            visits.setdefault(medium, visit)
    return visits


def _incomplete(draws: Sequence[Draw], media: Mapping[str, Medium]) -> list[str]:
    """Ids of the examples that show a medium which is not there."""
    return [draw.example.example_id for draw in draws if not media.keys() >= set(draw.example.ids)]


def make_batch(draws: Sequence[Draw], media: Mapping[str, Medium], weights: Mapping[str, float]) -> Batch:
    """Build a batch; a medium that several examples show is there, and later encoded, once."""
    examples = [draw.example for draw in draws]
    place = {medium: number for number, medium in enumerate(shown_by(draws))}
    targets = [e.targets_S5 if len(e.targets_S5) else np.zeros((len(e.ids), 5)) for e in examples]
    return Batch(
        inputs=[media[medium] for medium in place],
        medium_B=[place[medium] for example in examples for medium in example.ids],
        answers=[answer for example in examples for answer in example.answers],
        tasks=[example.task for example in examples],
        example_B=torch.tensor([number for number, example in enumerate(examples) for _ in example.ids]),
        targets_B5=torch.tensor(np.concatenate(targets), dtype=torch.float32),
        preference_E=torch.tensor([example.preference for example in examples], dtype=torch.float32),
        weight_E=torch.tensor([weights[example.example_id] for example in examples], dtype=torch.float32),
        example_ids=[example.example_id for example in examples],
    )
