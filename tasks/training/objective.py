"""A quality LMM with the losses of its tasks: which rows each answer supervises, and by what loss.

Shape legend as in ``models.losses``; B samples, E examples, L answer tokens, D decoder width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models import losses
from models.quality_lmm import QualityLMM
from models.vocabulary_head import HeadKind, LossHead
from tasks.errors import StageError
from tasks.records import Task
from tasks.training.batches import Batch

SCORED = (Task.SINGLE, Task.PAIR)


@dataclass(frozen=True)
class LossConfig:
    """The losses by name; params.yaml holds the paper's, docs/training.md tells the released code's variants.

    Attributes:
        target: what a level row learns, in ``single`` and where ``pair_level_weight`` counts: ``pmod``, the opinion's
            distribution, or ``level``, the level word of its mean alone by cross entropy (the paper's "w/o PMOD").
            Preferences of pairs are the same under both.
        head: how supervised rows become log-probabilities, ``fused`` or ``rows_first``; the same up to rounding.
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

    head: HeadKind
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
    target: Literal["pmod", "level"] = "pmod"


@dataclass(frozen=True)
class _Answers:
    """Token positions of a batch's answers: ``hidden`` predicts ``ids``; ``level_B`` is -1 for text answers."""

    hidden_BLD: Tensor
    ids_BL: Tensor
    mask_BL: Tensor
    level_B: Tensor

    @property
    def lengths(self) -> Tensor:
        """Tokens ``[B]`` of each answer."""
        return self.mask_BL.sum(dim=1)


@dataclass(frozen=True)
class _Tokens:
    """Log-probabilities of supervised tokens, and the answers that they belong to."""

    log_probs_N: Tensor
    sample_N: Tensor

    def of(self, chosen_B: Tensor) -> "_Tokens":
        """Those of some answers."""
        chosen_N = chosen_B[self.sample_N]
        return _Tokens(self.log_probs_N[chosen_N], self.sample_N[chosen_N])


class QualityObjective:
    """Losses of a batch under one model, from the media or from cached features of a frozen encoder.

    Attributes:
        head: what makes supervised rows log-probabilities.
    """

    def __init__(self, model: QualityLMM, config: LossConfig) -> None:
        self.model = model
        self._config = config
        self._level_ids = torch.tensor(model.level_ids, device=model.device)
        self.head = LossHead(model.vocabulary_head, self._level_ids, config.head)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses ``[examples of the task]`` per task."""
        ids_BL, mask_BL = self.model.answer_ids(batch.answers)
        tokens = self.model.visual_tokens(batch.inputs)
        visual = [tokens[medium] for medium in batch.medium_B]
        return self.losses_of(batch, self.model.hidden_states(visual, ids_BL, mask_BL, self.questions(batch)))

    def questions(self, batch: Batch) -> list[str]:
        """The user text of each sample; empty under prompt decoupling."""
        samples = zip(_tasks(batch), batch.medium_B, strict=True)
        return [self.model.asked(task, batch.inputs[medium]) for task, medium in samples]

    def losses_of(self, batch: Batch, hidden_BLD: Tensor) -> dict[str, Tensor]:
        """As :meth:`losses`, from the hidden states that predict the tokens of each answer and its end."""
        ids_BL, mask_BL = self.model.answer_ids(batch.answers)
        answers = _Answers(hidden_BLD, ids_BL, mask_BL, self._level_positions(batch, ids_BL))
        found: dict[str, Tensor] = {}
        task_B = _tasks(batch)
        words = self._words(answers, task_B)
        if any(task in SCORED for task in task_B):
            found |= self._scored_losses(batch, answers, words)
        for task in sorted(set(batch.tasks) - set(SCORED)):
            members_B = torch.tensor([other is task for other in task_B], device=ids_BL.device)
            found[task] = self._text_losses(answers, words, members_B)
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

    def _words(self, answers: _Answers, task_B: list[Task]) -> _Tokens:
        """Every supervised token but the level words, in one pass over the vocabulary."""
        config = self._config
        order_L = torch.arange(answers.ids_BL.shape[1], device=answers.ids_BL.device)
        level_B1 = answers.level_B[:, None]
        sentence_BL = order_L < level_B1 if config.prefix_tokens == "before_level" else order_L != level_B1
        weights = {Task.SINGLE: config.prefix_weight, Task.PAIR: config.pair_prefix_weight}
        trained_B1 = torch.tensor([[weights.get(task, 1.0) > 0] for task in task_B], device=level_B1.device)
        chosen_BL = answers.mask_BL & trained_B1 & torch.where(level_B1 < 0, True, sentence_BL)
        log_probs_N = self.head.tokens(answers.hidden_BLD[chosen_BL], answers.ids_BL[chosen_BL])
        return _Tokens(log_probs_N, torch.nonzero(chosen_BL)[:, 0])

    def _scored_losses(self, batch: Batch, answers: _Answers, words: _Tokens) -> dict[str, Tensor]:
        """Losses of ``single`` and ``pair``: one level row per sample, and the rows of the sentence if they count."""
        config = self._config
        sample_B = torch.nonzero(answers.level_B >= 0)[:, 0]
        level_BD = answers.hidden_BLD[sample_B, answers.level_B[sample_B]]
        log_probs_B5 = self.head.levels(level_BD, config.level_space)
        example_B = batch.example_B.to(sample_B.device)[sample_B]
        divergence_B = losses.level_divergence(log_probs_B5, self._targets(batch, answers)[sample_B])
        single_B = torch.tensor([batch.tasks[int(e)] is Task.SINGLE for e in example_B], device=sample_B.device)
        # (1 / L) sum_l -log p_l over the sentence's rows, with L the tokens of the whole answer
        sentence_N = -words.log_probs_N
        prefix_B = losses.answer_means(sentence_N, words.sample_N, answers.lengths)[sample_B]
        found: dict[str, Tensor] = {}
        if single_B.any():
            found[Task.SINGLE] = divergence_B[single_B] + config.prefix_weight * prefix_B[single_B]
        if not single_B.all():
            pair_B = ~single_B
            preference = batch.preference_E.to(example_B.device)[example_B[pair_B][::2]]
            loss_P = self._pair_losses(log_probs_B5[pair_B], preference)
            extra_B = config.pair_level_weight * divergence_B + config.pair_prefix_weight * prefix_B
            found[Task.PAIR] = loss_P + extra_B[pair_B].reshape(-1, 2).sum(dim=1)
        return found

    def _targets(self, batch: Batch, answers: _Answers) -> Tensor:
        """Targets ``[B, 5]``: PMOD, or all on the answer's level word, where the divergence is the cross entropy."""
        if self._config.target == "pmod":
            return batch.targets_B5.to(answers.ids_BL.device)
        word_B1 = answers.ids_BL.gather(1, answers.level_B[:, None].clamp_min(0))
        return (word_B1 == self._level_ids).float()

    def _pair_losses(self, log_probs_B5: Tensor, preference_P: Tensor) -> Tensor:
        """Loss per pair; the rows are the pairs' members in turn."""
        mean_B, variance_B = losses.level_moments(log_probs_B5, self._config.pair_scale)
        if self._config.pair == "fidelity":
            first, second = (mean_B[::2], variance_B[::2]), (mean_B[1::2], variance_B[1::2])
            return losses.fidelity(first, second, preference_P)
        if self._config.pair == "davidson":
            return losses.davidson(mean_B[::2], mean_B[1::2], preference_P, tie=self._config.davidson_tie)
        return losses.thurstone(mean_B[::2], mean_B[1::2], preference_P)

    def _text_losses(self, answers: _Answers, words: _Tokens, members_B: Tensor) -> Tensor:
        """Focal (or cross-entropy) mean over each member's whole answer."""
        config = self._config
        mine = words.of(members_B)
        alpha, beta = (config.focal_alpha, config.focal_beta) if config.text == "focal" else (1.0, 0.0)
        loss_N = losses.focal_of(mine.log_probs_N, alpha=alpha, beta=beta)
        return losses.answer_means(loss_N, mine.sample_N, answers.lengths)[members_B]


def _tasks(batch: Batch) -> list[Task]:
    """Task of each sample."""
    return [batch.tasks[int(example)] for example in batch.example_B]
