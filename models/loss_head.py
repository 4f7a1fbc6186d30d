"""The vocabulary head under a loss: log-probabilities of the tokens that count, without ever holding all logits.

Shape legend: ``N`` supervised rows, ``D`` decoder width, ``V`` vocabulary, ``K`` wanted tokens per row, ``5`` levels,
``C`` tokens of one block of the vocabulary, ``M`` wanted tokens inside one block.

Every loss of this project reads a row through a few log-probabilities ``log p_k = z_k - log sum_v exp z_v`` with
``z = h W' + b``: one for cross entropy and focal, five for the levels over the whole vocabulary. Their gradient is

    dL/dh = sum_k (g_k - S p_k) W_k - S sum_{v not wanted} p_v W_v        with g_k = dL/d log p_k, S = sum_k g_k

and the last sum is attention output with the weight as keys and values. So one pass over blocks of the vocabulary with
a running maximum (online softmax) finds log-probabilities and that sum together, two matrix products a block, before
any upstream gradient is known; what follows (the focal weight, a divergence, a pair model) is ordinary autograd over
``[N, K]`` numbers. The wanted tokens stay out of the sum, so that rows the model is sure of keep the digits of their
small losses and gradients.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.nn import functional

from models.errors import ModelError

BLOCK_WEIGHTS: Final = 2**20
"""Weights of a block, 4 MiB of float32: they stay in the cache from the first product to the second (benchmarked)."""
BLOCK_LOGITS: Final = 2**21
"""Logits of a block, 8 MiB of float32, likewise."""
BLOCK_STEP: Final = 64
"""Blocks are multiples of this many tokens, the width that matrix products like."""


@dataclass(frozen=True)
class Sums:
    """What one pass over the vocabulary finds out about each row; ``e_v = exp(z_v - max)``.

    Attributes:
        logits_NK: logits of the wanted tokens.
        max_N1: the row's largest logit.
        others_N1: ``sum e_v`` over all tokens but the wanted ones.
        rest_ND: ``sum e_v W_v`` over the same; None if nobody will ask for a gradient.
    """

    logits_NK: Tensor
    max_N1: Tensor
    others_N1: Tensor
    rest_ND: Tensor | None

    def normalised(self) -> tuple[Tensor, Tensor]:
        """Log-probabilities ``[N, K]`` of the wanted tokens, and ``sum e_v`` over all tokens, ``[N, 1]``."""
        shifted_NK = self.logits_NK - self.max_N1
        shares_NK = shifted_NK.exp()
        wanted_N1 = shares_NK.sum(dim=1, keepdim=True)
        total_N1 = self.others_N1 + wanted_N1
        # Of a row that is sure, log(1 + little) would round to 0.
        sure_NK = -torch.log1p((self.others_N1 + (wanted_N1 - shares_NK)) / shares_NK)
        return torch.where(shares_NK > 0.5 * total_N1, sure_NK, shifted_NK - total_N1.log()), total_N1


def block_tokens(hidden_ND: Tensor, weight_VD: Tensor) -> int:
    """Tokens per block, at most ``V``.

    On CUDA, where launches cost more than distance, the logits alone bound a block, at eight times as many.
    """
    rows, width = hidden_ND.shape
    room = BLOCK_LOGITS // max(1, rows)
    room = 8 * room if hidden_ND.is_cuda else min(room, BLOCK_WEIGHTS // width)
    return min(len(weight_VD), max(BLOCK_STEP, room // BLOCK_STEP * BLOCK_STEP))


def token_log_probs(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, token_ids_NK: Tensor, block: int | None = None
) -> Tensor:
    """Log-probabilities ``[N, K]`` of the wanted tokens over the whole vocabulary, differentiable once.

    Float64 stays float64; all other types give float32 and accumulate in it. A weight or bias that requires a gradient
    gets it from logits computed again block by block: four products instead of the three of whole logits.

    A vocabulary that fits into one block on the CPU becomes whole logits, which are no larger than a block and cheaper.

    Args:
        token_ids_NK: the wanted tokens; those of one row are distinct.
        block: tokens per block, which order the sums; by default :func:`block_tokens`. Triton's kernels have their own.

    Raises:
        ModelError: a token is not in the vocabulary (on CUDA, where a check would make the host wait: NaN).
    """
    if not hidden_ND.is_cuda and _outside(token_ids_NK, len(weight_VD)):
        msg = f"a token id lies outside the head's vocabulary of {len(weight_VD)}: tokenizer and decoder do not fit"
        raise ModelError(msg)
    width = block or block_tokens(hidden_ND, weight_VD)
    if block is None and width == len(weight_VD) and not hidden_ND.is_cuda:
        return _whole_log_probs(hidden_ND, weight_VD, bias_V, token_ids_NK)
    options = _Pass(width, torch.is_grad_enabled() and hidden_ND.requires_grad)
    return cast("Tensor", _TokenLogProbs.apply(hidden_ND, weight_VD, bias_V, token_ids_NK, options))


def _outside(token_ids_NK: Tensor, size: int) -> bool:
    return bool(((token_ids_NK < 0) | (token_ids_NK >= size)).any())


def _whole_log_probs(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, token_ids_NK: Tensor) -> Tensor:
    kind = _Rows(hidden_ND, weight_VD, bias_V, token_ids_NK).sum_type
    with torch.autocast(hidden_ND.device.type, enabled=False):
        bias = None if bias_V is None else bias_V.to(kind)
        logits_NV = functional.linear(hidden_ND.to(kind), weight_VD.to(kind), bias)
        return functional.log_softmax(logits_NV, dim=1).gather(1, token_ids_NK)


@dataclass(frozen=True)
class _Pass:
    """How to walk over the vocabulary: tokens per block, and whether ``rest`` is wanted."""

    block: int
    wants_rest: bool


class _TokenLogProbs(torch.autograd.Function):
    """Autograd's side of :func:`token_log_probs`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        token_ids_NK: Tensor,
        options: _Pass,
    ) -> Tensor:
        rows = _Rows(hidden_ND, weight_VD, bias_V, token_ids_NK)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            found = _sums(rows, options)
            log_probs_NK, all_N1 = found.normalised()
        ctx.block = options.block
        ctx.save_for_backward(
            hidden_ND, weight_VD, bias_V, token_ids_NK, log_probs_NK, found.max_N1, all_N1, found.rest_ND
        )
        return log_probs_NK

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] - torch's stub makes it an instance method
        (gradient_NK,) = grad_outputs
        hidden_ND, weight_VD, bias_V, token_ids_NK, log_probs_NK, max_N1, all_N1, rest_ND = ctx.saved_tensors
        total_N1 = gradient_NK.sum(dim=1, keepdim=True)
        # g_k - S p_k, where expm1 keeps the 1 - p_k of a row that is sure
        wanted_NK = -gradient_NK * log_probs_NK.expm1() - log_probs_NK.exp() * (total_N1 - gradient_NK)
        scale_N1 = -total_N1 / all_N1
        grad_ND = grad_VD = grad_V = None
        with torch.autocast(hidden_ND.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                sums_ND = rest_ND * scale_N1
                for wanted_N, ids_N in zip(wanted_NK.unbind(1), token_ids_NK.unbind(1), strict=True):
                    sums_ND.addcmul_(wanted_N[:, None], weight_VD[ids_N].to(sums_ND.dtype))
                grad_ND = sums_ND.to(hidden_ND.dtype)
            if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
                rows = _Rows(hidden_ND, weight_VD, bias_V, token_ids_NK)
                slopes = _Slopes(max_N1, scale_N1, wanted_NK)
                grad_VD, grad_V = _head_gradients(rows, slopes, ctx.block)
        return grad_ND, grad_VD, grad_V, None, None


@dataclass(frozen=True)
class _Rows:
    """Hidden states in front of a head, and the tokens wanted of each."""

    hidden_ND: Tensor
    weight_VD: Tensor
    bias_V: Tensor | None
    token_ids_NK: Tensor

    @property
    def sum_type(self) -> torch.dtype:
        """Type of logits and sums."""
        return torch.float64 if self.hidden_ND.dtype == torch.float64 else torch.float32

    @property
    def factor_type(self) -> torch.dtype:
        """Type of a product's factors: halves only where the hardware sums their products in float32."""
        return self.hidden_ND.dtype if self.hidden_ND.is_cuda else self.sum_type


@dataclass(frozen=True)
class _Block:
    """Logits of some rows over one block of the vocabulary; ``M`` wanted tokens lie in it.

    Attributes:
        logits_NC: whoever asked for the block may overwrite them; the next block does.
        row_M, column_M, which_M: where the wanted tokens are in ``logits``, and their numbers among the row's ``K``.
    """

    tokens: slice
    logits_NC: Tensor
    weight_CD: Tensor
    row_M: Tensor
    column_M: Tensor
    which_M: Tensor


def _sums(rows: _Rows, options: _Pass) -> Sums:
    hidden_ND = rows.hidden_ND
    if hidden_ND.is_cuda and hidden_ND.dtype != torch.float64:
        from models.loss_head_triton import sums  # noqa: PLC0415 - the kernels are for CUDA alone

        return Sums(*sums(hidden_ND, rows.weight_VD, rows.bias_V, rows.token_ids_NK, wants_rest=options.wants_rest))
    return _sums_by_blocks(rows, options)


def _sums_by_blocks(rows: _Rows, options: _Pass) -> Sums:
    """Online softmax: sums so far fade by ``exp(old maximum - new maximum)`` before a block is added."""
    rest_ND = torch.zeros_like(rows.hidden_ND, dtype=rows.sum_type)
    others_N1 = rest_ND.new_zeros(len(rest_ND), 1)
    max_N1 = torch.full_like(others_N1, -torch.inf)
    logits_NK = rest_ND.new_zeros(rows.token_ids_NK.shape)
    lowest = torch.finfo(rows.sum_type).min  # where all logits so far are -inf there is no maximum to subtract
    for part in _blocks(rows, options.block):
        values_NC = part.logits_NC
        new_N1 = torch.maximum(max_N1, values_NC.amax(dim=1, keepdim=True))
        shift_N1 = new_N1.clamp_min(lowest)
        fade_N1 = (max_N1 - shift_N1).exp_()
        if len(part.row_M):
            logits_NK[part.row_M, part.which_M] = values_NC[part.row_M, part.column_M]
            values_NC[part.row_M, part.column_M] = -torch.inf
        values_NC.sub_(shift_N1).exp_()
        others_N1.mul_(fade_N1).add_(values_NC.sum(dim=1, keepdim=True))
        if options.wants_rest:
            _add_product(rest_ND.mul_(fade_N1), values_NC, part.weight_CD)
        max_N1 = new_N1
    return Sums(logits_NK, max_N1, others_N1, rest_ND if options.wants_rest else None)


@dataclass(frozen=True)
class _Slopes:
    """Gradient of the logits: ``e_v scale`` with ``scale = -S / sum e_v``, and ``wanted`` where wanted tokens are."""

    max_N1: Tensor
    scale_N1: Tensor
    wanted_NK: Tensor


def _head_gradients(rows: _Rows, slopes: _Slopes, block: int) -> tuple[Tensor, Tensor | None]:
    """Gradients of weight and bias; each block of tokens is summed over all rows at once, in float32."""
    grad_VD = torch.zeros_like(rows.weight_VD)
    grad_V = None if rows.bias_V is None else torch.zeros_like(rows.bias_V)
    hidden_ND = rows.hidden_ND.to(rows.factor_type)
    for part in _blocks(rows, block):
        slopes_NC = part.logits_NC.sub_(slopes.max_N1).exp_().mul_(slopes.scale_N1)
        slopes_NC[part.row_M, part.column_M] = slopes.wanted_NK[part.row_M, part.which_M]
        factor_CN, part_CD = slopes_NC.t().to(rows.factor_type), grad_VD[part.tokens]
        if part_CD.dtype == factor_CN.dtype == rows.sum_type:
            _product(factor_CN, hidden_ND, part_CD)
        else:
            part_CD.copy_(_product(factor_CN, hidden_ND))
        if grad_V is not None:
            grad_V[part.tokens] = slopes_NC.sum(dim=0)
    return grad_VD, grad_V


def _blocks(rows: _Rows, block: int) -> Iterator[_Block]:
    """Walk over the vocabulary."""
    hidden_ND = rows.hidden_ND.to(rows.factor_type)
    size, kinds = len(rows.weight_VD), rows.token_ids_NK.shape[1]
    starts = range(0, size if len(hidden_ND) else 0, block)  # no rows, no walk
    ids = rows.token_ids_NK.flatten()
    order = ids.argsort(stable=True)
    bounds = torch.searchsorted(ids[order], torch.tensor([*starts, size], device=ids.device)).tolist()
    buffer_NC = hidden_ND.new_empty(len(hidden_ND), min(block, size), dtype=rows.sum_type)
    for number, start in enumerate(starts):
        tokens = slice(start, min(start + block, size))
        weight_CD = rows.weight_VD[tokens].to(rows.factor_type)
        logits_NC = _product(hidden_ND, weight_CD.t(), buffer_NC[:, : len(weight_CD)])
        if rows.bias_V is not None:
            logits_NC += rows.bias_V[tokens]
        found_M = order[bounds[number] : bounds[number + 1]]
        yield _Block(tokens, logits_NC, weight_CD, found_M // kinds, ids[found_M] - start, found_M % kinds)


def _product(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Product of two matrices; halves (on CUDA) give float32."""
    if left.dtype in {torch.float32, torch.float64}:
        return torch.mm(left, right, out=out)
    return torch.mm(left, right, out_dtype=torch.float32)


def _add_product(into: Tensor, left: Tensor, right: Tensor) -> None:
    """Add the product of ``left``, rounded to the type of ``right``, and ``right``."""
    if left.dtype == right.dtype:
        into.addmm_(left, right)
    else:
        into += _product(left.to(right.dtype), right)
