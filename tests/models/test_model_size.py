"""Sizes without weights: parameters of models that exist, and the work of a motion frame against torch's counter."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.decoders import INTERNVIT_300M, TINY_ENCODER, build_internvl_config, decoder_record
from models.errors import ModelError
from models.model_size import PARTS, frame_work, measure_model
from models.motion import SLOWFAST_R50, TINY_MOTION, MotionConfig, MotionExtractor

VOCABULARY = 151674


@pytest.mark.parametrize(
    ("name", "millions"),  # tensors of the published checkpoints (huggingface.co, "0.9B", "2B", "8B", "15B"), summed
    [("internvl3-1b", 938.19), ("internvl3-2b", 2088.96), ("internvl3-8b", 7944.37), ("internvl3-14b", 15117.26)],
)
def test_internvl3_has_the_published_number_of_parameters(name: str, millions: float):
    config = build_internvl_config(decoder_record(name), INTERNVIT_300M, VOCABULARY, 0)
    size = measure_model(config, SLOWFAST_R50, 224)
    motion = size.parameters["motion_extractor"] + _motion_projector(256, config.get_text_config().hidden_size)
    assert (sum(size.parameters.values()) - motion) / 1e6 == pytest.approx(millions, abs=0.01)
    assert tuple(size.parameters) == tuple(size.largest) == PARTS
    assert size.largest["head"] == size.largest["decoder"] == VOCABULARY * config.get_text_config().hidden_size
    assert not size.tied


def _motion_projector(channels: int, width: int) -> int:
    return 2 * channels + channels * width + width + width * width + width


def test_the_embedded_model_is_as_large_as_the_one_that_the_line_has_trained(checkout: Path):
    """``metrics/pretrain.json`` counts the tensors of the real model, trained and frozen."""
    told = json.loads((checkout / "metrics" / "pretrain.json").read_text())
    size = measure_model(build_internvl_config(decoder_record("micro"), TINY_ENCODER, 1495, 0), TINY_MOTION, 96)
    trained = size.parameters["image_encoder"] + size.parameters["motion_extractor"]
    assert trained == told["trained_parameters"]
    assert sum(size.parameters.values()) - trained == told["frozen_parameters"]
    assert size.tied


@pytest.mark.parametrize(
    ("motion", "px", "frames"), [(TINY_MOTION, 32, 1), (TINY_MOTION, 48, 5), (SLOWFAST_R50, 32, 1)]
)
def test_a_motion_frame_costs_what_torch_counts(motion: MotionConfig, px: int, frames: int):
    extractor = MotionExtractor(motion).eval()
    with torch.device("meta"):
        work = frame_work(MotionExtractor(motion).eval(), px)
    own = {tensor.untyped_storage().data_ptr() for tensor in [*extractor.parameters(), *extractor.buffers()]}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            tokens = extractor(torch.randn(1, 3, frames, px, px))
        forward = counter.get_total_flops()
        tokens.sum().backward()
        backward = counter.get_total_flops() - forward
    assert frames * work.forward == forward
    assert frames * (2 * work.forward - work.first) == backward
    assert frames * (4 * work.kept + 8 * work.picked) == sum(size for size, _ in kept.values())


def test_an_encoder_of_another_kind_is_refused():
    config = build_internvl_config(decoder_record("nano"), TINY_ENCODER, 100, 0)
    config.vision_config.use_qk_norm = True
    with pytest.raises(ModelError, match="layer_norm and without qk_norm"):
        measure_model(config, TINY_MOTION, 32)


def test_sizes_are_data_that_do_not_change():
    with torch.device("meta"):
        work = frame_work(MotionExtractor(TINY_MOTION).eval(), 32)
    with pytest.raises(dataclasses.FrozenInstanceError):
        work.kept = 0  # type: ignore[misc]
