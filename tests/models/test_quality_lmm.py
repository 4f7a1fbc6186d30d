"""The quality LMM: round trips, invariances, parity with plain transformers, and readouts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import InternVLForConditionalGeneration, InternVLVisionModel

from models.decoders import EncoderSize, build_internvl_config, decoder_record
from models.errors import MissingWeightsError, ModelError
from models.levels import LEVELS, level_token_ids
from models.motion import MotionConfig
from models.quality_lmm import IMAGE_PREFIX, VIDEO_PREFIX, QualityLMM, level_prefix
from models.tokenizer import IMAGE_CONTEXT, build_tokenizer
from models.vision_encoder import (
    VisualInput,
    VisualSpec,
    encoder_state,
    prepare_clip,
    prepare_image,
    save_encoder,
    swap_encoder,
)

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
ENCODER = EncoderSize(width=32, layers=2, heads=2, mlp_width=64, tile_px=56, patch_px=14, layer_scale=1.0)
MOTION = MotionConfig(depth=18, slow_width=32, channel_ratio=8)


def make_model(seed: int = 0, decoder: str = "nano", width: int = 32) -> QualityLMM:
    tokenizer = build_tokenizer(
        ["The quality of the image is good", "The quality of the video is poor"] * 3, ["image", "video"], 600
    )
    size = EncoderSize(width, ENCODER.layers, ENCODER.heads, 64, 56, 14, 1.0)
    context = int(tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT))  # type: ignore[arg-type]
    config = build_internvl_config(decoder_record(decoder), size, len(tokenizer), context)
    torch.manual_seed(seed)
    model = QualityLMM.from_config(config, MOTION, tokenizer, SPEC, "You look at pictures.")
    with torch.no_grad():  # embeddings start tiny; make every part matter
        for value in model.parameters():
            value.add_(0.02 * torch.randn_like(value))
    return model


@pytest.fixture(scope="module")
def model() -> QualityLMM:
    return make_model()


@pytest.fixture(scope="module")
def media() -> list[VisualInput]:
    rng = np.random.default_rng(1)
    images = [prepare_image(rng.integers(0, 256, (70 + 20 * i, 90, 3), dtype=np.uint8), SPEC) for i in range(3)]
    clips = [
        prepare_clip(rng.integers(0, 256, (frames, 60, 80, 3), dtype=np.uint8), np.arange(frames) / 25, SPEC)
        for frames in (9, 4, 9)
    ]
    return [images[0], clips[0], images[1], clips[1], clips[2], images[2]]


def test_round_trip_is_bit_exact(model: QualityLMM, tmp_path: Path):
    model.save_pretrained(tmp_path)
    again = QualityLMM.from_pretrained(tmp_path)
    assert model.state_dict().keys() == again.state_dict().keys()
    for name, value in model.state_dict().items():
        assert value.dtype == again.state_dict()[name].dtype, name
        assert torch.equal(value, again.state_dict()[name]), name
    assert again.spec == model.spec
    assert again.system == model.system
    assert again.level_ids == model.level_ids
    assert not list(tmp_path.rglob("*.bin"))
    assert not list(tmp_path.rglob("*.pt"))


def test_half_precision_folder_loads_as_exact_float32(tmp_path: Path):
    stored = make_model(3).bfloat16()
    stored.save_pretrained(tmp_path)
    loaded = QualityLMM.from_pretrained(tmp_path)
    for name, value in stored.state_dict().items():
        other = loaded.state_dict()[name]
        assert not other.is_floating_point() or other.dtype == torch.float32
        assert torch.equal(value.to(other.dtype), other), name


def test_folder_loads_in_plain_transformers(model: QualityLMM, media: list[VisualInput], tmp_path: Path):
    model.save_pretrained(tmp_path)
    plain, info = InternVLForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    tiles = media[0].tiles_TCHW
    theirs = (
        plain.eval()
        .model.get_image_features(tiles, vision_feature_layer=-1, vision_feature_select_strategy="default")
        .pooler_output
    )
    assert torch.equal(model.visual_tokens([media[0]])[0], theirs.flatten(0, 1))


def test_whole_path_equals_plain_transformers_on_placeholder_tokens(model: QualityLMM, media: list[VisualInput]):
    """Image tokens, chat layout and answer shift against InternVL's own forward with scattered placeholders."""
    medium = media[0]
    count = len(model.visual_tokens([medium])[0])
    answer = f"{IMAGE_PREFIX} good"
    text = (
        f"<|im_start|>system\n{model.system}<|im_end|>\n<|im_start|>user\n<img>{IMAGE_CONTEXT * count}</img>\n"
        f"<|im_end|>\n<|im_start|>assistant\n"
    )
    head = model.tokenizer.encode(text, add_special_tokens=False)
    tail = model.tokenizer.encode(answer, add_special_tokens=False)
    with torch.no_grad():
        theirs = model.internvl(input_ids=torch.tensor([head + tail]), pixel_values=medium.tiles_TCHW).logits
        ids, mask = model.answer_ids([answer], end=False)
        ours = model.logits(model([medium], ids, mask))
    assert torch.allclose(ours[0], theirs[0, len(head) - 1 : -1], atol=1e-5)


