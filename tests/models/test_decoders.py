"""Decoder records: sizes, configurations, and the number of parameters."""

import pytest
import torch
from transformers import InternVLForConditionalGeneration

from models.decoders import (
    DECODERS,
    INTERNVIT_300M,
    INTERNVL3_ROPE,
    INTERNVL3_VOCABULARY,
    TINY_ENCODER,
    DecoderRecord,
    EncoderSize,
    build_internvl_config,
    decoder_record,
)
from models.errors import ModelError


def _parameters(name: str, encoder: EncoderSize, vocabulary: int) -> int:
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(
            build_internvl_config(decoder_record(name), encoder, vocabulary, vocabulary - 1)
        )
        return sum(value.numel() for value in model.parameters())


def test_tiny_family_shares_an_encoder_of_two_million_parameters():
    widths = [record.width for record in DECODERS.values() if record.family == "tiny"]
    assert widths == [96, 128, 192]
    assert TINY_ENCODER.tokens_per_tile == 16
    assert INTERNVIT_300M.tokens_per_tile == 256
    assert _parameters("mini", TINY_ENCODER, 2048) < 4_500_000


def test_unknown_decoders_are_clear():
    with pytest.raises(ModelError, match="unknown decoder 'giga'"):
        decoder_record("giga")


def _by_hand(record: DecoderRecord) -> int:
    """Parameters of InternVL3, counted from its published widths: embeddings, encoder, projector, decoder, head."""
    wide, deep, inner = 1024, 24, 4096
    encoder_layer = 4 * (wide * wide + wide) + 2 * wide * inner + inner + wide + 4 * wide + 2 * wide
    encoder = wide + 1025 * wide + (3 * 14 * 14 * wide + wide) + deep * encoder_layer
    d, kv = record.width, record.width // record.heads * record.kv_heads
    projector = 2 * 4 * wide + 4 * wide * d + d + d * d + d
    decoder_layer = d * d + d + 2 * (d * kv + kv) + d * d + 3 * d * record.mlp_width + 2 * d
    return encoder + projector + 2 * 151_674 * d + record.layers * decoder_layer + d


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("internvl3-1b", 938_193_024),
        ("internvl3-2b", 2_088_957_440),
        ("internvl3-8b", 7_944_373_760),
        ("internvl3-14b", 15_117_256_704),
    ],
)
def test_every_parameter_of_internvl3_is_counted(name: str, count: int):
    """A bfloat16 file has two bytes for each: the hub's are 1.88, 4.18, 15.9 and 30.2 GB."""
    assert _by_hand(decoder_record(name)) == count
    assert _parameters(name, INTERNVIT_300M, INTERNVL3_VOCABULARY) == count


def test_published_decoders_turn_as_internvl3s_do():
    config = build_internvl_config(decoder_record("internvl3-1b"), INTERNVIT_300M, INTERNVL3_VOCABULARY, 151_667)
    assert config.text_config.rope_parameters == INTERNVL3_ROPE
    tiny = build_internvl_config(decoder_record("nano"), TINY_ENCODER, 300, 299)
    assert tiny.text_config.rope_parameters["rope_type"] == "default"
