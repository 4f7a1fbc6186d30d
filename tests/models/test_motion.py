"""The motion extractor against pytorchvideo's whole SlowFast network."""

from pathlib import Path

import pytest
import torch

from models.errors import MissingWeightsError, ModelError
from models.motion import (
    SLOWFAST_R50,
    TINY_MOTION,
    MotionConfig,
    MotionExtractor,
    MotionProjector,
    build_slowfast,
    load_slowfast_checkpoint,
)

SLOW_TO_FAST = 4


def _randomise(module: torch.nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(torch.rand_like(value) + 0.5 if "norm.weight" in name else 0.2 * torch.randn_like(value))
        for name, value in module.named_buffers():
            if "running" in name:
                value.copy_(torch.rand_like(value) + 0.5)


def test_official_size_has_the_official_number_of_parameters():
    network = build_slowfast(SLOWFAST_R50)
    assert sum(value.numel() for value in network.parameters()) == 34_566_488
    assert SLOWFAST_R50.channels == 256


@pytest.mark.parametrize("config", [TINY_MOTION, SLOWFAST_R50])
def test_fast_pathway_equals_the_whole_network(config: MotionConfig, tmp_path: Path):
    whole = build_slowfast(config).eval()
    _randomise(whole)
    path = tmp_path / "slowfast.pyth"
    torch.save({"model_state": whole.state_dict()}, path)
    extractor = MotionExtractor(config).eval()
    load_slowfast_checkpoint(extractor, path)
    clip = torch.randn(1, 3, 8, 64, 64)
    pathways = [clip[:, :, ::SLOW_TO_FAST], clip]
    with torch.no_grad():
        for block in list(whole.blocks)[:5]:
            pathways = block(pathways)
        tokens = extractor(clip)
    fast = pathways[1].mean((3, 4))[0].T
    assert tokens.shape == (1, 8, config.channels)
    assert torch.allclose(tokens[0], fast, rtol=1e-4, atol=1e-5)
    assert fast.std() > 0


def test_released_layout_is_the_unpermuted_view():
    config = MotionConfig(depth=18, slow_width=32, channel_ratio=8)
    torch.manual_seed(0)
    ours = MotionExtractor(config).eval()
    theirs = MotionExtractor(MotionConfig(18, 32, 8, permuted=False)).eval()
    theirs.load_state_dict(ours.state_dict())
    clip = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        frames_TM, view_TM = ours(clip)[0], theirs(clip)[0]
    assert torch.equal(frames_TM.T.contiguous().view(4, -1), view_TM)


def test_neighbours_in_a_batch_never_enter_even_in_training():
    torch.manual_seed(0)
    extractor = MotionExtractor(TINY_MOTION).train()
    clips = torch.randn(3, 3, 4, 32, 32)
    before = {name: value.clone() for name, value in extractor.named_buffers()}
    alone = extractor(clips[:1])
    assert torch.allclose(extractor(clips)[:1], alone, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in extractor.named_buffers())
    with extractor.live_statistics():
        extractor(clips)
    assert not torch.equal(extractor.state_dict()["blocks.0.multipathway_blocks.1.norm.running_mean"],
                           before["blocks.0.multipathway_blocks.1.norm.running_mean"])  # fmt: skip
    assert not any(module.training for module in extractor.modules() if isinstance(module, torch.nn.BatchNorm3d))


def test_wrong_or_missing_checkpoint_is_a_clear_error(tmp_path: Path):
    extractor = MotionExtractor(TINY_MOTION)
    with pytest.raises(MissingWeightsError, match="SLOWFAST_8x8_R50"):
        load_slowfast_checkpoint(extractor, tmp_path / "nothing.pyth")
    torch.save(MotionExtractor(SLOWFAST_R50).state_dict(), tmp_path / "other.pyth")
    with pytest.raises(ModelError, match="not SlowFast of this size"):
        load_slowfast_checkpoint(extractor, tmp_path / "other.pyth")


def test_projector_maps_every_frame_by_itself():
    torch.manual_seed(0)
    projector = MotionProjector(8, 16)
    motion = torch.randn(2, 5, 8)
    out = projector(motion)
    assert out.shape == (2, 5, 16)
    assert torch.allclose(out[1, 3], projector(motion[1, 3]), atol=1e-6)
