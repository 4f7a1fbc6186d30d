"""A quality LMM with the losses of its tasks: which rows each answer supervises, and by what loss.

Shape legend as in ``models.losses``; B samples, E examples, L answer tokens, D decoder width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models import losses
from models.quality_lmm import QualityLMM
from tasks.errors import StageError
from tasks.records import Task
from tasks.training.batches import Batch

SCORED = (Task.SINGLE, Task.PAIR)


@dataclass(frozen=True)
class LossConfig:
    """The losses by name; params.yaml holds the paper's, docs/training.md tells the released code's variants.

    Attributes:
        level_space: what the level softmax is normalised over, ``levels`` or ``vocabulary``.
        prefix_weight: gamma, weight of the sentence's cross entropy in ``single`` (paper .01, released code .05).
        prefix_tokens: ``before_level`` (paper) or ``all_but_level`` (released code: also what follows the level word).
        pair: ``thurstone`` (paper), ``davidson`` (ties as an outcome), ``fidelity`` (released code).
        pair_scale: quality range in which pair differences are measured; 5 makes neighbouring levels one apart.
        davidson_tie: nu, the tie parameter of ``davidson``.
        pair_level_weight: weight of both members' level divergence in ``pair`` (paper 0, released code .5).
        pair_prefix_weight: weight of both members' sentence in ``pair`` (paper 0, released code .05).
        text: ``focal`` (paper) or ``cross_entropy`` (released code).
        focal_alpha, focal_beta: the focal loss' constants.
    """

    level_space: losses.LevelSpace
    prefix_weight: float
    prefix_tokens: Literal["before_level", "all_but_level"]
    pair: Literal["thurstone", "davidson", "fidelity"]
    pair_scale: float
    davidson_tie: float
    pair_level_weight: float
    pair_prefix_weight: float
    text: Literal["focal", "cross_entropy"]
    focal_alpha: float
    focal_beta: float


@dataclass(frozen=True)
class _Answers:
    """Token positions of a batch's answers: ``hidden`` predicts ``ids``; ``level_B`` is -1 for text answers."""

    hidden_BLD: Tensor
    ids_BL: Tensor
    mask_BL: Tensor
    level_B: Tensor


