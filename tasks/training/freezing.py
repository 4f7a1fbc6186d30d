"""Frozen means frozen: no gradient, no optimizer state, and the same type and bits afterwards.

Meanwhile a frozen matrix may be held in bfloat16, in half the memory, if that loses nothing: products under autocast
are of bfloat16 copies anyway, the loss head reads weights as the numbers that they are, and rows of an embedding are
widened as they leave it. So no number of the training changes. Vectors stay float32, like everything that learns.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from models.quality_lmm import QualityLMM
from tasks.errors import StageError
from tasks.training.config import Precision

log = logging.getLogger(__name__)

Part = Literal["image_encoder", "motion_extractor", "projector", "motion_projector", "decoder"]
"""A part of a quality LMM that learns or stays as a whole; the decoder includes its vocabulary head."""

_MATRICES: Final = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)
"""Modules whose weight enters products, or is read row by row."""


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
    """Let the parameters of ``parts`` require gradients and no others; parts that share a parameter are fine.

    What learns is held in float32, whatever it was read as.
    """
    model.requires_grad_(False)
    for part in parts:
        part.float().requires_grad_(True)


def hold_frozen(model: nn.Module, precision: Precision) -> Callable[[], None]:
    """Hold what is frozen as a training of this precision reads it.

    Under ``bfloat16`` frozen matrices whose numbers all are bfloat16 are held so; the rest is held in float32.

    Returns:
        Call it after the training: the model's frozen parameters and buffers get back the types that they had.
    """
    before = {name: tensor.dtype for name, tensor in _frozen(model).items()}
    narrow = _exact_matrices(model) if precision == "bfloat16" else {}
    for name, tensor in _frozen(model).items():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.bfloat16 if name in narrow else torch.float32)
    held = {id(tensor) for tensor in narrow.values()}
    embeddings = [one for one in model.modules() if isinstance(one, nn.Embedding) and id(one.weight) in held]
    hooks = [one.register_forward_hook(_widened) for one in embeddings]
    if precision == "bfloat16":
        log.info(
            "%d of %d frozen weights are held in bfloat16", _count(narrow), _count(dict(_frozen_parameters(model)))
        )

    def release() -> None:
        for hook in hooks:
            hook.remove()
        for name, tensor in _frozen(model).items():
            tensor.data = tensor.data.to(before[name])

    return release


def _exact_matrices(model: nn.Module) -> dict[str, Tensor]:
    """Frozen weights that matrix modules alone have, and that bfloat16 holds to the bit, by name."""
    weights: set[int] = set()
    others: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            (weights if isinstance(module, _MATRICES) and name == "weight" else others).add(id(parameter))
    found = {name: tensor for name, tensor in _frozen_parameters(model) if id(tensor) in weights - others}
    return {name: tensor for name, tensor in found.items() if torch.equal(tensor.bfloat16().to(tensor.dtype), tensor)}


def _widened(_module: nn.Module, _inputs: Any, rows: Tensor) -> Tensor:
    return rows.float()


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
def frozen_stays(model: nn.Module, precision: Precision = "float32") -> Iterator[FreezeProof]:
    """Check on leaving that every parameter that needs no gradient, and every buffer, has the type and bits it had.

    Args:
        precision: how they are held inside, see :func:`hold_frozen`.

    Raises:
        StageError: a frozen tensor changed, or none of the trained ones did.
    """
    trained_before = bits_of(_trained(model))
    proof = FreezeProof(_count(_trained(model)), _count(dict(_frozen_parameters(model))), bits_of(_frozen(model)))
    release = hold_frozen(model, precision)
    yield proof
    release()
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
