"""What a step costs: time, waiting for data, tokens, arithmetic, memory. Telemetry: nothing here changes a result.

All of it is measured in every step but the arithmetic, and so the MFU: operations are counted in one step of sixteen,
and in the steps between an example is taken to cost what it did at the last count. Steps mix tasks by the same shares,
so the MFU of a run is close; that of a step is off by as much as its media are larger or smaller than those counted.
"""

import re
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

_COUNT_EVERY: Final = 16
"""Steps between counts of floating-point operations: a count looks at every operation, per cents of a small step."""
_GEMM_SIDE: Final = 1024
_GEMM_RUNS: Final = 5

BF16_PEAKS: Final = {
    "B200": 2250e12,
    "H200": 989e12,
    "H200 NVL": 836e12,
    "H100 HBM3": 989e12,
    "H100 SXM5": 989e12,
    "H100 NVL": 836e12,
    "H100 PCIe": 756e12,
    "A100": 312e12,
    "A40": 149.7e12,
    "A30": 165e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L4": 121e12,
}
"""Words of a GPU's name -> dense bfloat16 operations a second, from NVIDIA's data sheets (half of what they print "with
sparsity"). A100s do as much on either socket; of an H100 the name has to tell which it is: drivers call the SXM one by
its memory, ``NVIDIA H100 80GB HBM3``."""
_PART_OF_A_GPU: Final = re.compile(r"\b(MIG|GRID)\b|-\d+[ABCQ]\b")
"""In the name of a slice (MIG, or a profile of vGPU), which cannot do what the whole GPU does."""


@dataclass(frozen=True)
class Share:
    """What one process did in a step.

    Attributes:
        wait_s: seconds until its examples were there.
        tokens: positions that the decoder computed, padding included.
        flops: floating-point operations of forward and backward pass, recomputation left out; counted in one step of
            sixteen, else those of as many examples of the last counted step.
        peak_bytes: most memory so far, of the GPU or else of the process.
    """

    wait_s: float
    tokens: int
    flops: float
    peak_bytes: int


@dataclass(frozen=True)
class StepCost:
    """What all processes did in a step: the longest wait, the largest memory, the sum of the rest.

    Attributes:
        peak_flops: what all processes together could do in a second.
    """

    seconds: float
    wait_s: float
    examples: int
    tokens: int
    flops: float
    peak_bytes: int
    peak_flops: float

    @classmethod
    def of(cls, shares: Sequence[Share], examples: int, seconds: float, peak_flops: float) -> "StepCost":
        """Put the processes' shares together; ``seconds`` are the same for all, since each waits for the others."""
        return cls(
            seconds=seconds,
            wait_s=max(share.wait_s for share in shares),
            examples=examples,
            tokens=sum(share.tokens for share in shares),
            flops=sum(share.flops for share in shares),
            peak_bytes=max(share.peak_bytes for share in shares),
            peak_flops=peak_flops,
        )

    def figures(self) -> dict[str, float]:
        """What people look at, by name; the MFU is an estimate in steps that are not counted."""
        return {
            "samples_per_s": self.examples / self.seconds,
            "tokens_per_s": self.tokens / self.seconds,
            "mfu": self.flops / self.seconds / self.peak_flops,
            "data_wait_share": self.wait_s / self.seconds,
            "peak_memory_gb": self.peak_bytes / 1e9,
        }


def _cpu_sdpa(q: Any, k: Any, v: Any, *_: object, out_val: object = None, **__: object) -> int:
    del out_val
    return sdpa_flop_count(q.shape, k.shape, v.shape)


def _cpu_sdpa_backward(grad: Any, q: Any, k: Any, v: Any, *_: object, out_val: object = None, **__: object) -> int:
    del out_val
    return sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)


_FORMULAS: Final = flop_registry | {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_sdpa,  # noqa: SLF001 - torch knows it for GPUs only
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_sdpa_backward,  # noqa: SLF001
}


