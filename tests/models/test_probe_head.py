import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import InternVLConfig, InternVLModel, InternVLVisionConfig, InternVLVisionModel

from models.errors import MissingWeightsError, ModelError
from models.levels import LEVELS
from models.motion import SLOWFAST_R50, MotionConfig, MotionExtractor
from models.passes import passes
from models.probe_head import (
    READOUTS,
    ProbeHead,
    QualityProbe,
    is_probe,
    level_class,
    pooled_width,
    shuffled_mean,
)
from models.vision_encoder import EMBEDDED_SPEC, PAPER_SPEC, VisualInput, encoder_state

SPEC = dataclasses.replace(EMBEDDED_SPEC, tile_px=56, motion_frames=4, motion_px=32)
MOTION = MotionConfig(depth=18, slow_width=16, channel_ratio=8)


def vision(**changes: int) -> InternVLVisionModel:
    torch.manual_seed(3)
    values = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 96}
    config = InternVLVisionConfig(image_size=[56, 56], patch_size=[14, 14], **(values | changes))
    return InternVLVisionModel(config).eval()


@pytest.fixture
def probe() -> QualityProbe:
    torch.manual_seed(4)
    made = QualityProbe(vision(), MotionExtractor(MOTION), SPEC, (1, 2, 3), 16).eval()
    made.head.start_anew(torch.Generator().manual_seed(0))
    return made


def picture(seed: int, tiles: int = 3) -> VisualInput:
    return VisualInput(torch.randn(tiles, 3, 56, 56, generator=torch.Generator().manual_seed(seed)))


def clip(seed: int) -> VisualInput:
    generator = torch.Generator().manual_seed(seed)
    return VisualInput(torch.randn(4, 3, 56, 56, generator=generator), torch.randn(3, 4, 32, 32, generator=generator))


def test_at_the_papers_size_the_head_reads_12544_features_and_has_1606405_parameters():
    with torch.device("meta"):
        encoder = InternVLVisionModel(
            InternVLVisionConfig(
                hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
                image_size=[448, 448], patch_size=[14, 14],
            )
        )  # fmt: skip
        full = QualityProbe(encoder, MotionExtractor(SLOWFAST_R50), PAPER_SPEC, (7, 13, 19), 128)
    assert pooled_width(full.image_encoder, full.motion_extractor, full.layers) == 12288 + 256 == 12544
    assert sum(parameter.numel() for parameter in full.head.parameters()) == 1_606_405
    assert [type(part).__name__ for part in full.head.children()] == ["Linear", "Linear"]


def test_a_new_head_has_weights_of_0_to_a_hundredth_and_no_bias():
    head = ProbeHead(400, 128)
    head.start_anew(torch.Generator().manual_seed(1))
    for linear in (head.inner, head.outer):
        weights = linear.weight.detach()
        assert float(weights.min()) >= 0.0
        assert float(weights.max()) <= 0.01
        assert float(weights.mean()) == pytest.approx(0.005, rel=0.1)
        assert not linear.bias.detach().any()


def test_two_linear_layers_without_activation_are_one_linear_map():
    head = ProbeHead(7, 3).double()
    x, y = torch.randn(2, 5, 7, dtype=torch.float64)
    zero = head(torch.zeros(1, 7, dtype=torch.float64))
    assert torch.allclose(head(2 * x - 3 * y) - zero, 2 * (head(x) - zero) - 3 * (head(y) - zero))


def test_the_mean_is_that_of_transformers_pixel_shuffle():
    patches = torch.randn(5, 64, 6, dtype=torch.float64)
    with torch.device("meta"):
        model = InternVLModel(
            InternVLConfig(
                vision_config=InternVLVisionConfig(
                    hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
                ).to_dict(),
                text_config={
                    "model_type": "qwen2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
                    "num_key_value_heads": 1, "intermediate_size": 8, "vocab_size": 8,
                },
            )
        )  # fmt: skip
    tokens = model.pixel_shuffle(patches.reshape(5, 8, 8, 6), 0.5).reshape(5, 16, 24)
    assert torch.allclose(shuffled_mean(patches), tokens.mean(dim=(0, 1)))


def test_pooled_features_are_hidden_states_after_the_chosen_layers(probe: QualityProbe):
    medium = clip(1)
    with torch.no_grad():
        states = probe.image_encoder(medium.tiles_TCHW, output_hidden_states=True).hidden_states
        motion = probe.motion_extractor(medium.motion_CTHW[None])[0].mean(0)
    assert len(states) == 5  # of the embeddings, and after every layer
    hidden = torch.cat([states[layer][:, 1:] for layer in (1, 2, 3)], dim=-1)
    found = probe.gathered(probe.visual_features([medium]))
    assert found.shape == (1, 4 * 48 * 3 + MOTION.channels)
    assert torch.allclose(found[0], torch.cat([shuffled_mean(hidden), motion]), atol=1e-6)


