"""Second part of the base: each decoder learns the domain's language on frozen features of the one encoder.

Shape legend: ``B`` conversations, ``L`` answer tokens, ``D`` decoder width, ``V`` vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from models.levels import LEVELS
from models.quality_lmm import QualityLMM, VisualFeatures
from tasks.records import Modality
from tasks.training.base_corpus import PROPERTIES, Turn, keys_of, medium_turn, text_turns
from tasks.training.base_encoder import MeasuringAxes, optimiser_schedule, step
from tasks.training.base_media import Medium


@dataclass(frozen=True)
class DecoderTraining:
    """Numbers of the decoders' training.

    Attributes:
        steps, batch, learning_rate, weight_decay, beta2: of every decoder and its projectors.
        text_share: share of conversations without a medium.
        listing_share: share of conversations about a medium that tell the level of every property.
        level_weight: weight of level words among the answer's tokens: what they say must hang on the pixels.
        feature_batch: media whose features are computed together.
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    beta2: float
    text_share: float
    listing_share: float
    level_weight: float
    feature_batch: int


@torch.no_grad()
def cached_features(model: QualityLMM, media: Sequence[Medium], batch: int) -> list[VisualFeatures]:
    """Encoder features of all media, stored in half precision in main memory."""
    model.eval()
    features: list[VisualFeatures] = []
    for start in tqdm(range(0, len(media), batch), desc="base: features"):
        part = model.visual_features([medium.visual_input() for medium in media[start : start + batch]])
        features += [
            VisualFeatures(item.tiles_PSC.half().cpu(), None if item.motion_TM is None else item.motion_TM.half().cpu())
            for item in part
        ]
    return features


@dataclass(frozen=True)
class Lesson:
    """What one decoder learns from: features and fifths of the same media, in the same order."""

    media: Sequence[Medium]
    features: Sequence[VisualFeatures]
    fifths: Sequence[dict[str, int]]


@torch.no_grad()
def start_projector(model: QualityLMM, axes: MeasuringAxes) -> None:
    """Let the first layer of the projector start as what the encoder's measuring heads read, in both signs.

    A random projector shows a decoder mostly the one direction in which features vary most, and it learns to tell every
    property by that. Rows beyond the axes keep their random weights; where a decoder is too narrow
    for all axes, the properties of the whole come first.
    """
    first, second = (cast("nn.Linear", model.projector.get_submodule(name)) for name in ("linear_1", "linear_2"))
    weight = torch.stack([axes.weight_FC, -axes.weight_FC], dim=1).flatten(0, 1)
    bias = torch.stack([axes.bias_F, -axes.bias_F], dim=1).flatten()
    rows = min(first.out_features, len(bias))
    first.weight[:rows] = weight[:rows]
    first.bias[:rows] = bias[:rows]
    for layer in (second, model.motion_projector.linear_2):
        torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5)


def train_decoder(
    model: QualityLMM, lesson: Lesson, axes: MeasuringAxes, config: DecoderTraining, seed: int
) -> list[float]:
    """Train projectors and decoder of ``model``; its encoder is not touched. Returns the loss of every step."""
    start_projector(model, axes)
    rng = np.random.default_rng([seed, 2])
    texts = list(text_turns())
    parameters = [
        *model.language_model.parameters(),
        *model.projector.parameters(),
        *model.motion_projector.parameters(),
    ]
    optimiser, schedule = optimiser_schedule(parameters, config, config.steps)
    losses: list[float] = []
    model.train()
    progress = tqdm(range(config.steps), desc=f"base: decoder {model.language_model.config.hidden_size}")
    for _ in progress:
        loss = _language_loss(model, lesson, _draw_batch(lesson, texts, config, rng), config.level_weight)
        losses.append(step(optimiser, schedule, loss, parameters))
        progress.set_postfix(loss=f"{losses[-1]:.3f}")
    model.eval()
    return losses


