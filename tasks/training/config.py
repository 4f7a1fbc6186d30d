"""How a model is trained: the numbers of a training loop, and the learning rate that they give each step."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.stage import RESUMABLE, lasting

EngineName = Literal["single", "zero1", "zero2", "zero3"]
Recompute = Literal["none", "encoder", "decoder", "both"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained (VITAL section 4, implementation details).

    Fields marked ``RESUMABLE`` say how steps are computed, not which: they change sums in their last digits at most,
    and a run that was killed may go on under other values. Every other number changes the result.

    Attributes:
        engine: what runs a step; ``single`` is one process, ``zero1`` to ``zero3`` are DeepSpeed's ZeRO stages.
        threads: CPU threads of each process; they order the sums, so they belong to the result.
        precision: ``bfloat16`` computes under autocast; trained weights, gradients and optimizer stay float32.
        steps: optimizer steps.
        batch_examples: examples per step, over all processes; a pair is one example with two media.
        micro_batches: parts that a step's examples are computed in, over all processes, to bound memory; rounded up to
            a multiple of their number.
        warm_up_share: share of the steps over which the rate rises linearly; it then falls as a cosine to 0.
        clip_norm: bound on the gradient's global L2 norm.
        checkpoint_every: steps between checkpoints.
        device: ``cuda`` gives each process a GPU of its own.
        processes: processes that share a step, over all machines.
        recompute: whose layers keep their inputs alone and are computed anew in the backward pass: less memory for more
            arithmetic, another forward pass of that part. ``vital plan`` tells which part needs it.
        frozen_precision: ``bfloat16`` holds frozen matrices in half the memory where that loses nothing, see
            ``tasks.training.freezing``; no number changes.
        peak_flops: what one process could do at most, floating-point operations a second, for the MFU; None takes the
            data sheet's figure for a known GPU and measures anything else.
    """

    engine: EngineName = field(metadata=RESUMABLE)
    seed: int
    threads: int
    precision: Precision
    steps: int
    batch_examples: int
    micro_batches: int
    learning_rate: float
    weight_decay: float
    warm_up_share: float
    clip_norm: float
    checkpoint_every: int = field(metadata=RESUMABLE)
    device: Literal["cpu", "cuda"] = "cpu"
    processes: int = field(default=1, metadata=RESUMABLE)
    recompute: Recompute = field(default="none", metadata=RESUMABLE)
    frozen_precision: Precision = field(default="float32", metadata=RESUMABLE)
    peak_flops: float | None = field(default=None, metadata=RESUMABLE)

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("threads", "steps", "batch_examples", "micro_batches", "checkpoint_every", "processes"):
            if getattr(self, name) < 1:
                msg = f"{name} must be at least 1"
                raise ValueError(msg)
        if not 0.0 <= self.warm_up_share < 1.0:
            raise ValueError("warm_up_share must lie in [0, 1)")
        if self.learning_rate <= 0.0 or self.clip_norm <= 0.0:
            raise ValueError("learning_rate and clip_norm must be positive")
        if self.peak_flops is not None and self.peak_flops <= 0.0:
            raise ValueError("peak_flops must be positive, or null")
        if self.frozen_precision == "bfloat16" and self.precision != "bfloat16":
            raise ValueError(
                "frozen_precision bfloat16 needs precision bfloat16, under which products are of that type"
            )
        if self.engine == "single" and self.processes > 1:
            raise ValueError("engine single is one process: processes must be 1, or the engine zero1, zero2 or zero3")
        if min(self.micro_batches, self.batch_examples) < self.processes:
            msg = f"micro_batches and batch_examples must be at least processes ({self.processes}): each takes a part"
            raise ValueError(msg)

    def lasting(self) -> dict[str, Any]:
        """The values that a checkpoint depends on: all but the resumable ones."""
        return lasting(TrainingConfig, dataclasses.asdict(self))


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Rate of step ``step`` (from 0): linear over the warm-up share, then a cosine that would reach 0 at ``steps``."""
    rising = round(config.warm_up_share * config.steps)
    if step < rising:
        return config.learning_rate * (step + 1) / (rising + 1)
    done = (step - rising) / max(1, config.steps - rising)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
