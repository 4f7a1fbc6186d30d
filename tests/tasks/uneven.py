"""A small model whose examples differ: some need a part that others leave alone. Run as a script, it trains in a group.

``python uneven.py FOLDER JOB [JOB ...]``, each job a JSON mapping: changes of ``CONFIG``, and ``name`` (the folder of
the results), ``poison`` (a step with an infinite example), ``blind`` (a step where one micro-batch skips the encoder),
``lost`` (a step where every second micro-batch is left out), ``pause_s`` (after each step, so that a test can kill it).
"""

import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from tasks import group
from tasks.errors import StageError
from tasks.training.callbacks import Checkpoint
from tasks.training.config import TrainingConfig
from tasks.training.freezing import frozen_stays
from tasks.training.trainer import Callback, StepRecord, Trainer

CONFIG = TrainingConfig(
    engine="single", seed=3, threads=1, precision="float32", steps=8, batch_examples=18, micro_batches=6,
    learning_rate=0.01, weight_decay=0.05, warm_up_share=0.1, clip_norm=1.0, checkpoint_every=1, peak_flops=1e9,
)  # fmt: skip
WIDTH = 16
_STEPS = ("poison", "blind", "lost")


@dataclass(frozen=True)
class Points:
    """Points ``[N, 4]`` of which some move; ``blind`` leaves the encoder out."""

    x_N4: Tensor
    y_N: Tensor
    moves_N: Tensor
    example_ids: list[str]
    blind: bool = False

    @property
    def encodes(self) -> bool:
        return not self.blind


class Layer(GradientCheckpointingLayer):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.wide = nn.Linear(WIDTH, 2 * WIDTH)
        self.narrow = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.narrow(torch.tanh(self.wide(self.norm(hidden))))


class Uneven(nn.Module):
    """An encoder with a part for what moves (both trained), and a frozen decoder of bfloat16 numbers with a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(4, WIDTH)
        self.image_encoder = nn.ModuleList([Layer() for _ in range(3)])
        self.motion = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.language_model = nn.ModuleList([Layer() for _ in range(2)])
        self.head = nn.Linear(WIDTH, 1)
        self.register_buffer("offset", torch.tensor(0.1))
        for part in (self.language_model, self.head):
            part.bfloat16().float().requires_grad_(False)

    def forward(self, points: Points) -> Tensor:
        hidden = self.embedding(points.x_N4)
        for layer in () if points.blind else self.image_encoder:
            hidden = layer(hidden)
        if points.moves_N.any():
            hidden = hidden.clone()
            hidden[points.moves_N] = hidden[points.moves_N] + self.motion(points.x_N4[points.moves_N])
        for layer in self.language_model:
            hidden = layer(hidden)
        return self.head(hidden)[:, 0] + self.offset


class Squares:
    """Squared errors, of points that move and of those that stay."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Uneven()

    def losses(self, batch: Points) -> dict[str, Tensor]:
        error_N = (self.model(batch) - batch.y_N) ** 2
        found = {"moves": error_N[batch.moves_N], "stays": error_N[~batch.moves_N]}
        return {name: values for name, values in found.items() if len(values)}


class Steps:
    """Points of each step: in two of three steps the first micro-batch holds points that move, else none does."""

    def __init__(
        self, config: TrainingConfig, poison: int | None = None, blind: int | None = None, lost: int | None = None
    ) -> None:
        self._config, self._poison, self._blind, self._lost = config, poison, blind, lost

    def step(self, number: int) -> Sequence[Points]:
        count, parts = self._config.batch_examples, self._config.micro_batches
        x_N4 = torch.randn(count, 4, generator=torch.Generator().manual_seed(number))
        y_N = x_N4.sum(1) + x_N4[:, 0] * x_N4[:, 1]
        if number == self._poison:
            y_N[-1] = torch.inf
        moves_N = (torch.arange(count) < 2) & (number % 3 > 0)
        ids = [f"{number}-{i}" for i in range(count)]
        bounds = [round(k * count / parts) for k in range(parts + 1)]
        made = [
            Points(x_N4[a:b], y_N[a:b], moves_N[a:b], ids[a:b], blind=number == self._blind and a == 0)
            for a, b in itertools.pairwise(bounds)
        ]
        here = group.current()
        own = range(here.rank, parts, here.size)
        return [made[part] for part in own if number != self._lost or part % 2 == 0]


class Pause(Callback):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def after_step(self, trainer: Trainer[Any], record: StepRecord) -> None:
        del trainer, record
        time.sleep(self._seconds)


def train(folder: Path, job: dict[str, Any]) -> tuple[list[StepRecord], Uneven]:
    """Train as a job says; the checkpoint, the loss curve and the weights go to ``folder``."""
    changes = {key: value for key, value in job.items() if key not in {"name", "pause_s", *_STEPS}}
    config = dataclasses.replace(CONFIG, **changes)
    objective = Squares()
    callbacks = [Checkpoint(folder / "checkpoint.safetensors", config.checkpoint_every), Pause(job.get("pause_s", 0))]
    with frozen_stays(objective.model, config.frozen_precision):
        steps = Steps(config, *(job.get(name) for name in _STEPS))
        history = Trainer(objective, steps, config, callbacks).fit()
    if group.current().leads:
        (folder / "history.json").write_text(json.dumps([dataclasses.asdict(record) for record in history]))
        weights = {name: value.contiguous() for name, value in objective.model.state_dict().items()}
        save_file(weights, folder / "weights.safetensors")
    return history, objective.model


def main() -> None:
    for text in sys.argv[2:]:
        job = json.loads(text)
        folder = Path(sys.argv[1]) / job["name"]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            train(folder, job)
        except StageError as error:
            (folder / f"error-{group.current().rank}").write_text(str(error))
    group.leave()


if __name__ == "__main__":
    main()
