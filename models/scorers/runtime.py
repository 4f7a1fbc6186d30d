"""How a scorer's network runs by torch: where, how precisely, in which memory format, how many clips a pass.

Importing this module does not import torch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from models.errors import ModelError
from models.scorers.protocol import Pixels, Scorer

if TYPE_CHECKING:
    import torch
    from torch import nn

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Runtime:
    """How a network runs; anything but the default changes the last digits of scores, or more.

    Attributes:
        device: ``cuda`` is the first GPU that the process sees.
        precision: ``bf16`` is autocast: products in bfloat16, sums and norms in fp32. ``fp32`` never means TF32.
        channels_last: whether images and clips lie in memory channel by channel within a pixel.
        rows: frames or clips in a forward pass.
    """

    device: Device = "cpu"
    precision: Precision = "fp32"
    channels_last: bool = False
    rows: int = 1

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError("a forward pass must have at least one row")

    @property
    def suffix(self) -> str:
        """What it adds to a scorer's version in the opinion store; nothing where it is the default."""
        parts = [
            self.device if self.device != "cpu" else "",
            self.precision if self.precision != "fp32" else "",
            "channels_last" if self.channels_last else "",
            f"{self.rows}rows" if self.rows > 1 else "",
        ]
        return "".join(f"+{part}" for part in parts if part)

    @property
    def exact(self) -> "Runtime":
        """The same device and rows in fp32 and the usual memory format."""
        return Runtime(self.device, rows=self.rows)


@runtime_checkable
class TorchScorer(Scorer, Protocol):
    """A scorer that can be told how to run, and that takes several media at once.

    A score is a function of the medium and the runtime: the company of other media in a pass does not change it.
    """

    @property
    def runtime(self) -> Runtime:
        """How it runs now; the default when it was just loaded."""
        ...

    def run_as(self, runtime: Runtime) -> None:
        """Run in another way from now on.

        Raises:
            ModelError: this machine has no such device.
        """
        ...

    def score_many(self, media: Sequence[Pixels]) -> list[float]:
        """Calibrated scores, one per medium: what :meth:`score` gives for each alone."""
        ...


class RunsByTorch:
    """What every ``TorchScorer`` of ours does alike: it holds a network and is told how that runs."""

    def __init__(self, network: Any) -> None:
        self._network, self._runtime = network, Runtime()

    @property
    def runtime(self) -> Runtime:
        """How the network runs; the default when it was just loaded."""
        return self._runtime

    def run_as(self, runtime: Runtime) -> None:
        """Run in another way from now on.

        Raises:
            ModelError: this machine has no such device.
        """
        place(self._network, runtime)
        self._runtime = runtime


def place(network: "nn.Module", runtime: Runtime) -> None:
    """Bring a network to its device and memory format; its values stay.

    Raises:
        ModelError: this machine has no such device.
    """
    import torch  # noqa: PLC0415 - built-in scorers do without it

    if runtime.device == "cuda":
        if not torch.cuda.is_available():
            raise ModelError("this process sees no GPU: set score.torch.device to cpu")
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    network.to(runtime.device)
    for parameter in network.parameters():
        parameter.data = in_format(parameter.data, runtime)


def in_format(values: "torch.Tensor", runtime: Runtime) -> "torch.Tensor":
    """A tensor of images ``[N, C, H, W]`` or clips ``[N, C, T, H, W]`` in the runtime's memory format; others as is."""
    import torch  # noqa: PLC0415

    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    wanted = formats.get(values.dim()) if runtime.channels_last else torch.contiguous_format
    return values if wanted is None else values.contiguous(memory_format=wanted)


@contextmanager
def passes(runtime: Runtime) -> Iterator[None]:
    """Context of forward passes: no gradients, and autocast where the precision is bfloat16."""
    import torch  # noqa: PLC0415

    with (
        torch.inference_mode(),
        torch.autocast(runtime.device, torch.bfloat16, enabled=runtime.precision == "bf16"),
    ):
        yield
