"""What every training stage does around the loop: its part of the data, its callbacks, and the numbers it reports."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from infra.needs import gpu_memories_gb
from tasks import group
from tasks.records import Split, Task
from tasks.stage import Place
from tasks.training.batches import Batch, Material, MediumSource, Mixture, RankShare
from tasks.training.callbacks import Checkpoint, Progress, Speed
from tasks.training.examples import Example, MappedExamples, open_examples
from tasks.training.objective import QualityObjective
from tasks.training.telemetry import Telemetry
from tasks.training.trainer import Callback, StepRecord, Trainer, TrainingConfig
from tasks.training_set import FOLDER

_EDGE = 20
"""The ends of a loss curve are its first and last twentieth."""


@dataclass(frozen=True)
class SplitData:
    """Examples of one split, and the media that they show."""

    examples: MappedExamples

    @cached_property
    def media(self) -> pd.DataFrame:
        """Rows of the shown media: all of them, so only where all are wanted."""
        return self.examples.frame()

    @property
    def contents(self) -> int:
        """Number of distinct contents."""
        return len(set(self.media["content_id"]))


def load_split(place: Place, split: Split, shares: Mapping[str, float]) -> SplitData:
    """Examples of ``split`` whose task has a share, mapped, and proven to show media of this split alone.

    Raises:
        StageError: a split leaks, or a task with a share has no example.
    """
    return SplitData(open_examples(place.artifacts("assemble") / FOLDER, split, shares))


def rows_of(examples: Sequence[Example], candidates: pd.DataFrame) -> pd.DataFrame:
    """Candidates that ``examples`` show."""
    shown = {medium for example in examples for medium in example.ids}
    return pd.DataFrame(candidates[np.array([medium in shown for medium in candidates["id"]], dtype=bool)])


class Weighted:
    """An objective whose losses carry the weights of their examples in the step's mean."""

    def __init__(self, objective: QualityObjective) -> None:
        self._objective, self.model = objective, objective.model

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted losses ``[examples of the task]`` per task."""
        weights = {
            task: batch.weight_E[torch.tensor([other == task for other in batch.tasks])] for task in set(batch.tasks)
        }
        found = self._objective.losses(batch)
        return {task: values * weights[Task(task)].to(values.device) for task, values in found.items()}


@dataclass(frozen=True)
class Course:
    """A run of the loop, for people and for the run that continues it.

    Attributes:
        label: its name on the progress bar.
        work: folder of its checkpoint.
        telemetry: folder of its curves, which are no output.
    """

    label: str
    work: Path
    telemetry: Path


def fit(objective: QualityObjective, material: Material, config: TrainingConfig, course: Course) -> list[StepRecord]:
    """Run the loop; a run that was killed continues at its checkpoint. All processes of the stage's group call it.

    Raises:
        StageError: a loss is not finite.
    """
    readable = dataclasses.replace(material, examples=without_rejects(material.examples, material.media))
    mixture = Mixture(readable, config, own_share())
    return Trainer(Weighted(objective), mixture, config, callbacks(config, course)).fit()


def own_share() -> RankShare:
    """Which part of every step this process computes, of those of its group."""
    here = group.current()
    return RankShare(here.rank, here.size, lambda lost: [name for part in here.gather(lost) for name in part])


def callbacks(config: TrainingConfig, course: Course) -> list[Callback]:
    """What surrounds every loop: checkpoint, progress bar, speed, curves."""
    return [
        Checkpoint(course.work / "checkpoint.safetensors", config.checkpoint_every),
        Progress(course.label),
        Speed(course.work / "speed.json"),
        Telemetry(course.telemetry),
    ]


def lacking_gpus(config: TrainingConfig) -> list[str]:
    """What this machine lacks to train so, in words; nothing if it lacks nothing."""
    found = len(gpu_memories_gb())
    if config.device != "cuda" or found >= config.processes:
        return []
    wanted = f"{config.processes} GPU{'' if config.processes == 1 else 's'} for training.processes"
    return [f"{wanted} on this machine, {found} found; torchrun can join machines"]


def without_rejects(examples: Sequence[Example], media: MediumSource) -> Sequence[Example]:
    """Examples none of whose media is known to be broken; nothing takes the place of the others."""
    if isinstance(examples, MappedExamples):
        return examples.without(media.broken)
    return [example for example in examples if media.broken.isdisjoint(example.ids)]


def count_tasks(examples: Sequence[Example]) -> dict[str, int]:
    """Examples per task."""
    if isinstance(examples, MappedExamples):
        return dict(sorted((str(task), count) for task, count in examples.counts.items()))
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
