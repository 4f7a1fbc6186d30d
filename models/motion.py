"""Motion extractor and its projector: the fast pathway of SlowFast, one token per motion frame.

Shape legend: ``B`` clips, ``C`` colour channels, ``T`` frames, ``H`` and ``W`` pixels, ``M`` motion channels,
``D`` decoder width.

The paper uses the fast pathway's output alone (VITAL section 3; released code, ``modeling_internvl_chat.py``). In
SlowFast information flows from the fast pathway to the slow one and never back, so the slow pathway cannot change that
output: it is built by pytorchvideo and left out, under unchanged tensor names, so official checkpoints load by name.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from models.checkpoint import require_same_tensors, shapes_of
from models.errors import MissingWeightsError, ModelError

_TRUNK_BLOCKS: Final = 5  # stem and four residual stages; then follow pooling and the classification head
_FAST: Final = 1  # index of the fast pathway in every block


@dataclass(frozen=True)
class MotionConfig:
    """Size of the SlowFast network.

    Attributes:
        depth: 18 or 50: blocks per stage of pytorchvideo's residual stages.
        slow_width: stem channels of the slow pathway (64 in SlowFast-R50).
        channel_ratio: slow width divided by fast width (8 in SlowFast-R50).
        permuted: True gives one token per frame. False repeats the released code, which reinterprets ``[M, T]`` memory
            as ``[T, M]``: needed only with the authors' motion projector.
    """

    depth: int
    slow_width: int
    channel_ratio: int
    permuted: bool = True

    @property
    def channels(self) -> int:
        """Width ``M`` of a motion token: the fast pathway's last stage."""
        return 32 * self.slow_width // self.channel_ratio


TINY_MOTION: Final = MotionConfig(depth=18, slow_width=32, channel_ratio=4)
SLOWFAST_R50: Final = MotionConfig(depth=50, slow_width=64, channel_ratio=8)


def build_slowfast(config: MotionConfig) -> nn.Module:
    """Build pytorchvideo's SlowFast: both pathways and the Kinetics-400 head (R50: 34,566,488 parameters)."""
    from pytorchvideo.models.slowfast import create_slowfast  # noqa: PLC0415 - slow import, video models only

    return create_slowfast(
        model_depth=config.depth,
        stem_dim_outs=(config.slow_width, config.slow_width // config.channel_ratio),  # type: ignore[arg-type]
        slowfast_channel_reduction_ratio=(config.channel_ratio,),
    )


class MotionExtractor(nn.Module):
    """Fast pathway with spatial average pooling.

    Batch statistics never enter: normalisation layers use their stored statistics in training too, so a clip's tokens
    do not depend on its neighbours in a batch; :meth:`live_statistics` opens them for the base stage.
    """

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config = config
        network = build_slowfast(config)
        self.blocks = nn.ModuleList(list(network.get_submodule("blocks").children())[:_TRUNK_BLOCKS])
        for block in self.blocks:
            block.multipathway_blocks[0] = None  # type: ignore[index]
            block.multipathway_fusion = None  # type: ignore[assignment]
        self._live = False
        self.train(self.training)

    def train(self, mode: bool = True) -> "MotionExtractor":  # noqa: FBT001, FBT002 - torch's signature
        """Switch dropout-like behaviour, but keep normalisation on stored statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.train(self._live)
        return self

    @contextmanager
    def live_statistics(self) -> Iterator[None]:
        """Let normalisation layers use and store the statistics of the batch (only while a base is made)."""
        self._live = True
        self.train(self.training)
        try:
            yield
        finally:
            self._live = False
            self.train(self.training)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        """Motion tokens ``[B, T, M]`` of normalised clips; the number of frames is kept."""
        pathways: list[Tensor | None] = [None, clips_BCTHW]
        for block in self.blocks:
            pathways = block(pathways)
        fast_BMTHW = pathways[_FAST]
        if fast_BMTHW is None:
            msg = "the fast pathway has no output"
            raise ModelError(msg)
        pooled_BMT = fast_BMTHW.mean(dim=(3, 4))
        if self.config.permuted:
            return pooled_BMT.transpose(1, 2)
        return pooled_BMT.reshape(pooled_BMT.shape[0], pooled_BMT.shape[2], pooled_BMT.shape[1])


class MotionProjector(nn.Module):
    """LayerNorm, linear, GELU, linear: motion channels to decoder width (VITAL section 3)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(channels)
        self.linear_1 = nn.Linear(channels, width)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(width, width)

    def start_anew(self, generator: torch.Generator) -> None:
        """Draw the weights that the released code starts with (InternVL3 has none): U(0, .01), biases 0."""
        for linear in (self.linear_1, self.linear_2):
            nn.init.uniform_(linear.weight, 0.0, 0.01, generator=generator)
            nn.init.zeros_(linear.bias)

    def forward(self, motion_BTM: Tensor) -> Tensor:
        """Motion tokens ``[B, T, D]`` in the decoder's space."""
        return self.linear_2(self.act(self.linear_1(self.layer_norm(motion_BTM))))


def load_slowfast_checkpoint(extractor: MotionExtractor, path: Path) -> None:
    """Load the fast pathway of an official SlowFast checkpoint by tensor name.

    Args:
        path: pytorchvideo's ``SLOWFAST_8x8_R50.pyth`` (``{"model_state": {...}}``: both pathways and the Kinetics head)
            or a plain state dict; only tensors are unpickled.

    Raises:
        MissingWeightsError: the file is not there.
        ModelError: it holds code, no SlowFast by pytorchvideo's names, or one of another size.
    """
    if not path.is_file():
        msg = f"SlowFast weights: put pytorchvideo's SLOWFAST_8x8_R50.pyth at {path}: vital weights fetch or add"
        raise MissingWeightsError(msg)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        msg = f"{path} is not a file of tensors alone: {' '.join(str(error).split())[:160]}"
        raise ModelError(msg) from error
    state = loaded.get("model_state", loaded) if isinstance(loaded, dict) else {}
    fast = {name: value for name, value in state.items() if f".multipathway_blocks.{_FAST}." in name}
    if not fast:
        msg = f"{path} holds no SlowFast by pytorchvideo's names; it begins with {', '.join(map(str, list(state)[:2]))}"
        raise ModelError(msg)
    require_same_tensors(shapes_of(fast), shapes_of(extractor.state_dict()), f"{path} is not SlowFast of this size")
    extractor.load_state_dict(fast)
