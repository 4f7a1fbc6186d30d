"""Folders as publishers lay them out, with random weights of tiny widths: ``InternVL3-*-hf`` and ``JZHWS/VITAL-*``.

File names, configuration keys and tensor names are those of the hub: of the conversions saved by transformers 4.52, and
of the authors' model class saved by transformers 4.37.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import InternVLConfig, InternVLForConditionalGeneration

from models.motion import MotionConfig, build_slowfast
from models.quality_lmm import IMAGE_PREFIX, VIDEO_PREFIX
from models.tokenizer import SPECIAL_TOKENS, build_tokenizer

WIDTH, HEADS, MLP, LAYERS = 32, 2, 48, 2
TEXT_WIDTH, TEXT_HEADS, TEXT_KV_HEADS, TEXT_MLP, TEXT_LAYERS = 48, 4, 2, 64, 2
TILE, PATCH = 56, 14
TOKENS = (TILE // PATCH // 2) ** 2
MOTION = MotionConfig(depth=18, slow_width=8, channel_ratio=1)  # 256 channels, as SlowFast-R50
SENTENCES = [
    f"{IMAGE_PREFIX} good",
    f"{VIDEO_PREFIX} poor",
    "The quality of this image is high",
    "The overall quality of this video is low",
    "system user assistant Frame-1: Motion Feature: 你是书生·万象",
]


def write_tokenizer(folder: Path, *, one_file: bool) -> int:
    """Qwen2.5's files with InternVL's tokens behind the vocabulary; returns the number of tokens.

    Args:
        one_file: with ``tokenizer.json`` (the conversions); otherwise ``vocab.json`` and its companions alone.
    """
    learnt = build_tokenizer(SENTENCES * 4, ["image", "video", "quality"], 700)
    model = json.loads(learnt.backend_tokenizer.to_str())["model"]
    plain = [token for token in sorted(model["vocab"], key=model["vocab"].get) if token not in SPECIAL_TOKENS]
    vocab = {token: number for number, token in enumerate(plain)}
    added = {token: len(vocab) + number for number, token in enumerate(SPECIAL_TOKENS)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (folder / "added_tokens.json").write_text(json.dumps(added))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "add_prefix_space": False,
                "added_tokens_decoder": {str(v): {"content": k, **flags} for k, v in added.items()},
                "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
                "bos_token": None,
                "eos_token": "<|im_end|>",
                "errors": "replace",
                "model_max_length": 8192,
                "pad_token": "<|endoftext|>",
                "split_special_tokens": False,
                "tokenizer_class": "Qwen2Tokenizer",
                "unk_token": None,
            }
        )
    )
    if one_file:
        from transformers import Qwen2Tokenizer

        Qwen2Tokenizer.from_pretrained(folder, local_files_only=True).save_pretrained(folder)
        for name in ("vocab.json", "merges.txt", "added_tokens.json"):
            (folder / name).unlink(missing_ok=True)
    return len(vocab) + len(added)


def text_config(vocabulary: int) -> dict[str, Any]:
    """A Qwen2.5 configuration with the keys that InternVL3's has."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": vocabulary - 6,
        "eos_token_id": vocabulary - 4,
        "hidden_act": "silu",
        "hidden_size": TEXT_WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": TEXT_MLP,
        "max_position_embeddings": 32768,
        "max_window_layers": 70,
        "model_type": "qwen2",
        "num_attention_heads": TEXT_HEADS,
        "num_hidden_layers": TEXT_LAYERS,
        "num_key_value_heads": TEXT_KV_HEADS,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": vocabulary,
    }


