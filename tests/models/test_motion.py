"""The motion extractor against pytorchvideo's whole SlowFast network."""

from pathlib import Path

import pytest
import torch
from published_folders import random_slowfast

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


def test_official_size_has_the_official_number_of_parameters():
    network = build_slowfast(SLOWFAST_R50)
    assert sum(value.numel() for value in network.parameters()) == 34_566_488
    assert SLOWFAST_R50.channels == 256


@pytest.mark.parametrize("config", [TINY_MOTION, SLOWFAST_R50])
def test_fast_pathway_equals_the_whole_network(config: MotionConfig, tmp_path: Path):
    whole = random_slowfast(config)
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


OFFICIAL_NAMES = {  # of SLOWFAST_8x8_R50.pyth's model_state, with their shapes
    "blocks.0.multipathway_blocks.0.conv.weight": (64, 3, 1, 7, 7),
    "blocks.0.multipathway_blocks.1.conv.weight": (8, 3, 5, 7, 7),
    "blocks.0.multipathway_fusion.conv_fast_to_slow.weight": (16, 8, 7, 1, 1),
    "blocks.1.multipathway_blocks.1.res_blocks.0.branch1_conv.weight": (32, 8, 1, 1, 1),
    "blocks.4.multipathway_blocks.0.res_blocks.2.branch2.conv_c.weight": (2048, 512, 1, 1, 1),
    "blocks.4.multipathway_blocks.1.res_blocks.2.branch2.norm_c.running_var": (256,),
    "blocks.6.proj.weight": (400, 2304),
}


def test_a_whole_kinetics_checkpoint_gives_its_fast_pathway(tmp_path: Path):
    """Both pathways, fusion and the head of 400 classes are in the file; a plain state dict is read as well."""
    whole = build_slowfast(SLOWFAST_R50).state_dict()
    assert all(tuple(whole[name].shape) == shape for name, shape in OFFICIAL_NAMES.items())
    for number, content in enumerate(({"model_state": whole, "epoch": 1}, whole)):
        path = tmp_path / f"{number}.pyth"
        torch.save(content, path)
        extractor = MotionExtractor(SLOWFAST_R50)
        load_slowfast_checkpoint(extractor, path)
        assert all(torch.equal(value, whole[name]) for name, value in extractor.state_dict().items())
    assert not any("multipathway_blocks.0" in name or "proj" in name for name in extractor.state_dict())


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("ran",)


def test_wrong_or_missing_checkpoint_is_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    extractor = MotionExtractor(TINY_MOTION)
    with pytest.raises(MissingWeightsError, match=r"put pytorchvideo's SLOWFAST_8x8_R50.pyth at .*nothing.pyth"):
        load_slowfast_checkpoint(extractor, tmp_path / "nothing.pyth")
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    lacking = {n: v for n, v in extractor.state_dict().items() if n != "blocks.0.multipathway_blocks.1.conv.weight"}
    for content, said in (
        (MotionExtractor(SLOWFAST_R50).state_dict(), r"not SlowFast of this size: has a tensor .* that no part"),
        (lacking, r"not SlowFast of this size: has no tensor blocks.0.multipathway_blocks.1.conv.weight"),
        (
            {"s1.pathway1_stem.conv.weight": torch.zeros(1)},
            "no SlowFast by pytorchvideo's names; it begins with s1",
        ),
        ([torch.zeros(1)], "holds no SlowFast"),
        ({"model_state": _Code()}, "not a file of tensors alone"),
    ):
        torch.save(content, tmp_path / "other.pyth")
        with pytest.raises(ModelError, match=said) as caught:
            load_slowfast_checkpoint(extractor, tmp_path / "other.pyth")
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
    assert all(torch.equal(value, before[name]) for name, value in extractor.state_dict().items())


def test_projector_starts_anew_from_its_seed():
    projector = MotionProjector(16, 24)
    projector.start_anew(torch.Generator().manual_seed(0))
    first = projector.linear_1.weight.clone()
    assert 0 <= float(first.min()) < 0.001
    assert 0.009 < float(projector.linear_2.weight.max()) <= 0.01
    assert not projector.linear_2.bias.any()
    projector.start_anew(torch.Generator().manual_seed(0))
    assert torch.equal(projector.linear_1.weight, first)


def test_projector_maps_every_frame_by_itself():
    torch.manual_seed(0)
    projector = MotionProjector(8, 16)
    motion = torch.randn(2, 5, 8)
    out = projector(motion)
    assert out.shape == (2, 5, 16)
    assert torch.allclose(out[1, 3], projector(motion[1, 3]), atol=1e-6)
