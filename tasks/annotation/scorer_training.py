"""Train one built-in scorer from the rendered set: a resumable loop whose every step depends on seed and number alone.

Shape legend: N samples.
"""

import io
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from models.errors import ModelError
from models.scorers.built_in import BUILT_INS
from models.scorers.losses import QUALITY_LOSSES, correlation_loss, level_loss
from models.scorers.networks import NETWORKS, Outputs
from models.scorers.views import View
from tasks.annotation.scorer_samples import KINDS
from tasks.annotation.scorer_set import Floats, TrainingSet
from tasks.errors import StageError
from tasks.shards import atomic

log = logging.getLogger(__name__)

_CHECKPOINT_STEPS: Final = 40
_CLIP_BATCH_SHARE: Final = 0.375
"""Clips have eight frames: a batch of them is smaller."""
_WARM_UP: Final = 0.1
_CLIP_NORM: Final = 5.0
_ERROR_WEIGHT: Final = 20.0
"""Weight of the dense error maps; their squared errors are some fiftieths."""
_SCORED_AT_ONCE: Final = 16
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
        settle_at: share of the steps after which batch normalisation uses its running statistics, as inference does.
        bf16: compute in bfloat16 where autocast does.
    """

    target: dict[str, float]
    loss: str
    steps: int
    batch: int
    versions: int
    rate: float
    weight_decay: float
    clip_share: float
    settle_at: float
    bf16: bool

    def __post_init__(self) -> None:
        if self.loss != _LEVELS and self.loss not in QUALITY_LOSSES:
            msg = f"unknown loss {self.loss!r}; known are {', '.join([*QUALITY_LOSSES, _LEVELS])}"
            raise ValueError(msg)


@dataclass(frozen=True)
class Batch:
    """One step's input: a view and what is known of its samples."""

    view: tuple[Tensor, ...]
    target_N: Tensor
    tone_N: Tensor
    kind_N: Tensor
    strength_N: Tensor
    errors: Tensor | None


@dataclass(frozen=True)
class Material:
    """Stills and clips of the training contents, with the scorer's target of each."""

    stills: TrainingSet
    clips: TrainingSet
    rows: NDArray[np.int64]
    clip_rows: NDArray[np.int64]


def train(name: str, recipe: ScorerRecipe, material: Material, seed: int, checkpoint: Path) -> nn.Module:
    """Train ``name`` to the end of its recipe, from ``checkpoint`` if it is there.

    Args:
        material: the samples to learn from.
        seed: with the step's number it decides initial weights, batches, crops and dropout.
        checkpoint: file that survives a kill; one per (recipe, seed, set).

    Raises:
        StageError: the loss is no longer finite.
    """
    torch.set_num_threads(1)  # sums in one order on any machine; train two scorers at once to use two cores
    torch.manual_seed(seed)
    network = NETWORKS[name]().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    first = _restore(checkpoint, network, optimiser)
    batches = _Batches(name, recipe, material, seed)
    with ThreadPoolExecutor(1) as loader, tqdm(total=recipe.steps, initial=first, desc=name, unit="step") as bar:
        coming = loader.submit(batches.make, first)
        for step in range(first, recipe.steps):
            batch = coming.result()
            if step + 1 < recipe.steps:
                coming = loader.submit(batches.make, step + 1)
            if step >= recipe.settle_at * recipe.steps:
                _settle(network)
            torch.manual_seed(seed * 1_000_003 + step)
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * _schedule(step, recipe.steps)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
                outputs = network(*batch.view)
            loss = _loss(name, recipe, {key: value.float() for key, value in outputs.items()}, batch)
            if not math.isfinite(loss.item()):
                msg = f"{name}: the loss is {loss.item()} at step {step}; lower its rate in the recipe"
                raise StageError(msg)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), _CLIP_NORM)
            optimiser.step()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}")
            if (step + 1) % _CHECKPOINT_STEPS == 0 or step + 1 == recipe.steps:
                _save(checkpoint, network, optimiser, step + 1)
    return network.eval()


def raw_scores(name: str, network: nn.Module, samples: TrainingSet, rows: NDArray[np.int64]) -> Floats:
    """Raw scores of samples by the fixed views of inference, ``[N]``."""
    network.eval()
    scores: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(rows), _SCORED_AT_ONCE):
            pixels = [samples.sample(int(row)) for row in rows[start : start + _SCORED_AT_ONCE]]
            views = [BUILT_INS[name].view(p if p.ndim == 4 else p[None], None) for p in pixels]
            view = _tensors(tuple(np.concatenate(parts) for parts in zip(*views, strict=True)))
            items = network(*view)["raw"].double().split([len(parts[0]) for parts in views])
            scores += [part.mean().item() for part in items]
    return np.array(scores)


