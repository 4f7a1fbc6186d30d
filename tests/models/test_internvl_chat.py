"""Names and configurations of released checkpoints, one by one; whole models are in test_published."""

import json
from pathlib import Path

import pytest
import torch
from published_folders import TEXT_WIDTH, WIDTH, released_config, released_shapes, write_released, write_weights

from models.checkpoint import checkpoint_shards
from models.errors import ModelError
from models.internvl_chat import SYSTEM, read_config, read_state, state_of, target_names


@pytest.mark.parametrize(
    ("released", "ours"),
    [
        ("vision_model.embeddings.class_embedding", "internvl.model.vision_tower.embeddings.cls_token"),
        (
            "vision_model.embeddings.patch_embedding.weight",
            "internvl.model.vision_tower.embeddings.patch_embeddings.projection.weight",
        ),
        ("vision_model.encoder.layers.23.ls2", "internvl.model.vision_tower.encoder.layer.23.lambda_2"),
        (
            "vision_model.encoder.layers.7.norm2.bias",
            "internvl.model.vision_tower.encoder.layer.7.layernorm_after.bias",
        ),
        (
            "vision_model.encoder.layers.7.attn.proj.weight",
            "internvl.model.vision_tower.encoder.layer.7.attention.projection_layer.weight",
        ),
        ("mlp1.1.weight", "internvl.model.multi_modal_projector.linear_1.weight"),
        (
            "language_model.model.layers.3.self_attn.q_proj.bias",
            "internvl.model.language_model.layers.3.self_attn.q_proj.bias",
        ),
        ("language_model.lm_head.weight", "internvl.lm_head.weight"),
        (
            "slowfast_model.feature_extraction.4.multipathway_blocks.1.res_blocks.2.branch2.conv_c.weight",
            "motion_extractor.blocks.4.multipathway_blocks.1.res_blocks.2.branch2.conv_c.weight",
        ),
        ("motion_mlp.3.bias", "motion_projector.linear_2.bias"),
        ("quality.0.weight", "head.inner.weight"),
        ("quality.1.bias", "head.outer.bias"),
    ],
)
def test_names(released: str, ours: str):
    assert target_names(released) == (ours,)


def test_what_nothing_reads_is_left_out():
    for name in (
        "slowfast_model.feature_extraction.0.multipathway_blocks.0.conv.weight",
        "slowfast_model.feature_extraction.3.multipathway_fusion.conv_fast_to_slow.weight",
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq",
    ):
        assert target_names(name) == ()


@pytest.mark.parametrize(
    "name", ["vision_model.encoder.layers.0.ls3", "mlp1.2.weight", "mlp2.0.weight", "lm_head.weight"]
)
def test_strangers_are_refused(name: str):
    with pytest.raises(ModelError, match="no tensor of a released VITAL checkpoint"):
        target_names(name)


def test_fused_matrices_are_cut_in_the_order_query_key_value(tmp_path: Path):
    fused = torch.arange(3 * WIDTH)[:, None].expand(-1, WIDTH).float().contiguous()
    write_weights(tmp_path, {"vision_model.encoder.layers.1.attn.qkv.weight": fused}, 1)
    (tmp_path / "config.json").write_text("{}")
    state = read_state(checkpoint_shards(tmp_path, "test"))
    layer = "internvl.model.vision_tower.encoder.layer.1.attention"
    assert [int(state[f"{layer}.{part}_proj.weight"][0, 0]) for part in "qkv"] == [0, WIDTH, 2 * WIDTH]
    assert all(value.shape == (WIDTH, WIDTH) for value in state.values())
    write_weights(tmp_path, {"vision_model.encoder.layers.1.attn.qkv.bias": torch.zeros(10)}, 1)
    with pytest.raises(ModelError, match=r"\[10\] cannot be cut"):
        read_state(checkpoint_shards(tmp_path, "test"))


def test_every_tensor_of_a_folder_has_a_place(tmp_path: Path):
    stored = write_released(tmp_path)
    state = read_state(checkpoint_shards(tmp_path, "test"))
    kept = [name for name in stored if "multipathway_blocks.0" not in name and "fusion" not in name]
    fused = sum(".qkv." in name for name in kept)
    assert len(state) == len(kept) + 2 * fused
    parts = [state_of(state, part) for part in ("internvl", "motion_extractor", "motion_projector")]
    assert sum(map(len, parts)) == len(state)
    assert set(released_shapes(9)) <= set(stored)


def test_configuration(tmp_path: Path):
    values = released_config(500)
    (tmp_path / "config.json").write_text(json.dumps(values))
    config, system = read_config(tmp_path, 499)
    assert system == SYSTEM
    assert config.image_token_id == 499
    assert config.image_seq_length == 4
    assert config.vision_config.hidden_size == WIDTH
    assert config.vision_config.attention_bias
    assert config.text_config.hidden_size == TEXT_WIDTH
    assert config.text_config.rope_parameters["rope_theta"] == 1e6
    assert not config.tie_word_embeddings
    (tmp_path / "config.json").write_text(json.dumps({**values, "system_message": "Look."}))
    assert read_config(tmp_path, 499)[1] == "Look."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "internvl"}, "model_type 'internvl'"),
        ({"ps_version": "v1"}, "ps_version 'v1'"),
        ({"select_layer": -4}, "select_layer -4"),
        ({"template": "phi3-chat"}, "template 'phi3-chat'"),
        ({"llm_config": {"architectures": ["InternLM2ForCausalLM"]}}, "InternLM2ForCausalLM"),
        ({"vision_config": {"image_size": 448}}, "does not state 'patch_size'"),
    ],
)
def test_models_of_another_kind_are_refused(change: dict[str, object], said: str, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({**released_config(500), **change}))
    with pytest.raises(ModelError, match=said):
        read_config(tmp_path, 499)
