"""Frozen means frozen: no gradient, no optimizer state, no dtype change, and the same bits afterwards."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.quality_lmm import QualityLMM
from tasks.errors import StageError

Part = Literal["image_encoder", "motion_extractor", "projector", "motion_projector", "decoder"]
"""A part of a quality LMM that learns or stays as a whole; the decoder includes its vocabulary head."""


def parts_of(model: QualityLMM) -> dict[Part, list[nn.Module]]:
    """The modules of every part, in the order in which a sample passes them."""
    return {
        "image_encoder": [model.image_encoder],
        "motion_extractor": [model.motion_extractor],
        "projector": [model.projector],
        "motion_projector": [model.motion_projector],
        "decoder": [model.language_model, model.internvl.lm_head],
    }


def train_only(model: nn.Module, parts: Iterable[nn.Module]) -> None:
    """Let the parameters of ``parts`` require gradients and no others; parts that share a parameter are fine."""
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)


def bits_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


@dataclass
class FreezeProof:
    """What a training run left untouched and what it moved.

    Attributes:
        trained: number of trained parameters.
        frozen: number of frozen parameters.
        frozen_sha256: hash of every frozen parameter and of every buffer, the same before and after.
    """

    trained: int
    frozen: int
    frozen_sha256: str


@contextmanager
def frozen_stays(model: nn.Module) -> Iterator[FreezeProof]:
    """Check on leaving that every parameter that needs no gradient, and every buffer, kept its bits.

    Raises:
        StageError: a frozen tensor changed, or none of the trained ones did.
    """
    trained_before = bits_of(_trained(model))
    proof = FreezeProof(_count(_trained(model)), _count(dict(_frozen_parameters(model))), bits_of(_frozen(model)))
    yield proof
    if bits_of(_frozen(model)) != proof.frozen_sha256:
        raise StageError("a frozen part of the model changed during training; its weights are not published")
    if bits_of(_trained(model)) == trained_before:
        raise StageError("training changed no weight; the model is not published")


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}


def _frozen_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, tensor) for name, tensor in model.named_parameters() if not tensor.requires_grad)


def _frozen(model: nn.Module) -> dict[str, Tensor]:
    return dict(_frozen_parameters(model)) | dict(model.named_buffers())


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())
