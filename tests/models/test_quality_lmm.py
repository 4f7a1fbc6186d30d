"""The quality LMM: round trips, invariances, parity with plain transformers, and readouts."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lmm import MOTION, SPEC, make_model
from transformers import InternVLForConditionalGeneration, InternVLVisionModel

from models.compatibility import Compatibility
from models.errors import MissingWeightsError, ModelError
from models.levels import LEVELS, level_token_ids
from models.motion import MotionExtractor
from models.quality_lmm import IMAGE_PREFIX, VIDEO_PREFIX, QualityLMM, level_prefix
from models.tokenizer import IMAGE_CONTEXT, build_tokenizer
from models.vision_encoder import VisualInput, encoder_state, prepare_clip, prepare_image, save_encoder, swap_encoder

DYNAMIC = dataclasses.replace(SPEC, tiling="dynamic", tile_px=28, max_tiles=4, key_frames=3, motion_frames=0)


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


@st.composite
def mixed_media(draw: st.DrawFn) -> list[VisualInput]:
    """Pictures of one to four tiles and a thumbnail, clips of one to three key frames and of any number of frames."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    media = []
    for is_video in draw(st.lists(st.booleans(), min_size=2, max_size=5)):
        height, width = draw(st.integers(10, 120)), draw(st.integers(10, 120))
        if is_video:
            count = draw(st.integers(1, 9))
            frames = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
            media.append(prepare_clip(frames, np.arange(count) / 3, DYNAMIC))
        else:
            media.append(prepare_image(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), DYNAMIC))
    return media


@pytest.fixture(scope="module")
def dynamic() -> QualityLMM:
    return make_model(4, spec=DYNAMIC)


@settings(max_examples=5, deadline=None)
@given(media=mixed_media(), words=st.lists(st.integers(1, 6), min_size=5, max_size=5))
def test_logits_of_a_mixed_batch_are_those_of_each_sample_alone(
    dynamic: QualityLMM, media: list[VisualInput], words: list[int]
):
    """Other numbers of tiles, key frames and motion frames, and answers of other lengths, beside and after a sample."""
    answers = [f"{IMAGE_PREFIX} good " * count for count, _ in zip(words, media, strict=False)]
    ids, mask = dynamic.answer_ids(answers)
    with torch.no_grad():
        together = dynamic.logits(dynamic(media, ids, mask))
        for row, medium in enumerate(media):
            own_ids, own_mask = dynamic.answer_ids(answers[row : row + 1])
            alone = dynamic.logits(dynamic([medium], own_ids, own_mask))[0]
            assert (together[row, : own_ids.shape[1]] - alone).abs().max() < 1e-5
    tokens = dynamic.visual_tokens(media)
    for medium, own in zip(media, tokens, strict=True):
        frames = 0 if medium.motion_CTHW is None else medium.motion_CTHW.shape[1]
        assert len(own) == len(medium.tiles_TCHW) + frames  # one token per tile of 28 px, one per motion frame


@settings(max_examples=6, deadline=None)
@given(media=mixed_media())
def test_only_clips_reach_the_motion_extractor_and_each_once(dynamic: QualityLMM, media: list[VisualInput]):
    seen: list[torch.Size] = []
    handle = dynamic.motion_extractor.register_forward_hook(
        lambda _m, inputs, _o: seen.extend(clip.shape for clip in inputs[0])
    )
    try:
        dynamic.visual_tokens(media)
    finally:
        handle.remove()
    assert sorted(seen) == sorted(medium.motion_CTHW.shape for medium in media if medium.motion_CTHW is not None)


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


