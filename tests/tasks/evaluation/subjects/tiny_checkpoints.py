"""Checkpoints of three families of transformers, so small that a test can make them; tokenizers trained on the spot."""

from pathlib import Path
from typing import Any

import torch
from tiny_lmm import make_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from models.plain_export import export_plain
from models.vision_encoder import VisualSpec

WORDS = "high good fair poor low The quality of the image video is Describe Rate it sharp noise text a says person"
FAMILIES = ("qwen2_vl", "llava", "idefics3", "internvl")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for p in m['content'] %}{% if p['type'] == 'image' %}"
    "IMAGE{% else %}{{ p['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPOKEN = (
    "{% for m in messages %}{{ m['role'].upper() }}: {% for p in m['content'] %}{% if p['type'] == 'image' %}IMAGE\n"
    "{% else %}{{ p['text'] }}{% endif %}{% endfor %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""As some families lay chats out: no token opens the answer, and a space stands before it."""


def tokenizer(*special: str) -> PreTrainedTokenizerFast:
    """Bytes and a few whole words; the end of a turn ends an answer."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    tokens = [AddedToken(token, special=True) for token in ("<|im_end|>", "<|im_start|>", *special)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=tokens, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    plain.train_from_iterator([f" {word} {word}" for word in WORDS.split()] * 3, trainer)
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return PreTrainedTokenizerFast(tokenizer_object=plain, **ends)


def make(family: str, folder: Path) -> Path:
    """Write a checkpoint with random weights."""
    torch.manual_seed(1)
    if family == "internvl":
        spec = VisualSpec(56, "dynamic", 56, 0, 0, 2, 4, 0, 32, 0.45, 0.225, 100)
        export_plain(make_model(spec=spec), folder)
        return folder
    model, processor = {"qwen2_vl": _qwen, "llava": _llava, "idefics3": _idefics}[family]()
    with torch.no_grad():  # weights start tiny; make every part matter
        for value in model.parameters():
            value.add_(0.05 * torch.randn_like(value))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _text(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
    }


def _qwen() -> tuple[Any, Any]:
    words = tokenizer("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start")}
    config = Qwen2VLConfig(
        text_config=_text(words) | {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 8},
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=words.convert_tokens_to_ids("<|vision_end|>"),
    )
    size = {"shortest_edge": 16 * 16, "longest_edge": 48 * 48}
    images = Qwen2VLImageProcessor(patch_size=8, size=size)
    template = CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = Qwen2VLProcessor(images, words, Qwen2VLVideoProcessor(patch_size=8, size=size), template)
    return Qwen2VLForConditionalGeneration(config), processor


def _llava() -> tuple[Any, Any]:
    words = tokenizer("<image>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        ),
        text_config=LlamaConfig(**_text(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        images,
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=SPOKEN.replace("IMAGE", "<image>"),
    )
    return LlavaForConditionalGeneration(config), processor


def _idefics() -> tuple[Any, Any]:
    words = tokenizer("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    config = Idefics3Config(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "image_size": 32, "patch_size": 8,
        },
        text_config={"model_type": "llama", **_text(words)},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=words.pad_token_id,
    )  # fmt: skip
    images = Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    template = SPOKEN.replace("IMAGE", "<image>")
    return Idefics3ForConditionalGeneration(config), Idefics3Processor(images, words, 4, template)
