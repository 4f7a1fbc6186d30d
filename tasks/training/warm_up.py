"""The pre-trained encoder meets decoders that never saw it: zero-shot swap first, then a short warm-up of the decoder.

Per decoder: ``zero/`` is the swap alone; ``warm/`` has learnt from a small sample that keeps the task distribution of
pre-training, with the encoder frozen to the bit (VITAL section 3, efficient decoder extension: 4,000 samples);
``control/`` is the same warm-up on the untouched base encoder, to tell the encoder's gain from the decoder's.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from models.quality_lmm import QualityLMM
from models.vision_encoder import encoder_state, swap_encoder
from tasks import group
from tasks.errors import StageError
from tasks.pool import read_media
from tasks.prepared import CachedFeatures, Preparation, encode_media
from tasks.records import REJECTS, Split
from tasks.shards import write_json, write_table
from tasks.stage import Place
from tasks.training.batches import BatchConfig, Material
from tasks.training.engine import device_of, wanted_processes
from tasks.training.examples import Example, by_task
from tasks.training.freezing import bits_of, frozen_stays, train_only
from tasks.training.lengths import SequenceLengths
from tasks.training.objective import LossConfig, QualityObjective
from tasks.training.session import Course, count_tasks, curve_ends, fit, lacking_gpus, load_split, rows_of
from tasks.training.trainer import TrainingConfig, history_rows


@dataclass(frozen=True)
class Config:
    """The matrix of decoders and how each is warmed up.

    Attributes:
        decoders: members of the base family; the one of pre-training is not among the unseen ones.
        control: whether to warm up each decoder on the base encoder too.
        train_projectors: whether both projectors learn with the decoder (as in the authors' scripts) or stay.
        max_examples: bound on the sample (the paper's 4,000).
        sample_share: bound on the sample as a share of the number of pre-training examples.
        max_reject_share: share of undecodable media above which the stage fails.
        batches: how steps are made of examples.
        losses: the losses.
        training: the loop, for each decoder.
    """

    decoders: tuple[str, ...]
    control: bool
    train_projectors: bool
    max_examples: int
    sample_share: float
    max_reject_share: float
    batches: BatchConfig
    losses: LossConfig
    training: TrainingConfig


@dataclass(frozen=True)
class Report:
    """Counts, the proof of freezing, and the ends of every loss curve.

    Attributes:
        examples: examples of the sample per task.
        frozen_sha256: per model, hash of every frozen tensor, the same before and after its warm-up.
        loss_first, loss_last: per model, mean losses of the first and last twentieth of its steps.
    """

    examples: dict[str, int]
    media: int
    contents: int
    rejected: int
    frozen_sha256: dict[str, str]
    loss_first: dict[str, dict[str, float]]
    loss_last: dict[str, dict[str, float]]


def processes(config: Config) -> int:
    """Processes that the stage runs in."""
    return wanted_processes(config.training)


def missing(config: Config, root: Path) -> list[str]:
    """What this machine lacks for the stage, one line each."""
    del root
    return lacking_gpus(config.training)


def run(config: Config, place: Place) -> Report:
    """Swap and warm up, in every process of a group.

    Outputs ``<decoder>/{zero,warm,control}/`` with a loss curve each, and ``rejects.parquet``.

    Raises:
        StageError: a split leaks, a frozen part moved, or a loss is not finite.
    """
    recipe = json.loads((place.artifacts("pretrain") / "recipe.json").read_text())
    data = load_split(place, Split.WARM_UP, recipe["shares"])
    wanted = min(config.max_examples, round(config.sample_share * sum(recipe["examples"].values())))
    sample = keep_distribution(data.examples, recipe["shares"], wanted, config.training.seed)
    shown = rows_of(sample, data.media)
    encoders = _encoders(config, place, recipe["decoder"])
    features = _encode(config, place, shown, encoders)
    results: dict[str, dict[str, Any]] = {}
    for decoder in config.decoders:
        for variant, encoder in encoders.items():
            model = _plug(decoder, variant, encoder, place)
            lengths = SequenceLengths(model, data.examples.medium)
            material = Material(sample, features[variant], recipe["shares"], config.batches, lengths)
            results[f"{variant}-{decoder}"] = _warm_up(model, material, config, place, f"{decoder}/{variant}")
    rejects = features["warm"].rejects
    if group.current().leads:
        write_table(place.out / "rejects.parquet", REJECTS, rejects)
    return Report(
        examples=count_tasks(sample),
        media=len(features["warm"].ids),
        contents=len(set(shown["content_id"])),
        rejected=len(rejects),
        frozen_sha256={name: result["frozen_sha256"] for name, result in results.items()},
        loss_first={name: result["loss_first"] for name, result in results.items()},
        loss_last={name: result["loss_last"] for name, result in results.items()},
    )


def _encode(
    config: Config, place: Place, shown: pd.DataFrame, encoders: Mapping[str, QualityLMM]
) -> dict[str, CachedFeatures]:
    return encode_media(
        place.work / "features",
        shown,
        lambda row: read_media(place, row),
        encoders,
        Preparation("warm_up", config.training.threads, config.max_reject_share, device_of(config.training)),
    )


def keep_distribution(
    examples: Sequence[Example], shares: Mapping[str, float], wanted: int, seed: int
) -> list[Example]:
    """Draw ``wanted`` examples so that every task keeps its share; fewer if a task has too few examples.

    Raises:
        StageError: nothing would be drawn.
    """
    total = sum(shares.values())
    groups = by_task(examples, shares)
    scale = min([wanted, *(len(found) * total / shares[task] for task, found in groups.items())])
    sample: list[Example] = []
    for number, (task, found) in enumerate(groups.items()):
        order = np.random.default_rng([seed, number]).permutation(len(found))
        count = max(1, round(scale * shares[task] / total))
        sample.extend(found[index] for index in sorted(order[:count].tolist()))
    if not sample or wanted < 1:
        raise StageError("the warm-up sample is empty: raise warm_up.sample_share, or collect more media")
    return sorted(sample, key=lambda example: example.example_id)


def _encoders(config: Config, place: Place, pretrained_decoder: str) -> dict[str, QualityLMM]:
    """Variant -> a model with the encoder that its warm-up starts from."""
    encoders = {"warm": QualityLMM.from_pretrained(place.artifacts("pretrain") / "model")}
    if config.control:
        encoders["control"] = QualityLMM.from_pretrained(place.artifacts("base") / pretrained_decoder)
        encoders["control"].question = encoders["warm"].question
    return encoders


def _plug(decoder: str, variant: str, encoder: QualityLMM, place: Place) -> QualityLMM:
    """The decoder as it comes, with its own base encoder or, for ``warm``, with the pre-trained one; saves ``zero/``.

    It is asked as pre-training asked.

    Raises:
        StageError: the decoder's encoder is not the one that the features were made with.
    """
    model = QualityLMM.from_pretrained(place.artifacts("base") / decoder)
    model.question = encoder.question
    if variant == "warm":
        swap_encoder(model, place.artifacts("pretrain") / "encoder")
        if group.current().leads:
            model.save_pretrained(place.out / decoder / "zero")
    if bits_of(encoder_state(model)) != bits_of(encoder_state(encoder)):
        msg = f"decoder {decoder} does not stand on the encoder of the {variant} features: make the base family anew"
        raise StageError(msg)
    return model


def _warm_up(model: QualityLMM, material: Material, config: Config, place: Place, name: str) -> dict[str, Any]:
    """Train one decoder, or take back what a run before the kill has finished; returns the numbers to report."""
    here, work = group.current(), place.work / name
    done = work / "done.json"
    if found := here.led(lambda: json.loads(done.read_text()) if done.is_file() else None):
        return found
    parts: list[nn.Module] = [model.language_model, model.internvl.lm_head]
    if config.train_projectors:
        parts += [model.projector, model.motion_projector]
    model.to(device_of(config.training))
    train_only(model, parts)
    with frozen_stays(model, config.training.frozen_precision) as proof:
        objective = QualityObjective(model, config.losses)
        course = Course(f"warm_up {name}", work, place.telemetry("warm_up") / name)
        history = fit(objective, material, config.training, course)
    first, last = curve_ends(history)
    values = {"frozen_sha256": proof.frozen_sha256, "loss_first": first, "loss_last": last}
    if here.leads:
        model.save_pretrained(place.out / name)
        write_json(place.out / name / "history.json", history_rows(history))
        write_json(done, values)
    return values