def test_parts_that_do_not_belong_together_are_refused(model: QualityLMM):
    parts = {
        "internvl": model.internvl,
        "motion_extractor": model.motion_extractor,
        "motion_projector": model.motion_projector,
        "tokenizer": model.tokenizer,
        "spec": model.spec,
        "system": model.system,
    }
    larger = build_tokenizer([f"{letter}{number}" for letter in "abcdefgh" for number in range(99)] * 3, ["image"], 900)
    flags = Compatibility(unpermuted_motion=True)
    view = MotionExtractor(dataclasses.replace(MOTION, permuted=False))
    for change, said in (
        ({"tokenizer": larger}, r"the tokenizer has \d+ tokens, the decoder's embeddings \d+ rows"),
        ({"spec": dataclasses.replace(SPEC, tile_px=112)}, "tiles of 112 px, the image encoder takes 56"),
        ({"motion_extractor": view}, "disagree on the order"),
        ({"spec": dataclasses.replace(SPEC, tiling="dynamic", compatibility=flags)}, "disagree on the order"),
    ):
        with pytest.raises(ModelError, match=said):
            QualityLMM(**{**parts, **change})  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_encoder_folder_serves_plain_transformers_in_a_process_without_this_project(
    model: QualityLMM, media: list[VisualInput], tmp_path: Path
):
    """As `AutoModel` and as `InternVLVisionModel`, from safetensors alone; the features are the same to the bit."""
    save_encoder(model, tmp_path / "encoder")
    assert {path.suffix for path in (tmp_path / "encoder").rglob("*") if path.is_file()} == {".json", ".safetensors"}
    np.save(tmp_path / "tiles.npy", media[0].tiles_TCHW.numpy())
    script = tmp_path / "elsewhere.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "sys.path[:] = [p for p in sys.path if not (Path(p or '.') / 'models' / 'quality_lmm.py').exists()]\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in type(f).__module__.lower()]\n"
        "import importlib.util\n"
        "assert all(importlib.util.find_spec(name) is None for name in ('models', 'vital', 'tasks'))\n"
        "import numpy as np, torch\n"
        "from transformers import AutoModel, InternVLVisionModel\n"
        "tiles = torch.from_numpy(np.load('tiles.npy'))\n"
        "for kind in (InternVLVisionModel, AutoModel):\n"
        "    loaded, info = kind.from_pretrained('encoder', local_files_only=True, output_loading_info=True)\n"
        "    assert type(loaded) is InternVLVisionModel and not any(info.values()), info\n"
        "    with torch.no_grad():\n"
        "        features = loaded.eval()(pixel_values=tiles).last_hidden_state\n"
        "    np.save(kind.__name__, features.numpy())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-P", script], cwd=tmp_path, env=environment, check=True)
    with torch.no_grad():
        ours = model.image_encoder(pixel_values=media[0].tiles_TCHW).last_hidden_state
    for kind in ("InternVLVisionModel", "AutoModel"):
        assert np.array_equal(np.load(tmp_path / f"{kind}.npy"), ours.numpy())


@torch.no_grad()
def test_a_model_that_was_asked_in_training_is_asked_when_it_is_read_out(media: list[VisualInput], tmp_path: Path):
    model = make_model()
    empty = model.level_probabilities(media)
    model.question = "asked"
    found = model.level_probabilities(media)
    assert not torch.allclose(found, empty, atol=1e-4)
    ids, mask = model.answer_ids([f"{level_prefix(medium)} {LEVELS[0]}" for medium in media], end=False)
    texts = [f"How would you rate the quality of this {'video' if m.is_video else 'image'}?" for m in media]
    hidden = model(media, ids, mask, texts)[torch.arange(len(media)), mask.sum(1) - 1]
    assert torch.equal(found, model.logits(hidden)[:, list(model.level_ids)].softmax(-1))
    features = model.visual_features(media)
    assert torch.allclose(model.level_probabilities(features), found, atol=1e-6)
    model.save_pretrained(tmp_path)
    again = QualityLMM.from_pretrained(tmp_path)
    assert again.question == "asked"
    assert torch.equal(again.level_probabilities(media), found)


def test_the_papers_empty_question_leaves_no_mark_in_a_folder_and_an_unknown_style_is_refused(
    model: QualityLMM, tmp_path: Path
):
    model.save_pretrained(tmp_path)
    layout = tmp_path / "quality_lmm.json"
    values = json.loads(layout.read_text())
    assert values.keys() == {"spec", "system"}
    layout.write_text(json.dumps(values | {"question": "often"}))
    with pytest.raises(ModelError, match="'often' is none of empty, asked"):
        QualityLMM.from_pretrained(tmp_path)
