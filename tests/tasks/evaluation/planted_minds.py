"""Quality LMMs whose decoders are written by hand, so that what instruments must find in them is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tiny_lmm import make_model
from torch import Tensor, nn

from models.quality_lmm import QualityLMM
from tasks.evaluation.subjects.course import Course

COURSE = Course("judge", "", "", "{description}")
"""How a model of the line is asked."""


@dataclass(frozen=True)
class Said:
    """Records of one model, as a command holds them."""

    name: str
    records: Sequence[Mapping[str, Any]]
    course: Course = COURSE
    rejected: Mapping[str, int] = field(default_factory=dict)


@torch.no_grad()
def changes_its_mind(layers: int, at: int, before: str = "good", after: str = "poor") -> QualityLMM:
    """A model that means one level up to a layer, and from that layer (from 1) on another.

    The token before the level word writes the first level's direction. Layers add nothing to it, but for the one at
    which the other level's direction is written over it.
    """
    model = make_model(layers=layers)
    decoder = model.language_model
    embeddings = decoder.embed_tokens.weight
    first, second, last = (
        model.tokenizer.encode(f" {word}", add_special_tokens=False)[-1] for word in (before, after, "is")
    )
    embeddings.mul_(0.1)
    embeddings[:, :2] = 0.0
    embeddings[last] = 0.0
    embeddings[first, 0] = embeddings[second, 1] = 1.0
    embeddings[last, 0] = 0.5
    model.internvl.lm_head.weight.copy_(embeddings)
    decoder.norm.weight.fill_(1.0)
    for layer in decoder.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    mlp = decoder.layers[at - 1].mlp
    decoder.layers[at - 1].post_attention_layernorm.weight.fill_(1.0)
    for part in (mlp.gate_proj.weight, mlp.up_proj.weight):
        part[0] = 0.0
        part[0, 0] = 1.0
    mlp.down_proj.weight[1, 0] = 1.0
    return model


class Marks(nn.Module):
    """A projector that marks the tokens whose features are not those of a black tile."""

    def __init__(self, black_SC: Tensor, width: int) -> None:
        super().__init__()
        self.black_SC, self.width = black_SC, width

    def forward(self, tiles_PSC: Tensor) -> Tensor:
        marked_PS = ((tiles_PSC - self.black_SC).abs().amax(-1) > 1e-4).float()
        tokens_PSD = torch.full((*tiles_PSC.shape[:2], self.width), 0.1)
        tokens_PSD[..., 0] = 10.0 * marked_PS
        return tokens_PSD


@torch.no_grad()
def looks_at_marks(black: Any) -> QualityLMM:
    """A model whose first layer has a pair of heads that look at the tokens of all that is not black.

    Args:
        black: a black picture as the model takes it.
    """
    model = make_model()
    for layer in model.image_encoder.encoder.layer:  # no patch sees another
        layer.attention.projection_layer.weight.zero_()
        layer.attention.projection_layer.bias.zero_()
    model.internvl.model.multi_modal_projector = Marks(
        model.visual_features([black])[0].tiles_PSC[0], model.language_model.config.hidden_size
    )
    decoder = model.language_model
    decoder.embed_tokens.weight[:, 0] = 0.0
    layer, slowest = decoder.layers[0], decoder.layers[0].self_attn.head_dim // 2 - 1
    layer.input_layernorm.weight.fill_(1.0)
    attention = layer.self_attn
    for part in (attention.q_proj, attention.k_proj):
        part.weight.zero_()
        part.bias.zero_()
    attention.k_proj.weight[slowest, 0] = 4.0  # rotary embedding hardly turns this channel
    for head in range(2):
        attention.q_proj.bias[head * attention.head_dim + slowest] = 4.0
    return model