class QualityObjective:
    """Losses of a batch under one model, from the media or from cached features of a frozen encoder."""

    def __init__(self, model: QualityLMM, config: LossConfig) -> None:
        self.model = model
        self._config = config
        self._level_ids = torch.tensor(model.level_ids, device=model.device)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses ``[examples of the task]`` per task."""
        ids_BL, mask_BL = self.model.answer_ids(batch.answers)
        tokens = self.model.visual_tokens(batch.inputs)
        hidden_BLD = self.model.hidden_states([tokens[medium] for medium in batch.medium_B], ids_BL, mask_BL)
        answers = _Answers(hidden_BLD, ids_BL, mask_BL, self._level_positions(batch, ids_BL))
        scored_E = torch.tensor([task in SCORED for task in batch.tasks])
        found: dict[str, Tensor] = {}
        if scored_E.any():
            found |= self._scored_losses(batch, answers)
        for task in sorted(set(batch.tasks) - set(SCORED)):
            members = torch.tensor([batch.tasks[int(e)] is task for e in batch.example_B])
            found[task] = self._text_losses(answers, members)
        return found

    def _level_positions(self, batch: Batch, ids_BL: Tensor) -> Tensor:
        """Position of the last level word in each scored answer, -1 in text answers.

        Raises:
            StageError: a scored answer has no level word.
        """
        is_level_BL = torch.isin(ids_BL, self._level_ids)
        order_L = torch.arange(1, ids_BL.shape[1] + 1, device=ids_BL.device)
        last_B = (is_level_BL * order_L).amax(dim=1) - 1
        for sample, example in enumerate(batch.example_B.tolist()):
            if batch.tasks[example] not in SCORED:
                last_B[sample] = -1
            elif last_B[sample] < 0:
                msg = (
                    f"example {batch.example_ids[example]}: the answer {batch.answers[sample]!r} names no quality level"
                )
                raise StageError(msg)
        return last_B

    def _scored_losses(self, batch: Batch, answers: _Answers) -> dict[str, Tensor]:
        """Losses of ``single`` and ``pair``: one level row per sample, and the rows of the sentence if they count."""
        config = self._config
        sample_B = torch.nonzero(answers.level_B >= 0)[:, 0]
        level_logits = self.model.logits(answers.hidden_BLD[sample_B, answers.level_B[sample_B]])
        log_probs_B5 = losses.level_log_probabilities(level_logits, self._level_ids, config.level_space)
        divergence_B = losses.level_divergence(log_probs_B5, batch.targets_B5[sample_B])
        task_B = [batch.tasks[int(batch.example_B[int(b)])] for b in sample_B]
        single_B = torch.tensor([task is Task.SINGLE for task in task_B])
        prefix_B = torch.zeros_like(divergence_B)
        weight_B = torch.where(single_B, config.prefix_weight, config.pair_prefix_weight)
        if (weight_B > 0).any():
            prefix_B = self._prefix_means(answers, sample_B)
        found: dict[str, Tensor] = {}
        if single_B.any():
            found[Task.SINGLE] = divergence_B[single_B] + config.prefix_weight * prefix_B[single_B]
        if not single_B.all():
            pair_B = ~single_B
            preference = batch.preference_E[batch.example_B[sample_B[pair_B]][::2]]
            loss_P = self._pair_losses(log_probs_B5[pair_B], preference)
            extra_B = config.pair_level_weight * divergence_B + config.pair_prefix_weight * prefix_B
            found[Task.PAIR] = loss_P + extra_B[pair_B].reshape(-1, 2).sum(dim=1)
        return found

    def _pair_losses(self, log_probs_B5: Tensor, preference_P: Tensor) -> Tensor:
        """Loss per pair; the rows are the pairs' members in turn."""
        mean_B, variance_B = losses.level_moments(log_probs_B5, self._config.pair_scale)
        if self._config.pair == "fidelity":
            first, second = (mean_B[::2], variance_B[::2]), (mean_B[1::2], variance_B[1::2])
            return losses.fidelity(first, second, preference_P)
        if self._config.pair == "davidson":
            return losses.davidson(mean_B[::2], mean_B[1::2], preference_P, tie=self._config.davidson_tie)
        return losses.thurstone(mean_B[::2], mean_B[1::2], preference_P)

    def _prefix_means(self, answers: _Answers, sample_B: Tensor) -> Tensor:
        """``(1 / L) sum_l -log p_l`` over the sentence's rows of each scored sample; L counts the whole answer."""
        order_L = torch.arange(answers.ids_BL.shape[1])
        level_B1 = answers.level_B[sample_B, None]
        rows_BL = order_L < level_B1 if self._config.prefix_tokens == "before_level" else order_L != level_B1
        return self._answer_losses(answers, sample_B, rows_BL, beta=0.0)

    def _text_losses(self, answers: _Answers, members_B: Tensor) -> Tensor:
        sample_B = torch.nonzero(members_B)[:, 0]
        beta = self._config.focal_beta if self._config.text == "focal" else 0.0
        return self._answer_losses(answers, sample_B, torch.ones_like(answers.mask_BL[sample_B]), beta=beta)

    def _answer_losses(self, answers: _Answers, sample_B: Tensor, rows_BL: Tensor, *, beta: float) -> Tensor:
        """Focal means per answer over chosen rows; only those rows are turned into logits."""
        mask_BL = answers.mask_BL[sample_B]
        chosen_BL = rows_BL & mask_BL
        answer_N = torch.nonzero(chosen_BL)[:, 0]
        logits_NV = self.model.logits(answers.hidden_BLD[sample_B][chosen_BL])
        alpha = 1.0 if beta == 0.0 else self._config.focal_alpha
        loss_N = losses.focal(logits_NV, answers.ids_BL[sample_B][chosen_BL], alpha=alpha, beta=beta)
        return losses.answer_means(loss_N, answer_N, mask_BL.sum(dim=1))
