"""Answers as the tokens that were drawn, and how likely a model holds each of them.

A drawn answer is kept as its tokens: its text, encoded anew, could be others. Each ends with the end of turn, if that
was drawn before there were too many.

Shape legend: ``A`` answers, ``N`` tokens of all of them one behind the other, ``X`` positions, ``D`` decoder width,
``V`` vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from models.answering import answer_ids, groups_by_length
from models.conversations import Conversation, heads
from models.quality_lmm import Medium, QualityLMM
from models.sampling import Choose
from models.tokenizer import TURN_END
from models.vocabulary_head import HeadKind, LossHead


@dataclass(frozen=True)
class TokenRows:
    """The tokens of some answers, with the hidden states that predict them.

    Attributes:
        hidden_ND: after the final norm. ids_N: the tokens. answer_N: which answer each belongs to.
        lengths_A: tokens of each answer.
    """

    hidden_ND: Tensor
    ids_N: Tensor
    answer_N: Tensor
    lengths_A: Tensor


def end_of_turn(model: QualityLMM) -> int:
    """The token that ends an answer."""
    return int(model.tokenizer.encode(TURN_END, add_special_tokens=False)[0])


def draw_answers(
    model: QualityLMM, opened: Sequence[Tensor], most_tokens: int, temperature: float, seeds: Sequence[int]
) -> list[list[int]]:
    """Draw one answer behind each opening; openings of equal length share a batch.

    Args:
        opened: embeddings ``[X, D]`` up to where the answer begins (``models.conversations.heads``).
        most_tokens: an answer that has not ended by then is cut there.
        temperature: logits are divided by it; above 0.
        seeds: of each answer; what is drawn for it hangs on nothing else (up to rounding of the logits).

    Returns:
        Tokens of each answer, with its end if it has one.
    """
    end, rows = end_of_turn(model), [list[int]() for _ in opened]
    for members in groups_by_length(opened):
        prompts_AXD = torch.stack([opened[number] for number in members])
        choose = _drawing(temperature, [seeds[number] for number in members])
        found = answer_ids(model, prompts_AXD, end, most_tokens, choose=choose)
        for number, row in zip(members, found, strict=True):
            rows[number] = row if len(row) == most_tokens else [*row, end]
    return rows


def _drawing(temperature: float, seeds: Sequence[int]) -> Choose:
    """Draw from the whole distribution; unlike ``models.sampling``, which cuts its tail, this needs no sorting."""
    streams = [np.random.default_rng(seed) for seed in seeds]

    def choose(logits_AV: Tensor) -> Tensor:
        places_A = torch.tensor([stream.random() for stream in streams], dtype=torch.float64, device=logits_AV.device)
        upto_AV = (logits_AV.double() / temperature).softmax(-1).cumsum(-1)
        found_A1 = torch.searchsorted(upto_AV, (places_A * upto_AV[:, -1])[:, None], right=True)
        return found_A1[:, 0].clamp_max(logits_AV.shape[1] - 1)

    return choose


def text_of(model: QualityLMM, row: Sequence[int]) -> str:
    """What a drawn answer says."""
    return str(model.tokenizer.decode(list(row), skip_special_tokens=True)).strip()


def token_rows(model: QualityLMM, opened: Sequence[Tensor], rows: Sequence[Sequence[int]]) -> TokenRows:
    """Run the decoder over answers behind their openings.

    Args:
        opened: of each answer; several may share one. rows: tokens of each answer, one at least.
    """
    device = model.device
    lengths_A = torch.tensor([len(row) for row in rows], device=device)
    ids_N = torch.tensor([token for row in rows for token in row], device=device)
    answers = model.language_model.embed_tokens(ids_N).split(lengths_A.tolist())
    whole = [torch.cat([head, answer[:-1]]) for head, answer in zip(opened, answers, strict=True)]
    padded_AXD = nn.utils.rnn.pad_sequence(whole, batch_first=True)
    hidden_AXD = cast("Tensor", model.language_model(inputs_embeds=padded_AXD, use_cache=False).last_hidden_state)
    parts = [
        hidden_XD[len(head) - 1 : len(head) - 1 + len(row)]
        for hidden_XD, head, row in zip(hidden_AXD, opened, rows, strict=True)
    ]
    answer_N = torch.arange(len(rows), device=device).repeat_interleave(lengths_A)
    return TokenRows(torch.cat(parts), ids_N, answer_N, lengths_A)


@dataclass(frozen=True)
class Policy:
    """A model as that which says answers: drawn at a temperature, each token with its probability there.

    Attributes:
        head: the model's, see ``models.vocabulary_head``.
    """

    model: QualityLMM
    head: LossHead
    temperature: float

    @classmethod
    def of(cls, model: QualityLMM, kind: HeadKind, temperature: float) -> "Policy":
        """A model's policy."""
        return cls(model, LossHead(model.vocabulary_head, torch.tensor(model.level_ids), kind), temperature)

    def openings(self, inputs: Sequence[Medium], conversations: Sequence[Conversation]) -> list[Tensor]:
        """Embeddings ``[X, D]`` of conversations up to where their last answer begins; media are encoded once."""
        return heads(self.model, self.model.visual_tokens(inputs) if inputs else [], conversations)

    @torch.no_grad()
    def draw(self, opened: Sequence[Tensor], most_tokens: int, seeds: Sequence[int]) -> list[list[int]]:
        """See :func:`draw_answers`; an answer's seed alone says what is drawn."""
        return draw_answers(self.model, opened, most_tokens, self.temperature, seeds)

    def log_probs(self, opened: Sequence[Tensor], rows: Sequence[Sequence[int]]) -> tuple[Tensor, TokenRows]:
        """Log-probability ``[N]`` of each token of some answers, at the temperature."""
        found = token_rows(self.model, opened, rows)
        return self.head.tokens(found.hidden_ND / self.temperature, found.ids_N), found
