"""What a teacher is trained by: examples of answers at first, then what its own answers have earned.

Shape legend: ``A`` answers, ``N`` their tokens, ``C`` conversations.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import losses
from models.conversations import answer_rows
from models.drawn_answers import Policy, end_of_turn
from models.grpo import GrpoRule, is_clipped, k3, token_objective
from models.quality_lmm import QualityLMM
from models.vocabulary_head import HeadKind, LossHead
from tasks.training.instruction_batches import InstructionBatch
from tasks.training.rollouts import AnswerBatch
from tasks.training.trainer import Callback, StepRecord, Trainer


class ExampleObjective:
    """Mean cross entropy over the tokens of example answers."""

    def __init__(self, model: QualityLMM, head: HeadKind) -> None:
        self.model = model
        self._head = LossHead(model.vocabulary_head, torch.tensor(model.level_ids), head)

    def losses(self, batch: InstructionBatch) -> dict[str, Tensor]:
        """Losses ``[conversations of the kind]`` per kind."""
        rows = answer_rows(self.model, self.model.visual_tokens(batch.inputs), batch.conversations)
        loss_N = -self._head.tokens(rows.hidden_ND, rows.ids_N)
        loss_C = losses.answer_means(loss_N, rows.conversation_N, rows.lengths_C)
        return _by_kind(loss_C, batch.kinds)


class LabelObjective:
    """Mean cross entropy over the tokens of a label, which an answer may go on behind.

    Args:
        ended: whether labels are whole answers, whose end of turn is learnt too.
    """

    def __init__(self, model: QualityLMM, head: HeadKind, *, ended: bool) -> None:
        self.model = model
        self._policy = Policy.of(model, head, 1.0)
        self._end = [end_of_turn(model)] if ended else []

    def losses(self, batch: InstructionBatch) -> dict[str, Tensor]:
        """Losses ``[conversations of the kind]`` per kind."""
        rows = [
            [*self.model.tokenizer.encode(conversation[-1].answer, add_special_tokens=False), *self._end]
            for conversation in batch.conversations
        ]
        opened = self._policy.openings(batch.inputs, batch.conversations)
        log_probs_N, found = self._policy.log_probs(opened, rows)
        return _by_kind(losses.answer_means(-log_probs_N, found.answer_N, found.lengths_A), batch.kinds)


class TeachingObjective:
    """The objective of ``models.grpo`` on drawn answers."""

    def __init__(self, policy: Policy, rule: GrpoRule) -> None:
        self.model = policy.model
        self._policy, self._rule = policy, rule
        self._sums = dict.fromkeys(("tokens", "kl", "clipped"), 0.0)

    def losses(self, batch: AnswerBatch) -> dict[str, Tensor]:
        """Losses ``[answers of the kind]`` per kind, weighted."""
        opened = self._policy.openings(batch.inputs, batch.conversations)
        log_probs_N, rows = self._policy.log_probs([opened[n] for n in batch.question_A], batch.rows)
        old_N = log_probs_N.detach() if batch.old_N is None else batch.old_N
        advantage_N = batch.advantage_A.to(log_probs_N)[rows.answer_N]
        loss_N = token_objective(log_probs_N, old_N, advantage_N, self._rule.clip)
        if batch.reference_N is not None:
            penalty_N = k3(log_probs_N, batch.reference_N)
            loss_N = loss_N + self._rule.beta * penalty_N
            self._sums["kl"] += float(penalty_N.detach().sum())
        self._sums["tokens"] += len(log_probs_N)
        self._sums["clipped"] += float(is_clipped(log_probs_N.detach(), old_N, advantage_N, self._rule.clip).sum())
        loss_A = losses.answer_means(loss_N, rows.answer_N, rows.lengths_A)
        return _by_kind(loss_A * batch.weight_A.to(loss_A), batch.kind_A)

    def take_measures(self) -> dict[str, float]:
        """Means over the tokens since they were last taken: the penalty where there is one, and the share clipped."""
        names = ("kl", "clipped") if self._rule.beta > 0.0 else ("clipped",)
        found = {name: self._sums[name] / max(1.0, self._sums["tokens"]) for name in names}
        self._sums = dict.fromkeys(self._sums, 0.0)
        return found


def _by_kind(loss_A: Tensor, kinds: list[Any]) -> dict[str, Tensor]:
    return {
        str(kind): loss_A[torch.tensor([other == kind for other in kinds], device=loss_A.device)]
        for kind in sorted(set(kinds))
    }


class Measures(Callback):
    """Keep a row of figures for every step, across kills; comes before the checkpoint, which thus never runs ahead.

    A step that is done again after a kill has the same row again.

    Attributes:
        last: figures of the last step.
    """

    def __init__(self, path: Path, take: Callable[[], Mapping[str, float]]) -> None:
        self._path, self._take = path, take
        self._rows: dict[int, dict[str, float]] = {}
        self.last: dict[str, float] = {}

    def begin(self, trainer: Trainer[Any]) -> None:
        """Read the rows of a run before the kill; the last may be torn."""
        del trainer
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._path.read_text().splitlines(keepends=True) if self._path.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        self._rows = {row.pop("step"): row for row in map(json.loads, whole)}
        self._path.write_text("".join(whole))

    def after_step(self, trainer: Trainer[Any], record: StepRecord) -> None:
        """Add the step's row."""
        del trainer
        self.last = self._rows[record.step] = dict(self._take())
        with self._path.open("a") as file:
            file.write(json.dumps({"step": record.step, **self.last}) + "\n")

    def row(self, step: int) -> dict[str, float]:
        """Figures of one step."""
        return self._rows[step]
