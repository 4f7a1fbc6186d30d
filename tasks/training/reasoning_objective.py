"""Losses of two-stage tuning: of the words of a description, and of the level that is inferred from it.

Shape legend: ``C`` conversations, ``J`` those with a verdict, ``N`` supervised tokens of all of them, ``D`` decoder
width, ``5`` levels, best first.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models import losses
from models.conversations import AnswerRows, answer_rows
from models.quality_lmm import Medium, QualityLMM
from models.two_stage import Reasoner, verdict_tokens
from models.vocabulary_head import HeadKind, LossHead
from tasks.instructions import Instruction
from tasks.training.batches import ALONE, MediumSource, RankShare
from tasks.training.config import TrainingConfig
from tasks.training.instruction_batches import InstructionBatch, InstructionMixture, deal
from tasks.training.reasoning_lessons import Exercise


@dataclass(frozen=True)
class VerdictLoss:
    """How the verdict is learnt.

    Attributes:
        head: as in tasks.training.objective.
        target: ``level``, the level word alone by cross entropy, or ``pmod``, the opinion's distribution; an imported
            verdict has its level alone under both.
        level_space: what the level softmax is normalised over, ``vocabulary`` (plain next-token prediction) or
            ``levels``.
        sentence_weight: weight of the forced sentence and the end of turn, their mean cross entropy.
    """

    head: HeadKind
    target: Literal["level", "pmod"]
    level_space: losses.LevelSpace
    sentence_weight: float

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.sentence_weight < 0.0:
            raise ValueError("sentence_weight must not be negative")


@dataclass(frozen=True)
class _Places:
    """Where the parts of each answer are among the supervised rows.

    Attributes:
        text_N: rows of a description that is learnt, with its end of turn if nothing follows it.
        sentence_N: rows of the forced sentence, and of the end of turn. level_N: rows of the level word.
    """

    text_N: Tensor
    sentence_N: Tensor
    level_N: Tensor


class ReasoningObjective:
    """Losses of exercises under a describer, a reasoner, or a model that is both.

    Args:
        exercises: those of all batches, by the id of their conversation.
    """

    def __init__(self, model: Reasoner, exercises: Mapping[str, Exercise], config: VerdictLoss) -> None:
        self.model = model
        self._exercises, self._config = exercises, config
        self._head = LossHead(model.vocabulary_head, torch.tensor(model.level_ids, device=model.device), config.head)

    def losses(self, batch: InstructionBatch) -> dict[str, Tensor]:
        """Losses of descriptions that are learnt and of verdicts, under ``description`` and ``verdict``.

        A description has the mean cross entropy over its tokens; a verdict the loss of its level word and, weighted,
        the mean of the words around it. An exercise of both has two losses.
        """
        exercises = [self._exercises[name] for name in batch.conversation_ids]
        tails = [self._tail(exercise) for exercise in exercises]
        blind = [tail if exercise.given else 0 for tail, exercise in zip(tails, exercises, strict=True)]
        rows = answer_rows(self.model, self._visual(batch.inputs), batch.conversations, blind)
        places = _places(rows, tails, [exercise.given for exercise in exercises])
        loss_N = self._token_losses(rows, places.text_N | places.sentence_N)
        found: dict[str, Tensor] = {}
        if bool(places.text_N.any()):
            taught = [number for number, one in enumerate(exercises) if one.role != "judge"]
            found["description"] = _means(loss_N, rows, places.text_N)[taught]
        if bool(places.level_N.any()):
            judged = [number for number, one in enumerate(exercises) if one.role != "describe"]
            around_C = self._config.sentence_weight * _means(loss_N, rows, places.sentence_N)
            level_J = self._level_losses(rows, places, [exercises[number] for number in judged])
            found["verdict"] = level_J + around_C[judged]
        return found

    def _tail(self, exercise: Exercise) -> int:
        """Tokens of the verdict at the end of an exercise's answer."""
        if exercise.role == "describe":
            return 0
        before = "" if not exercise.instruction.media else exercise.lesson.description
        return verdict_tokens(self.model, before, exercise.lesson.verdict)

    def _visual(self, inputs: Sequence[Medium]) -> list[Tensor]:
        return self.model.visual_tokens(inputs) if isinstance(self.model, QualityLMM) and inputs else []

    def _token_losses(self, rows: AnswerRows, wanted_N: Tensor) -> Tensor:
        """Cross entropy ``[N]`` of the wanted rows, 0 elsewhere."""
        chosen = wanted_N.nonzero()[:, 0]
        loss = -self._head.tokens(rows.hidden_ND[chosen], rows.ids_N[chosen])
        return loss.new_zeros(len(wanted_N)).index_add(0, chosen, loss)

    def _level_losses(self, rows: AnswerRows, places: _Places, judged: Sequence[Exercise]) -> Tensor:
        """Divergence of the targets from the level probabilities; for a single level it is the cross entropy."""
        log_probs_J5 = self._head.levels(rows.hidden_ND[places.level_N], self._config.level_space)
        if self._config.target == "pmod":
            target_J5 = torch.tensor(np.stack([one.lesson.target_5 for one in judged]), device=log_probs_J5.device)
        else:
            word_J1 = rows.ids_N[places.level_N][:, None]
            target_J5 = (word_J1 == self._head.level_ids).float()
        return losses.level_divergence(log_probs_J5, target_J5)


