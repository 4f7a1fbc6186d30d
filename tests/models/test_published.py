"""Published weights: the hub's conversions as they are, and released checkpoints against the authors' architecture."""

import dataclasses
import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from internvl_chat_forward import language_logits, motion_tokens, probe_logits, tile_tokens
from published_folders import (
    MOTION,
    TILE,
    TOKENS,
    random_slowfast,
    released_config,
    write_internvl,
    write_released,
    write_released_probe,
)
from torch import Tensor
from transformers import InternVLForConditionalGeneration

from models.compatibility import OFF, Compatibility
from models.errors import MissingWeightsError, ModelError
from models.motion import SLOWFAST_R50
from models.probe_head import QualityProbe
from models.published import (
    AS_EVALUATED,
    AS_PROBED,
    AS_TRAINED,
    MotionStart,
    encoder_from_released,
    from_internvl,
    from_released,
    probe_from_released,
)
from models.quality_lmm import QualityLMM, level_prefix
from models.vision_encoder import PAPER_SPEC, VisualInput, encoder_state, prepare_clip, prepare_image, swap_encoder

SPEC = dataclasses.replace(PAPER_SPEC, tile_px=TILE, motion_px=32, max_tiles=4)


@pytest.fixture(scope="module")
def slowfast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of an official file: both pathways, fusion and the Kinetics head."""
    path = tmp_path_factory.mktemp("slowfast") / "SLOWFAST_8x8_R50.pyth"
    torch.save({"model_state": random_slowfast(MOTION).state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[QualityLMM, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("released")
    state = write_released(folder)
    return from_released(folder, motion=MOTION), state


def _media(spec: Any) -> list[VisualInput]:
    rng = np.random.default_rng(0)
    image = prepare_image(rng.integers(0, 256, (90, 150, 3), dtype=np.uint8), spec)
    frames = rng.integers(0, 256, (34, 40, 60, 3), dtype=np.uint8)
    return [image, prepare_clip(frames, np.arange(34) / 16, spec)]


# ------------------------------------------------------------------ InternVL3-*-hf


@pytest.mark.parametrize("shards", [1, 3])
def test_the_hubs_conversion_loads_as_it_is(shards: int, slowfast: Path, tmp_path: Path):
    stored = write_internvl(tmp_path, shards)
    model = from_internvl(tmp_path, MotionStart(slowfast, 1, MOTION), SPEC)
    own = model.internvl.state_dict()
    assert len(own) == len(stored)
    places = {
        "language_model.lm_head.": "lm_head.",
        "language_model.model.": "model.language_model.",
        "vision_tower.": "model.vision_tower.",
        "multi_modal_projector.": "model.multi_modal_projector.",
    }
    for name, value in stored.items():
        prefix = next(p for p in places if name.startswith(p))
        assert torch.equal(own[name.replace(prefix, places[prefix], 1)], value.float()), name
    assert model.internvl.config.text_config.rope_parameters["rope_theta"] == 1e6
    probabilities = model.level_probabilities(_media(SPEC))
    assert probabilities.std(0).max() > 1e-4


def test_a_head_of_its_own_survives_although_the_hubs_configuration_does_not_speak_of_it(
    slowfast: Path, tmp_path: Path
):
    stored = write_internvl(tmp_path / "hub")
    model = from_internvl(tmp_path / "hub", MotionStart(slowfast, 1, MOTION), SPEC)
    assert not model.internvl.config.tie_word_embeddings
    model.save_pretrained(tmp_path / "saved")
    again = QualityLMM.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.internvl.lm_head.weight, stored["language_model.lm_head.weight"].float())
    assert not torch.equal(again.internvl.lm_head.weight, again.language_model.embed_tokens.weight)
    plain, info = InternVLForConditionalGeneration.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(info.values()), info
    assert torch.equal(plain.lm_head.weight, again.internvl.lm_head.weight)


def test_motion_starts_as_in_the_released_code(slowfast: Path, tmp_path: Path):
    write_internvl(tmp_path)
    first, again, other = (from_internvl(tmp_path, MotionStart(slowfast, seed, MOTION), SPEC) for seed in (1, 1, 2))
    for linear in (first.motion_projector.linear_1, first.motion_projector.linear_2):
        assert linear.weight.min() >= 0
        assert linear.weight.max() <= 0.01
        assert abs(linear.weight.mean() - 0.005) < 3 * 0.01 / (12 * linear.weight.numel()) ** 0.5
        assert not linear.bias.any()
    norm = first.motion_projector.layer_norm
    assert bool((norm.weight == 1).all())
    assert not norm.bias.any()
    assert torch.equal(first.motion_projector.linear_1.weight, again.motion_projector.linear_1.weight)
    assert not torch.equal(first.motion_projector.linear_1.weight, other.motion_projector.linear_1.weight)
    official = torch.load(slowfast, weights_only=True)["model_state"]
    assert all(torch.equal(value, official[name]) for name, value in first.motion_extractor.state_dict().items())


@pytest.mark.parametrize("name", ["config.json", "model-00002-of-00003.safetensors", "tokenizer.json", "slowfast"])
def test_what_is_missing_is_named_with_its_place(name: str, slowfast: Path, tmp_path: Path):
    write_internvl(tmp_path, 3)
    path = tmp_path / "SLOWFAST_8x8_R50.pyth"
    path.write_bytes(slowfast.read_bytes())
    gone = path if name == "slowfast" else tmp_path / name
    gone.unlink()
    with pytest.raises(MissingWeightsError, match=r"put ") as caught:
        from_internvl(tmp_path, MotionStart(path, 1, MOTION), SPEC)
    assert str(gone) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_half_precision_is_a_parameter(slowfast: Path, tmp_path: Path):
    stored = write_internvl(tmp_path)
    model = from_internvl(tmp_path, MotionStart(slowfast, 1, MOTION), SPEC, dtype=torch.bfloat16)
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}
    assert torch.equal(model.internvl.lm_head.weight, stored["language_model.lm_head.weight"])
    whole = from_internvl(tmp_path, MotionStart(slowfast, 1, MOTION), SPEC)
    near = model.level_probabilities(_media(SPEC)) - whole.level_probabilities(_media(SPEC))
    assert near.abs().max() < 0.05
    assert model.level_probabilities(_media(SPEC)).dtype == torch.float32


# ------------------------------------------------------------------ JZHWS/VITAL-*


def _chat(model: QualityLMM, inside: str, answer: str) -> tuple[list[int], list[int]]:
    """Token ids of the whole conversation, tokenised at once, and of its answer."""
    text = (
        f"<|im_start|>system\n{model.system}<|im_end|>\n<|im_start|>user\n{inside}\n<|im_end|>\n<|im_start|>assistant\n"
    )
    tokenizer = model.tokenizer
    return tokenizer.encode(text, add_special_tokens=False), tokenizer.encode(answer, add_special_tokens=False)


def _reference_logits(state: dict[str, Tensor], ids: list[int], context: int, visual: Tensor) -> Tensor:
    embedded = state["language_model.model.embed_tokens.weight"][torch.tensor(ids)].clone()
    embedded[torch.tensor(ids) == context] = visual
    return language_logits(state, embedded)


def _image(slots: int) -> str:
    return "<img>" + "<IMG_CONTEXT>" * slots + "</img>"


def test_released_image_logits_are_those_of_the_authors_architecture(released: tuple[QualityLMM, dict[str, Tensor]]):
    model, state = released
    tiles = torch.randn(3, 3, TILE, TILE, generator=torch.Generator().manual_seed(1))
    head, answer = _chat(model, _image(3 * TOKENS), "The quality of this image is good")
    context = model.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    theirs = _reference_logits(state, head + answer, context, tile_tokens(state, tiles).flatten(0, 1))
    ids, mask = model.answer_ids(["The quality of this image is good"], end=False)
    with torch.no_grad():
        ours = model.logits(model([VisualInput(tiles)], ids, mask))[0]
    assert torch.allclose(ours, theirs[len(head) - 1 : -1], atol=1e-4)
    assert theirs.std() > 0.1


def test_released_video_logits_are_those_of_the_authors_architecture(released: tuple[QualityLMM, dict[str, Tensor]]):
    """Frame labels, the motion stream as an image of its own, and the motion view that mixes channels and times."""
    model, state = released
    generator = torch.Generator().manual_seed(2)
    tiles, clip = torch.randn(2, 3, TILE, TILE, generator=generator), torch.randn(3, 8, 32, 32, generator=generator)
    inside = f"Frame-1: {_image(TOKENS)}\nFrame-2: {_image(TOKENS)}\nMotion Feature: {_image(8)}"
    sentence = "The overall quality of this video is"
    head, answer = _chat(model, inside, f"{sentence} poor")
    with torch.no_grad():
        motion = motion_tokens(state, random_slowfast(MOTION), clip)
    visual = torch.cat([tile_tokens(state, tiles).flatten(0, 1), motion])
    context = model.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    theirs = _reference_logits(state, head + answer, context, visual)
    medium = VisualInput(tiles, clip)
    ids, mask = model.answer_ids([f"{sentence} poor"], end=False)
    with torch.no_grad():
        ours = model.logits(model([medium], ids, mask))[0]
    assert torch.allclose(ours, theirs[len(head) - 1 : -1], atol=1e-4)
    levels = theirs[-2, list(model.level_ids)].softmax(-1)
    assert torch.allclose(model.level_probabilities([medium])[0], levels, atol=1e-5)


def test_departures_are_on_and_survive_a_round_trip(released: tuple[QualityLMM, dict[str, Tensor]], tmp_path: Path):
    model, _ = released
    assert model.spec.compatibility == AS_EVALUATED
    assert not model.motion_extractor.config.permuted
    model.save_pretrained(tmp_path)
    again = QualityLMM.from_pretrained(tmp_path)
    assert again.spec == model.spec
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    media = _media(model.spec)
    assert torch.equal(again.level_probabilities(media), model.level_probabilities(media))


def test_training_and_evaluation_of_the_authors_have_flags_of_their_own():
    """What both sides do alike, and what one of them does alone (jzhws/VITAL-Series at 729097b)."""
    both = {"unpermuted_motion", "area_tiling", "doubled_single_tile", "imagenet_motion", "frame_labels"}
    for flags, stride, sentences in ((AS_TRAINED, 8, False), (AS_EVALUATED, 1, True)):
        values = dataclasses.asdict(flags)
        assert {name for name in both if values.pop(name)} == both
        assert values == {"frame_stride": stride, "evaluation_sentences": sentences}
    assert dataclasses.asdict(AS_PROBED) == {
        **dataclasses.asdict(OFF), "imagenet_motion": True, "frame_stride": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "sentences", "motion", "key"),
    [
        (AS_TRAINED, ("The quality of the image is", "The quality of the video is"), list(range(0, 64, 8)), 3),
        (AS_EVALUATED, ("The quality of this image is", "The overall quality of this video is"), list(range(68)), 4),
    ],
)
def test_each_preset_shows_the_frames_and_forces_the_sentence_of_its_side(
    flags: Compatibility, sentences: tuple[str, str], motion: list[int], key: int, tmp_path: Path
):
    write_released(tmp_path)
    model = from_released(tmp_path, flags, MOTION)
    frames = np.zeros((70, 4, 4, 3), np.uint8) + np.arange(70, dtype=np.uint8)[:, None, None, None]
    clip = prepare_clip(frames, np.arange(70) / 16, model.spec)  # seconds at the frames 0, 16, 32, 48 of 70
    assert clip.motion_CTHW is not None
    grey = (clip.motion_CTHW[0].mean((1, 2)) * 0.229 + 0.485) * 255
    assert grey.round().int().tolist() == motion
    assert len(clip.tiles_TCHW) == 4
    odd = prepare_clip(frames, np.arange(70) / 15, model.spec)  # seconds at 0, 15, 30, 45: one of them a multiple of 8
    assert len(odd.tiles_TCHW) == (1 if key == 3 else 4)
    image = prepare_image(frames[0], model.spec)
    assert (level_prefix(image, flags), level_prefix(clip, flags)) == sentences


def test_departures_can_be_left_off(tmp_path: Path):
    write_released(tmp_path)
    model = from_released(tmp_path, OFF, MOTION)
    assert model.spec.compatibility == OFF
    assert model.motion_extractor.config.permuted


def test_both_forms_of_the_tokenizer_say_the_same(tmp_path: Path):
    models = []
    for one_file in (False, True):
        write_released(tmp_path / str(one_file), one_file=one_file)
        models.append(from_released(tmp_path / str(one_file), motion=MOTION))
    for text in (models[0].system, "<|im_start|>user\nFrame-1: <img><IMG_CONTEXT></img>\n", "Qualität 好 good\n\n  x"):
        first, second = (model.tokenizer.encode(text, add_special_tokens=False) for model in models)
        assert first == second
        assert models[0].tokenizer.decode(first) == text


def test_incomplete_or_other_checkpoints_are_refused_in_one_line(tmp_path: Path):
    state = write_released(tmp_path, shards=1)
    from safetensors.torch import save_file

    lacking = {name: value for name, value in state.items() if name != "mlp1.3.weight"}
    wrong = {**state, "motion_mlp.1.weight": torch.zeros(48, 7)}
    strange = {**state, "vision_model.encoder.layers.0.attn.rope": torch.zeros(1)}
    for tensors, said in (
        (lacking, "has no tensor model.multi_modal_projector.linear_2.weight"),
        (wrong, r"motion_projector: tensor linear_1.weight is \[48, 7\], not \[48, 256\]"),
        (strange, "attn.rope is no tensor of a released VITAL checkpoint"),
    ):
        save_file(tensors, tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match=said):
            from_released(tmp_path, motion=MOTION)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="motion_extractor"):
        from_released(tmp_path, motion=SLOWFAST_R50)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(MissingWeightsError, match=r"merges.txt is missing.*or tokenizer.json"):
        from_released(tmp_path, motion=MOTION)


def test_the_released_probe_scores_as_the_authors_architecture(tmp_path: Path):
    state = write_released_probe(tmp_path / "snapshot")
    probe = probe_from_released(tmp_path / "snapshot", MOTION)
    assert probe.layers == (7, 13)
    assert probe.spec.compatibility == AS_PROBED
    probe.save_pretrained(tmp_path / "saved")
    generator = torch.Generator().manual_seed(2)
    tiles, clip = torch.randn(2, 3, TILE, TILE, generator=generator), torch.randn(3, 8, 32, 32, generator=generator)
    with torch.no_grad():
        theirs = probe_logits(state, random_slowfast(MOTION), tiles, clip).softmax(-1)
    assert theirs.std() > 0.01
    for ours in (probe, QualityProbe.from_pretrained(tmp_path / "saved")):
        found = ours.level_probabilities([VisualInput(tiles, clip)])
        assert torch.allclose(found[0], theirs.flip(0), atol=1e-5)
        expected = float(theirs @ torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0]))
        assert ours.scores(found)[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("beside", ["head", "language model and projectors"])
def test_the_released_encoder_takes_its_place_in_another_model(beside: str, tmp_path: Path):
    if beside == "head":
        state = write_released_probe(tmp_path / "snapshot", layers=2)
    else:
        state = write_released(tmp_path / "snapshot")
    encoder_from_released(tmp_path / "snapshot", MOTION).save_pretrained(tmp_path / "encoder")
    write_released(tmp_path / "whole")
    target = from_released(tmp_path / "whole", motion=MOTION)
    swap_encoder(target, tmp_path / "encoder")
    found = encoder_state(target)
    assert torch.equal(found["image.encoder.layer.1.lambda_2"], state["vision_model.encoder.layers.1.ls2"])
    q, k, v = state["vision_model.encoder.layers.1.attn.qkv.weight"].chunk(3)
    for part, value in (("q", q), ("k", k), ("v", v)):
        assert torch.equal(found[f"image.encoder.layer.1.attention.{part}_proj.weight"], value)
    name = "0.multipathway_blocks.1.conv.weight"
    assert torch.equal(found[f"motion.blocks.{name}"], state[f"slowfast_model.feature_extraction.{name}"])


def test_a_probe_and_a_whole_model_are_told_apart(tmp_path: Path):
    write_released_probe(tmp_path / "probe", layers=7)
    write_released(tmp_path / "whole")
    with pytest.raises(ModelError, match="whole holds no linear probe"):
        probe_from_released(tmp_path / "whole", MOTION)
    for name in ("vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json"):
        (tmp_path / "probe" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    with pytest.raises(ModelError, match="holds a linear probe, not a whole model"):
        from_released(tmp_path / "probe", motion=MOTION)


# ------------------------------------------------------------------ the authors' own code


@pytest.fixture
def authors(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The authors' model class, from a checkout that VITAL_AUTHORS_CODE names; parts that it never runs are stubs."""
    if "VITAL_AUTHORS_CODE" not in os.environ:
        pytest.skip("set VITAL_AUTHORS_CODE to a checkout of github.com/jzhws/VITAL-Series to compare with its code")
    root = Path(os.environ["VITAL_AUTHORS_CODE"]) / "VITAL-LMM" / "train"
    stubs = {
        "peft": ("LoraConfig", "get_peft_model"),
        "internvl.model.internlm2.modeling_internlm2": ("InternLM2ForCausalLM",),
        "internvl.model.internlm2.configuration_internlm2": ("InternLM2Config",),
        "internvl.model.phi3.modeling_phi3": ("Phi3ForCausalLM",),
        "internvl.model.phi3.configuration_phi3": ("Phi3Config",),
    }
    packages = ["internvl", "internvl.model"] + [
        f"internvl.model.{part}" for part in ("internvl_chat", "internlm2", "phi3")
    ]
    for name in packages:
        package = types.ModuleType(name)
        package.__path__ = [str(root / name.replace(".", "/"))]
        monkeypatch.setitem(sys.modules, name, package)
    for name, members in stubs.items():
        module = types.ModuleType(name)
        vars(module).update(dict.fromkeys(members))
        monkeypatch.setitem(sys.modules, name, module)
    found = importlib.import_module("internvl.model.internvl_chat.modeling_internvl_chat")
    monkeypatch.setattr(found, "slowfast_r50", lambda pretrained: random_slowfast(MOTION))  # noqa: ARG005
    return found


