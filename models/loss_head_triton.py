"""The pass over the vocabulary as Triton kernels: imported where tensors are on CUDA, tested in Triton's interpreter.

Shape legend as in ``models.loss_head``; ``C`` tokens of a chunk of the vocabulary, ``T`` tiles of tokens in it, ``S``
splits of the chunk.

A decoder is wider than a core's registers, so a kernel cannot keep a row's sum over the whole pass as attention does.
Three kernels take turns over chunks of the vocabulary instead. The first multiplies a tile of logits and leaves
``exp(z - the tile's maximum)`` in the type of the inputs, so no float32 logits are ever stored; the second merges the
tiles' maxima and sums into the rows'; the third multiplies what the first left with the same weights, which the cache
still holds, each tile scaled to the new maximum. Two products in all, as in the fused attention of one head.

Every number has one owner that adds in a fixed order (no atomics): the same inputs give the same bits.
"""

# ruff: noqa: ANN001, PLR0913, PLR0917 - a kernel's arguments are pointers and sizes, and it has no dataclasses

from dataclasses import dataclass
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK_BYTES: Final = 48 * 2**20
"""What the first kernel leaves for the third: as much as the second-level cache of an H100 (50 MB) can hold."""
MAX_SPLITS: Final = 32
"""Splits of a chunk when rows are too few to occupy the device; each has its own sum ``[N, D]``."""
_WARPS_PER_CORE: Final = 8
"""What a core of an H100 has registers for, at the 168 to 182 a thread that the large tiles compile to."""
_MERGE_ROWS: Final = 16
_MERGE_TILES: Final = 128
_PRECISION: Final = "ieee"
"""Float32 products keep their bits; for halves the word has no meaning."""
_LOWEST: Final = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class Tiles:
    """Sizes of the kernels' tiles, powers of two of at least 16.

    Attributes:
        rows: rows of a tile in both products.
        tokens: tokens of a tile of logits.
        depth: length of one step of a product.
        width: decoder channels of a tile of the sum.
        warps, stages: Triton's.
    """

    rows: int
    tokens: int
    depth: int
    width: int
    warps: int
    stages: int


def tiles_for(rows: int, itemsize: int) -> Tiles:
    """Tiles by the number of rows and the size of an input's element.

    Halves: tiles of 128 x 128, whose float32 sums are 64 registers a thread of eight warps, in steps of 64, three of
    which wait in 96 KiB of shared memory; compiled for an H100 they use its tensor cores and spill nothing. Few rows
    take the smallest tile that holds them. Float32 is multiplied without tensor cores (it is here for parity, not for
    speed), in tiles of 64 x 64.
    """
    if itemsize > 2:
        return Tiles(rows=64, tokens=64, depth=32, width=64, warps=4, stages=2)
    height = min(128, max(16, triton.next_power_of_2(rows)))
    return Tiles(rows=height, tokens=128, depth=64, width=128, warps=8 if height == 128 else 4, stages=3)


