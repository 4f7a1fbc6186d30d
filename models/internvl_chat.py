"""The layout of the authors' released checkpoints, InternVLChat, read as transformers' InternVL.

``JZHWS/VITAL-*`` were saved by an older model class: configuration ``internvl_chat``, other tensor names, query, key
and value fused in the image encoder, and the motion parts beside the rest. Source: jzhws/VITAL-Series at 729097b,
``model/internvl_chat`` of VITAL-LMM and of VITAL-linear-probe, whose class has two linear layers (``quality``) in the
place of projectors and decoder. Names are mapped to those of :class:`models.quality_lmm.QualityLMM`'s state dict, and
``quality`` to ``head``.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from torch import Tensor
from transformers import InternVLConfig, InternVLVisionConfig, Qwen2Config

from models.checkpoint import read_json, read_tensors
from models.errors import ModelError

MODEL_TYPE: Final = "internvl_chat"

SYSTEM: Final = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、"  # noqa: RUF001
    "清华大学及多家合作单位联合开发的多模态大语言模型。"
)
"""System message of InternVL3's chat template (``internvl2_5``), which VITAL's prompts keep."""

_VISION: Final = "internvl.model.vision_tower"
_PROJECTOR: Final = "internvl.model.multi_modal_projector"
_LAYER: Final = r"vision_model\.encoder\.layers\.(\d+)\."
_RENAMED: Final = (
    (r"vision_model\.embeddings\.class_embedding", rf"{_VISION}.embeddings.cls_token"),
    (r"vision_model\.embeddings\.position_embedding", rf"{_VISION}.embeddings.position_embeddings"),
    (r"vision_model\.embeddings\.patch_embedding\.(\w+)", rf"{_VISION}.embeddings.patch_embeddings.projection.\1"),
    (rf"{_LAYER}norm1\.(\w+)", rf"{_VISION}.encoder.layer.\1.layernorm_before.\2"),
    (rf"{_LAYER}norm2\.(\w+)", rf"{_VISION}.encoder.layer.\1.layernorm_after.\2"),
    (rf"{_LAYER}ls([12])", rf"{_VISION}.encoder.layer.\1.lambda_\2"),
    (rf"{_LAYER}attn\.proj\.(\w+)", rf"{_VISION}.encoder.layer.\1.attention.projection_layer.\2"),
    (rf"{_LAYER}attn\.([qk]_norm)\.(\w+)", rf"{_VISION}.encoder.layer.\1.attention.\2.\3"),
    (rf"{_LAYER}mlp\.(fc[12])\.(\w+)", rf"{_VISION}.encoder.layer.\1.mlp.\2.\3"),
    (r"mlp1\.0\.(\w+)", rf"{_PROJECTOR}.layer_norm.\1"),
    (r"mlp1\.1\.(\w+)", rf"{_PROJECTOR}.linear_1.\1"),
    (r"mlp1\.3\.(\w+)", rf"{_PROJECTOR}.linear_2.\1"),
    (r"language_model\.model\.(.+)", r"internvl.model.language_model.\1"),
    (r"language_model\.lm_head\.weight", r"internvl.lm_head.weight"),
    (r"slowfast_model\.feature_extraction\.(\d+\.multipathway_blocks\.1\..+)", r"motion_extractor.blocks.\1"),
    (r"motion_mlp\.0\.(\w+)", r"motion_projector.layer_norm.\1"),
    (r"motion_mlp\.1\.(\w+)", r"motion_projector.linear_1.\1"),
    (r"motion_mlp\.3\.(\w+)", r"motion_projector.linear_2.\1"),
    (r"quality\.0\.(\w+)", r"head.inner.\1"),
    (r"quality\.1\.(\w+)", r"head.outer.\1"),
)
_FUSED: Final = rf"{_LAYER}attn\.qkv\.(\w+)"
_UNUSED: Final = (
    r"slowfast_model\.feature_extraction\.\d+\.multipathway_(blocks\.0|fusion)\..+"  # nothing reads the slow pathway
    r"|language_model\..+\.rotary_emb\.inv_freq"  # computed from the configuration
)
_TEXT_KEYS: Final = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "attention_dropout",
    "use_sliding_window",
    "sliding_window",
    "max_window_layers",
    "bos_token_id",
    "eos_token_id",
)


def target_names(name: str) -> tuple[str, ...]:
    """Names in our state dict of one released tensor.

    Returns:
        One name; three for a fused matrix, which is cut into query, key and value along its first axis; none for a
        tensor that no part of our model needs.

    Raises:
        ModelError: no tensor of the released code is called so.
    """
    if re.fullmatch(_UNUSED, name):
        return ()
    for pattern, replacement in _RENAMED:
        if found := re.fullmatch(pattern, name):
            return (found.expand(replacement),)
    if found := re.fullmatch(_FUSED, name):
        layer, kind = found.groups()
        return tuple(f"{_VISION}.encoder.layer.{layer}.attention.{part}_proj.{kind}" for part in "qkv")
    msg = f"{name} is no tensor of a released VITAL checkpoint (InternVLChat with SlowFast)"
    raise ModelError(msg)


def read_state(shards: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors of a released checkpoint under our names; they stay in the files' memory maps until used.

    Raises:
        ModelError: a tensor is unknown, or a fused matrix cannot be cut into three.
    """
    state: dict[str, Tensor] = {}
    for name, value in read_tensors(shards):
        targets = target_names(name)
        if len(targets) == 3 and len(value) % 3:
            msg = f"{name} {list(value.shape)} cannot be cut into query, key and value"
            raise ModelError(msg)
        state.update(zip(targets, value.chunk(3) if len(targets) == 3 else (value,), strict=False))
    return state


