"""Stage ``base``: make the tiny model family that the embedded line starts from.

One image encoder and one motion extractor learn to measure signals; three decoders of different widths then learn the
domain's language on them. What no medium is ever told is its overall quality: that is what the line pre-trains.

A stage with a pipeline file of its own (infra/base/dvc.yaml): its weights travel in the ``seed`` remote, and
``dvc repro infra/base/dvc.yaml`` makes them anew.
"""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from models.decoders import TINY_ENCODER, build_internvl_config, decoder_record
from models.motion import TINY_MOTION
from models.quality_lmm import QualityLMM
from models.tokenizer import IMAGE_CONTEXT, build_tokenizer
from models.vision_encoder import EMBEDDED_SPEC, encoder_state, prepare_image
from tasks.records import Modality
from tasks.shards import digest, write_json
from tasks.stage import Place
from tasks.training.base_corpus import medium_prompts, medium_sentences, text_turns, vocabulary
from tasks.training.base_decoders import (
    DecoderTraining,
    Lesson,
    cached_features,
    count_modalities,
    level_reading,
    train_decoder,
)
from tasks.training.base_encoder import EncoderTraining, MeasuringAxes, train_image_encoder, train_motion_extractor
from tasks.training.base_images import SceneConfig
from tasks.training.base_media import Medium, fifths_of, make_media

log = logging.getLogger(__name__)

SYSTEM: Final = "You look at pictures."
"""System message of the tiny family."""


@dataclass(frozen=True)
class Config:
    """Numbers of the recipe.

    Attributes:
        seed: of everything.
        threads: of torch; part of the recipe, because sums depend on it. workers: processes that draw scenes.
        vocabulary: upper bound of the tokenizer's size.
        held_out: share of scenes that measure what was learnt.
    """

    seed: int
    threads: int
    workers: int
    vocabulary: int
    held_out: float
    decoders: tuple[str, ...]
    scenes: SceneConfig
    encoder: EncoderTraining
    decoder: DecoderTraining


@dataclass(frozen=True)
class Report:
    """What was made.

    Attributes:
        images, videos: media that were drawn.
        encoder_loss, motion_loss: mean of the last twentieth of the steps; standardised targets, 0.5 is no skill.
        reading: decoder -> mean rank correlation of its level word with measured properties of unseen scenes.
        level_mass: decoder -> probability of the five level words together where one is due.
        megabytes: size of all weights.
    """

    images: int
    videos: int
    encoder_loss: float
    motion_loss: float
    reading: dict[str, float]
    level_mass: dict[str, float]
    megabytes: float


def run(config: Config, place: Place) -> Report:
    """Make the family; a killed run goes on after the last finished network."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    media = make_media(config.scenes, EMBEDDED_SPEC, config.seed, config.workers)
    fifths = fifths_of(media)
    learnt = [i for i, medium in enumerate(media) if medium.scene < config.scenes.scenes * (1 - config.held_out)]
    unseen = sorted(set(range(len(media))) - set(learnt))
    tokenizer = domain_tokenizer(config.vocabulary)
    encoder = place.work / "encoder.safetensors"
    first = new_model(config.decoders[0], tokenizer, config.seed).to(_device())
    if not encoder.is_file():
        _make_encoder(first, [media[i] for i in learnt], config, encoder)
    _set_encoder(first, encoder)
    features = cached_features(first, media, config.decoder.feature_batch)
    lessons = [
        Lesson([media[i] for i in part], [features[i] for i in part], [fifths[i] for i in part])
        for part in (learnt, unseen)
    ]
    readings = {name: _make_decoder(name, tokenizer, encoder, lessons, config, place) for name in config.decoders}
    losses = load_file(encoder)
    counts = count_modalities(media)
    _write_manifest(place.out, config)
    return Report(
        images=counts[Modality.IMAGE],
        videos=counts[Modality.VIDEO],
        encoder_loss=round(float(losses["loss.image"]), 4),
        motion_loss=round(float(losses["loss.motion"]), 4),
        reading={name: round(value[0], 4) for name, value in readings.items()},
        level_mass={name: round(value[1], 4) for name, value in readings.items()},
        megabytes=round(_unique_bytes(place.out) / 1e6, 2),
    )


def domain_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """The family's tokenizer, learnt on everything the corpus can say."""
    sentences = [*medium_sentences(), *medium_prompts(), SYSTEM]
    sentences += [text for turn in text_turns() for text in (turn.prompt, turn.answer)]
    return build_tokenizer(sentences, vocabulary(), size)


