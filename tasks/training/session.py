"""What every training stage does around the loop: its part of the data, its callbacks, and the numbers it reports."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from infra.needs import gpu_memories_gb
from tasks.pool import load_candidates
from tasks.records import Split
from tasks.stage import Place
from tasks.training.batches import Example, MediumSource, Mixture, check_splits, read_examples, select_examples
from tasks.training.callbacks import Checkpoint, Progress, Speed
from tasks.training.objective import QualityObjective
from tasks.training.telemetry import Telemetry
from tasks.training.trainer import StepRecord, Trainer, TrainingConfig

_EDGE = 20
"""The ends of a loss curve are its first and last twentieth."""


@dataclass(frozen=True)
class SplitData:
    """Examples of one split and the candidates that they show."""

    examples: list[Example]
    media: pd.DataFrame

    @property
    def contents(self) -> int:
        """Number of distinct contents."""
        return len(set(self.media["content_id"]))


def load_split(place: Place, split: Split, shares: Mapping[str, float]) -> SplitData:
    """Examples of ``split`` whose task has a share, proven to show contents of this split alone.

    Raises:
        StageError: a split leaks, or a task with a share has no example.
    """
    candidates = load_candidates(place)
    examples = select_examples(read_examples(place.artifacts("assemble") / "examples.parquet"), split, shares)
    check_splits(examples, candidates, split)
    return SplitData(examples, rows_of(examples, candidates))


def rows_of(examples: Sequence[Example], candidates: pd.DataFrame) -> pd.DataFrame:
    """Candidates that ``examples`` show."""
    shown = {medium for example in examples for medium in example.ids}
    return pd.DataFrame(candidates[np.array([medium in shown for medium in candidates["id"]], dtype=bool)])


@dataclass(frozen=True)
class Material:
    """What a loop learns from: examples, their media, and each task's share of a step."""

    examples: Sequence[Example]
    media: MediumSource
    shares: Mapping[str, float]


def fit(
    objective: QualityObjective,
    material: Material,
    config: TrainingConfig,
    work: Path,
    label: str,
    telemetry: Path | None = None,
) -> list[StepRecord]:
    """Run the loop with checkpoints below ``work``; a run that was killed continues there.

    All processes of the stage's group call it, with equal arguments.

    Args:
        telemetry: folder of the run's course; below ``work`` if it is not named.

    Raises:
        StageError: a loss is not finite.
    """
    examples = without_rejects(material.examples, material.media)
    callbacks = [
        Checkpoint(work / "checkpoint.safetensors", config.checkpoint_every),
        Progress(label),
        Speed(work / "speed.json"),
        Telemetry(telemetry or work / "telemetry"),
    ]
    return Trainer(objective, Mixture(examples, material.media, material.shares, config), config, callbacks).fit()


def lacking_gpus(config: TrainingConfig) -> list[str]:
    """What this machine lacks to train so, in words; nothing if it lacks nothing."""
    found = len(gpu_memories_gb())
    if config.device != "cuda" or found >= config.processes:
        return []
    return [
        f"{config.processes} GPUs for training.processes on this machine, {found} found; torchrun can join machines"
    ]


def without_rejects(examples: Sequence[Example], media: MediumSource) -> list[Example]:
    """Examples all of whose media decoded; nothing takes the place of the others."""
    return [example for example in examples if media.ids.issuperset(example.ids)]


def count_tasks(examples: Sequence[Example]) -> dict[str, int]:
    """Examples per task."""
    return dict(sorted(Counter(str(example.task) for example in examples).items()))


def curve_ends(history: Sequence[StepRecord]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean losses (``all`` and per task) over the first and the last twentieth of the steps."""
    width = max(1, len(history) // _EDGE)
    return _mean_losses(history[:width]), _mean_losses(history[-width:])


def _mean_losses(records: Sequence[StepRecord]) -> dict[str, float]:
    values: dict[str, list[float]] = {"all": [record.loss for record in records]}
    for record in records:
        for task, loss in record.task_losses.items():
            values.setdefault(task, []).append(loss)
    return {name: round(float(np.mean(found)), 6) for name, found in sorted(values.items())}
