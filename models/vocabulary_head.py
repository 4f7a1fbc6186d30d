"""A decoder's output layer under a loss: whole logits, or only what is asked for.

Shape legend as in ``models.loss_head``; ``5`` levels, best first.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import losses
from models.loss_head import token_log_probs

HeadKind = Literal["fused", "rows_first"]
"""``fused`` never holds ``[N, V]``; ``rows_first`` makes whole logits of the supervised rows: the plain reference."""


class VocabularyHead(nn.Linear):
    """A decoder's output layer that can also answer for a few tokens alone.

    Losses go through this module's call, not around it to its weight, so that whatever hangs on the module (ZeRO-3
    gathers a partitioned weight there) works for them too.
    """

    @classmethod
    def around(cls, linear: nn.Linear) -> "VocabularyHead":
        """The same layer, sharing its parameters (and their ties)."""
        head = cls.__new__(cls)
        nn.Module.__init__(head)
        head.in_features, head.out_features = linear.in_features, linear.out_features
        head.weight, head.bias = linear.weight, linear.bias
        return head.train(linear.training)

    def forward(
        self,
        input: Tensor,  # noqa: A002 - nn.Linear's name
        token_ids_NK: Tensor | None = None,
        columns_K: Tensor | None = None,
    ) -> Tensor:
        """Logits ``[..., V]``, or what is asked for of rows ``[N, D]``.

        Args:
            token_ids_NK: give the log-probabilities of these tokens, see :func:`token_log_probs`.
            columns_K: give the logits ``[N, K]`` of these tokens, in float32; nothing else of the weight is read.
        """
        if token_ids_NK is not None:
            if input.is_cuda and torch.is_autocast_enabled("cuda"):
                input = input.to(torch.get_autocast_dtype("cuda"))  # noqa: A001 - nn.Linear's name
            return token_log_probs(input, self.weight, self.bias, token_ids_NK)
        if columns_K is not None:
            with torch.autocast(input.device.type, enabled=False):
                bias_K = None if self.bias is None else self.bias[columns_K].float()
                return functional.linear(input.float(), self.weight[columns_K].float(), bias_K)
        return super().forward(input)


@dataclass(frozen=True)
class LossHead:
    """How hidden states of supervised rows become log-probabilities.

    Attributes:
        head: the decoder's.
        level_ids: token ids ``[5]`` of the level words, best first.
        kind: see ``HeadKind``; both give the same numbers up to the order of sums.
    """

    head: VocabularyHead
    level_ids: Tensor
    kind: HeadKind

    def tokens(self, hidden_ND: Tensor, token_ids_N: Tensor) -> Tensor:
        """Log-probability ``[N]`` of each row's token over the whole vocabulary."""
        if self.kind == "rows_first":
            return -losses.cross_entropy(self.head(hidden_ND), token_ids_N)
        return self.head(hidden_ND, token_ids_NK=token_ids_N[:, None])[:, 0]

    def levels(self, hidden_ND: Tensor, space: losses.LevelSpace) -> Tensor:
        """Log-probabilities ``[N, 5]`` of the level words; over the words alone only five columns are multiplied."""
        if self.kind == "rows_first":
            return losses.level_log_probabilities(self.head(hidden_ND), self.level_ids, space)
        if space == "levels":
            return functional.log_softmax(self.head(hidden_ND, columns_K=self.level_ids), dim=1)
        return self.head(hidden_ND, token_ids_NK=self.level_ids.expand(len(hidden_ND), -1))
