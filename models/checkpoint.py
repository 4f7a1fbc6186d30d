"""InternVL checkpoints on disk: plain transformers folders whose image encoder has a shard of its own."""

import json
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from transformers import InternVLForConditionalGeneration

from models.errors import MissingWeightsError

_ENCODER_SHARD: Final = "model-00001-of-00002.safetensors"
_DECODER_SHARD: Final = "model-00002-of-00002.safetensors"
_INDEX: Final = "model.safetensors.index.json"
_VISION_KEY: Final = "vision_tower."


def save_shards(internvl: InternVLForConditionalGeneration, folder: Path) -> None:
    """Write the weights as image encoder shard, projector and decoder shard, and their index.

    Decoders on one encoder then have a byte-identical first shard, which a content-addressed store keeps once.
    """
    tied = internvl.config.tie_word_embeddings
    state = {
        name: value.detach().contiguous()
        for name, value in internvl.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    places = {name: _ENCODER_SHARD if _VISION_KEY in name else _DECODER_SHARD for name in state}
    for shard in (_ENCODER_SHARD, _DECODER_SHARD):
        tensors = {name: value for name, value in state.items() if places[name] == shard}
        save_file(tensors, folder / shard, metadata={"format": "pt"})
    size = sum(value.numel() * value.element_size() for value in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / _INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def load_internvl(folder: Path) -> InternVLForConditionalGeneration:
    """Read an InternVL checkpoint as float32, whatever it is stored as; nothing is fetched.

    Raises:
        MissingWeightsError: the checkpoint is not complete.
    """
    try:
        return InternVLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except OSError as error:
        msg = f"{folder} has no complete InternVL checkpoint: {error}"
        raise MissingWeightsError(" ".join(msg.split())) from error
