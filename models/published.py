"""Models from published weights: InternVL3 with SlowFast, or a checkpoint that the VITAL authors released.

What they released looks at media as they train or as they evaluate (:data:`AS_TRAINED`, :data:`AS_EVALUATED`).
Nothing is fetched; ``vital weights`` brings the files. What is built here is saved and read like every other model.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    InternVLForConditionalGeneration,
    InternVLVisionModel,
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
from models.internvl_chat import SYSTEM, read_config, read_state, read_vision_config, state_of
from models.motion import SLOWFAST_R50, MotionConfig, MotionExtractor, MotionProjector, load_slowfast_checkpoint
from models.probe_head import QualityProbe
from models.quality_lmm import QualityLMM
from models.tokenizer import IMAGE_CONTEXT
from models.vision_encoder import PAPER_SPEC, RELEASED_SPEC, VisualSpec, save_encoder

_REMEDY: Final = "put the whole snapshot of the hub there"
_RELEASED: Final = "released VITAL checkpoint"

AS_TRAINED: Final = dataclasses.replace(RELEASED, evaluation_sentences=False)
"""Their training code: every eighth frame is looked at, and the sentence is that of their training records."""
AS_EVALUATED: Final = dataclasses.replace(RELEASED, frame_stride=1)
"""Their scoring code, ``eval/internvl_chat_finetune.py``: every frame is looked at, and the sentence is another."""
AS_PROBED: Final = Compatibility(frame_stride=1, imagenet_motion=True)
"""Their linear probe, which trains and evaluates alike: motion features keep their order; it knows videos alone."""

_PROBE_STEP: Final = 6
"""Their probe reads the layers 7, 13 and 19 of 24 (6, 12 and 18, counted from 0)."""


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
    compatibility: Compatibility = AS_EVALUATED,
    motion: MotionConfig = SLOWFAST_R50,
    dtype: torch.dtype = torch.float32,
) -> QualityLMM:
    """A model from a snapshot of ``JZHWS/VITAL-*``, whose tensors have the older names of InternVLChat.

    Args:
        compatibility: the departures with which it looks at media; :data:`AS_TRAINED` for whoever trains it further.
        motion: size of its motion extractor; the order of its features is the compatibility's.
        dtype: type of all weights.

    Raises:
        MissingWeightsError: a file is missing; the message says which and where it belongs.
        ModelError: a tensor is unknown, missing or of another shape than the configuration says.
    """
    shards = checkpoint_shards(folder, _RELEASED, _REMEDY)
    tokenizer = _released_tokenizer(folder)
    config, system = read_config(folder, cast("int", tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT)))
    state = read_state(shards)
    if state_of(state, "head"):
        msg = f"{folder} holds a linear probe, not a whole model"
        raise ModelError(msg)
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


@dataclass(frozen=True)
class ReleasedEncoder:
    """The part of a released checkpoint that looks at media."""

    image_encoder: InternVLVisionModel
    motion_extractor: MotionExtractor

    def save_pretrained(self, folder: Path) -> None:
        """Write it as :func:`models.vision_encoder.save_encoder` does."""
        save_encoder(self, folder)


def encoder_from_released(
    folder: Path, motion: MotionConfig = SLOWFAST_R50, dtype: torch.dtype = torch.float32
) -> ReleasedEncoder:
    """Image encoder and motion extractor of ``JZHWS/VITAL-Vision-Encoder-300M``, or of any other released checkpoint.

    Projectors, a decoder or a head beside them are left alone: which of them that snapshot still holds is not known.

    Args:
        motion, dtype: as of :func:`from_released`.

    Raises:
        MissingWeightsError: a file is missing; the message says which and where it belongs.
        ModelError: a tensor of the encoder is missing or of another shape than the configuration says.
    """
    state = read_state(checkpoint_shards(folder, _RELEASED, _REMEDY))
    encoder, extractor = InternVLVisionModel(read_vision_config(folder)), MotionExtractor(motion)
    parts: dict[str, nn.Module] = {"internvl.model.vision_tower": encoder, "motion_extractor": extractor}
    for part, module in parts.items():
        own = state_of(state, part)
        require_same_tensors(shapes_of(own), shapes_of(module.state_dict()), f"{folder}, {part}")
        module.load_state_dict(own)
        module.to(dtype).eval()
    return ReleasedEncoder(encoder, extractor)


def probe_from_released(
    folder: Path, motion: MotionConfig = SLOWFAST_R50, dtype: torch.dtype = torch.float32
) -> QualityProbe:
    """The probe of ``JZHWS/VITAL-Linear-Probe``, with its own readout; its head's classes are turned best first.

    Args:
        motion, dtype: as of :func:`from_released`.

    Raises:
        MissingWeightsError: a file is missing; the message says which and where it belongs.
        ModelError: there is no head, or a tensor is missing or of another shape than the network's.
    """
    encoder = encoder_from_released(folder, motion, dtype)
    head = state_of(read_state(checkpoint_shards(folder, _RELEASED, _REMEDY)), "head")
    if not head:
        msg = f"{folder} holds no linear probe"
        raise ModelError(msg)
    head |= {name: value.flip(0) for name, value in head.items() if name.startswith("outer.")}
    width = len(head["inner.bias"]) if "inner.bias" in head else 1
    size: Any = encoder.image_encoder.config
    depth, side = int(size.num_hidden_layers), int(size.image_size[0])
    spec = dataclasses.replace(RELEASED_SPEC, tile_px=side, motion_px=side, compatibility=AS_PROBED)
    layers = range(_PROBE_STEP + 1, depth + 1, _PROBE_STEP)
    probe = QualityProbe(encoder.image_encoder, encoder.motion_extractor, spec, layers, width, "released")
    require_same_tensors(shapes_of(head), shapes_of(probe.head.state_dict()), f"{folder}, head")
    probe.head.load_state_dict(head)
    return probe.to(dtype).eval()


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
