"""First part of the base: image encoder and motion extractor learn to measure signals, token by token.

Shape legend: ``N`` tiles, ``B`` media, ``S`` tokens per tile, ``F`` statistics, ``C`` features of a token.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from models.quality_lmm import QualityLMM
from tasks.errors import StageError
from tasks.records import Modality
from tasks.training.base_corpus import keys_of
from tasks.training.base_media import Medium, batches, normalised
from tasks.training.base_signals import frame_statistics


@dataclass(frozen=True)
class EncoderTraining:
    """Numbers of the encoder's pre-training.

    Attributes:
        steps, batch, learning_rate, weight_decay, beta2: of the image encoder; a batch counts pictures.
        motion_steps, motion_batch: of the motion extractor; same rate, decay and beta2.
        whole_weight: weight of the whole picture's properties beside the tokens' statistics.
        whitening_patches: patches whose covariance initialises the patch embedding.
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    beta2: float
    motion_steps: int
    motion_batch: int
    whole_weight: float
    whitening_patches: int


def whiten_patch_embedding(model: QualityLMM, media: Sequence[Medium], patches: int, seed: int) -> None:
    """Initialise the patch embedding with the leading whitened principal components of patches."""
    projection = model.image_encoder.embeddings.patch_embeddings.projection
    side = projection.kernel_size[0]
    rng = np.random.default_rng([seed, 1])
    rows: list[Tensor] = []
    per_medium = max(1, patches // len(media))
    for medium in media:
        tiles = normalised(torch.from_numpy(medium.tiles_T3HW))
        cells = tiles.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * side * side)
        rows.append(cells[torch.from_numpy(rng.integers(0, len(cells), per_medium))])
    data = torch.cat(rows).double()
    mean = data.mean(0)
    values, vectors = torch.linalg.eigh((data - mean).T @ (data - mean) / len(data))
    width = projection.out_channels
    kept, scale = vectors[:, -width:].flip(1), values[-width:].flip(0).clamp_min(1e-4).rsqrt()
    filters = (kept * scale).T.float()
    with torch.no_grad():
        projection.weight.copy_(filters.reshape(width, 3, side, side))
        if projection.bias is not None:
            projection.bias.copy_(-(filters @ mean.float()))


@dataclass(frozen=True)
class MeasuringAxes:
    """What the encoder's measuring heads read of a normalised token: properties of the whole first, then statistics.

    Attributes:
        weight_FC, bias_F: standardised value ``F`` of a token is ``weight @ layer_norm(features) + bias``.
    """

    weight_FC: Tensor
    bias_F: Tensor

    @classmethod
    def of(cls, *heads: "MeasuringHead") -> "MeasuringAxes":
        """The heads' rows, with their normalisation's scale and shift folded in."""
        weights = [head.linear.weight * head.norm.weight for head in heads]
        biases = [head.linear.weight @ head.norm.bias + head.linear.bias for head in heads]
        return cls(torch.cat(weights).detach(), torch.cat(biases).detach())


