"""Train one built-in scorer: measure every sample once, then learn to judge the measurements, step by resumable step.

Every step depends on the seed and its number alone, and sums run on one thread, so a machine gives the same weights
again. Shape legend: N samples, F figures.
"""

import io
import logging
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from models.errors import ModelError
from models.scorers import blocks, losses, networks, statistics, views
from models.scorers.built_in import BUILT_INS
from models.scorers.losses import QUALITY_LOSSES, correlation_loss, level_loss
from models.scorers.networks import NETWORKS, Measured, Outputs
from tasks.annotation.scorer_samples import KINDS
from tasks.annotation.scorer_set import Floats, TrainingSet
from tasks.errors import StageError
from tasks.shards import atomic, digest

log = logging.getLogger(__name__)

_CHECKPOINT_STEPS: Final = 200
_CLIP_BATCH_SHARE: Final = 0.5
"""There are fewer clips than stills: a batch of them is smaller."""
_WARM_UP: Final = 0.1
_CLIP_NORM: Final = 5.0
_MEASURED_AT_ONCE: Final = 4
_LEVELS: Final = "levels"
_HELPER_WEIGHT: Final = 0.5
"""Weight of what only helps: branch targets of two_branch, kind and severity of multi_task."""


@dataclass(frozen=True)
class ScorerRecipe:
    """How one scorer is trained.

    Attributes:
        target: weights of the full-reference measures whose percentiles make its target.
        loss: a key of ``QUALITY_LOSSES``, or ``levels``.
        steps: optimiser steps.
        batch: samples per step.
        versions: samples of one crop within a batch, so that content cancels.
        rate: peak learning rate of AdamW.
        weight_decay: of AdamW.
        clip_share: share of the steps that see clips.
    """

    target: dict[str, float]
    loss: str
    steps: int
    batch: int
    versions: int
    rate: float
    weight_decay: float
    clip_share: float

    def __post_init__(self) -> None:
        if self.loss != _LEVELS and self.loss not in QUALITY_LOSSES:
            msg = f"unknown loss {self.loss!r}; known are {', '.join([*QUALITY_LOSSES, _LEVELS])}"
            raise ValueError(msg)


@dataclass(frozen=True)
class Figures:
    """Measurements of all samples by one scorer's front end, ``[N, ..., F]``; of clips only where it sees motion."""

    stills: Tensor
    clips: Tensor | None


@dataclass(frozen=True)
class Batch:
    """One step's input: measurements and what is known of their samples."""

    figures: Tensor
    target_N: Tensor
    tone_N: Tensor
    kind_N: Tensor
    strength_N: Tensor
    still: bool


@dataclass(frozen=True)
class Material:
    """Stills and clips, and which of them are of the training contents."""

    stills: TrainingSet
    clips: TrainingSet
    rows: NDArray[np.int64]
    clip_rows: NDArray[np.int64]


def measure_all(name: str, material: Material, cache: Path, key: str) -> Figures:
    """Measurements of every sample; they are kept in ``cache``, by what was measured and the code that measures.

    Args:
        name: of a built-in scorer.
        material: all samples.
        cache: folder.
        key: of the rendered set.
    """
    torch.set_num_threads(1)
    identity = digest(name, key, *_sources(blocks, networks, statistics, views))
    stills = _measured(name, material.stills, cache / f"{name}-{identity}-stills.npy")
    moving = BUILT_INS[name].sampling.clips
    return Figures(stills, _measured(name, material.clips, cache / f"{name}-{identity}-clips.npy") if moving else None)


def train(
    name: str, recipe: ScorerRecipe, material: Material, figures: Figures, seed: int, checkpoint: Path
) -> Measured:
    """Train ``name`` to the end of its recipe, from ``checkpoint`` if it is there.

    Args:
        material: the samples to learn from.
        figures: their measurements.
        seed: with the step's number it decides initial weights, batches and dropout.
        checkpoint: file that survives a kill; one per (recipe, seed, set).

    Raises:
        StageError: the loss is no longer finite.
    """
    torch.set_num_threads(1)  # sums in one order on any machine; train two scorers at once to use two cores
    torch.manual_seed(seed)
    network = NETWORKS[name]().train()
    network.standard.fit(_typical(material, figures))
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    first = _restore(checkpoint, network, optimiser)
    batches = _Batches(recipe, material, figures, seed)
    with tqdm(total=recipe.steps, initial=first, desc=name, unit="step") as bar:
        for step in range(first, recipe.steps):
            batch = batches.make(step)
            torch.manual_seed(seed * 1_000_003 + step)
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * _schedule(step, recipe.steps)
            loss = _loss(name, recipe, network.judge(batch.figures), batch)
            if not math.isfinite(loss.item()):
                msg = f"{name}: the loss is {loss.item()} at step {step}; lower its rate in the recipe"
                raise StageError(msg)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), _CLIP_NORM)
            optimiser.step()
            bar.update()
            if (step + 1) % _CHECKPOINT_STEPS == 0 or step + 1 == recipe.steps:
                bar.set_postfix(loss=f"{loss.item():.3f}")
                _save(checkpoint, network, optimiser, step + 1)
    return network.eval()


def learning_code() -> str:
    """Hash of the code that decides what is learnt: a checkpoint of other code is not continued."""
    own = sys.modules[__name__]
    return digest(*_sources(blocks, losses, networks, own, statistics, views))


def raw_scores(network: Measured, figures: Tensor, rows: NDArray[np.int64]) -> Floats:
    """Raw scores of samples from their measurements, ``[N]``."""
    network.eval()
    with torch.inference_mode():
        return network.judge(figures[torch.from_numpy(rows)])["raw"].double().numpy()