def test_an_image_has_no_motion_and_neighbours_change_nothing(probe: QualityProbe):
    media = [picture(1), clip(2), picture(3, tiles=2)]
    together = probe.gathered(probe.visual_features(media))
    assert not together[0, -MOTION.channels :].any()
    assert together[1, -MOTION.channels :].any()
    for number, medium in enumerate(media):
        alone = probe.gathered(probe.visual_features([medium]))[0]
        assert torch.allclose(together[number], alone, atol=1e-5)
    mixed = probe.level_probabilities([media[0], *probe.visual_features(media[1:])])
    assert torch.allclose(mixed, probe.level_probabilities(media), atol=1e-6)
    assert torch.allclose(mixed.sum(-1), torch.ones(3))


def test_many_tiles_go_through_the_encoder_in_bounded_passes(probe: QualityProbe, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.probe_head.passes", partial(passes, tiles=4))
    sizes: list[int] = []
    probe.image_encoder.embeddings.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    media = [picture(1), picture(2, tiles=1), picture(3), picture(4, tiles=9), picture(5, tiles=1)]
    together = probe.gathered(probe.visual_features(media))
    assert sizes == [4, 3, 9, 1]
    for number, medium in enumerate(media):
        assert torch.allclose(together[number], probe.gathered(probe.visual_features([medium]))[0], atol=1e-5)


@given(st.floats(0.0, 1.0))
def test_a_class_is_the_released_codes_counted_from_the_best(quality: float):
    mos = 100 * quality
    ascending = int(mos // 20)  # the released code, which has no class for a MOS of 100
    wanted = 4 - min(ascending, 4)
    edge = min(abs(mos - bound) for bound in (20, 40, 60, 80))
    assert level_class(quality) == wanted or edge < 1e-6


def test_the_best_quality_of_all_has_a_class():
    assert [LEVELS[level_class(q)] for q in (1.0, 0.8, 0.79, 0.6, 0.4, 0.2, 0.0)] == [
        "high", "high", "good", "good", "fair", "poor", "low",
    ]  # fmt: skip
    with pytest.raises(ModelError, match=r"\[0, 1\]"):
        level_class(1.01)


def test_readouts_are_ours_and_the_released_ones(probe: QualityProbe):
    rng = np.random.default_rng(5)
    probs = rng.dirichlet(np.ones(5), size=20)
    ours = probe.scores(probs)
    assert np.allclose(ours, probs @ [0.9, 0.7, 0.5, 0.3, 0.1])
    probe.readout = "released"
    ascending = probs[:, ::-1]
    assert np.allclose(probe.scores(probs), ascending @ [0.2, 0.4, 0.6, 0.8, 1.0])
    assert np.allclose(probe.scores(probs), ours + 0.1)  # so ranks are the same
    assert set(READOUTS) == {"centres", "released"}


def test_a_folder_gives_the_same_probe_and_is_an_encoder_folder(probe: QualityProbe, tmp_path: Path):
    probe.save_pretrained(tmp_path / "probe")
    assert is_probe(tmp_path / "probe")
    assert not is_probe(tmp_path)
    again = QualityProbe.from_pretrained(tmp_path / "probe")
    assert (again.spec, again.layers, again.readout) == (probe.spec, probe.layers, probe.readout)
    media = [picture(1), clip(2)]
    assert torch.equal(again.level_probabilities(media), probe.level_probabilities(media))
    plain = InternVLVisionModel.from_pretrained(tmp_path / "probe")
    assert all(torch.equal(value, encoder_state(probe)[f"image.{name}"]) for name, value in plain.state_dict().items())


def test_a_folder_that_lacks_its_head_or_has_another_is_refused(probe: QualityProbe, tmp_path: Path):
    probe.save_pretrained(tmp_path)
    layout = tmp_path / "quality_probe.json"
    layout.write_text(layout.read_text().replace('"width": 16', '"width": 17'))
    with pytest.raises(ModelError, match=r"the head in .* does not fit: tensor inner.bias is \[16\], not \[17\]"):
        QualityProbe.from_pretrained(tmp_path)
    layout.write_text(layout.read_text().replace('"centres"', '"median"'))
    with pytest.raises(ModelError, match="names the readout 'median'; there are centres, released"):
        QualityProbe.from_pretrained(tmp_path)
    (tmp_path / "head.safetensors").unlink()
    with pytest.raises(MissingWeightsError, match=r"head\.safetensors is missing"):
        QualityProbe.from_pretrained(tmp_path)


@pytest.mark.parametrize("layers", [(), (0, 1), (1, 5)])
def test_layers_that_do_not_exist_are_refused(layers: tuple[int, ...]):
    with pytest.raises(ModelError, match="the image encoder has layers 1 to 4"):
        QualityProbe(vision(), MotionExtractor(MOTION), SPEC, layers, 16)


def test_motion_tokens_that_mix_time_and_channels_and_tiles_of_another_size_are_refused():
    mixed = MotionExtractor(dataclasses.replace(MOTION, permuted=False))
    with pytest.raises(ModelError, match="permuted: true"):
        QualityProbe(vision(), mixed, SPEC, (1,), 16)
    with pytest.raises(ModelError, match="tiles of 112 px, the image encoder takes 56"):
        QualityProbe(vision(), MotionExtractor(MOTION), EMBEDDED_SPEC, (1,), 16)