class _Batches:
    """Makes the batch of any step from the step's number."""

    def __init__(self, name: str, recipe: ScorerRecipe, material: Material, seed: int) -> None:
        self._name, self._recipe, self._material, self._seed = name, recipe, material, seed
        labels = material.stills.labels
        self._target = labels.target(recipe.target)
        self._clip_target = material.clips.labels.target(recipe.target)
        self._tone = labels.target({"tone": 1.0})
        self._strength = labels.strength_N
        self._kind = np.array([KINDS.index(kind) for kind in labels.kind_N])
        self._groups = [
            rows for group in np.unique(labels.group_N[material.rows])
            if len(rows := material.rows[labels.group_N[material.rows] == group])
        ]  # fmt: skip

    def make(self, step: int) -> Batch:
        rng = np.random.default_rng([self._seed, step])
        if rng.random() < self._recipe.clip_share:
            count = max(2, round(self._recipe.batch * _CLIP_BATCH_SHARE))
            rows = rng.choice(self._material.clip_rows, size=count, replace=False)
            none = torch.full((count,), float("nan"))
            view = self._view([self._material.clips.sample(int(row)) for row in rows], rng)
            target = torch.from_numpy(self._clip_target[rows]).float()
            return Batch(view, target, none, torch.zeros(count, dtype=torch.long), none, None)
        chosen = rng.choice(len(self._groups), size=self._recipe.batch // self._recipe.versions, replace=False)
        rows = np.concatenate(
            [rng.choice(self._groups[group], size=self._recipe.versions, replace=False) for group in chosen]
        )
        stills = self._material.stills
        drawn = int(rng.integers(2**31))
        view = self._view([stills.sample(int(row))[None] for row in rows], np.random.default_rng(drawn))
        maps = self._view([stills.errors(int(row))[None] for row in rows], np.random.default_rng(drawn))[0]
        return Batch(
            view,
            torch.from_numpy(self._target[rows]).float(),
            torch.from_numpy(self._tone[rows]).float(),
            torch.from_numpy(self._kind[rows]),
            torch.from_numpy(self._strength[rows]).float(),
            (maps[:, 0] if self._name == "fragments" else maps.flatten(0, -4)).permute(0, 3, 1, 2).float() / 255.0,
        )

    def _view(self, samples: list[NDArray[np.uint8]], rng: np.random.Generator) -> tuple[Tensor, ...]:
        views = [BUILT_INS[self._name].view(frames, rng) for frames in samples]
        return _tensors(tuple(np.concatenate(parts) for parts in zip(*views, strict=True)))


def _tensors(view: View) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in view)


def _loss(name: str, recipe: ScorerRecipe, outputs: Outputs, batch: Batch) -> Tensor:
    """The scorer's own loss of quality, plus what its helper heads learn."""
    if recipe.loss == _LEVELS:
        return level_loss(outputs["logits"], batch.target_N)
    loss = QUALITY_LOSSES[recipe.loss](outputs["raw"], batch.target_N)
    if batch.errors is not None:
        height, width = outputs["errors"].shape[-2:]
        cells = functional.adaptive_avg_pool2d(batch.errors, (height, width))
        loss = loss + _ERROR_WEIGHT * functional.mse_loss(outputs["errors"], cells)
    if name == "two_branch":
        structure = correlation_loss(outputs["technical"], batch.target_N)
        loss = loss + _HELPER_WEIGHT * (structure + correlation_loss(outputs["aesthetic"], batch.tone_N))
    if name == "multi_task":
        known = ~torch.isnan(batch.strength_N)
        errors_N = functional.smooth_l1_loss(outputs["severity"], batch.strength_N.nan_to_num(), reduction="none")
        severity = (errors_N * known).sum() / known.sum().clamp_min(1)
        loss = loss + _HELPER_WEIGHT * (functional.cross_entropy(outputs["kind"], batch.kind_N) + severity)
    return loss


def _settle(network: nn.Module) -> None:
    """Let batch normalisation use its running statistics from now on.

    A batch holds few contents, and clips or stills alone, so its own statistics are not those of inference; a network
    that has only seen its batches' would be lost there.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()


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
    except (RuntimeError, KeyError, ValueError) as error:
        msg = f"{path} is not a checkpoint of this scorer: delete it and train again"
        raise ModelError(msg) from error
    log.info("continuing after step %d of %s", state["step"], path.name)
    return int(state["step"])
