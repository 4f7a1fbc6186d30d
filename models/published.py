"""Quality LMMs from published weights: InternVL3 with SlowFast, or a checkpoint that the VITAL authors released.

Nothing is fetched; ``vital weights`` brings the files. What is built here is saved and read like every other model.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import torch
from transformers import (
    AutoTokenizer,
    InternVLForConditionalGeneration,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from models.checkpoint import (
    checkpoint_shards,
    load_internvl,
    require_files,
    require_same_tensors,
    shapes_of,
    shapes_of_config,
    tile_side,
)
from models.compatibility import RELEASED, Compatibility
from models.errors import MissingWeightsError, ModelError
from models.internvl_chat import SYSTEM, read_config, read_state, state_of
from models.motion import SLOWFAST_R50, MotionConfig, MotionExtractor, MotionProjector, load_slowfast_checkpoint
from models.quality_lmm import QualityLMM
from models.tokenizer import IMAGE_CONTEXT
from models.vision_encoder import PAPER_SPEC, RELEASED_SPEC, VisualSpec

_REMEDY: Final = "put the whole snapshot of the hub there"


@dataclass(frozen=True)
class MotionStart:
    """What the motion parts of a model start from; InternVL3 has none.

    Attributes:
        checkpoint: official SlowFast weights for the extractor.
        seed: of the projector's weights, which the released code draws anew (and, as far as its scripts show, the paper
            then freezes).
        config: size of the extractor.
    """

    checkpoint: Path
    seed: int
    config: MotionConfig = SLOWFAST_R50


def from_internvl(
    folder: Path,
    motion: MotionStart,
    spec: VisualSpec = PAPER_SPEC,
    system: str = SYSTEM,
    dtype: torch.dtype = torch.float32,
) -> QualityLMM:
    """The model that pre-training starts from: an InternVL3 of transformers' layout, SlowFast, and a drawn projector.

    Args:
        folder: snapshot of ``OpenGVLab/InternVL3-*-hf`` (see :func:`models.weights.snapshot_folder`).
        system: system message; the paper keeps InternVL3's.
        dtype: type of all weights.

    Raises:
        MissingWeightsError: a file is missing; the message says which and where it belongs.
        ModelError: a file does not hold what it should.
    """
    require_files(folder, ("config.json", "tokenizer.json", "tokenizer_config.json"), "InternVL checkpoint", _REMEDY)
    extractor = MotionExtractor(motion.config)
    load_slowfast_checkpoint(extractor, motion.checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    internvl = load_internvl(folder, dtype, _REMEDY)
    projector = MotionProjector(motion.config.channels, internvl.config.get_text_config().hidden_size)
    projector.start_anew(torch.Generator().manual_seed(motion.seed))
    return QualityLMM(internvl, extractor.to(dtype), projector.to(dtype), tokenizer, spec, system).eval()


def from_released(
    folder: Path,
    compatibility: Compatibility = RELEASED,
    motion: MotionConfig = SLOWFAST_R50,
    dtype: torch.dtype = torch.float32,
) -> QualityLMM:
    """A model from a snapshot of ``JZHWS/VITAL-*``, whose tensors have the older names of InternVLChat.

    Args:
        compatibility: the departures that its weights were trained with.
        motion: size of its motion extractor; the order of its features is the compatibility's.
        dtype: type of all weights.

    Raises:
        MissingWeightsError: a file is missing; the message says which and where it belongs.
        ModelError: a tensor is unknown, missing or of another shape than the configuration says.
    """
    what = "released VITAL checkpoint"
    shards = checkpoint_shards(folder, what, _REMEDY)
    tokenizer = _released_tokenizer(folder)
    config, system = read_config(folder, cast("int", tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT)))
    state = read_state(shards)
    extractor = MotionExtractor(dataclasses.replace(motion, permuted=not compatibility.unpermuted_motion))
    projector = MotionProjector(extractor.config.channels, config.get_text_config().hidden_size)
    internvl_state = state_of(state, "internvl")
    require_same_tensors(shapes_of(internvl_state), shapes_of_config(config), f"{folder} does not fit its config.json")
    for part, module in (("motion_extractor", extractor), ("motion_projector", projector)):
        own = state_of(state, part)
        require_same_tensors(shapes_of(own), shapes_of(module.state_dict()), f"{folder}, {part}")
        module.load_state_dict(own)
    internvl = InternVLForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=internvl_state, dtype=dtype
    )
    side = tile_side(internvl)
    spec = dataclasses.replace(RELEASED_SPEC, tile_px=side, motion_px=side, compatibility=compatibility)
    fast = cast("PreTrainedTokenizerFast", tokenizer)
    return QualityLMM(internvl, extractor.to(dtype), projector.to(dtype), fast, spec, system).eval()


def _released_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Qwen2.5's tokenizer with InternVL's tokens, from ``tokenizer.json`` or from ``vocab.json`` and its companions.

    Raises:
        MissingWeightsError: neither is there.
        ModelError: the tokenizer lacks the token that stands for a visual one.
    """
    if not (folder / "tokenizer.json").is_file():
        companions = ("vocab.json", "merges.txt", "added_tokens.json")
        try:
            require_files(folder, companions, "tokenizer", _REMEDY)
        except MissingWeightsError as error:
            msg = f"{error} (or tokenizer.json, which replaces {', '.join(companions)})"
            raise MissingWeightsError(msg) from error
    tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
    if IMAGE_CONTEXT not in tokenizer.get_vocab():
        msg = f"the tokenizer in {folder} has no token {IMAGE_CONTEXT}: it is not InternVL's"
        raise ModelError(msg)
    return tokenizer
