"""Video Swin-T with FAST-VQA's gated relative position bias, for inference.

Liu et al., Video Swin Transformer, CVPR 2022 (arXiv 2106.13230); Wu et al., FAST-VQA, ECCV 2022 (arXiv 2207.02595).
Attribute names are the tensor names of the official checkpoints. Dropout and stochastic depth, which do nothing at
inference, are left out.

Shape legend: N clips, C channels, T frames or time steps, H and W height and width in pixels or tokens; S slabs of
windows in time, A windows of a slab, L tokens of a window, P their positions in space, K heads, E channels of a head,
R entries of a bias table.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import ModelError

Size = tuple[int, ...]
"""Time, height, width."""

FEATURES: Final = 768
"""Channels of the features."""
_WIDTH: Final = 96
_PATCH: Final = (2, 4, 4)
_DEPTHS: Final = (2, 2, 6, 2)
_HEADS: Final = (3, 6, 12, 24)
_SPATIAL_STRIDE: Final = 32
_APART: Final = -100.0
"""Added to the attention between regions that only the cyclic shift has brought together (Swin's constant)."""


@dataclass(frozen=True)
class SwinForm:
    """What distinguishes one Video Swin-T from another.

    Attributes:
        window: attention window in tokens (time, height, width).
        gated: per stage, whether pairs within one fragment have a bias table of their own.
    """

    window: Size
    gated: tuple[bool, bool, bool, bool]

    def check(self, length: int, height: int, width: int) -> None:
        """Refuse clips that the windows do not tile in every stage.

        Raises:
            ModelError: naming the size.
        """
        steps = length // _PATCH[0]
        tiled = (
            length % _PATCH[0] == 0 < steps
            and (steps <= self.window[0] or steps % self.window[0] == 0)
            and height % (_SPATIAL_STRIDE * self.window[1]) == 0 < height
            and width % (_SPATIAL_STRIDE * self.window[2]) == 0 < width
        )
        if not tiled:
            msg = f"windows of {self.window} tokens do not tile a clip of {length} frames of {width}x{height}"
            raise ModelError(msg)


class VideoSwin(nn.Module):
    """The four stages; clips of any number of whole windows per stage, in time also a part of one window."""

    def __init__(self, form: SwinForm) -> None:
        super().__init__()
        self.form = form
        self.patch_embed = PatchEmbedding()
        self.layers = nn.ModuleList(
            Stage(_WIDTH * 2**index, index, form, merges=index < len(_DEPTHS) - 1) for index in range(len(_DEPTHS))
        )
        self.norm = nn.LayerNorm(FEATURES)

    def forward(self, clips_NCTHW: Tensor) -> Tensor:
        """Features ``[N, 768, T/2, H/32, W/32]`` of normalised clips.

        Raises:
            ModelError: the windows do not tile the clips.
        """
        self.form.check(*clips_NCTHW.shape[2:])
        x_NTHWC = self.patch_embed(clips_NCTHW)
        for stage in self.layers:
            x_NTHWC = stage(x_NTHWC)
        return self.norm(x_NTHWC).permute(0, 4, 1, 2, 3)


class PatchEmbedding(nn.Module):
    """Patches of 2 x 4 x 4 pixels as normalised tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, _WIDTH, _PATCH, _PATCH)
        self.norm = nn.LayerNorm(_WIDTH)

    def forward(self, clips_NCTHW: Tensor) -> Tensor:
        """Tokens ``[N, T/2, H/4, W/4, C]``."""
        return self.norm(self.proj(clips_NCTHW).permute(0, 2, 3, 4, 1))


class Stage(nn.Module):
    """Blocks of one resolution, every second one shifted by half a window, then perhaps a merging of patches."""

    def __init__(self, width: int, index: int, form: SwinForm, *, merges: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width, _HEADS[index], form.window, shifted=depth % 2 == 1, gated=form.gated[index])
            for depth in range(_DEPTHS[index])
        )
        self.downsample = PatchMerging(width) if merges else None

    def forward(self, x_NTHWC: Tensor) -> Tensor:
        """The same tokens, or half the height and width with twice the channels."""
        for block in self.blocks:
            x_NTHWC = block(x_NTHWC)
        return x_NTHWC if self.downsample is None else self.downsample(x_NTHWC)


class PatchMerging(nn.Module):
    """Four neighbours in space become one token of twice the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x_NTHWC: Tensor) -> Tensor:
        """Half the height and width; the rows of a neighbourhood count first, then its columns."""
        corners = [x_NTHWC[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class Block(nn.Module):
    """Attention within windows and a perceptron, each after a normalisation and added to its input."""

    def __init__(self, width: int, heads: int, window: Size, *, shifted: bool, gated: bool) -> None:
        super().__init__()
        self.window, self.shifted = window, shifted
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window, gated=gated)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Perceptron(width)

    def forward(self, x_NTHWC: Tensor) -> Tensor:
        """The same shape."""
        _, length, height, width, _ = x_NTHWC.shape
        layout = layout_of((length, height, width), self.window, self.shifted)
        back = tuple(-step for step in layout.shift)
        shifted = torch.roll(self.norm1(x_NTHWC), back, dims=(1, 2, 3))
        attended = layout.join(self.attn(layout.cut(shifted), layout))
        x_NTHWC = x_NTHWC + torch.roll(attended, layout.shift, dims=(1, 2, 3))
        return x_NTHWC + self.mlp(self.norm2(x_NTHWC))


class Perceptron(nn.Module):
    """Two linear maps with a GELU between, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.fc2(functional.gelu(self.fc1(x)))


class WindowAttention(nn.Module):
    """Multi-head attention within windows, biased by relative position.

    Where a stage is gated, a pair of tokens whose fragments lie ``g`` apart (city-block distance in the grid of
    fragments) gets ``g * relative + (1 - g) * fragment``: the second table within a fragment, the first between
    neighbours. The paper's gate is 0 or 1; the official code, which the weights were trained with, uses the distance.
    """

    def __init__(self, width: int, heads: int, window: Size, *, gated: bool) -> None:
        super().__init__()
        self.heads = heads
        entries = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(entries, heads))
        if gated:
            self.fragment_position_bias_table = nn.Parameter(torch.zeros(entries, heads))
        self.gated = gated
        self.register_buffer("relative_position_index", _relative_index(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, windows_NSALC: Tensor, layout: "Layout") -> Tensor:
        """The same shape; one slab of one clip at a time, so that the batch changes neither memory nor numbers."""
        count, slabs, windows, tokens, width = windows_NSALC.shape
        qkv = self.qkv(windows_NSALC).view(count, slabs, windows, tokens, 3, self.heads, width // self.heads)
        qkv_3NSAKLE = qkv.permute(4, 0, 1, 2, 5, 3, 6)
        bias_AKLL = self._bias(layout, tokens)
        attended = torch.empty_like(windows_NSALC)
        for slab in range(slabs):
            biased_AKLL = bias_AKLL if layout.regions_SAL is None else bias_AKLL + layout.apart(slab)
            for clip in range(count):
                query, key, value = qkv_3NSAKLE[:, clip, slab]
                mixed_AKLE = functional.scaled_dot_product_attention(query, key, value, attn_mask=biased_AKLL)
                attended[clip, slab] = mixed_AKLE.transpose(1, 2).flatten(2)
        return self.proj(attended)

    def _bias(self, layout: "Layout", tokens: int) -> Tensor:
        """Bias of every pair ``[A, K, L, L]``, or ``[1, K, L, L]`` where it is the same in all windows."""
        index_LL = self.get_buffer("relative_position_index")[:tokens, :tokens]
        relative_KLL = self.relative_position_bias_table[index_LL].permute(2, 0, 1)
        if not self.gated:
            return relative_KLL[None]
        fragment_KLL = self.fragment_position_bias_table[index_LL].permute(2, 0, 1)
        positions = layout.gates_APP.shape[1]
        paired = (self.heads, tokens // positions, positions, tokens // positions, positions)
        gates = layout.gates_APP[:, None, None, :, None, :].to(relative_KLL.device)
        return torch.lerp(fragment_KLL.reshape(paired)[None], relative_KLL.reshape(paired)[None], gates).view(
            -1, self.heads, tokens, tokens
        )


@dataclass(frozen=True)
class Layout:
    """How a grid of tokens is cut into windows.

    Attributes:
        size: of the grid (time, height, width). window, shift: of the windows; a grid of one window is not shifted.
        gates_APP: distance of the fragments of two positions, in fragments.
        regions_SAL: number of the region that a token lies in, where shifted windows hold several; else None.
    """

    size: Size
    window: Size
    shift: Size
    gates_APP: Tensor
    regions_SAL: Tensor | None

    def cut(self, x_NTHWC: Tensor) -> Tensor:
        """Windows ``[N, S, A, L, C]``."""
        return _cut(x_NTHWC, self.window)

    def join(self, windows_NSALC: Tensor) -> Tensor:
        """The grid ``[N, T, H, W, C]`` of its windows."""
        counts = [extent // side for extent, side in zip(self.size, self.window, strict=True)]
        x = windows_NSALC.view(len(windows_NSALC), *counts, *self.window, -1)
        return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(len(windows_NSALC), *self.size, -1)

    def apart(self, slab: int) -> Tensor:
        """What is added to the attention of a slab's pairs ``[A, 1, L, L]``: 0 within a region, -100 between two."""
        if self.regions_SAL is None:
            raise ModelError("windows that are not shifted have no regions")
        regions_AL = self.regions_SAL[slab]
        return (regions_AL[:, None, :, None] != regions_AL[:, None, None, :]) * _APART


@lru_cache(maxsize=64)
def layout_of(size: Size, window: Size, shifted: bool) -> Layout:  # noqa: FBT001 - a key of the cache
    """Layout of a grid of tokens; ``size`` is a multiple of ``window``, or not above it, in each direction."""
    used = tuple(min(pair) for pair in zip(size, window, strict=True))
    shift = tuple(side // 2 if shifted and extent > side else 0 for extent, side in zip(size, window, strict=True))
    rows, columns = (
        torch.arange(extent).mul(cells).div(extent, rounding_mode="floor").roll(-step)
        for extent, cells, step in zip(size[1:], used[1:], shift[1:], strict=True)
    )
    fragments_HW2 = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    fragments_AP2 = _cut(fragments_HW2[None, None], (1, *used[1:]))[0, 0]
    gates_APP = (fragments_AP2[:, :, None] - fragments_AP2[:, None, :]).abs().sum(dim=-1).float()
    regions_SAL = _cut(_regions(size, used, shift)[None, ..., None], used)[0, ..., 0] if any(shift) else None
    return Layout(size, used, shift, gates_APP, regions_SAL)


def _cut(x_NTHWC: Tensor, window: Size) -> Tensor:
    count, *size, channels = x_NTHWC.shape
    slabs, rows, columns = (extent // side for extent, side in zip(size, window, strict=True))
    x = x_NTHWC.reshape(count, slabs, window[0], rows, window[1], columns, window[2], channels)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(count, slabs, rows * columns, -1, channels)


def _regions(size: Size, window: Size, shift: Size) -> Tensor:
    """Numbers ``[T, H, W]`` that differ where the cyclic shift has put together what was far apart."""
    axes = []
    for extent, side, step in zip(size, window, shift, strict=True):
        place = torch.arange(extent)
        axes.append((place >= extent - side).long() + (place >= extent - step).long() if step else place * 0)
    return axes[0][:, None, None] * 9 + axes[1][:, None] * 3 + axes[2]


def _relative_index(window: Size) -> Tensor:
    """Row of the bias table for every pair of tokens of a window, ``[L, L]``: relative time, row, column."""
    places_3L = torch.stack(torch.meshgrid(*map(torch.arange, window), indexing="ij")).flatten(1)
    time, row, column = places_3L[:, :, None] - places_3L[:, None, :]
    rows, columns = 2 * window[1] - 1, 2 * window[2] - 1
    return ((time + window[0] - 1) * rows + row + window[1] - 1) * columns + column + window[2] - 1