@triton.jit
def _logits_kernel(
    hidden, weight, bias, ids, kept, tile_max, tile_sum, wanted,
    count, vocabulary, depth, hidden_stride, weight_stride, kept_stride, tiles, start,
    WANTED: tl.constexpr, BIAS: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr, LOWEST: tl.constexpr,
    ROWS: tl.constexpr, TOKENS: tl.constexpr, DEPTH: tl.constexpr,
) -> None:  # fmt: skip
    """One tile of logits; neighbours in launch order share the tile's weights."""
    row_blocks = tl.cdiv(count, ROWS)
    tile = tl.program_id(0) // row_blocks
    row = (tl.program_id(0) % row_blocks) * ROWS + tl.arange(0, ROWS)
    column = tile * TOKENS + tl.arange(0, TOKENS)
    token = start + column
    step = tl.arange(0, DEPTH)
    is_row = row < count
    row_place = row.to(tl.int64)
    hidden_place = hidden + row_place[:, None] * hidden_stride
    weight_place = weight + token.to(tl.int64)[None, :] * weight_stride
    logits = tl.zeros((ROWS, TOKENS), dtype=tl.float32)
    for first in range(0, depth, DEPTH):
        channel = first + step
        inside = channel < depth
        left = tl.load(hidden_place + channel[None, :], mask=is_row[:, None] & inside[None, :], other=0.0)
        right = tl.load(
            weight_place + channel[:, None], mask=inside[:, None] & (token < vocabulary)[None, :], other=0.0
        )
        logits = tl.dot(left, right.to(left.dtype), logits, input_precision=PRECISION)
    if BIAS:
        logits += tl.load(bias + token, mask=token < vocabulary, other=0.0).to(tl.float32)[None, :]
    logits = tl.where((token < vocabulary)[None, :], logits, -float("inf"))
    top = tl.max(logits, axis=1)
    values = tl.exp(logits - tl.maximum(top, LOWEST)[:, None])
    for which in tl.static_range(WANTED):  # pyright: ignore[reportGeneralTypeIssues] - unrolled by the compiler
        wish = tl.load(ids + row_place * WANTED + which, mask=is_row, other=-1)
        hit = token[None, :] == wish[:, None]
        here = is_row & (wish >= start + tile * TOKENS) & (wish < start + tile * TOKENS + TOKENS) & (wish < vocabulary)
        tl.store(wanted + row_place * WANTED + which, tl.sum(tl.where(hit, logits, 0.0), axis=1), mask=here)
        values = tl.where(hit, 0.0, values)
    tl.store(tile_max + row_place * tiles + tile, top, mask=is_row)
    tl.store(tile_sum + row_place * tiles + tile, tl.sum(values, axis=1), mask=is_row)
    if KEEP:
        place = kept + row_place[:, None] * kept_stride + column[None, :]
        tl.store(place, values.to(kept.dtype.element_ty), mask=is_row[:, None])


