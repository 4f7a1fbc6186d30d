"""The decoders that an encoder can be plugged into: the tiny family made by the ``base`` stage, and InternVL3.

Records are data: a size, and for published decoders the hub snapshot that holds the weights. Sources of the sizes:
InternVL3 model cards (InternViT-300M with Qwen2.5 0.5B / 1.5B / 7B / 14B).
"""

from dataclasses import dataclass
from typing import Final

from transformers import InternVLConfig, InternVLVisionConfig, Qwen2Config

from models.errors import ModelError


@dataclass(frozen=True)
class EncoderSize:
    """Shape of an InternViT-style image encoder; tokens per tile are ``(tile_px / patch_px / 2) ** 2``."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    tile_px: int
    patch_px: int
    layer_scale: float

    @property
    def tokens_per_tile(self) -> int:
        """Vision tokens of one tile after pixel shuffle by one half."""
        return (self.tile_px // self.patch_px // 2) ** 2


@dataclass(frozen=True)
class DecoderRecord:
    """One Qwen2-style decoder.

    Attributes:
        family: decoders of one family share tokenizer and encoder size.
        hub: repository of the published weights; None for the family that this project makes itself.
    """

    name: str
    family: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    mlp_width: int
    tied_embeddings: bool
    hub: str | None = None


TINY_ENCODER: Final = EncoderSize(
    width=192, layers=4, heads=6, mlp_width=768, tile_px=112, patch_px=14, layer_scale=1.0
)
INTERNVIT_300M: Final = EncoderSize(
    width=1024, layers=24, heads=16, mlp_width=4096, tile_px=448, patch_px=14, layer_scale=0.1
)

INTERNVL3_VOCABULARY: Final = 151_674
"""Rows of InternVL3's embedding table: Qwen2.5's tokens and InternVL's."""
INTERNVL3_IMAGE_TOKEN: Final = 151_667
"""``<IMG_CONTEXT>`` in InternVL3's tokenizer."""
INTERNVL3_ROPE: Final = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1_000_000.0}
"""Rotary embedding of InternVL3's decoders (config.json of the hub); the scaling acts beyond 32,768 tokens only."""

DECODERS: Final[dict[str, DecoderRecord]] = {
    record.name: record
    for record in (
        DecoderRecord("nano", "tiny", 96, 2, 4, 2, 256, tied_embeddings=True),
        DecoderRecord("micro", "tiny", 128, 2, 4, 2, 352, tied_embeddings=True),
        DecoderRecord("mini", "tiny", 192, 3, 6, 3, 512, tied_embeddings=True),
        DecoderRecord(
            "internvl3-1b", "internvl3", 896, 24, 14, 2, 4864, tied_embeddings=False, hub="OpenGVLab/InternVL3-1B-hf"
        ),
        DecoderRecord(
            "internvl3-2b", "internvl3", 1536, 28, 12, 2, 8960, tied_embeddings=False, hub="OpenGVLab/InternVL3-2B-hf"
        ),
        DecoderRecord(
            "internvl3-8b", "internvl3", 3584, 28, 28, 4, 18944, tied_embeddings=False, hub="OpenGVLab/InternVL3-8B-hf"
        ),
        DecoderRecord(
            "internvl3-14b",
            "internvl3",
            5120,
            48,
            40,
            8,
            13824,
            tied_embeddings=False,
            hub="OpenGVLab/InternVL3-14B-hf",
        ),
    )
}
"""Decoder name -> record, smallest first within a family."""


def decoder_record(name: str) -> DecoderRecord:
    """Look up a decoder.

    Raises:
        ModelError: there is no decoder of that name.
    """
    record = DECODERS.get(name)
    if record is None:
        msg = f"unknown decoder {name!r}; the decoders are {', '.join(DECODERS)}"
        raise ModelError(msg)
    return record


def build_internvl_config(
    decoder: DecoderRecord, encoder: EncoderSize, vocabulary: int, image_token_id: int
) -> InternVLConfig:
    """Transformers' configuration of ``decoder`` on ``encoder``.

    Args:
        vocabulary: rows of the embedding table.
        image_token_id: placeholder token for which plain transformers scatters vision tokens.
    """
    vision = InternVLVisionConfig(
        hidden_size=encoder.width,
        num_hidden_layers=encoder.layers,
        num_attention_heads=encoder.heads,
        intermediate_size=encoder.mlp_width,
        attention_bias=True,
        image_size=[encoder.tile_px, encoder.tile_px],
        patch_size=[encoder.patch_px, encoder.patch_px],
        layer_scale_init_value=encoder.layer_scale,
        use_mean_pooling=True,
    )
    text = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=decoder.width,
        num_hidden_layers=decoder.layers,
        num_attention_heads=decoder.heads,
        num_key_value_heads=decoder.kv_heads,
        intermediate_size=decoder.mlp_width,
        max_position_embeddings=32768,
        rope_parameters=dict(INTERNVL3_ROPE) if decoder.hub else None,
        initializer_range=0.02 if decoder.hub else decoder.width**-0.5,  # random weights of a narrow decoder need more
        tie_word_embeddings=decoder.tied_embeddings,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image_token_id,
        image_seq_length=encoder.tokens_per_tile,
        downsample_ratio=0.5,
        tie_word_embeddings=decoder.tied_embeddings,
    )