def test_batch_and_padding_never_change_a_sample(model: QualityLMM, media: list[VisualInput]):
    together = model.level_probabilities(media)
    alone = torch.cat([model.level_probabilities([medium]) for medium in media])
    reverse = model.level_probabilities(media[::-1]).flip(0)
    assert (together - alone).abs().max() < 1e-5
    assert (together - reverse).abs().max() < 1e-5
    assert torch.allclose(together.sum(1), torch.ones(len(media)), atol=1e-6)
    assert together.std(0).max() > 1e-4, "media must differ for this test to show anything"
    answers = ["The quality", f"{IMAGE_PREFIX} good and " + "long " * 20]
    ids, mask = model.answer_ids(answers)
    short_ids, short_mask = model.answer_ids(answers[:1])
    with torch.no_grad():
        padded = model(media[:2], ids, mask)[0, : short_ids.shape[1]]
        bare = model(media[:1], short_ids, short_mask)[0]
    assert (padded - bare).abs().max() < 1e-5
    assert torch.equal(model.level_probabilities(media), together), "reading out twice must give the same bits"


def test_levels_are_read_where_an_answer_would_say_them(model: QualityLMM, media: list[VisualInput]):
    ids, mask = model.answer_ids([f"{level_prefix(media[0])} {LEVELS[2]}"], end=False)
    with torch.no_grad():
        hidden = model([media[0]], ids, mask)
        last = model.logits(hidden[0, -1])[list(model.level_ids)].softmax(-1)
    assert torch.allclose(last, model.level_probabilities([media[0]])[0], atol=1e-6)
    assert ids[0, -1] == model.level_ids[2]
    assert level_prefix(media[1]) == VIDEO_PREFIX
    assert model.level_ids == level_token_ids(model.tokenizer)


def test_motion_extractor_never_runs_for_images(model: QualityLMM, media: list[VisualInput]):
    calls: list[int] = []
    handle = model.motion_extractor.register_forward_hook(lambda _m, inputs, _o: calls.append(len(inputs[0])))
    try:
        model.visual_tokens([media[0], media[2]])
        assert calls == []
        model.visual_tokens(media)
        assert sum(calls) == 3
    finally:
        handle.remove()


def test_two_videos_in_a_batch_are_two_videos(model: QualityLMM, media: list[VisualInput]):
    first, second = media[1], media[4]
    swapped = VisualInput(first.tiles_TCHW, second.motion_CTHW)
    tokens = model.visual_tokens([first, second])
    assert torch.allclose(tokens[0], model.visual_tokens([first])[0], atol=1e-6)
    assert torch.allclose(tokens[1], model.visual_tokens([second])[0], atol=1e-6)
    mixed = model.visual_tokens([swapped])[0]
    images = len(first.tiles_TCHW) * 4
    assert torch.allclose(mixed[:images], tokens[0][:images], atol=1e-6)
    assert torch.allclose(mixed[images:], tokens[1][images:], atol=1e-6)
    assert not torch.allclose(tokens[0], tokens[1], atol=1e-3)
    assert len(tokens[0]) == images + SPEC.motion_frames


