"""RALI: a student that scores from an image tower aligned to reasoning text, without a language model.

"Reasoning as Representation" (arXiv 2510.11369), steps a to c: the image tower is aligned to the texts that ``explain``
has gathered, a codebook of quality is built in its space, and vectors and scores of the codebook are tuned to the
teacher's scores (or to machine opinion). What the paper leaves open, and what is ours, stands in docs/rali.md.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from models.quality_lmm import QualityLMM
from models.rali.clip_folder import clip_home, lacking_clip
from models.rali.runtime import RaliScorer
from models.rali.student import RaliStudent, Tower, TowerSpec
from models.rali.text_length import LengthPolicy
from models.rali.text_towers import ClipTextTower, DecoderTextTower, LengthReport, TextTower
from models.rali.views import TileView
from tasks import group
from tasks.errors import StageError
from tasks.instructions import ImportedSource, imported_instructions, media_frame, read_any_media
from tasks.pool import load_candidates
from tasks.prepared import Preparation
from tasks.records import REJECTS
from tasks.shards import write_table
from tasks.stage import Place
from tasks.tiles import Tiles, TileViews, prepare_tiles
from tasks.training.config import TrainingConfig
from tasks.training.engine import wanted_processes
from tasks.training.rali_course import AlignConfig, BuildConfig, FitConfig, Workshop, align, build, fit, start_tower
from tasks.training.rali_lessons import Lessons, Seen, gather_lessons
from tasks.training.session import lacking_gpus

STUDENT = "student"


@dataclass(frozen=True)
class TextSpec:
    """Which text tower.

    Attributes:
        kind: ``clip``, or ``decoder``: the pre-trained model's decoder reads the text.
        weights: as of ``TowerSpec`` (``clip`` only).
        limit: tokens that the decoder reads at a time (``decoder`` only; CLIP's is CLIP's).
        policy: what becomes of longer texts.
    """

    kind: Literal["clip", "decoder"]
    weights: str
    limit: int
    policy: LengthPolicy

    def __post_init__(self) -> None:
        """Check that what the kind needs is there."""
        if self.kind == "clip" and not self.weights:
            raise ValueError("text.kind clip needs text.weights, the folder of a CLIP model")
        if self.limit < 1:
            raise ValueError("text.limit must be at least 1")


@dataclass(frozen=True)
class Config:
    """What is distilled into what.

    Attributes:
        texts: sources of ``explain`` whose texts are learnt from; none takes all.
        scores: ``teacher`` or ``opinion``, the machine opinion's mean.
        sources: imported tables of ``explain`` whose media are learnt from; the same as there.
        view, frames: what the student sees of a picture, and how many frames of a video.
        views: versions of each medium that take turns in training; the first is that of scoring.
        tower, text: the networks. align, build, fit: the three steps. training: the loop of the alignment.
        max_reject_share: share of undecodable media above which the stage fails.
    """

    texts: tuple[str, ...]
    scores: Literal["teacher", "opinion"]
    sources: tuple[ImportedSource, ...]
    view: TileView
    frames: int
    views: int
    tower: TowerSpec
    text: TextSpec
    align: AlignConfig
    build: BuildConfig
    fit: FitConfig
    max_reject_share: float
    training: TrainingConfig

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.frames < 1 or self.views < 1:
            raise ValueError("frames and views must be at least 1")


@dataclass(frozen=True)
class Report:
    """Counts and measures of the student on what it learnt from.

    Attributes:
        media, contents: with a score. explained: media with a text. texts: different ones.
        lengths: how texts fit into the text tower. align: losses, temperature, and the share of training media whose
            nearest text is their own; empty without alignment. build: variance that PCA keeps, empty buckets, media of
            the largest basis.
        before, after: of the scores before and after tuning: ``std_ratio`` (standard deviation over that of the
            targets; far below 1 means a score that hardly leaves the mean), ``rmse``, ``srcc``.
        parameters: of student and teacher, and their ratio. onnx_difference: largest of scores in onnxruntime.
    """

    media: int
    contents: int
    explained: int
    texts: int
    rejected: int
    lengths: LengthReport | None
    align: dict[str, float]
    build: dict[str, float]
    fit: dict[str, float]
    before: dict[str, float]
    after: dict[str, float]
    parameters: dict[str, float]
    onnx_difference: float


def processes(config: Config) -> int:
    """Processes that the stage runs in."""
    return wanted_processes(config.training)


def missing(config: Config, root: Path) -> list[str]:
    """What this machine lacks for the stage, one line each."""
    lines = lacking_gpus(config.training)
    folders = {spec.weights for spec in (config.tower, config.text) if spec.weights}
    return lines + [told for name in sorted(folders) if (told := lacking_clip(root, name))]


def run(config: Config, place: Place) -> Report:
    """Make a student, in every process of a group.

    Outputs ``student/`` (see :class:`models.rali.student.RaliStudent`), the curves ``align.json`` and ``fit.json``, and
    ``rejects.parquet``.

    Raises:
        StageError: there is nothing to learn from, too many media do not decode, or a loss is not finite.
        ModelError: the codebook cannot be made, or CLIP's files are missing.
    """
    lessons = gather_lessons(place, config.texts, config.align.texts_per_image, config.scores)
    tiles = training_tiles(config, place, lessons)
    torch.manual_seed(config.training.seed)
    tower = config.tower.built(config.view, place.root)
    shop = Workshop(place.work, place.telemetry("rali"), Seen(tiles, tower), lessons.of(tiles.ids), config.training)
    if not shop.lessons.scores:
        raise StageError("no medium has a score to learn from: see the rejects of rali and explain")
    start_tower(tower, shop)
    teacher = QualityLMM.from_pretrained(place.artifacts("pretrain") / "model")
    aligned: dict[str, Any] = {}
    if config.align.enabled:
        aligned = align(tower, text_tower(config, place, teacher, tower), shop, config.align, place.out)
    head, built = build(tower, shop, config.build, config.fit.tau)
    student = RaliStudent(tower, head, config.view, config.frames)
    fitted = fit(student, shop, config.fit, place.out)
    student.made_from = {"texts": list(config.texts) or "all", "scores": config.scores, "media": len(lessons.scores)}
    group.current().led(lambda: _publish(student, tiles, place))
    difference = group.current().led(lambda: onnx_difference(student, tiles, place.out / STUDENT))
    return _report(shop, tiles, student, teacher, _Told(aligned, built, fitted, difference))


def _publish(student: RaliStudent, tiles: Tiles, place: Place) -> None:
    student.cpu().eval().save_pretrained(place.out / STUDENT)
    write_table(place.out / "rejects.parquet", REJECTS, tiles.rejects)


@dataclass(frozen=True)
class _Told:
    """What the steps tell."""

    align: dict[str, Any]
    build: dict[str, Any]
    fit: dict[str, Any]
    onnx: float


def _report(shop: Workshop, tiles: Tiles, student: RaliStudent, teacher: QualityLMM, told: _Told) -> Report:
    sizes = {"student": student.parameters_count, "teacher": sum(value.numel() for value in teacher.parameters())}
    lengths = told.align.get("lengths")
    return Report(
        media=len(shop.lessons.scores),
        contents=shop.lessons.contents,
        explained=len(shop.lessons.texts),
        texts=len({one for own in shop.lessons.texts.values() for one in own}),
        rejected=len(tiles.rejects),
        lengths=lengths,
        align=_numbers(told.align),
        build=_numbers(told.build),
        fit=_numbers(told.fit),
        before=told.fit["before"],
        after=told.fit.get("after", told.fit["before"]),
        parameters={**sizes, "ratio": round(sizes["student"] / sizes["teacher"], 6)},
        onnx_difference=told.onnx,
    )


def _numbers(told: dict[str, Any]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in told.items() if isinstance(value, int | float)}


def training_tiles(config: Config, place: Place, lessons: Lessons) -> Tiles:
    """Tiles of all media that are learnt from."""
    _, frames = imported_instructions(place, config.sources)
    every = media_frame(load_candidates(place), frames)
    wanted = set(lessons.media)
    shown = pd.DataFrame(every[[name in wanted for name in every["id"]]])
    training = config.training
    preparation = Preparation("rali", training.threads, config.max_reject_share)
    views = TileViews(config.view, config.frames, config.views, training.seed)
    return prepare_tiles(place.kept_media / "tiles", shown, partial(read_any_media, place), views, preparation)


def text_tower(config: Config, place: Place, teacher: QualityLMM | None, tower: Tower) -> TextTower:
    """What reads the texts into the tower's space.

    Args:
        teacher: whose decoder reads them (kind ``decoder`` only).

    Raises:
        StageError: a decoder is to read them, and there is none. ModelError: CLIP's files are missing.
    """
    spec = config.text
    if spec.kind == "clip":
        return ClipTextTower.from_pretrained(clip_home(place.root, spec.weights), spec.policy)
    if teacher is None:
        raise StageError("text.kind decoder needs a model whose decoder reads the texts")
    return DecoderTextTower(teacher.language_model, teacher.tokenizer, spec.policy, spec.limit, tower.width)


_COMPARED = 16
"""Media on which both runtimes are compared."""


def onnx_difference(student: RaliStudent, tiles: Tiles, folder: Path) -> float:
    """Largest difference of a score between torch and onnxruntime, which reads the student's folder."""
    scorer = RaliScorer(folder)
    shown = [tiles.read(name) for name in tiles.ids[:_COMPARED]]
    with torch.inference_mode():
        own = [student(one[None]).item() for one in shown]
    others = [scorer.of_tiles(one.numpy()) for one in shown]
    return round(float(np.abs(np.array(own) - np.array(others)).max()), 8)