def _places(rows: AnswerRows, tails: Sequence[int], given: Sequence[bool]) -> _Places:
    """Count every conversation's rows from behind: end of turn, level, sentence, description."""
    starts_C = rows.lengths_C.cumsum(0) - rows.lengths_C
    order_N = torch.arange(len(rows.ids_N), device=rows.ids_N.device) - starts_C[rows.conversation_N]
    behind_N = rows.lengths_C[rows.conversation_N] - order_N  # 1 for the end of turn
    tail_N = torch.tensor(list(tails), device=order_N.device)[rows.conversation_N]
    given_N = torch.tensor(list(given), device=order_N.device)[rows.conversation_N]
    in_tail_N = behind_N <= tail_N
    level_N = in_tail_N & (behind_N == 2)  # the level word stands before the end of turn
    return _Places(~in_tail_N & ~given_N, in_tail_N & ~level_N, level_N)


def _means(loss_N: Tensor, rows: AnswerRows, chosen_N: Tensor) -> Tensor:
    """Mean ``[C]`` over the chosen rows of each conversation; 0 where it has none."""
    zeros_C = loss_N.new_zeros(len(rows.lengths_C))
    count_C = zeros_C.index_add(0, rows.conversation_N, chosen_N.to(loss_N)).clamp_min(1.0)
    return losses.answer_means(torch.where(chosen_N, loss_N, 0.0), rows.conversation_N, count_C)


@dataclass(frozen=True)
class Rehearsal:
    """What is rehearsed beside what is learnt.

    Attributes:
        share: of the examples, in [0, 1); exact at every point of a run.
    """

    instructions: Sequence[Instruction]
    share: float


class RehearsingMixture(InstructionMixture):
    """Batches of exercises of which a declared share rehearses others."""

    def __init__(
        self,
        instructions: Sequence[Instruction],
        beside: Rehearsal,
        media: MediumSource,
        config: TrainingConfig,
        per_medium: int,
        share: RankShare = ALONE,
    ) -> None:
        self._beside = beside
        super().__init__(instructions, media, config, per_medium, {}, share)

    def _planned(
        self, instructions: Sequence[Instruction], config: TrainingConfig, per_medium: int
    ) -> list[list[Instruction]]:
        batch, beside = config.batch_examples, self._beside
        ends = [round(batch * step * beside.share) for step in range(config.steps + 1)]
        others = deal(beside.instructions, ends[-1], config.seed, per_medium)
        own = deal(instructions, config.steps * batch - ends[-1], config.seed, per_medium)
        return [
            [*own[batch * step - start : batch * (step + 1) - end], *others[start:end]]
            for step, (start, end) in enumerate(itertools.pairwise(ends))
        ]
