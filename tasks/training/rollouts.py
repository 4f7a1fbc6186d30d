"""Answers that a policy draws in a step, judged and made ready to be learnt from.

What is asked in a step is a function of the seed and the step's number, and what is answered of the weights besides:
every answer has a seed of its own. So a run that was killed draws the same answers again. The draws of one round serve
``num_iterations`` steps; a checkpoint stands between rounds.

Shape legend: ``A`` answers of a micro-batch, ``N`` their tokens.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from models.conversations import Conversation
from models.drawn_answers import Policy, end_of_turn, text_of
from models.grpo import GrpoRule, advantages, answer_weights, wasted
from models.quality_lmm import Medium, QualityLMM
from models.rewards import KINDS, Kind, Reward, RewardRule, reward_of
from tasks.instructions import Instruction
from tasks.training.batches import MediumSource, any_pixels, cut
from tasks.training.config import TrainingConfig
from tasks.training.draws import ShareCycle
from tasks.training.engine import autocast, repeated_layers
from tasks.training.instruction_batches import InstructionMixture, deal
from tasks.training.teaching_tasks import TeachingTask


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn.

    Attributes:
        group: answers to one question, whose rewards are compared.
        most_tokens: of an answer; a longer one is cut there, and learnt from as it is.
        temperature: above 0.
        num_iterations: steps that learn from the same answers.
    """

    group: int
    most_tokens: int
    temperature: float
    num_iterations: int

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.group < 2:
            raise ValueError("group must be at least 2: answers are judged against each other")
        if self.most_tokens < 1 or self.num_iterations < 1:
            raise ValueError("most_tokens and num_iterations must be at least 1")
        if not 0.0 < self.temperature < math.inf:
            raise ValueError("temperature must be above 0: answers that are all alike teach nothing")


@dataclass(frozen=True)
class AnswerBatch:
    """Drawn answers with what they are about.

    Attributes:
        inputs: the distinct media. conversations: the questions, with the numbers of ``inputs`` that they show.
        question_A: number of the conversation that each answer belongs to. kind_A: what it asks.
        rows: tokens of each answer.
        advantage_A: how much better than its group each is. weight_A: of each in the step's mean.
        old_N, reference_N: log-probabilities under the policy that drew them and under the reference; None where the
            policy itself has drawn them, and where nothing holds it.
        example_ids: of each answer.
    """

    inputs: list[Medium]
    conversations: list[Conversation]
    question_A: list[int]
    kind_A: list[Kind]
    rows: list[list[int]]
    advantage_A: Tensor
    weight_A: Tensor
    old_N: Tensor | None
    reference_N: Tensor | None
    example_ids: list[str]

    @property
    def encodes(self) -> bool:
        """Whether the encoder runs for it: where a medium comes as pixels."""
        return any_pixels(self.inputs)


def plan_tasks(
    tasks: Sequence[Instruction],
    kinds: Mapping[str, Kind],
    shares: Mapping[str, float],
    steps: int,
    size: int,
    seed: int,
) -> list[list[Instruction]]:
    """Decide what every step asks: ``size`` questions, of each kind its share, exactly and at every point of a run.

    Within a kind every question is asked once before any is asked again.

    Args:
        kinds: of each question, by its id.
    """
    cycle, names = ShareCycle(shares), list(shares)
    needed = cycle.counts(steps * size)
    dealt = [
        iter(deal([one for one in tasks if kinds[one.instruction_id] == name], int(count), seed, 1) if count else [])
        for name, count in zip(names, needed, strict=True)
    ]
    numbers = iter(cycle.tasks(0, steps * size).tolist())
    return [[next(dealt[number]) for number in itertools.islice(numbers, size)] for _ in range(steps)]


class PlannedMixture(InstructionMixture):
    """Batches of example answers, in steps that are decided."""

    def __init__(self, plan: list[list[Instruction]], media: MediumSource, config: TrainingConfig) -> None:
        self._decided = plan
        super().__init__([], media, config, per_medium=1, rehearsed={})

    def _planned(
        self, instructions: Sequence[Instruction], config: TrainingConfig, per_medium: int
    ) -> list[list[Instruction]]:
        del instructions, config, per_medium
        return self._decided


