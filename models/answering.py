"""What a decoder answers after a prompt, and how likely it holds given answers; the prompt is computed once.

Shape legend: ``B`` prompts of equal length, ``A`` answers, ``X`` prompt tokens, ``L`` answer tokens, ``D`` width, ``V``
vocabulary, ``N`` answer tokens that are read, ``R`` answer tokens that are told (the first of each answer, then ``N``).
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerFast, Qwen2Model

from models.sampling import GREEDY, Choose, Draws, greedy
from models.tokenizer import TURN_END


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
def answer_ids(
    decoder: Decoder,
    prompts_BXD: Tensor,
    end_id: int,
    max_new_tokens: int,
    banned: Sequence[Sequence[int]] = (),
    choose: Choose = greedy,
) -> list[list[int]]:
    """Token ids of each answer, without its end.

    Args:
        banned: token sequences that no answer may open with.
        choose: the next tokens; see ``models.sampling``.
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
        next_B = choose(logits_BV)
        done |= next_B == end_id
        if bool(done.all()):
            break
        for row, token, finished in zip(rows, next_B.tolist(), done.tolist(), strict=True):
            if not finished:
                row.append(token)
        step_BXD = decoder.language_model.embed_tokens(next_B)[:, None]
    return rows


@torch.no_grad()
def continued_texts(
    decoder: Decoder,
    tokenizer: PreTrainedTokenizerFast,
    heads: Sequence[Tensor],
    max_new_tokens: int,
    avoid: Sequence[str] = (),
    draws: Draws = GREEDY,
) -> list[str]:
    """Answers to conversations that were opened as embeddings ``[X, D]``; those of equal length share a batch.

    Args:
        avoid: openings that no answer may have.
        draws: how answers are drawn, if they are.

    Raises:
        ModelError: there is not a seed for each answer that is drawn.
    """
    end_id = int(tokenizer.encode(TURN_END, add_special_tokens=False)[0])
    banned = [tokenizer.encode(text, add_special_tokens=False) for text in avoid]
    texts = [""] * len(heads)
    for members in groups_by_length(heads):
        prompts_BXD = torch.stack([heads[i] for i in members])
        ids = answer_ids(decoder, prompts_BXD, end_id, max_new_tokens, banned, draws.of(members, len(heads)))
        for index, row in zip(members, ids, strict=True):
            texts[index] = str(tokenizer.decode(row, skip_special_tokens=True)).strip()
    return texts


def log_likelihoods(decoder: Decoder, prompt_XD: Tensor, ids_AL: Tensor, mask_AL: Tensor) -> Tensor:
    """Log likelihood ``[A]`` of each answer after one prompt, summed over its real tokens.

    The answers stand behind each other in one sequence, each hidden from the others, so that all read one cache of the
    prompt: a copy for each of 121 answers would be as much memory as 121 prompts.
    """
    cache = DynamicCache()
    first = decoder.language_model(inputs_embeds=prompt_XD[None], past_key_values=cache, use_cache=True)
    follows_AL = mask_AL[:, 1:]  # a token is read where the answer goes on after it
    answers_N, places_N = follows_AL.nonzero(as_tuple=True)
    rest = decoder.language_model(
        inputs_embeds=decoder.language_model.embed_tokens(ids_AL[:, :-1][follows_AL])[None],
        position_ids=(len(prompt_XD) + places_N)[None],
        attention_mask=_side_by_side(answers_N, len(prompt_XD), prompt_XD.dtype),
        past_key_values=cache,
        use_cache=True,
    )
    opening_AD = first.last_hidden_state[:, -1].expand(len(ids_AL), -1)
    log_probs_RV = decoder.logits(torch.cat([opening_AD, rest.last_hidden_state[0]])).float().log_softmax(-1)
    told_R = torch.cat([ids_AL[:, 0], ids_AL[:, 1:][follows_AL]])
    of_tokens_R = log_probs_RV.gather(-1, told_R[:, None])[:, 0]
    of_tokens_AL = of_tokens_R.new_zeros(ids_AL.shape)
    of_tokens_AL[:, 0] = of_tokens_R[: len(ids_AL)]
    of_tokens_AL[:, 1:][follows_AL] = of_tokens_R[len(ids_AL) :]
    return of_tokens_AL.sum(-1)


def _side_by_side(answers_N: Tensor, prompt: int, dtype: torch.dtype) -> Tensor:
    """Added to attention ``[1, 1, N, X + N]``: a token sees the prompt, and its own answer up to itself."""
    order_N = torch.arange(len(answers_N), device=answers_N.device)
    own_NN = (answers_N[:, None] == answers_N[None]) & (order_N[:, None] >= order_N[None])
    sees = torch.cat([own_NN.new_ones(len(answers_N), prompt), own_NN], dim=1)
    added = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return added.masked_fill(~sees, torch.finfo(dtype).min)[None, None]


def groups_by_length(prompts: Sequence[Tensor]) -> list[list[int]]:
    """Positions of prompts that have the same number of tokens."""
    groups: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(len(prompt), []).append(index)
    return list(groups.values())
