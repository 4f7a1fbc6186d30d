"""Where a decoder looks when it predicts one token: attention by groups of tokens, layer by layer and head by head.

"Building Reasonable Inference for Vision-Language Models in Blind Image Quality Assessment" shows such maps for the
token of the quality word: a one-stage model looks at few visual tokens, a two-stage model at its description. So the
mass of a group is told beside how many of its tokens it lies on, which many tokens cannot win by their number.

Shape legend: ``B`` sequences, ``L`` layers, ``H`` heads, ``T`` tokens, ``G`` groups, ``M`` tokens of one group.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import ModelError

Floats = NDArray[np.float64]

GROUPS: Final = ("image", "description", "prompt", "other")
"""What a token may be part of: the medium, the model's own words, the user's, and what a chat layout adds."""
TOP_SHARE: Final = 0.1
"""Concentration is the share of a group's mass that lies on this share of its tokens, those with most of it."""
_TOLERANCE: Final = 1e-5
_COARSE_TOLERANCE: Final = 2e-2


@dataclass(frozen=True)
class AttentionShare:
    """Attention of one position.

    Attributes:
        shares_LHG: mass on each of ``GROUPS``; sums to 1 over them.
        entropy_LH: of the attention over single tokens, in nats.
        tokens_G: how many tokens each group has, of those that may be seen.
        within_LHG: entropy of a group's mass over its tokens, in nats; NaN where it has no mass.
        top_LHG: share of a group's mass on the tenth of its tokens with most of it, rounded up; NaN likewise.
        mean_T: attention of each token, mean over heads and layers. group_T: number of its group.
    """

    shares_LHG: Floats
    entropy_LH: Floats
    tokens_G: NDArray[np.int64]
    within_LHG: Floats
    top_LHG: Floats
    mean_T: Floats
    group_T: NDArray[np.int64]

    @property
    def by_layer(self) -> Floats:
        """Mean over the heads, ``[L, G]``."""
        return self.shares_LHG.mean(axis=1)

    @property
    def whole(self) -> Floats:
        """Mean over heads and layers, ``[G]``."""
        return self.shares_LHG.mean(axis=(0, 1))

    @property
    def effective_tokens(self) -> float:
        """Exponential of the mean entropy: how many tokens are looked at, as if evenly."""
        return float(np.exp(self.entropy_LH.mean()))

    @property
    def evenness(self) -> Floats:
        """Mass of each group over its share of the tokens, ``[G]``: even attention gives 1; NaN without tokens."""
        with np.errstate(invalid="ignore"):
            return self.whole * self.tokens_G.sum() / np.where(self.tokens_G > 0, self.tokens_G, np.nan)

    @property
    def effective_within(self) -> Floats:
        """As ``effective_tokens`` within each group, ``[G]``; NaN without mass."""
        return np.exp(_mean_over_heads(self.within_LHG))

    @property
    def concentration(self) -> Floats:
        """Mean of ``top_LHG`` over heads and layers, ``[G]``; NaN without mass. Even attention gives about a tenth."""
        return _mean_over_heads(self.top_LHG)

    def tokens_of(self, group: str) -> Floats:
        """Attention ``[M]`` of the group's single tokens, in their order, mean over heads and layers."""
        return self.mean_T[self.group_T == GROUPS.index(group)]


def _mean_over_heads(values_LHG: Floats) -> Floats:
    """Mean over layers and heads of what is defined; NaN where nothing is."""
    defined = np.isfinite(values_LHG)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values_LHG, 0.0).sum(axis=(0, 1)) / defined.sum(axis=(0, 1))


def attention_share(
    attentions: Sequence[Tensor | None] | None, groups: Mapping[str, Sequence[int]], position: int, sequence: int = 0
) -> AttentionShare:
    """Sum the attention of one position over groups of tokens.

    Args:
        attentions: per layer ``[B, H, T, T]``, as transformers gives them with ``output_attentions``.
        groups: positions of the tokens of each of ``GROUPS``, which may be left out if it has none; together they
            hold every position up to ``position`` once.
        position: that attends. sequence: number of the sequence.

    Raises:
        ModelError: the kernel gave no weights; groups overlap or leave tokens out; or a row does not sum to 1.
    """
    rows_LHT = _rows(attentions, position, sequence)
    off = float(np.abs(rows_LHT.sum(axis=-1) - 1.0).max())
    coarse = attentions is not None and attentions[0] is not None and attentions[0].dtype != torch.float32
    if off > (_COARSE_TOLERANCE if coarse else _TOLERANCE):
        msg = f"attention of position {position} does not sum to 1 (it is {off:.2g} off): is this a softmax?"
        raise ModelError(msg)
    rows_LHT = rows_LHT / rows_LHT.sum(axis=-1, keepdims=True)
    member_GT = _membership(groups, position)
    inside = [_inside(rows_LHT[..., member_T > 0]) for member_T in member_GT]
    return AttentionShare(
        rows_LHT @ member_GT.T,
        _entropy(rows_LHT),
        member_GT.sum(axis=1).astype(np.int64),
        np.stack([entropy_LH for entropy_LH, _ in inside], axis=-1),
        np.stack([top_LH for _, top_LH in inside], axis=-1),
        rows_LHT.mean(axis=(0, 1)),
        member_GT.argmax(axis=0).astype(np.int64),
    )


def _entropy(rows_LHT: Floats) -> Floats:
    return -(rows_LHT * np.log(np.where(rows_LHT > 0, rows_LHT, 1.0))).sum(axis=-1)


def _inside(weights_LHM: Floats) -> tuple[Floats, Floats]:
    """Entropy of a group's mass over its tokens, and the share of it on the tenth of them with most; both NaN at 0."""
    mass_LH1 = weights_LHM.sum(axis=-1, keepdims=True)
    parts_LHM = weights_LHM / np.where(mass_LH1 > 0, mass_LH1, np.nan)
    most = max(1, math.ceil(TOP_SHARE * weights_LHM.shape[-1] - 1e-9))
    none_LH = np.where(mass_LH1[..., 0] > 0, 0.0, np.nan)
    return _entropy(parts_LHM) + none_LH, np.sort(parts_LHM, axis=-1)[..., ::-1][..., :most].sum(axis=-1) + none_LH


def _rows(attentions: Sequence[Tensor | None] | None, position: int, sequence: int) -> Floats:
    given = [layer for layer in attentions or () if layer is not None]
    if not given or len(given) < len(attentions or ()):
        raise ModelError(
            "the model gave no attention weights: fused kernels (flash attention, SDPA) keep none; load it with "
            'attn_implementation="eager"'
        )
    return np.stack([layer[sequence, :, position, : position + 1].double().cpu().numpy() for layer in given])


def _membership(groups: Mapping[str, Sequence[int]], position: int) -> Floats:
    if unknown := sorted(set(groups) - set(GROUPS)):
        msg = f"unknown group of tokens {unknown[0]!r}; the groups are {', '.join(GROUPS)}"
        raise ModelError(msg)
    member_GT = np.zeros((len(GROUPS), position + 1))
    for number, name in enumerate(GROUPS):
        seen = [token for token in groups.get(name, ()) if token <= position]
        member_GT[number, seen] = 1.0
    if (member_GT.sum(axis=0) != 1.0).any():
        token = int(np.flatnonzero(member_GT.sum(axis=0) != 1.0)[0])
        msg = f"token {token} is in {int(member_GT[:, token].sum())} groups: every token must be in one"
        raise ModelError(msg)
    return member_GT