@triton.jit
def _merge_kernel(
    tile_max, tile_sum, max_N, others_N, fade_N, count, tiles,
    LOWEST: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr,
) -> None:  # fmt: skip
    """Fold a chunk's maxima and sums into the rows'; ``fade`` is what older sums are worth under the new maximum."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = row < count
    place = row.to(tl.int64)[:, None] * tiles
    old = tl.load(max_N + row, mask=is_row, other=0.0)
    new = old
    for first in range(0, tiles, TILES):
        tile = first + tl.arange(0, TILES)
        there = is_row[:, None] & (tile < tiles)[None, :]
        new = tl.maximum(
            new, tl.max(tl.load(tile_max + place + tile[None, :], mask=there, other=-float("inf")), axis=1)
        )
    shift = tl.maximum(new, LOWEST)
    fade = tl.exp(old - shift)
    total = tl.load(others_N + row, mask=is_row, other=0.0) * fade
    for first in range(0, tiles, TILES):
        tile = first + tl.arange(0, TILES)
        there = is_row[:, None] & (tile < tiles)[None, :]
        top = tl.load(tile_max + place + tile[None, :], mask=there, other=-float("inf"))
        part = tl.load(tile_sum + place + tile[None, :], mask=there, other=0.0)
        total += tl.sum(part * tl.exp(top - shift[:, None]), axis=1)
    tl.store(max_N + row, new, mask=is_row)
    tl.store(others_N + row, total, mask=is_row)
    tl.store(fade_N + row, fade, mask=is_row)


@triton.jit
def _rest_kernel(
    kept, weight, tile_max, max_N, fade_N, rest,
    count, vocabulary, width, weight_stride, kept_stride, tiles, split_tiles, start,
    PRECISION: tl.constexpr, LOWEST: tl.constexpr,
    ROWS: tl.constexpr, TOKENS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr,
) -> None:  # fmt: skip
    """One tile of one split's sum; neighbours in launch order share the tile's probabilities."""
    width_blocks = tl.cdiv(width, WIDTH)
    row = (tl.program_id(0) // width_blocks) * ROWS + tl.arange(0, ROWS)
    channel = (tl.program_id(0) % width_blocks) * WIDTH + tl.arange(0, WIDTH)
    split = tl.program_id(1)
    is_row = row < count
    row_place = row.to(tl.int64)
    step = tl.arange(0, DEPTH)
    shift = tl.maximum(tl.load(max_N + row, mask=is_row, other=0.0), LOWEST)
    total = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    last = tl.minimum((split + 1) * split_tiles, tiles) * TOKENS
    for first in range(split * split_tiles * TOKENS, last, DEPTH):
        column = first + step
        top = tl.load(tile_max + row_place * tiles + first // TOKENS, mask=is_row, other=-float("inf"))
        values = tl.load(kept + row_place[:, None] * kept_stride + column[None, :], mask=is_row[:, None], other=0.0)
        values = values.to(tl.float32) * tl.exp(top - shift)[:, None]
        token = start + column
        right = tl.load(
            weight + token.to(tl.int64)[:, None] * weight_stride + channel[None, :],
            mask=(token < vocabulary)[:, None] & (channel < width)[None, :],
            other=0.0,
        )
        kind = kept.dtype.element_ty
        total = tl.dot(values.to(kind), right.to(kind), total, input_precision=PRECISION)
    fade = tl.load(fade_N + row, mask=is_row, other=0.0)
    place = rest + (split.to(tl.int64) * count + row_place)[:, None] * width + channel[None, :]
    inside = is_row[:, None] & (channel < width)[None, :]
    tl.store(place, tl.load(place, mask=inside, other=0.0) * fade[:, None] + total, mask=inside)


def sums(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    token_ids_NK: Tensor,
    *,
    wants_rest: bool,
    tiles: Tiles | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Fields of ``models.loss_head.Sums``; products are in the type of ``hidden``, sums in float32.

    A token outside the vocabulary gives NaN (to check it, the host would have to wait for the device).

    Args:
        tiles: by default :func:`tiles_for`.
    """
    tiles = tiles or tiles_for(len(hidden_ND), hidden_ND.element_size())
    walk = _Walk(_with_rows(hidden_ND), _with_rows(weight_VD), bias_V, token_ids_NK.contiguous(), tiles)
    carried = _Carried.zeros(walk, wants_rest=wants_rest)
    if len(hidden_ND):
        for start in range(0, len(weight_VD), walk.chunk):
            walk.fold(start, carried)
    rest_ND = None if carried.rest_SND is None else carried.rest_SND.sum(dim=0)
    return carried.wanted_NK, carried.max_N[:, None], carried.others_N[:, None], rest_ND


def _with_rows(matrix: Tensor) -> Tensor:
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


@dataclass(frozen=True)
class _Carried:
    """What the kernels carry from chunk to chunk, and their scratch."""

    max_N: Tensor
    others_N: Tensor
    fade_N: Tensor
    wanted_NK: Tensor
    rest_SND: Tensor | None
    kept_NC: Tensor
    tile_max_NT: Tensor
    tile_sum_NT: Tensor

    @classmethod
    def zeros(cls, walk: "_Walk", *, wants_rest: bool) -> "_Carried":
        hidden_ND = walk.hidden_ND
        count, width = hidden_ND.shape
        new = hidden_ND.new_zeros(0, dtype=torch.float32)
        return cls(
            max_N=new.new_full((count,), -torch.inf),
            others_N=new.new_zeros(count),
            fade_N=new.new_zeros(count),
            wanted_NK=new.new_full(walk.token_ids_NK.shape, torch.nan),
            rest_SND=new.new_zeros(walk.splits, count, width) if wants_rest else None,
            kept_NC=hidden_ND.new_empty((count, walk.chunk) if wants_rest else (1, 1)),
            tile_max_NT=new.new_empty(count, walk.chunk_tiles),
            tile_sum_NT=new.new_empty(count, walk.chunk_tiles),
        )


