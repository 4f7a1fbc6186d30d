"""Text towers: reasoning text to a point of the joint space. They serve alignment alone; no student has one.

``clip`` is CLIP's text model. ``decoder`` lets a language model read the text, the teacher's own as a rule: the mean of
its last hidden states, standardised over the texts that are learnt from, through a linear layer that learns.

Shape legend: ``N`` texts, ``R`` runs of tokens, ``L`` tokens, ``F`` features, ``D`` joint space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Model,
)

from models.errors import ModelError
from models.rali.clip_folder import load_part
from models.rali.text_length import Fitted, LengthPolicy, fit_text
from models.standardisation import Standardisation

_TOGETHER: Final = 64
"""Runs that pass a frozen tower at once."""


@dataclass(frozen=True)
class LengthReport:
    """How texts fit into a text tower.

    Attributes:
        limit: tokens that it takes. longest: tokens of the longest text.
        over: texts that are longer. over_share: their share. lost_share: share of all tokens that no run holds.
    """

    limit: int
    texts: int
    longest: int
    over: int
    over_share: float
    lost_share: float


class TextTower(Protocol):
    """What alignment asks of a tower, which is a module."""

    def features(self, texts: Sequence[str]) -> Tensor:
        """What the tower reads ``[N, F]``; with gradients where it learns."""
        ...

    def project(self, features_NF: Tensor) -> Tensor:
        """Embeddings ``[N, D]`` of features."""
        ...

    def lengths(self, texts: Sequence[str]) -> LengthReport:
        """How the texts fit."""
        ...


class _Reading(nn.Module):
    """How every tower brings texts to runs of tokens, and runs back to texts."""

    def __init__(self, tokenizer: Any, limit: int, policy: LengthPolicy) -> None:
        super().__init__()
        self.tokenizer, self.limit = tokenizer, limit
        self.policy: LengthPolicy = policy

    def lengths(self, texts: Sequence[str]) -> LengthReport:
        """How the texts fit."""
        fitted = [self._fitted(text) for text in texts]
        tokens = sum(one.tokens for one in fitted)
        over = sum(one.tokens > self.limit for one in fitted)
        longest, lost = max(one.tokens for one in fitted), sum(one.lost for one in fitted)
        return LengthReport(self.limit, len(fitted), longest, over, over / len(fitted), lost / tokens)

    def _fitted(self, text: str) -> Fitted:
        return fit_text(text, partial(self.tokenizer.encode, add_special_tokens=False), self.limit, self.policy)

    def _of_runs(self, texts: Sequence[str]) -> Tensor:
        """Features ``[N, F]``: the mean over each text's runs."""
        fitted = [self._fitted(text).runs for text in texts]
        runs = [run for one in fitted for run in one]
        read = [self._read(runs[first : first + _TOGETHER]) for first in range(0, len(runs), _TOGETHER)]
        return torch.stack([part.mean(dim=0) for part in torch.cat(read).split([len(one) for one in fitted])])

    def _read(self, runs: Sequence[list[int]]) -> Tensor:
        raise NotImplementedError


def _padded(runs: Sequence[Sequence[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Tokens ``[R, L]``, padded on the right, and where they are real."""
    length = max(len(run) for run in runs)
    ids_RL = torch.full((len(runs), length), filler)
    mask_RL = torch.zeros(len(runs), length, dtype=torch.bool)
    for number, run in enumerate(runs):
        ids_RL[number, : len(run)] = torch.tensor(run)
        mask_RL[number, : len(run)] = True
    return ids_RL, mask_RL


class ClipTextTower(_Reading):
    """CLIP's text model with its projection; a text's embedding is the mean of its runs' unit embeddings."""

    def __init__(self, clip: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, policy: LengthPolicy) -> None:
        super().__init__(tokenizer, int(clip.config.max_position_embeddings) - 2, policy)
        self.clip = clip

    @classmethod
    def from_pretrained(cls, folder: Path, policy: LengthPolicy) -> "ClipTextTower":
        """Read the whole CLIP's folder; nothing is fetched.

        Raises:
            MissingWeightsError: it is incomplete.
            ModelError: it is no CLIP.
        """
        clip: CLIPTextModelWithProjection = load_part(CLIPTextModelWithProjection, folder, ("tokenizer.json",))
        return cls(clip, CLIPTokenizer.from_pretrained(folder, local_files_only=True), policy).eval()

    def features(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``[N, D]``."""
        return self._of_runs(texts)

    def project(self, features_NF: Tensor) -> Tensor:
        """Nothing is left to do."""
        return features_NF

    def _read(self, runs: Sequence[list[int]]) -> Tensor:
        start, end = int(self.tokenizer.bos_token_id), int(self.tokenizer.eos_token_id)
        ids_RL, mask_RL = _padded([[start, *run, end] for run in runs], end)
        device = self.clip.device
        found = self.clip(input_ids=ids_RL.to(device), attention_mask=mask_RL.to(device)).text_embeds
        return functional.normalize(found, dim=1)


class DecoderTextTower(_Reading):
    """A language model that stays as it is, and a linear layer that learns.

    Args:
        decoder: without its vocabulary head. limit: tokens of a run. width: of the joint space.
    """

    def __init__(
        self, decoder: Qwen2Model, tokenizer: PreTrainedTokenizerFast, policy: LengthPolicy, limit: int, width: int
    ) -> None:
        super().__init__(tokenizer, limit, policy)
        self.decoder = decoder.requires_grad_(requires_grad=False).eval()
        self.linear = nn.Linear(int(decoder.config.hidden_size), width)
        self._scale: Standardisation | None = None

    def fit_to(self, features_NF: Tensor) -> None:
        """Take from the texts' features what is normal."""
        self._scale = Standardisation.over([features_NF.numpy().astype(np.float32)])

    @torch.no_grad()
    def features(self, texts: Sequence[str]) -> Tensor:
        """Mean last hidden states ``[N, F]``."""
        return self._of_runs(texts).cpu()

    def project(self, features_NF: Tensor) -> Tensor:
        """Embeddings ``[N, D]``.

        Raises:
            ModelError: :meth:`fit_to` has not been called.
        """
        if self._scale is None:
            raise ModelError("a decoder's text tower must see its texts' features before it projects them (fit_to)")
        return self.linear(self._scale.applied(features_NF.cpu()).to(self.linear.weight.device))

    def _read(self, runs: Sequence[list[int]]) -> Tensor:
        device = self.decoder.embed_tokens.weight.device
        ids_RL, mask_RL = (part.to(device) for part in _padded(runs, 0))
        hidden_RLF = self.decoder(input_ids=ids_RL, attention_mask=mask_RL, use_cache=False).last_hidden_state
        weights_RL1 = mask_RL[..., None].to(hidden_RLF)
        return ((hidden_RLF * weights_RL1).sum(dim=1) / weights_RL1.sum(dim=1)).float()
