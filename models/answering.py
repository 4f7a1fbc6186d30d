"""What a decoder answers after a prompt, and how likely it holds given answers; the prompt is computed once.

Shape legend: ``B`` prompts of equal length, ``A`` answers, ``X`` prompt tokens, ``L`` answer tokens, ``D`` width.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, Qwen2Model


class Decoder(Protocol):
    """The language half of a quality LMM."""

    @property
    def language_model(self) -> Qwen2Model:
        """The decoder without its vocabulary head."""
        ...

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Vocabulary logits of hidden states."""
        ...


@torch.no_grad()
def greedy_ids(
    decoder: Decoder, prompts_BXD: Tensor, end_id: int, max_new_tokens: int, banned: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Token ids of each greedy answer, without its end.

    Args:
        banned: token sequences that no answer may open with.
    """
    rows: list[list[int]] = [[] for _ in prompts_BXD]
    cache = DynamicCache()
    done = torch.zeros(len(rows), dtype=torch.bool, device=prompts_BXD.device)
    step_BXD = prompts_BXD
    for _ in range(max_new_tokens):
        output = decoder.language_model(inputs_embeds=step_BXD, past_key_values=cache, use_cache=True)
        logits_BV = decoder.logits(output.last_hidden_state[:, -1])
        for row, logits_V in zip(rows, logits_BV, strict=True):
            for opening in banned:
                if list(opening[:-1]) == row:
                    logits_V[opening[-1]] = -torch.inf
        next_B = logits_BV.argmax(-1)
        done |= next_B == end_id
        if bool(done.all()):
            break
        for row, token, finished in zip(rows, next_B.tolist(), done.tolist(), strict=True):
            if not finished:
                row.append(token)
        step_BXD = decoder.language_model.embed_tokens(next_B)[:, None]
    return rows


def log_likelihoods(decoder: Decoder, prompt_XD: Tensor, ids_AL: Tensor, mask_AL: Tensor) -> Tensor:
    """Log likelihood ``[A]`` of each answer after one prompt, summed over its real tokens."""
    cache = DynamicCache()
    first = decoder.language_model(inputs_embeds=prompt_XD[None], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(ids_AL))
    rest = decoder.language_model(
        inputs_embeds=decoder.language_model.embed_tokens(ids_AL[:, :-1]), past_key_values=cache, use_cache=True
    )
    first_A1D = first.last_hidden_state[:, -1:].expand(len(ids_AL), -1, -1)
    hidden_ALD = torch.cat([first_A1D, rest.last_hidden_state], dim=1)
    log_probs_ALV = decoder.logits(hidden_ALD).float().log_softmax(-1)
    return (log_probs_ALV.gather(-1, ids_AL[..., None])[..., 0] * mask_AL).sum(-1)


def groups_by_length(prompts: Sequence[Tensor]) -> list[list[int]]:
    """Positions of prompts that have the same number of tokens."""
    groups: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(len(prompt), []).append(index)
    return list(groups.values())