def read_config(folder: Path, image_token_id: int) -> tuple[InternVLConfig, str]:
    """Configuration and system message of a released checkpoint.

    Args:
        image_token_id: the tokenizer's token that stands for a visual one.

    Raises:
        MissingWeightsError: ``config.json`` is damaged.
        ModelError: the model differs from the released ones in a way that this mapping does not know.
    """
    values = read_json(folder / "config.json", "released VITAL checkpoint")
    vision, text = values.get("vision_config", {}), values.get("llm_config", {})
    _require(values, "model_type", MODEL_TYPE)
    _require(values, "ps_version", "v2")
    _require(values, "select_layer", -1)
    _require(values, "template", "internvl2_5")
    _require(text, "architectures", ["Qwen2ForCausalLM"])
    try:
        image_px = values.get("force_image_size") or vision["image_size"]
        tile_tokens = int((image_px // vision["patch_size"] * values["downsample_ratio"]) ** 2)
        config = InternVLConfig(
            vision_config=_vision_config(vision, image_px),
            text_config=Qwen2Config(**{key: text[key] for key in _TEXT_KEYS if key in text}),
            image_token_id=image_token_id,
            image_seq_length=tile_tokens,
            downsample_ratio=values["downsample_ratio"],
            tie_word_embeddings=False,
        )
    except KeyError as error:
        msg = f"released VITAL checkpoint: {folder / 'config.json'} does not state {error}"
        raise ModelError(msg) from error
    return config, str(values.get("system_message") or SYSTEM)


def read_vision_config(folder: Path) -> InternVLVisionConfig:
    """Configuration of the image encoder of any released checkpoint, whatever stands beside it.

    Raises:
        MissingWeightsError: ``config.json`` is damaged.
        ModelError: it is no released checkpoint, or does not describe its encoder.
    """
    values = read_json(folder / "config.json", "released VITAL checkpoint")
    vision = values.get("vision_config", {})
    _require(values, "model_type", MODEL_TYPE)
    _require(values, "ps_version", "v2")
    try:
        return _vision_config(vision, values.get("force_image_size") or vision["image_size"])
    except KeyError as error:
        msg = f"released VITAL checkpoint: {folder / 'config.json'} does not state {error}"
        raise ModelError(msg) from error


def _vision_config(vision: Mapping[str, Any], image_px: int) -> InternVLVisionConfig:
    return InternVLVisionConfig(
        hidden_size=vision["hidden_size"],
        num_hidden_layers=vision["num_hidden_layers"],
        num_attention_heads=vision["num_attention_heads"],
        intermediate_size=vision["intermediate_size"],
        attention_bias=vision["qkv_bias"],
        use_qk_norm=vision["qk_normalization"],
        hidden_act=vision["hidden_act"],
        norm_type=vision["norm_type"],
        layer_norm_eps=vision["layer_norm_eps"],
        image_size=[image_px, image_px],
        patch_size=[vision["patch_size"], vision["patch_size"]],
        use_mean_pooling=True,  # the released encoder has no norm after its last layer
    )


def _require(values: Mapping[str, Any], key: str, wanted: object) -> None:
    if values.get(key) != wanted:
        msg = f"released VITAL checkpoint: config.json says {key} {values.get(key)!r}; known is {wanted!r}"
        raise ModelError(msg)


def state_of(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Tensors of one part (``internvl``, ``motion_extractor``, ``motion_projector``, ``head``) under its own names."""
    return {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
