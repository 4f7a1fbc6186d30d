"""The authors' model class computed from its tensors by name: plain matrix algebra, independent of transformers.

Shape legend: ``P`` tiles, ``N`` patches with the class token, ``C`` channels, ``S`` tokens, ``T`` motion frames.
"""

import math

import torch
from published_folders import HEADS, TEXT_HEADS, TEXT_KV_HEADS, TEXT_LAYERS
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    bias = state.get(f"{name}.bias")
    y = torch.einsum("...i,oi->...o", x, state[f"{name}.weight"])
    return y if bias is None else y + bias


def _layer_norm(state: State, name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    return centred * scale * state[f"{name}.weight"] + state[f"{name}.bias"]


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def vision_features(state: State, tiles_PCHW: Tensor) -> Tensor:
    """Patch features ``[P, N - 1, C]`` of the image encoder."""
    return vision_layers(state, tiles_PCHW)[-1]


def vision_layers(state: State, tiles_PCHW: Tensor) -> list[Tensor]:
    """Patch features ``[P, N - 1, C]`` after each layer of the image encoder."""
    size = state["vision_model.embeddings.patch_embedding.weight"].shape[-1]
    patches = tiles_PCHW.unfold(2, size, size).unfold(3, size, size)  # [P, 3, rows, columns, size, size]
    flat = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    weight = state["vision_model.embeddings.patch_embedding.weight"].flatten(1)
    x = flat @ weight.T + state["vision_model.embeddings.patch_embedding.bias"]
    x = torch.cat([state["vision_model.embeddings.class_embedding"].expand(len(x), -1, -1), x], dim=1)
    x = x + state["vision_model.embeddings.position_embedding"]
    after: list[Tensor] = []
    while f"vision_model.encoder.layers.{len(after)}.ls1" in state:
        layer = f"vision_model.encoder.layers.{len(after)}"
        fused = _linear(state, f"{layer}.attn.qkv", _layer_norm(state, f"{layer}.norm1", x))
        count, length, _ = fused.shape
        q, k, v = fused.view(count, length, 3, HEADS, -1).unbind(2)
        weights = torch.einsum("pnhd,pmhd->phnm", q, k) / math.sqrt(q.shape[-1])
        mixed = torch.einsum("phnm,pmhd->pnhd", weights.softmax(-1), v).flatten(2)
        x = x + state[f"{layer}.ls1"] * _linear(state, f"{layer}.attn.proj", mixed)
        hidden = _gelu(_linear(state, f"{layer}.mlp.fc1", _layer_norm(state, f"{layer}.norm2", x)))
        x = x + state[f"{layer}.ls2"] * _linear(state, f"{layer}.mlp.fc2", hidden)
        after.append(x[:, 1:])
    return after


def tile_tokens(state: State, tiles_PCHW: Tensor) -> Tensor:
    """Visual tokens ``[P, S, D]``: 2 x 2 neighbouring patches become one token, then the projector."""
    return _projected(state, "mlp1", _shuffled(vision_features(state, tiles_PCHW)))


def _shuffled(features: Tensor) -> Tensor:
    side = math.isqrt(features.shape[1])
    rows = []
    for row in range(side // 2):
        for column in range(side // 2):
            corner = [(2 * row + i) * side + 2 * column + j for i in (0, 1) for j in (0, 1)]
            rows.append(torch.cat([features[:, index] for index in corner], dim=-1))
    return torch.stack(rows, dim=1)


def probe_logits(state: State, slowfast: torch.nn.Module, tiles_PCHW: Tensor, clip_CTHW: Tensor) -> Tensor:
    """Logits ``[5]`` of the authors' linear probe, worst class first: what their code numbers 6, 12, ... is read."""
    read = [features for number, features in enumerate(vision_layers(state, tiles_PCHW)) if number % 6 == 0][1:]
    spatial = _shuffled(torch.cat(read, dim=-1)).flatten(0, 1).mean(0)
    pooled = torch.cat([spatial, _fast_features(slowfast, clip_CTHW)[0].mean(-1)])
    return _linear(state, "quality.1", _linear(state, "quality.0", pooled))


def _projected(state: State, name: str, x: Tensor) -> Tensor:
    hidden = _gelu(_linear(state, f"{name}.1", _layer_norm(state, f"{name}.0", x, eps=1e-5)))
    return _linear(state, f"{name}.3", hidden)


def motion_tokens(state: State, slowfast: torch.nn.Module, clip_CTHW: Tensor) -> Tensor:
    """Motion tokens ``[T, D]``: both pathways run, the fast one's pooled memory is read as ``[T, channels]``."""
    pooled = _fast_features(slowfast, clip_CTHW)
    return _projected(state, "motion_mlp", pooled.contiguous().view(clip_CTHW.shape[1], -1))


def _fast_features(slowfast: torch.nn.Module, clip_CTHW: Tensor) -> Tensor:
    """Pooled features ``[1, channels, T]`` of the fast pathway."""
    clip = clip_CTHW[None]
    frames = clip.shape[2]
    slow = clip[:, :, torch.linspace(0, frames - 1, frames // 4).long()]
    pathways = [slow, clip]
    for block in list(slowfast.blocks)[:5]:
        pathways = block(pathways)
    return pathways[1].mean((3, 4))


def _rms_norm(weight: Tensor, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight


def _rotated(x_SHD: Tensor, theta: float = 1e6) -> Tensor:
    length, _, size = x_SHD.shape
    angles = torch.arange(length)[:, None] / theta ** (torch.arange(0, size, 2) / size)
    first, second = x_SHD[..., : size // 2], x_SHD[..., size // 2 :]
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def language_logits(state: State, embedded_SD: Tensor) -> Tensor:
    """Vocabulary logits ``[S, V]`` of Qwen2.5's decoder."""
    x = embedded_SD
    causal = torch.ones(len(x), len(x)).tril().bool()
    for number in range(TEXT_LAYERS):
        layer = f"language_model.model.layers.{number}"
        normed = _rms_norm(state[f"{layer}.input_layernorm.weight"], x)
        heads = {"q": TEXT_HEADS, "k": TEXT_KV_HEADS, "v": TEXT_KV_HEADS}
        parts = {
            name: _linear(state, f"{layer}.self_attn.{name}_proj", normed).unflatten(-1, (count, -1))
            for name, count in heads.items()
        }
        repeat = TEXT_HEADS // TEXT_KV_HEADS
        q, k = _rotated(parts["q"]), _rotated(parts["k"]).repeat_interleave(repeat, 1)
        v = parts["v"].repeat_interleave(repeat, 1)
        weights = torch.einsum("shd,thd->hst", q, k) / math.sqrt(q.shape[-1])
        weights = weights.masked_fill(~causal, -torch.inf).softmax(-1)
        x = x + _linear(state, f"{layer}.self_attn.o_proj", torch.einsum("hst,thd->shd", weights, v).flatten(1))
        normed = _rms_norm(state[f"{layer}.post_attention_layernorm.weight"], x)
        gate = functional.silu(_linear(state, f"{layer}.mlp.gate_proj", normed))
        x = x + _linear(state, f"{layer}.mlp.down_proj", gate * _linear(state, f"{layer}.mlp.up_proj", normed))
    return _linear(state, "language_model.lm_head", _rms_norm(state["language_model.model.norm.weight"], x))