class FlopCount(TorchDispatchMode):
    """Counts the operations of matrix products, convolutions and attention that run inside it (2 for a multiply-add).

    What runs is counted, so a frozen layer costs its forward pass and the gradient of its input, and one below the
    lowest trained layer its forward pass alone. A causal attention counts as a full one, as is usual. Operations of
    kernels that torch does not know are not counted.

    Attributes:
        flops: operations so far, without those of ``repeated``.
        repeated: operations that :attr:`backward` did again for activations that were not kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.repeated = 0.0, 0.0
        self.backward = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        del types
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = _FORMULAS.get(func._overloadpacket)  # noqa: SLF001 - how torch's own counter finds them
        if formula is not None:
            count = float(formula(*args, **kwargs, out_val=result))
            if self.backward and torch.is_grad_enabled():  # gradients are computed without, activations with grad mode
                self.repeated += count
            else:
                self.flops += count
        return result


class CostMeter:
    """Measures the steps of one process; between two counts an example is taken to cost what it did at the last one."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._device = device
        self._tokens, self._examples, self._per_example = 0, 0, 0.0
        self._started = self._wait_s = 0.0
        self._steps = 0
        self._count: FlopCount | None = None
        self._computing = False
        decoder = getattr(model, "language_model", None)
        self._hook = decoder.register_forward_hook(self._saw) if isinstance(decoder, nn.Module) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._hook is not None:
            self._hook.remove()

    def _saw(self, _: nn.Module, __: object, output: Any) -> None:
        if self._computing:
            hidden: Tensor = output.last_hidden_state
            self._tokens += hidden.shape[0] * hidden.shape[1]

    def begin(self) -> None:
        """A step begins."""
        self._tokens, self._examples, self._wait_s = 0, 0, 0.0
        self._count = FlopCount() if self._steps % _COUNT_EVERY == 0 else None
        self._steps += 1
        self._started = time.perf_counter()

    def ready(self, examples: int) -> None:
        """Its examples are there."""
        self._wait_s = time.perf_counter() - self._started
        self._examples = examples

    @contextmanager
    def computing(self, *, backward: bool = False) -> Iterator[None]:
        """Around each forward and each backward pass that belongs to the step."""
        self._computing = True
        if self._count is None:
            yield
        else:
            self._count.backward = backward
            with self._count:
                yield
        self._computing = False

    def share(self) -> Share:
        """What this process did in the step, once its gradients are computed."""
        if self._count is not None and self._examples:
            self._per_example = self._count.flops / self._examples
        return Share(self._wait_s, self._tokens, self._per_example * self._examples, _peak_bytes(self._device))

    def seconds(self) -> float:
        """Since the step began."""
        return time.perf_counter() - self._started


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@cache
def peak_flops(device: torch.device, precision: str) -> float:
    """What the device could do at most, operations a second: its data sheet's figure, or the best of some products.

    Args:
        precision: ``float32`` or ``bfloat16``; data sheets are asked for the latter alone.
    """
    if device.type == "cuda" and precision == "bfloat16":
        known = _known_peak(torch.cuda.get_device_name(device))
        if known is not None:
            return known
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left = torch.ones(_GEMM_SIDE, _GEMM_SIDE, dtype=dtype, device=device)
    best = min(_timed_product(left) for _ in range(_GEMM_RUNS))
    return 2.0 * _GEMM_SIDE**3 / best


def _known_peak(name: str) -> float | None:
    """The figure of the entry with most words that all stand in a GPU's name; None for a name that fits none."""
    if _PART_OF_A_GPU.search(name):
        return None
    words = set(re.split(r"[\s-]+", name.casefold()))
    fitting = [known for known in BF16_PEAKS if words.issuperset(known.casefold().split())]
    return BF16_PEAKS[max(fitting, key=lambda known: len(known.split()))] if fitting else None


def _timed_product(left: Tensor) -> float:
    started = time.perf_counter()
    product = left @ left
    if product.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
