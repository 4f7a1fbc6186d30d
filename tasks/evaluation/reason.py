"""Does a model infer quality from what it says? One-stage and two-stage models on the held-out contents.

"Building Reasonable Inference for Vision-Language Models in Blind Image Quality Assessment" (arXiv 2512.09555) compares
a model that describes and judges in one answer with one that judges from its own description alone. Both of
``two_stage`` are asked here by every instrument, beside the pre-trained model that they were made from, which judges
without describing: greedy and repeated answers, the level after the description, and after the description without
the medium, layer by layer, and where attention lies. What they say is stored before any figure.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from models.instruments.attention_share import GROUPS
from models.instruments.lens import TOP
from models.instruments.readout import WordReadout
from models.levels import LEVELS
from models.quality_lmm import QualityLMM
from models.sampling import Sampling
from models.two_stage import TwoStageLMM
from tasks.devices import DeviceName, device_named, lacking
from tasks.errors import StageError
from tasks.evaluation.choices import Resampling
from tasks.evaluation.inferences import Figures, compared
from tasks.evaluation.subjects.asking import drawing, seed_of
from tasks.evaluation.subjects.course import Course, Drawing, describe, say, verdicts
from tasks.evaluation.subjects.courses import line_course, one_stage_course, two_stage_course
from tasks.evaluation.subjects.line import LineSubject, TwoStageSubject
from tasks.evaluation.subjects.protocol import Shown, Subject
from tasks.pool import read_media
from tasks.prepared import CachedFeatures, Preparation, encode_media, stands_on
from tasks.records import INFERENCES, REJECTS, Modality, Split
from tasks.shards import TableParts, frame_of, write_json, write_table
from tasks.stage import Place
from tasks.targets import bounded, scored_candidates

log = logging.getLogger(__name__)

PRETRAINED, ONE_STAGE, TWO_STAGE = "pretrained", "one_stage", "two_stage"


@dataclass(frozen=True)
class Config:
    """What is asked and how.

    Attributes:
        max_media: of the held-out ones, by a hash of their ids; None asks about all.
        repeats: answers that are drawn for each medium. temperature, top_p, seed: of their drawing.
        batch: media that are asked about at a time; it changes no answer.
        threads: CPU threads. device: where models compute.
        max_reject_share: share of undecodable media above which the stage fails.
        sampling: how uncertainty is measured.
    """

    max_media: int | None
    repeats: int
    temperature: float
    top_p: float
    seed: int
    batch: int
    threads: int
    device: DeviceName
    max_reject_share: float
    sampling: Resampling

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.repeats < 2 or self.batch < 1:
            raise ValueError("repeats must be at least 2 and batch at least 1")
        if self.temperature <= 0:
            raise ValueError("temperature must be above 0: greedy answers never differ")

    @property
    def drawn(self) -> Sampling:
        """How repeated answers are drawn."""
        return Sampling(self.temperature, self.top_p)


@dataclass(frozen=True)
class Report:
    """Figures per model; intervals and paired differences are in ``figures.json``.

    Attributes:
        figures: model -> figure -> value, see ``tasks.evaluation.inferences``; None where it is undefined.
        two_stage_minus_one_stage: of every figure; empty unless both were asked.
    """

    media: int
    contents: int
    rejected: int
    repeats: int
    temperature: float
    top_p: float
    figures: dict[str, dict[str, float | None]]
    two_stage_minus_one_stage: dict[str, float | None]


def missing(config: Config, root: Path) -> list[str]:
    """What this machine lacks for the stage, one line each."""
    del root
    return lacking(config.device)


def run(config: Config, place: Place) -> Report:
    """Ask all models that there are; outputs ``inferences.parquet``, ``figures.json`` and ``rejects.parquet``.

    Raises:
        StageError: too many media do not decode, or a model stands on another encoder than the line's.
    """
    torch.set_num_threads(config.threads)
    scored = scored_candidates(place)
    held_out = bounded(pd.DataFrame(scored[scored["split"] == Split.HELD_OUT]), config.max_media, "reason")
    base = QualityLMM.from_pretrained(place.artifacts("pretrain") / "model")
    features = _features(place, held_out, base, config)
    media = pd.DataFrame(held_out[[medium in features.ids for medium in held_out["id"]]])
    parts = TableParts(place.work / "inferences", INFERENCES)
    for name in _askable(place):
        if not parts.has(name):
            subject, course = _open(name, place, base, config)
            parts.add(name, frame_of(INFERENCES, _asked(name, subject, course, (media, features), config)))
    inferences = parts.read()
    write_table(place.out / "inferences.parquet", INFERENCES, inferences)
    write_table(place.out / "rejects.parquet", REJECTS, features.rejects)
    figures = Figures(inferences, config.sampling)
    pairs = [(TWO_STAGE, ONE_STAGE)] if {TWO_STAGE, ONE_STAGE} <= set(figures.models) else []
    told = compared(figures, pairs)
    write_json(place.out / "figures.json", vars(told))
    apart = told.differences[0]["figures"] if told.differences else {}
    return Report(
        media=figures.media,
        contents=figures.contents,
        rejected=len(features.rejects),
        repeats=config.repeats,
        temperature=config.temperature,
        top_p=config.top_p,
        figures={model: _values(found) for model, found in told.models.items()},
        two_stage_minus_one_stage=_values(apart),
    )


def _values(shares: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    return {name: share["value"] for name, share in shares.items()}


def _askable(place: Place) -> list[str]:
    """Models that there are, and that can be asked: a reasoner that reads media beside the text cannot."""
    folder = place.artifacts("two_stage")
    layout = json.loads((folder / "two_stage.json").read_text())
    found = {PRETRAINED: True, ONE_STAGE: (folder / ONE_STAGE).is_dir(), TWO_STAGE: layout["input"] == "text"}
    for name in (name for name, there in found.items() if not there):
        log.warning("%s is not asked: two_stage has trained none (control), or one of the ablation block_mask", name)
    return [name for name, there in found.items() if there]


def _features(place: Place, held_out: pd.DataFrame, base: QualityLMM, config: Config) -> CachedFeatures:
    preparation = Preparation("reason", config.threads, config.max_reject_share, device_named(config.device))
    return encode_media(place.work / "features", held_out, partial(read_media, place), {PRETRAINED: base}, preparation)[
        PRETRAINED
    ]


def _open(name: str, place: Place, base: QualityLMM, config: Config) -> tuple[Subject, Course]:
    """A model with the course that it was trained for.

    Raises:
        StageError: its encoder is not the one that the features were made with.
    """
    device, folder = device_named(config.device), place.artifacts("two_stage")
    if name == TWO_STAGE:
        both = TwoStageLMM.from_pretrained(folder).to(device)
        _check_encoder(name, both.describer, base)
        return TwoStageSubject(name, both), two_stage_course(both.describer)
    model = (base if name == PRETRAINED else QualityLMM.from_pretrained(folder / ONE_STAGE)).to(device)
    _check_encoder(name, model, base)
    return LineSubject(name, model), line_course(model) if name == PRETRAINED else one_stage_course(model)


def _check_encoder(name: str, model: QualityLMM, base: QualityLMM) -> None:
    if not stands_on(model, base):
        msg = f"{name} does not stand on the encoder of the line: run dvc repro two_stage"
        raise StageError(msg)


# ---------------------------------------------------------------------------- asking


def _asked(
    name: str, subject: Subject, course: Course, shown: tuple[pd.DataFrame, CachedFeatures], config: Config
) -> list[dict[str, Any]]:
    """INFERENCES rows of one model."""
    media, features = shown
    records = media.sort_values("id").to_dict("records")
    rows: list[dict[str, Any]] = []
    for start in tqdm(range(0, len(records), config.batch), desc=f"reason: {name}", unit="batch"):
        batch = records[start : start + config.batch]
        opened = [Shown(Path(row["id"]), row["modality"] == Modality.VIDEO, features.read(row["id"])) for row in batch]
        for row, said in zip(batch, _said(subject, course, opened, config), strict=True):
            known = {key: row[key] for key in ("id", "content_id", "modality", "target")}
            rows.append({"model": name, **known, **said})
    return rows


def _said(subject: Subject, course: Course, media: Sequence[Shown], config: Config) -> Iterator[dict[str, Any]]:
    """What a model says about some media, greedy and drawn, and how it comes to it."""
    greedy, readout = drawing(Sampling(), media, config.seed), WordReadout(course.words)
    describes = course.way != "judge"
    texts = describe(subject, course, media, greedy) if describes else [""] * len(media)
    answers = verdicts(subject, course, media, texts, greedy)
    drawn = _drawn(subject, course, media, config)
    asked = [course.verdict_of(medium, text) for medium, text in zip(media, texts, strict=True)]
    probs_N5 = subject.word_probabilities(asked, course.words)
    blind = [course.text_verdict_of(medium, text) for medium, text in zip(media, texts, strict=True)]
    text_probs = subject.word_probabilities(blind, course.words).tolist() if describes else [None] * len(media)
    layers, attention = subject.layers(asked, course.words, TOP), subject.attention(asked)
    for number, (said, layer, looks) in enumerate(zip(answers, layers, attention, strict=True)):
        reading = layer.reading
        yield {
            "description": said.description,
            "verdict": said.verdict,
            "word": _level(readout(said.verdict)),
            "level_probs": probs_N5[number].tolist(),
            "text_probs": text_probs[number],
            "drawn": [_level(readout(answer)) for answer in drawn[number]],
            "layers": len(reading.level_LC),
            "commit_layer": reading.commit_layer,
            "switches": reading.switches,
            "late_switch": reading.switches_late,
            "margin": reading.margin,
            "shares": [float(looks.whole[group]) for group in range(len(GROUPS))],
            "effective_tokens": looks.effective_tokens,
        }


def _drawn(subject: Subject, course: Course, media: Sequence[Shown], config: Config) -> list[list[str]]:
    """Repeated verdicts of each medium, all of them answered together."""
    repeats = range(config.repeats)
    asked = [medium for medium in media for _ in repeats]
    seeds = [seed_of(medium.path, config.seed, repeat) for medium in media for repeat in repeats]
    said = [one.verdict for one in say(subject, course, asked, Drawing(config.drawn, seeds))]
    return [said[start : start + config.repeats] for start in range(0, len(said), config.repeats)]


def _level(number: int | None) -> str | None:
    return None if number is None else LEVELS[number]