def new_model(name: str, tokenizer: PreTrainedTokenizerFast, seed: int) -> QualityLMM:
    """A member of the family with random weights."""
    record = decoder_record(name)
    torch.manual_seed(seed)
    context = tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT)
    config = build_internvl_config(record, TINY_ENCODER, len(tokenizer), int(context))  # type: ignore[arg-type]
    return QualityLMM.from_config(config, TINY_MOTION, tokenizer, EMBEDDED_SPEC, SYSTEM)


def _device() -> torch.device:
    """A GPU makes the family in minutes; sums then run in another order, so the weights are others of the same kind."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _make_encoder(model: QualityLMM, media: list[Medium], config: Config, path: Path) -> None:
    losses, axes = train_image_encoder(model, media, config.encoder, config.seed)
    motion = train_motion_extractor(model, media, config.encoder, config.seed)
    state = {
        name: value.bfloat16() if value.is_floating_point() else value for name, value in encoder_state(model).items()
    }
    state |= {"axes.weight": axes.weight_FC, "axes.bias": axes.bias_F}
    for name, values in (("loss.image", losses), ("loss.motion", motion)):
        last = values[-max(1, len(values) // 20) :]
        state[name] = torch.tensor(float(np.mean(last)) if last else float("nan"))
    temporary = path.with_suffix(".tmp")
    save_file({name: value.contiguous() for name, value in state.items()}, temporary)
    temporary.rename(path)


def _set_encoder(model: QualityLMM, path: Path) -> None:
    """Give ``model`` the finished encoder, already rounded to what will be stored."""
    state = load_file(path)
    for prefix, module in (("image.", model.image_encoder), ("motion.", model.motion_extractor)):
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        module.load_state_dict(own)


def _axes(path: Path) -> MeasuringAxes:
    """What the finished encoder's heads read."""
    state = load_file(path)
    return MeasuringAxes(state["axes.weight"], state["axes.bias"])


def _make_decoder(
    name: str,
    tokenizer: PreTrainedTokenizerFast,
    encoder: Path,
    lessons: list[Lesson],
    config: Config,
    place: Place,
) -> tuple[float, float]:
    folder = place.work / "decoders" / name
    if not (folder / "done").is_file():
        model = new_model(name, tokenizer, config.seed).to(_device())
        _set_encoder(model, encoder)
        train_decoder(model, lessons[0], _axes(encoder), config.decoder, config.seed)
        model.bfloat16().save_pretrained(folder)
        (folder / "done").touch()
    model = QualityLMM.from_pretrained(folder)
    model.bfloat16().save_pretrained(place.out / name)
    reading = level_reading(model.float().to(_device()), lessons[1], config.decoder.feature_batch)
    log.info("base: %s reads unseen scenes with rank correlation %.3f, level words have %.3f", name, *reading)
    return reading


def fingerprint(folder: Path) -> list[float]:
    """Level probabilities of a stored model on one drawn picture.

    They change when the weights, or the code that prepares pixels and runs the model, are not what the recipe made.
    """
    rows, columns = np.mgrid[0:160, 0:200]
    wave = 127.5 + 100 * np.sin(rows / 7.0) * np.cos(columns / 11.0)
    pixels = np.stack([wave, wave[::-1], wave[:, ::-1]], axis=2).astype(np.uint8)
    model = QualityLMM.from_pretrained(folder)
    medium = prepare_image(pixels, model.spec)
    return [round(value, 5) for value in model.level_probabilities([medium])[0].tolist()]


def _write_manifest(out: Path, config: Config) -> None:
    manifest = {
        "decoders": list(config.decoders),
        "recipe": digest(dataclasses.asdict(config)),
        "fingerprints": {name: fingerprint(out / name) for name in config.decoders},
        "files": {
            str(path.relative_to(out)): digest(path.read_bytes()) for path in sorted(out.rglob("*")) if path.is_file()
        },
    }
    write_json(out / "manifest.json", manifest)


def _unique_bytes(folder: Path) -> int:
    """Bytes that the store keeps: identical files count once."""
    contents = {digest(path.read_bytes()): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return sum(contents.values())
