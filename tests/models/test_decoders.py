"""Decoder records: sizes, configurations, and what is said when weights are missing."""

from pathlib import Path

import pytest
import torch
from transformers import InternVLForConditionalGeneration

from models.decoders import (
    DECODERS,
    INTERNVIT_300M,
    TINY_ENCODER,
    EncoderSize,
    build_internvl_config,
    checkpoint_folder,
    decoder_record,
)
from models.errors import MissingWeightsError, ModelError

VOCABULARY = 151_674


def _parameters(name: str, encoder: EncoderSize, vocabulary: int) -> int:
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(
            build_internvl_config(decoder_record(name), encoder, vocabulary, vocabulary - 1)
        )
        return sum(value.numel() for value in model.parameters())


@pytest.mark.parametrize(
    ("name", "billions"),
    [("internvl3-1b", 0.94), ("internvl3-2b", 2.09), ("internvl3-8b", 7.94), ("internvl3-14b", 15.1)],
)
def test_paper_sizes_are_internvl3s(name: str, billions: float):
    assert _parameters(name, INTERNVIT_300M, VOCABULARY) / 1e9 == pytest.approx(billions, rel=0.02)


def test_tiny_family_shares_an_encoder_of_two_million_parameters():
    widths = [record.width for record in DECODERS.values() if record.family == "tiny"]
    assert widths == [96, 128, 192]
    assert TINY_ENCODER.tokens_per_tile == 16
    assert INTERNVIT_300M.tokens_per_tile == 256
    assert _parameters("mini", TINY_ENCODER, 2048) < 4_500_000


def test_unknown_and_missing_decoders_are_clear(tmp_path: Path):
    with pytest.raises(ModelError, match="unknown decoder 'giga'"):
        decoder_record("giga")
    with pytest.raises(MissingWeightsError, match=r"OpenGVLab/InternVL3-8B-hf.*internvl3-8b"):
        checkpoint_folder(decoder_record("internvl3-8b"), tmp_path)
    with pytest.raises(MissingWeightsError, match="dvc pull -r seed"):
        checkpoint_folder(decoder_record("nano"), tmp_path)
    (tmp_path / "internvl3-8b").mkdir()
    (tmp_path / "internvl3-8b" / "config.json").write_text("{}")
    assert checkpoint_folder(decoder_record("internvl3-8b"), tmp_path) == tmp_path / "internvl3-8b"
