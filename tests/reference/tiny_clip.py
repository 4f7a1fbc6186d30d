"""A CLIP of a few thousand parameters, as a plain transformers folder."""

import string
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer


def write_clip(folder: Path) -> Path:
    """Joint space 16, tiles of 28 px, 20 tokens of text, a token a letter."""
    letters = [*string.ascii_lowercase, *string.punctuation, *string.digits]
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    shared = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": len(names) - 2, "eos_token_id": len(names) - 1, "pad_token_id": len(names) - 1}
    config = CLIPConfig(
        text_config={**shared, **ends, "vocab_size": len(names), "max_position_embeddings": 22, "projection_dim": 16},
        vision_config={**shared, "image_size": 28, "patch_size": 14, "projection_dim": 16},
        projection_dim=16,
    )
    torch.manual_seed(11)
    CLIPModel(config).eval().save_pretrained(folder)
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    return folder