def _draw_batch(
    lesson: Lesson, texts: Sequence[Turn], config: DecoderTraining, rng: np.random.Generator
) -> list[tuple[int | None, Turn]]:
    """One batch of (medium, turn); None is a conversation without a medium."""
    drawn: list[tuple[int | None, Turn]] = []
    for _ in range(config.batch):
        if rng.random() < config.text_share:
            drawn.append((None, texts[int(rng.integers(len(texts)))]))
            continue
        index = int(rng.integers(len(lesson.media)))
        modality = lesson.media[index].modality
        drawn.append((index, medium_turn(lesson.fifths[index], modality, rng, config.listing_share)))
    return drawn


def _language_loss(
    model: QualityLMM, lesson: Lesson, batch: Sequence[tuple[int | None, Turn]], level_weight: float
) -> Tensor:
    ids_BL, mask_BL = model.answer_ids([turn.answer for _, turn in batch])
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        seen = [lesson.features[index] for index, _ in batch if index is not None]
        tokens = iter(model.project([_floats(item, model.device) for item in seen]) if seen else ())
        visual = [None if index is None else next(tokens).float() for index, _ in batch]
        hidden_BLD = model.hidden_states(visual, ids_BL, mask_BL, [turn.prompt for _, turn in batch])
        logits_NV = model.logits(hidden_BLD[mask_BL]).float()
    targets_N = ids_BL[mask_BL]
    level_ids = torch.tensor(model.level_ids, device=model.device)
    weights_N = torch.where(torch.isin(targets_N, level_ids), level_weight, 1.0)
    losses_N = functional.cross_entropy(logits_NV, targets_N, reduction="none")
    return (losses_N * weights_N).sum() / weights_N.sum()


def _floats(item: VisualFeatures, device: torch.device) -> VisualFeatures:
    motion = None if item.motion_TM is None else item.motion_TM.to(device).float()
    return VisualFeatures(item.tiles_PSC.to(device).float(), motion)


@torch.no_grad()
def level_reading(model: QualityLMM, lesson: Lesson, batch: int) -> tuple[float, float]:
    """How well a decoder reads measured properties of unseen scenes at the level word.

    Returns:
        mean rank correlation over properties between the expected level and the true fifth, and the mean probability
        that all five level words have together.
    """
    from scipy.stats import spearmanr  # noqa: PLC0415 - slow import, once per decoder

    told: dict[str, list[tuple[float, int]]] = {}
    mass: list[float] = []
    jobs = [
        (index, item)
        for index, medium in enumerate(lesson.media)
        for item in PROPERTIES
        if item.key in keys_of(medium.modality)
    ]
    for start in range(0, len(jobs), batch):
        part = jobs[start : start + batch]
        answers = [f"The {item.nouns[0]} of the {lesson.media[index].modality} is {LEVELS[0]}" for index, item in part]
        ids_BL, mask_BL = model.answer_ids(answers, end=False)
        visual = model.project([_floats(lesson.features[index], model.device) for index, _ in part])
        hidden_BLD = model.hidden_states(visual, ids_BL, mask_BL)
        last_BV = model.logits(hidden_BLD[torch.arange(len(part), device=model.device), mask_BL.sum(1) - 1]).softmax(-1)
        levels_B5 = last_BV[:, list(model.level_ids)]
        mass += levels_B5.sum(-1).tolist()
        expected = (levels_B5 / levels_B5.sum(-1, keepdim=True)) @ torch.arange(5.0, device=model.device)
        for (index, item), value in zip(part, expected.tolist(), strict=True):
            told.setdefault(item.key, []).append((value, lesson.fifths[index][item.key]))
    pairs = [np.array(values) for values in told.values()]
    correlations = [
        float(np.asarray(spearmanr(rows[:, 0], rows[:, 1])[0])) for rows in pairs if len(np.unique(rows[:, 1])) > 1
    ]
    return float(np.mean(correlations)), float(np.mean(mass))


def count_modalities(media: Sequence[Medium]) -> dict[str, int]:
    """Number of media per modality."""
    return {modality: sum(medium.modality is modality for medium in media) for modality in Modality}
