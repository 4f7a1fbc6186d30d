"""How large a quality LMM is: parameters per part and the work of a motion frame, counted without any weight.

Models are built by their own classes on torch's meta device, which knows shapes and holds no numbers: a 14B model takes
a second and no memory. Shape legend: ``C`` channels, ``T`` frames, ``H`` and ``W`` pixels.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import InternVLConfig, InternVLForConditionalGeneration

from models.errors import ModelError
from models.motion import MotionConfig, MotionExtractor, MotionProjector

PARTS: Final[tuple[str, ...]] = ("image_encoder", "motion_extractor", "projectors", "decoder", "head")
"""Parts of a quality LMM in the order in which a sample passes them."""


@dataclass(frozen=True)
class FrameWork:
    """What one motion frame costs in the motion extractor; clips are linear in their frames.

    Attributes:
        forward: FLOPs of the convolutions, a multiplication with its addition counted as two.
        first: the part of it that the first convolution does, which has no gradient to pass on.
        kept: numbers that forward keeps for backward.
        picked: indices of maximum pooling that it keeps, eight bytes each.
    """

    forward: int
    first: int
    kept: int
    picked: int


@dataclass(frozen=True)
class ModelSize:
    """Sizes that the costs of a step follow from.

    Attributes:
        config: transformers' configuration of image encoder, projector and decoder.
        channels: width of a motion token.
        frame: what a motion frame costs.
        parameters: part -> number of parameters. An output table that is tied to the embeddings is one tensor, counted
            under ``decoder``; ``head`` is then 0.
        largest: part -> parameters in its largest tensor.
    """

    config: InternVLConfig
    channels: int
    frame: FrameWork
    parameters: dict[str, int]
    largest: dict[str, int]

    @property
    def tied(self) -> bool:
        """Whether the vocabulary head is the embedding table."""
        return self.parameters["head"] == 0


def measure_model(config: InternVLConfig, motion: MotionConfig, motion_px: int) -> ModelSize:
    """Count a model of these sizes.

    Args:
        motion_px: side of a motion frame.

    Raises:
        ModelError: the image encoder is of a kind whose costs are not known here.
    """
    vision: Any = config.vision_config
    if vision.use_qk_norm or vision.norm_type != "layer_norm":
        msg = (
            f"costs are known for image encoders with layer_norm and without qk_norm; this one has "
            f"norm_type {vision.norm_type!r} and use_qk_norm {vision.use_qk_norm}"
        )
        raise ModelError(msg)
    with torch.device("meta"):
        internvl = InternVLForConditionalGeneration(config)
        extractor = MotionExtractor(motion).eval()
        projector = MotionProjector(motion.channels, config.get_text_config().hidden_size)
    modules: dict[str, list[nn.Module]] = {
        "image_encoder": [internvl.model.vision_tower],
        "motion_extractor": [extractor],
        "projectors": [internvl.model.multi_modal_projector, projector],
        "decoder": [internvl.model.language_model],
        "head": [internvl.lm_head],
    }
    tensors = _tensors(modules)
    return ModelSize(
        config=config,
        channels=motion.channels,
        frame=frame_work(extractor, motion_px),
        parameters={part: sum(sizes) for part, sizes in tensors.items()},
        largest={part: max(sizes, default=0) for part, sizes in tensors.items()},
    )


def _tensors(modules: dict[str, list[nn.Module]]) -> dict[str, list[int]]:
    """Sizes of the tensors of each part; one that two parts share belongs to the first."""
    seen: set[int] = set()
    sizes: dict[str, list[int]] = {}
    for part, members in modules.items():
        new = {id(p): p.numel() for module in members for p in module.parameters() if id(p) not in seen}
        seen |= new.keys()
        sizes[part] = list(new.values())
    return sizes


def frame_work(extractor: MotionExtractor, px: int) -> FrameWork:
    """Walk one frame through an extractor on the meta device and add up its layers.

    Backward needs the input of every convolution, of every normalisation with stored statistics, and the output of
    every rectifier. A rectifier's output is the next layer's input, so what is kept is the frame itself and the
    outputs of convolutions, rectifiers and pooling.
    """
    forward: list[int] = []
    kept, picked = [3 * px * px], [0]

    def convolved(layer: Any, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        forward.append(2 * output.numel() * layer.weight[0].numel())
        kept.append(output.numel())

    def passed(_layer: Any, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kept.append(output.numel())

    def pooled(_layer: Any, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kept.append(output.numel())
        picked.append(output.numel())

    watch = {nn.Conv3d: convolved, nn.ReLU: passed, nn.MaxPool3d: pooled}
    handles = [
        module.register_forward_hook(hook)
        for module in extractor.modules()
        for kind, hook in watch.items()
        if isinstance(module, kind)
    ]
    with torch.no_grad():
        extractor(torch.empty(1, 3, 1, px, px, device="meta"))
    for handle in handles:
        handle.remove()
    return FrameWork(sum(forward), forward[0], sum(kept), sum(picked))