class _Batches:
    """Makes the batch of any step from the step's number."""

    def __init__(self, recipe: ScorerRecipe, material: Material, figures: Figures, seed: int) -> None:
        self._recipe, self._material, self._figures, self._seed = recipe, material, figures, seed
        labels = material.stills.labels
        self._target = torch.from_numpy(labels.target(recipe.target)).float()
        self._clip_target = torch.from_numpy(material.clips.labels.target(recipe.target)).float()
        self._tone = torch.from_numpy(labels.target({"tone": 1.0})).float()
        self._strength = torch.from_numpy(labels.strength_N).float()
        self._kind = torch.tensor([KINDS.index(kind) for kind in labels.kind_N])
        groups = labels.group_N[material.rows]
        self._groups = [material.rows[groups == group] for group in np.unique(groups)]

    def make(self, step: int) -> Batch:
        rng = np.random.default_rng([self._seed, step])
        clips, count = self._figures.clips, self._recipe.batch // self._recipe.versions
        if clips is not None and rng.random() < self._recipe.clip_share:
            count = min(len(self._material.clip_rows), max(2, round(self._recipe.batch * _CLIP_BATCH_SHARE)))
            rows = torch.from_numpy(rng.choice(self._material.clip_rows, size=count, replace=False))
            none = torch.full((count,), float("nan"))
            return Batch(clips[rows], self._clip_target[rows], none, none.long(), none, still=False)
        chosen = rng.choice(len(self._groups), size=min(count, len(self._groups)), replace=False)
        drawn = [
            rng.choice(self._groups[group], size=min(self._recipe.versions, len(self._groups[group])), replace=False)
            for group in chosen
        ]
        rows = torch.from_numpy(np.concatenate(drawn))
        known = (self._target[rows], self._tone[rows], self._kind[rows], self._strength[rows])
        return Batch(self._figures.stills[rows], *known, still=True)


def _sources(*modules: ModuleType) -> list[bytes]:
    return [Path(str(module.__file__)).read_bytes() for module in modules]


def _typical(material: Material, figures: Figures) -> Tensor:
    """Measurements that decide what is normal: of the training contents, clips counting as much as stills."""
    stills = figures.stills[torch.from_numpy(material.rows)]
    if figures.clips is None:
        return stills
    clips = figures.clips[torch.from_numpy(material.clip_rows)]
    return torch.cat([stills, clips.repeat_interleave(max(1, len(stills) // len(clips)), dim=0)])


def _measured(name: str, samples: TrainingSet, path: Path) -> Tensor:
    if path.is_file():
        try:
            return torch.from_numpy(np.load(path))
        except (ValueError, EOFError) as error:
            msg = f"{path} is damaged: delete it, and it is measured again"
            raise StageError(msg) from error
    network, view, found = NETWORKS[name]().eval(), BUILT_INS[name].view, []
    with torch.inference_mode(), tqdm(total=len(samples), desc=f"measure {name}", unit="sample") as bar:
        for start in range(0, len(samples), _MEASURED_AT_ONCE):
            wanted = range(start, min(start + _MEASURED_AT_ONCE, len(samples)))
            pixels = [samples.sample(row) for row in wanted]
            seen = [view(frames if frames.ndim == 4 else frames[None]) for frames in pixels]
            parts = (np.concatenate(part) for part in zip(*seen, strict=True))
            found.append(network.describe(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts)))
            bar.update(len(wanted))
    figures = torch.cat(found)
    buffer = io.BytesIO()
    np.save(buffer, figures.numpy())
    with atomic(path) as file:
        file.write(buffer.getbuffer())
    return figures


def _loss(name: str, recipe: ScorerRecipe, outputs: Outputs, batch: Batch) -> Tensor:
    """The scorer's own loss of quality, plus what its helper heads learn."""
    if recipe.loss == _LEVELS:
        return level_loss(outputs["logits"], batch.target_N)
    loss = QUALITY_LOSSES[recipe.loss](outputs["raw"], batch.target_N)
    if name == "two_branch" and batch.still:
        structure = correlation_loss(outputs["technical"], batch.target_N)
        loss = loss + _HELPER_WEIGHT * (structure + correlation_loss(outputs["aesthetic"], batch.tone_N))
    if name == "multi_task" and batch.still:
        known = ~torch.isnan(batch.strength_N)
        errors_N = functional.smooth_l1_loss(outputs["severity"], batch.strength_N.nan_to_num(), reduction="none")
        severity = (errors_N * known).sum() / known.sum().clamp_min(1)
        loss = loss + _HELPER_WEIGHT * (functional.cross_entropy(outputs["kind"], batch.kind_N) + severity)
    return loss


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then a half cosine to zero."""
    rise = (step + 1) / max(1.0, _WARM_UP * steps)
    fall = 0.5 * (1 + math.cos(math.pi * max(0.0, step / steps - _WARM_UP) / (1 - _WARM_UP)))
    return min(1.0, rise) * fall


def _save(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    buffer = io.BytesIO()
    torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, buffer)
    with atomic(path) as file:
        file.write(buffer.getvalue())


def _restore(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Load a checkpoint if there is one; returns the number of finished steps."""
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, KeyError, ValueError, EOFError, UnpicklingError) as error:
        msg = f"{path} is not a checkpoint of this scorer: delete it and train again"
        raise ModelError(msg) from error
    log.info("continuing after step %d of %s", state["step"], path.name)
    return int(state["step"])