@dataclass(frozen=True)
class _Walk:
    """Tensors and tiles of one pass."""

    hidden_ND: Tensor
    weight_VD: Tensor
    bias_V: Tensor | None
    token_ids_NK: Tensor
    tiles: Tiles

    @property
    def chunk_tiles(self) -> int:
        """Tiles of tokens in a chunk."""
        room = CHUNK_BYTES // (max(1, len(self.hidden_ND)) * self.hidden_ND.element_size() * self.tiles.tokens)
        return max(1, min(room, triton.cdiv(len(self.weight_VD), self.tiles.tokens)))

    @property
    def chunk(self) -> int:
        """Tokens of a chunk."""
        return self.chunk_tiles * self.tiles.tokens

    @property
    def splits(self) -> int:
        """Programs along the tokens of a chunk, so that every core has work."""
        count, width = self.hidden_ND.shape
        wanted = _cores(self.hidden_ND.device) * _WARPS_PER_CORE // self.tiles.warps
        programs = max(1, triton.cdiv(count, self.tiles.rows) * triton.cdiv(width, self.tiles.width))
        return max(1, min(MAX_SPLITS, wanted // programs, self.chunk_tiles))

    def fold(self, start: int, carried: _Carried) -> None:
        """Add the chunk that begins at token ``start``."""
        tiles, size = self.tiles, len(self.weight_VD)
        count, width = self.hidden_ND.shape
        here = min(self.chunk_tiles, triton.cdiv(size - start, tiles.tokens))
        row_blocks, merge_blocks = triton.cdiv(count, tiles.rows), triton.cdiv(count, _MERGE_ROWS)
        common: dict[str, Any] = {
            "LOWEST": _LOWEST, "PRECISION": _PRECISION, "ROWS": tiles.rows, "TOKENS": tiles.tokens,
            "DEPTH": tiles.depth, "num_warps": tiles.warps, "num_stages": tiles.stages,
        }  # fmt: skip
        kept_NC, weight_VD = carried.kept_NC, self.weight_VD
        _KERNELS.logits[(row_blocks * here,)](
            self.hidden_ND, weight_VD, self.bias_V, self.token_ids_NK,
            kept_NC, carried.tile_max_NT, carried.tile_sum_NT, carried.wanted_NK,
            count, size, width, self.hidden_ND.stride(0), weight_VD.stride(0), kept_NC.stride(0), here, start,
            WANTED=self.token_ids_NK.shape[1], BIAS=self.bias_V is not None, KEEP=carried.rest_SND is not None,
            **common,
        )  # fmt: skip
        _KERNELS.merge[(merge_blocks,)](
            carried.tile_max_NT, carried.tile_sum_NT, carried.max_N, carried.others_N, carried.fade_N, count, here,
            LOWEST=_LOWEST, ROWS=_MERGE_ROWS, TILES=_MERGE_TILES,
        )  # fmt: skip
        if carried.rest_SND is not None:
            splits = len(carried.rest_SND)
            _KERNELS.rest[(row_blocks * triton.cdiv(width, tiles.width), splits)](
                kept_NC, weight_VD, carried.tile_max_NT, carried.max_N, carried.fade_N, carried.rest_SND,
                count, size, width, weight_VD.stride(0), kept_NC.stride(0), here, triton.cdiv(here, splits), start,
                WIDTH=tiles.width, **common,
            )  # fmt: skip


@dataclass(frozen=True)
class _Kernels:
    """The kernels as what Triton makes of them; their constants have no type that a checker could follow."""

    logits: Any
    merge: Any
    rest: Any


_KERNELS: Final = _Kernels(_logits_kernel, _merge_kernel, _rest_kernel)


def _cores(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