@dataclass(frozen=True)
class Course:
    """What is taught.

    Attributes:
        tasks: by id. media: theirs. plan: the questions of every round.
    """

    tasks: Mapping[str, TeachingTask]
    media: MediumSource
    plan: Sequence[Sequence[Instruction]]


@dataclass
class _Drawn:
    """A micro-batch while it is being made; answers of one question stand together."""

    inputs: list[Medium]
    conversations: list[Conversation]
    tasks: list[TeachingTask]
    opened: list[Tensor]
    rows: list[list[int]] = field(default_factory=list)
    rewards: list[Reward] = field(default_factory=list)


class Rollouts:
    """Batches of drawn answers, a function of weights and step.

    Args:
        policy: draws. reference: holds it; None for none.

    Attributes:
        measures: figures of the answers of the last round, by name.
    """

    def __init__(
        self,
        policy: Policy,
        reference: Policy | None,
        course: Course,
        rules: tuple[RewardRule, GrpoRule, Drawing],
        config: TrainingConfig,
    ) -> None:
        self._policy, self._reference, self._course, self._config = policy, reference, course, config
        self._rewards, self._rule, self._drawing = rules
        self._batches: list[AnswerBatch] = []
        self.measures: dict[str, float] = {}

    def step(self, number: int) -> list[AnswerBatch]:
        """The micro-batches of a step; the first step of a round draws them."""
        turn, first = divmod(number, self._drawing.num_iterations)
        if first == 0:
            self._batches = self._round(turn)
        return self._batches

    def _round(self, number: int) -> list[AnswerBatch]:
        parts = cut(self._course.plan[number], self._config.micro_batches, 1)
        starts = itertools.accumulate((len(part) for part in parts), initial=0)
        with torch.no_grad(), autocast(self._config), undisturbed(self._policy.model):
            drawn = [self._draw(part, number, start) for part, start in zip(parts, starts, strict=False)]
            self.measures = self._measured(drawn)
            return self._judged(drawn)

    def _draw(self, part: Sequence[Instruction], number: int, start: int) -> _Drawn:
        """Answers to some questions; ``start`` is the place of the first of them in the round."""
        group = self._drawing.group
        drawn = opened_questions(self._policy, self._course, part)
        seeds = [
            answer_seed(self._config.seed, number, start + n // group, n % group) for n in range(len(part) * group)
        ]
        copies = [head for head in drawn.opened for _ in range(group)]
        drawn.rows = self._policy.draw(copies, self._drawing.most_tokens, seeds)
        texts = [text_of(self._policy.model, row) for row in drawn.rows]
        asked = [task for task in drawn.tasks for _ in range(group)]
        drawn.rewards = [reward_of(text, task.truth, self._rewards) for text, task in zip(texts, asked, strict=True)]
        return drawn

    def _judged(self, drawn: Sequence[_Drawn]) -> list[AnswerBatch]:
        """Micro-batches with what each of their answers is worth among all of the round."""
        group = self._drawing.group
        totals = np.array([reward.total for part in drawn for reward in part.rewards]).reshape(-1, group)
        lengths = [len(row) for part in drawn for row in part.rows]
        worth = iter(advantages(totals, self._rule.scale).ravel().tolist())
        weights = iter(answer_weights(lengths, self._rule.average).tolist())
        return [self._batch(part, worth, weights) for part in drawn]

    def _batch(self, part: _Drawn, worth: Iterator[float], weights: Iterator[float]) -> AnswerBatch:
        group, answers = self._drawing.group, len(part.rows)
        batch = AnswerBatch(
            inputs=part.inputs,
            conversations=part.conversations,
            question_A=[n // group for n in range(answers)],
            kind_A=[part.tasks[n // group].kind for n in range(answers)],
            rows=part.rows,
            advantage_A=torch.tensor(list(itertools.islice(worth, answers))),
            weight_A=torch.tensor(list(itertools.islice(weights, answers))),
            old_N=None,
            reference_N=None,
            example_ids=[f"{part.tasks[n // group].task_id} answer {n % group}" for n in range(answers)],
        )
        old = self._policy if self._drawing.num_iterations > 1 else None
        told = {"old_N": old, "reference_N": self._reference}
        return dataclasses.replace(batch, **{name: log_probs_under(one, batch) for name, one in told.items() if one})

    def _measured(self, drawn: Sequence[_Drawn]) -> dict[str, float]:
        """Means over the round's answers: rewards per kind, layout, length, and what cannot be read or has no end."""
        group, end = self._drawing.group, end_of_turn(self._policy.model)
        rows = [row for part in drawn for row in part.rows]
        rewards = [reward for part in drawn for reward in part.rewards]
        kinds = [task.kind for part in drawn for task in part.tasks for _ in range(group)]
        totals = np.array([reward.total for reward in rewards])
        found = {
            "reward": totals.mean(),
            "format": np.mean([reward.format for reward in rewards]),
            "wasted": wasted(totals.reshape(-1, group)).mean(),
            "unread": np.mean([reward.failure is not None for reward in rewards]),
            "tokens": np.mean([len(row) for row in rows]),
            "unended": np.mean([row[-1] != end for row in rows]),
        }
        for kind in KINDS:
            mine = [reward for reward, other in zip(rewards, kinds, strict=True) if other == kind]
            if mine:
                found[f"reward_{kind}"] = np.mean([reward.total for reward in mine])
                found[f"answer_{kind}"] = np.mean([reward.answer for reward in mine])
        return {name: float(value) for name, value in found.items()}


def opened_questions(policy: Policy, course: Course, part: Sequence[Instruction]) -> _Drawn:
    """Questions up to where an answer begins."""
    numbers = {medium: n for n, medium in enumerate(dict.fromkeys(key for one in part for key in one.media))}
    inputs = [course.media.read(medium, 0) for medium in numbers]
    conversations: list[Conversation] = [one.conversation(numbers) for one in part]
    tasks = [course.tasks[one.instruction_id] for one in part]
    return _Drawn(inputs, conversations, tasks, policy.openings(inputs, conversations))


def log_probs_under(policy: Policy, batch: AnswerBatch) -> Tensor:
    """How likely a policy holds each token of drawn answers, on the CPU."""
    opened = policy.openings(batch.inputs, batch.conversations)
    return policy.log_probs([opened[n] for n in batch.question_A], batch.rows)[0].detach().cpu()


def mean_reward(
    policy: Policy, course: Course, rules: tuple[RewardRule, Drawing], config: TrainingConfig
) -> dict[str, float]:
    """Mean reward of one drawn answer to each question of a course, over all and per kind."""
    rewards, drawing = rules
    totals: dict[str, list[float]] = {}
    with torch.no_grad(), autocast(config):
        for number, part in enumerate(course.plan):
            drawn = opened_questions(policy, course, part)
            seeds = [answer_seed(config.seed, -1 - number, place, 0) for place in range(len(part))]
            rows = policy.draw(drawn.opened, drawing.most_tokens, seeds)
            for row, task in zip(rows, drawn.tasks, strict=True):
                total = reward_of(text_of(policy.model, row), task.truth, rewards).total
                for name in ("all", task.kind):
                    totals.setdefault(name, []).append(total)
    return {name: round(math.fsum(values) / len(values), 6) for name, values in sorted(totals.items())}


def answer_seed(seed: int, number: int, place: int, answer: int) -> int:
    """Seed of one answer: of a round (or, below 0, a measurement), the question's place in it, and the answer's."""
    entropy = [seed, int(number < 0), abs(number), place, answer]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


@contextmanager
def undisturbed(model: QualityLMM) -> Iterator[None]:
    """Let answers be drawn with a cache, which transformers gives up where layers are recomputed."""
    layers = repeated_layers(model)
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.training = False
    yield
    for layer, mode in zip(layers, modes, strict=True):
        layer.training = mode