def test_the_authors_own_code_computes_the_same_logits(authors: Any, tmp_path: Path):
    """Their forward pass takes frames of 448 px only, so patches are wide instead of many."""
    state = write_released(tmp_path, patch=112)
    model = from_released(tmp_path, motion=MOTION)
    values = released_config(model.language_model.embed_tokens.num_embeddings, 112)
    config_class = importlib.import_module(
        "internvl.model.internvl_chat.configuration_internvl_chat"
    ).InternVLChatConfig
    values["vision_config"]["drop_path_rate"] = 0.0
    keys = (
        "vision_config",
        "llm_config",
        "select_layer",
        "force_image_size",
        "downsample_ratio",
        "template",
        "ps_version",
    )
    theirs = authors.InternVLChatModel(config_class(**{key: values[key] for key in keys}), use_flash_attn=False).eval()
    theirs.load_state_dict(state, strict=True)
    context = model.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    theirs.img_context_token_id = context
    frames = torch.randn(8, 3, 448, 448, generator=torch.Generator().manual_seed(4))
    shown = torch.tensor([1, 0, 0, 0, 0, 1, 0, 0])
    video = f"Frame-1: {_image(TOKENS)}\nFrame-2: {_image(TOKENS)}\nMotion Feature: {_image(8)}"
    for modality, pixels, flags, inside, medium in (
        (0, frames[:2], torch.ones(2), _image(2 * TOKENS), VisualInput(frames[:2])),
        (1, frames, shown, video, VisualInput(frames[shown == 1], frames.transpose(0, 1).contiguous())),
    ):
        head, answer = _chat(model, inside, "The quality of the image is good")
        with torch.no_grad():
            output = theirs(
                pixel_values=pixels,
                input_ids=torch.tensor([head + answer]),
                attention_mask=torch.ones(1, len(head + answer), dtype=torch.long),
                modality=torch.tensor([modality]),
                image_flags=flags[:, None],
                return_dict=True,
            )
            ids, mask = model.answer_ids(["The quality of the image is good"], end=False)
            ours = model.logits(model([medium], ids, mask))[0]
        assert torch.allclose(ours, output.logits[0, len(head) - 1 : -1], atol=2e-4), modality
        assert ours.std() > 0.1