def write_internvl(folder: Path, shards: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """A snapshot like ``OpenGVLab/InternVL3-*-hf``; returns its tensors under the hub's names."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder, one_file=True)
    vision = {
        "architectures": ["InternVisionModel"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": WIDTH,
        "image_size": [TILE, TILE],
        "initializer_factor": 0.1,
        "initializer_range": 1e-10,
        "intermediate_size": MLP,
        "layer_norm_eps": 1e-06,
        "layer_scale_init_value": 0.1,
        "model_type": "internvl_vision",
        "norm_type": "layer_norm",
        "num_attention_heads": HEADS,
        "num_channels": 3,
        "num_hidden_layers": LAYERS,
        "patch_size": [PATCH, PATCH],
        "projection_dropout": 0.0,
        "torch_dtype": "bfloat16",
        "use_absolute_position_embeddings": True,
        "use_mask_token": False,
        "use_mean_pooling": True,
        "use_qk_norm": False,
    }
    config = {
        "architectures": ["InternVLForConditionalGeneration"],
        "downsample_ratio": 0.5,
        "image_seq_length": TOKENS,
        "image_token_id": vocabulary - 1,
        "model_type": "internvl",
        "projector_hidden_act": "gelu",
        "text_config": text_config(vocabulary),
        "torch_dtype": "bfloat16",
        "transformers_version": "4.52.0.dev0",
        "vision_config": vision,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    with torch.device("meta"):
        network = InternVLForConditionalGeneration(InternVLConfig.from_pretrained(folder))
    generator = torch.Generator().manual_seed(seed)
    state = {
        _hub_name(name): drawn(name, tuple(value.shape), generator).bfloat16()
        for name, value in network.state_dict().items()
    }
    write_weights(folder, state, shards)
    return state


def _hub_name(name: str) -> str:
    if name == "lm_head.weight":
        return f"language_model.{name}"
    return name.removeprefix("model.").replace("language_model.", "language_model.model.")


def drawn(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random values at which every part of a network matters: norms around 1, matrices that keep magnitudes."""
    value = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return 1 + 0.2 * value if "norm" in name and "weight" in name else 0.2 * value
    fan_in = max(1, value[0].numel())
    return value * (1.0 if "embed_tokens" in name else 1.5 / fan_in**0.5)


def write_weights(folder: Path, state: dict[str, Tensor], shards: int) -> None:
    """``model.safetensors``, or numbered shards and their index."""
    if shards == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, places = sorted(state), {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number::shards]
        save_file({name: state[name] for name in part}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    size = sum(value.nbytes for value in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def released_shapes(vocabulary: int, patch: int = PATCH) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the authors' model class without its motion extractor, written down by hand."""
    return encoder_shapes(LAYERS, patch) | _language_shapes(vocabulary)


def encoder_shapes(layers: int, patch: int = PATCH) -> dict[str, tuple[int, ...]]:
    """The image encoder's part of :func:`released_shapes`."""
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (1, 1, WIDTH),
        "vision_model.embeddings.position_embedding": (1, 1 + (TILE // PATCH) ** 2, WIDTH),
        "vision_model.embeddings.patch_embedding.weight": (WIDTH, 3, patch, patch),
        "vision_model.embeddings.patch_embedding.bias": (WIDTH,),
    }
    for number in range(layers):
        layer = f"vision_model.encoder.layers.{number}"
        shapes |= {f"{layer}.{name}": (WIDTH,) for name in ("ls1", "ls2", "attn.proj.bias", "mlp.fc2.bias")}
        shapes |= {f"{layer}.{norm}.{kind}": (WIDTH,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
        shapes |= {f"{layer}.attn.qkv.weight": (3 * WIDTH, WIDTH), f"{layer}.attn.qkv.bias": (3 * WIDTH,)}
        shapes |= {f"{layer}.attn.proj.weight": (WIDTH, WIDTH)}
        shapes |= {f"{layer}.mlp.fc1.weight": (MLP, WIDTH), f"{layer}.mlp.fc1.bias": (MLP,)}
        shapes |= {f"{layer}.mlp.fc2.weight": (WIDTH, MLP)}
    return shapes


def _language_shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for part, channels in (("mlp1", 4 * WIDTH), ("motion_mlp", MOTION.channels)):
        shapes |= {f"{part}.0.weight": (channels,), f"{part}.0.bias": (channels,)}
        shapes |= {f"{part}.1.weight": (TEXT_WIDTH, channels), f"{part}.1.bias": (TEXT_WIDTH,)}
        shapes |= {f"{part}.3.weight": (TEXT_WIDTH, TEXT_WIDTH), f"{part}.3.bias": (TEXT_WIDTH,)}
    head = TEXT_WIDTH // TEXT_HEADS
    for number in range(TEXT_LAYERS):
        layer = f"language_model.model.layers.{number}"
        shapes |= {f"{layer}.{norm}.weight": (TEXT_WIDTH,) for norm in ("input_layernorm", "post_attention_layernorm")}
        for name, heads in (("q", TEXT_HEADS), ("k", TEXT_KV_HEADS), ("v", TEXT_KV_HEADS)):
            shapes |= {f"{layer}.self_attn.{name}_proj.weight": (heads * head, TEXT_WIDTH)}
            shapes |= {f"{layer}.self_attn.{name}_proj.bias": (heads * head,)}
        shapes |= {f"{layer}.self_attn.o_proj.weight": (TEXT_WIDTH, TEXT_WIDTH)}
        shapes |= {f"{layer}.mlp.{name}_proj.weight": (TEXT_MLP, TEXT_WIDTH) for name in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj.weight": (TEXT_WIDTH, TEXT_MLP)}
    shapes |= {f"language_model.{name}.weight": (vocabulary, TEXT_WIDTH) for name in ("model.embed_tokens", "lm_head")}
    return shapes | {"language_model.model.norm.weight": (TEXT_WIDTH,)}


def released_config(vocabulary: int, patch: int = PATCH) -> dict[str, Any]:
    """The keys of an InternVL3 chat configuration that its model class reads."""
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": patch * (TILE // PATCH),
        "hidden_size": TEXT_WIDTH,
        "llm_config": {**text_config(vocabulary), "tie_word_embeddings": False, "top_k": 50},
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "model_type": "internvl_chat",
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": None,
        "use_thumbnail": True,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "attention_dropout": 0.0,
            "drop_path_rate": 0.1,
            "dropout": 0.0,
            "hidden_act": "gelu",
            "hidden_size": WIDTH,
            "image_size": patch * (TILE // PATCH),
            "initializer_factor": 0.1,
            "intermediate_size": MLP,
            "layer_norm_eps": 1e-06,
            "model_type": "intern_vit_6b",
            "norm_type": "layer_norm",
            "num_attention_heads": HEADS,
            "num_channels": 3,
            "num_hidden_layers": LAYERS,
            "patch_size": patch,
            "qk_normalization": False,
            "qkv_bias": True,
            "use_flash_attn": True,
        },
    }


def write_released(folder: Path, *, one_file: bool = False, shards: int = 3, patch: int = PATCH) -> dict[str, Tensor]:
    """A snapshot like ``JZHWS/VITAL-*``; returns its tensors, float32, under the released names."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder, one_file=one_file)
    (folder / "config.json").write_text(json.dumps(released_config(vocabulary, patch), indent=2))
    generator = torch.Generator().manual_seed(5)
    state = {name: drawn(name, shape, generator) for name, shape in released_shapes(vocabulary, patch).items()}
    state |= _released_slowfast()
    write_weights(folder, {name: value.contiguous() for name, value in state.items()}, shards)
    return state


def write_released_probe(folder: Path, layers: int = 13) -> dict[str, Tensor]:
    """A snapshot like ``JZHWS/VITAL-Linear-Probe``: encoder, both pathways, and two linear layers, worst class first.

    Returns:
        Its tensors, float32, under the released names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = released_config(100)
    config["vision_config"]["num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    features = 4 * WIDTH * len(range(7, layers + 1, 6)) + MOTION.channels
    shapes = encoder_shapes(layers) | {"quality.0.weight": (16, features), "quality.0.bias": (16,)}
    shapes |= {"quality.1.weight": (5, 16), "quality.1.bias": (5,)}
    generator = torch.Generator().manual_seed(6)
    state = {name: drawn(name, shape, generator) for name, shape in shapes.items()} | _released_slowfast()
    write_weights(folder, {name: value.contiguous() for name, value in state.items()}, 1)
    return state


def _released_slowfast() -> dict[str, Tensor]:
    return {
        name.replace("blocks.", "slowfast_model.feature_extraction.", 1): value
        for name, value in random_slowfast(MOTION).state_dict().items()
        if int(name.split(".")[1]) < 5
    }


def random_slowfast(config: MotionConfig, seed: int = 3) -> torch.nn.Module:
    """Pytorchvideo's whole network with weights and statistics at which every layer matters."""
    network = build_slowfast(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if "running" in name or name.endswith("norm.weight") or (".norm_" in name and name.endswith("weight")):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif value.is_floating_point():
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    return network