def test_swap_changes_the_encoder_and_nothing_else(tmp_path: Path):
    source, target = make_model(1), make_model(2, decoder="micro")
    save_encoder(source, tmp_path)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    swap_encoder(target, tmp_path)
    for name, value in target.state_dict().items():
        if ".vision_tower." in name or name.startswith("motion_extractor."):
            continue
        assert torch.equal(value, before[name]), name
    assert all(torch.equal(encoder_state(target)[k], v) for k, v in encoder_state(source).items())
    assert any(not torch.equal(before[f"internvl.model.vision_tower.{k.removeprefix('image.')}"], v)
               for k, v in encoder_state(source).items() if k.startswith("image."))  # fmt: skip
    plain = InternVLVisionModel.from_pretrained(tmp_path)
    assert torch.equal(plain.state_dict()["embeddings.cls_token"], source.image_encoder.embeddings.cls_token)


def test_swap_refuses_an_encoder_of_another_shape(tmp_path: Path):
    save_encoder(make_model(1, width=64), tmp_path)
    target = make_model(2)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(ModelError, match="does not fit"):
        swap_encoder(target, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    with pytest.raises(MissingWeightsError, match="missing"):
        swap_encoder(target, tmp_path / "nothing")


def test_likelihood_of_answers_equals_the_forward_pass(model: QualityLMM, media: list[VisualInput]):
    answers = ["The quality of the image is good", "poor", "The video"]
    found = model.answer_log_likelihood(media[:2], answers)
    each = model.answer_log_likelihood(media[:2], answers, per_token=True)
    for row, medium in enumerate(media[:2]):
        for column, answer in enumerate(answers):
            ids, mask = model.answer_ids([answer])
            with torch.no_grad():
                logs = model.logits(model([medium], ids, mask))[0].log_softmax(-1)
            expected = logs.gather(-1, ids[0][:, None]).sum()
            assert torch.allclose(found[row, column], expected, atol=1e-3)
            assert torch.allclose(each[row, column], expected / ids.shape[1], atol=1e-4)


def test_greedy_text_takes_the_best_token_at_every_step(model: QualityLMM, media: list[VisualInput]):
    texts = model.generate(media[:2], max_new_tokens=4, prefix="The quality of the")
    again = model.generate([media[1]], max_new_tokens=4, prefix="The quality of the")
    assert texts[1] == again[0]
    said = model.tokenizer.encode("The quality of the", add_special_tokens=False)
    chosen: list[int] = []
    for _ in range(4):
        ids = torch.tensor([[*said, *chosen, 0]])
        with torch.no_grad():
            hidden = model([media[0]], ids, torch.ones_like(ids, dtype=torch.bool))
        best = int(model.logits(hidden[0, -1]).argmax())
        if best == model.tokenizer.convert_tokens_to_ids("<|im_end|>"):
            break
        chosen.append(best)
    assert texts[0] == model.tokenizer.decode(chosen, skip_special_tokens=True).strip()


def test_gradients_reach_encoder_and_motion_through_a_frozen_decoder(media: list[VisualInput]):
    model = make_model(5)
    model.requires_grad_(requires_grad=False)
    model.image_encoder.requires_grad_(requires_grad=True)
    model.motion_extractor.requires_grad_(requires_grad=True)
    model.train()
    ids, mask = model.answer_ids([f"{level_prefix(medium)} good" for medium in media[:2]])
    model.logits(model(media[:2], ids, mask)[mask]).logsumexp(-1).sum().backward()
    assert model.motion_extractor.blocks[0].multipathway_blocks[1].conv.weight.grad.abs().sum() > 0
    assert model.image_encoder.embeddings.patch_embeddings.projection.weight.grad.abs().sum() > 0
    assert all(value.grad is None for value in model.projector.parameters())
    assert all(value.grad is None for value in model.language_model.parameters())


def test_conversation_without_a_medium(model: QualityLMM):
    ids, mask = model.answer_ids(["The image"])
    with torch.no_grad():
        hidden = model.hidden_states([None], ids, mask, "What is it?")
    assert hidden.shape == (1, ids.shape[1], model.internvl.config.text_config.hidden_size)


def test_incomplete_folder_is_one_clear_line(tmp_path: Path, model: QualityLMM):
    with pytest.raises(MissingWeightsError, match=r"config.json is missing") as caught:
        QualityLMM.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    model.save_pretrained(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MissingWeightsError) as caught:
        QualityLMM.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
