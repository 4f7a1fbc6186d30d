"""A quality LMM so small that a test can make it, in which every part matters."""

import dataclasses

import torch

from models.decoders import EncoderSize, build_internvl_config, decoder_record
from models.motion import MotionConfig
from models.quality_lmm import QualityLMM
from models.tokenizer import IMAGE_CONTEXT, build_tokenizer
from models.vision_encoder import VisualSpec

SPEC = VisualSpec(
    tile_px=56,
    tiling="fragments",
    fragment_px=28,
    native_tiles=1,
    frame_native_tiles=1,
    max_tiles=1,
    key_frames=2,
    motion_frames=6,
    motion_px=32,
    motion_mean=0.45,
    motion_std=0.225,
)
MOTION = MotionConfig(depth=18, slow_width=8, channel_ratio=2)


def make_model(
    seed: int = 0, decoder: str = "nano", width: int = 32, spec: VisualSpec = SPEC, layers: int | None = None
) -> QualityLMM:
    """A model with random weights; equal arguments give equal bits. ``layers`` makes its decoder deeper."""
    tokenizer = build_tokenizer(
        ["The quality of the image is good", "The quality of the video is poor"] * 3, ["image", "video"], 600
    )
    size = EncoderSize(width, 2, 2, 64, spec.tile_px, 14, 1.0)
    context = int(tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT))  # type: ignore[arg-type]
    record = decoder_record(decoder)
    record = record if layers is None else dataclasses.replace(record, layers=layers)
    config = build_internvl_config(record, size, len(tokenizer), context)
    torch.manual_seed(seed)
    model = QualityLMM.from_config(config, MOTION, tokenizer, spec, "You look at pictures.")
    with torch.no_grad():  # embeddings start tiny; make every part matter
        for value in model.parameters():
            value.add_(0.02 * torch.randn_like(value))
    return model