class MeasuringHead(nn.Module):
    """Layer norm and a linear map from a token's features to standardised values."""

    def __init__(self, features: int, values: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(features), nn.Linear(features, values)

    def forward(self, features_XC: Tensor) -> Tensor:
        """Values on the last axis."""
        return self.linear(self.norm(features_XC))


@dataclass(frozen=True)
class Standard:
    """Mean and deviation of targets, so that every statistic weighs the same."""

    mean_F: Tensor
    std_F: Tensor

    @classmethod
    def of(cls, values_XF: Tensor) -> "Standard":
        """Over all rows; constant columns get deviation 1."""
        std = values_XF.std(0)
        return cls(values_XF.mean(0), torch.where(std > 1e-6, std, torch.ones_like(std)))

    def __call__(self, values: Tensor) -> Tensor:
        """Standardise the last axis."""
        return (values - self.mean_F) / self.std_F


class OptimiserNumbers(Protocol):
    """What AdamW is told."""

    @property
    def learning_rate(self) -> float:
        """Peak rate."""
        ...

    @property
    def weight_decay(self) -> float:
        """Decay per unit of rate."""
        ...

    @property
    def beta2(self) -> float:
        """Memory of the squared gradients; .999 is too long for some hundred steps."""
        ...


def optimiser_schedule(
    parameters: Iterator[nn.Parameter] | list[nn.Parameter], numbers: OptimiserNumbers, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with a linear warm-up over a twentieth of the steps, then a cosine to zero."""
    optimiser = torch.optim.AdamW(
        parameters, lr=numbers.learning_rate, weight_decay=numbers.weight_decay, betas=(0.9, numbers.beta2)
    )
    warm = max(1, steps // 20)

    def factor(step: int) -> float:
        return min((step + 1) / warm, 0.5 * (1 + np.cos(np.pi * step / steps)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def train_image_encoder(
    model: QualityLMM, media: Sequence[Medium], config: EncoderTraining, seed: int
) -> tuple[list[float], MeasuringAxes]:
    """Regress token statistics and whole-picture properties; returns the loss of every step and the heads' axes.

    A property of the whole is the mean of what every token says of it, so that a decoder can read it token by token.
    """
    pictures = [medium for medium in media if medium.modality is Modality.IMAGE]
    whiten_patch_embedding(model, pictures, config.whitening_patches, seed)
    tiles = torch.from_numpy(np.stack([medium.tiles_T3HW for medium in pictures]))
    whole = torch.tensor([[medium.properties[key] for key in keys_of(Modality.IMAGE)] for medium in pictures])
    statistics = torch.from_numpy(np.stack([medium.statistics_TSF for medium in pictures]))
    token_standard, whole_standard = Standard.of(statistics.float().flatten(0, 2)), Standard.of(whole)
    width = 4 * model.image_encoder.config.hidden_size
    torch.manual_seed(seed)
    device = model.device
    token_head = MeasuringHead(width, statistics.shape[-1]).to(device)
    whole_head = MeasuringHead(width, whole.shape[-1]).to(device)
    parameters = [*model.image_encoder.parameters(), *token_head.parameters(), *whole_head.parameters()]
    optimiser, schedule = optimiser_schedule(parameters, config, config.steps)
    losses: list[float] = []
    model.train()
    progress = tqdm(batches(len(pictures), config.batch, config.steps, seed), total=config.steps, desc="base: encoder")
    for chosen in progress:
        index = torch.from_numpy(chosen)
        targets_NSF = token_standard(statistics[index].float().flatten(0, 1)).clamp(-4, 4).to(device)
        targets_BF = whole_standard(whole[index]).clamp(-4, 4).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            features_NSC = tile_features(model, normalised(tiles[index].flatten(0, 1)).to(device))
            told_NSF = token_head(features_NSC).float()
            told_BF = whole_head(features_NSC).float().unflatten(0, (len(index), -1)).mean((1, 2))
        loss = functional.smooth_l1_loss(told_NSF, targets_NSF)
        loss = loss + config.whole_weight * functional.smooth_l1_loss(told_BF, targets_BF)
        losses.append(step(optimiser, schedule, loss, parameters))
        progress.set_postfix(loss=f"{losses[-1]:.3f}")
    return losses, MeasuringAxes.of(whole_head, token_head)


def tile_features(model: QualityLMM, tiles_N3HW: Tensor) -> Tensor:
    """Pixel-shuffled features ``[N, S, C]`` of normalised tiles."""
    hidden = model.image_encoder(pixel_values=tiles_N3HW).last_hidden_state[:, 1:]
    return model.shuffled(hidden)


def train_motion_extractor(
    model: QualityLMM, media: Sequence[Medium], config: EncoderTraining, seed: int
) -> list[float]:
    """Regress per-frame motion statistics; normalisation statistics are learnt here and fixed for ever."""
    clips = [torch.from_numpy(medium.motion_3THW).float() for medium in media if medium.motion_3THW is not None]
    if not clips:
        return []
    stacked = torch.stack(clips)
    targets = torch.stack([frame_statistics(clip) for clip in clips])
    standard = Standard.of(targets.flatten(0, 1))
    torch.manual_seed(seed)
    channels = model.motion_extractor.config.channels
    head = MeasuringHead(channels, targets.shape[-1]).to(model.device)
    parameters = [*model.motion_extractor.parameters(), *head.parameters()]
    optimiser, schedule = optimiser_schedule(parameters, config, config.motion_steps)
    losses: list[float] = []
    order = batches(len(clips), config.motion_batch, config.motion_steps, seed)
    with model.motion_extractor.live_statistics():
        model.motion_extractor.train()
        for chosen in tqdm(order, total=config.motion_steps, desc="base: motion"):
            index = torch.from_numpy(chosen)
            told = head(model.motion_extractor(stacked[index].to(model.device)))
            loss = functional.smooth_l1_loss(told, standard(targets[index]).clamp(-4, 4).to(model.device))
            losses.append(step(optimiser, schedule, loss, parameters))
    return losses


def step(
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    loss: Tensor,
    parameters: list[nn.Parameter],
) -> float:
    """One update with gradients clipped to norm 1; returns the loss.

    Raises:
        StageError: the loss is not finite.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        msg = f"the loss of the base became {value}: lower base.encoder.learning_rate or base.decoder.learning_rate"
        raise StageError(msg)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    schedule.step()
    return value
