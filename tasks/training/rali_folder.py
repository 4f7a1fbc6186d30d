"""Steps a to c of a student on a folder of one's own, one at a time, with a work folder between them.

The work folder keeps tiles, which are decoded once, the aligned tower and the basis. Each step writes ``STEP.json``
last: what decided it, what it rests on, and what is told of it; the next one reads that first. What is not finished
lies in a folder named by all that decides the step: a killed one goes on, and another never takes it for its own.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd
import torch

from models.quality_lmm import QualityLMM
from models.rali.alignment import false_negative_share
from models.rali.head import BasisHead
from models.rali.student import RaliStudent, Tower
from tasks.errors import StageError
from tasks.own_media import OwnMedia, files_state, read_own
from tasks.prepared import Preparation
from tasks.records import REJECTS
from tasks.shards import digest, frame_of, sweep, write_json, write_table
from tasks.stage import Place, build_config
from tasks.tiles import Tiles, TileViews, prepare_tiles
from tasks.training.own_lessons import STAGE, OwnScores, OwnTexts, reasons
from tasks.training.rali import Config, onnx_difference, text_tower
from tasks.training.rali_course import (
    Workshop,
    align,
    build,
    fit,
    keep_weights,
    spread_of,
    start_tower,
    take_weights,
)
from tasks.training.rali_lessons import Lessons, Seen

Step = Literal["align", "build", "fit"]
STEPS: Final[tuple[Step, ...]] = ("align", "build", "fit")

_SEEING: Final = ("view", "frames", "tower")
_DECIDED: Final[dict[Step, tuple[str, ...]]] = {
    "align": (),
    "build": (*_SEEING, "text", "align"),
    "fit": (*_SEEING, "text", "align", "build"),
}
"""Step -> keys of the config that the steps before it have decided."""


@dataclass(frozen=True)
class Own:
    """Whose student is made, and where.

    Attributes:
        media: of the folder; all are decoded, whatever is known of them.
        work: folder between the steps. root: folder that weights in the config are relative to.
    """

    media: OwnMedia
    work: Path
    root: Path


@dataclass(frozen=True)
class Finished:
    """A finished step, as the work folder tells it.

    Attributes:
        key: of all that decided it. rests_on: key of the step before; empty if there is none.
        config: by which it was done. told: its report, and what the next step needs to know.
    """

    key: str
    rests_on: str
    config: Config
    told: dict[str, Any]


def finished(work: Path, step: Step) -> Finished | None:
    """What a work folder tells of a step; None if it has not been done there.

    Raises:
        StageError: the file is not of this version.
    """
    path = work / f"{step}.json"
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text())
        config = build_config(Config, STAGE, values["config"])
        return Finished(values["key"], values["rests_on"], config, values["told"])
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path} is no step of this version ({error}): name another --work"
        raise StageError(msg) from error


def needed(work: Path, step: Step) -> Finished:
    """A step that another rests on.

    Raises:
        StageError: it has not been done there, or what it rests on has been done again since.
    """
    found = finished(work, step)
    if found is None:
        msg = f"{work} has no finished step {step}: run vital rali {step} with this --work first"
        raise StageError(msg)
    before = finished(work, "align") if step == "build" else None
    if before is not None and before.key != found.rests_on:
        msg = f"the basis in {work} rests on another alignment than the last one: run vital rali build again"
        raise StageError(msg)
    return found


def begun_config(step: Step, work: Path, usual: Callable[[], Config]) -> Config:
    """The config that a step begins from: that of the step before it, or the usual one.

    Raises:
        StageError: the step before is missing.
    """
    if step == "fit":
        return needed(work, "build").config
    before = finished(work, "align") if step == "build" else None
    return usual() if before is None else before.config


def check_step(step: Step, work: Path, config: Config) -> None:
    """Refuse to begin a step without the one before, or to change what that has decided.

    Raises:
        StageError: it is missing, or a key differs.
    """
    before = None if step == "align" else finished(work, STEPS[STEPS.index(step) - 1])
    if step == "build" and config.align.enabled:
        before = needed(work, "align")
    if before is None:
        return
    for name in _DECIDED[step]:
        if getattr(before.config, name) != getattr(config, name):
            msg = f"rali.{name} was decided by an earlier step of this --work: leave it, or name another --work"
            raise StageError(msg)


# ------------------------------------------------------------------------------ steps


def align_own(own: Own, config: Config, said: OwnTexts, reader: Path | None) -> dict[str, Any]:
    """Step a: align the tower to texts.

    Args:
        reader: folder of the model whose decoder reads the texts (text.kind ``decoder`` only).

    Raises:
        StageError: alignment is switched off, too many media do not decode, or fewer than two have texts.
        ModelError: CLIP's files or the reader's are missing.
    """
    if not config.align.enabled:
        raise StageError("rali.align.enabled is false: without alignment begin with vital rali build")
    tiles, read = _tiles(own, config), "" if reader is None else files_state(reader)
    parts = _of(config, *_SEEING, "views", "text", "align", "training")
    key = digest("align", parts, own.media.state, said.texts, read)
    tower = _begun(own, config)
    shop = _shop(own, ("align", key), Seen(tiles, tower), Lessons(said.texts, {}, len(said.texts)), config)
    if not shop.lessons.texts:
        raise StageError("no medium with a text decodes: see the rejects")
    start_tower(tower, shop)
    model = None if reader is None else QualityLMM.from_pretrained(reader)
    text = text_tower(config, Place(own.root, own.work, own.work), model, tower)
    found = align(tower, text, shop, config.align, _curves(own))
    pairs = [(name, text) for name, texts in sorted(shop.lessons.texts.items()) for text in texts]
    shared = false_negative_share([name for name, _ in pairs], [text for _, text in pairs])
    counts = {"explained": len(shop.lessons.texts), "texts": len({text for _, text in pairs})}
    lengths = dataclasses.asdict(found.pop("lengths"))
    told = counts | said.told | {"lengths": lengths, "false_negatives": round(shared, 6)} | found
    return _settled(own, "align", Finished(key, "", config, told), tiles, said.rejects)


def build_own(own: Own, config: Config, given: OwnScores, meaning: Mapping[str, Any]) -> dict[str, Any]:
    """Step b: the basis vectors with their scores.

    Args:
        meaning: of the numbers that the scores were made of, for the next step.

    Raises:
        StageError: no alignment is finished and none was switched off, or too many media do not decode.
        ModelError: there are too few media for these bases.
    """
    aligned = needed(own.work, "align") if config.align.enabled else None
    rests_on, tiles = "" if aligned is None else aligned.key, _tiles(own, config)
    key = digest("build", rests_on, _of(config, *_SEEING, "build", "fit", "training"), own.media.state, given.scores)
    tower = _begun(own, config)
    shop = _shop(own, ("build", key), Seen(tiles, tower), Lessons({}, given.scores, len(given.scores)), config)
    _check_scored(shop)
    if aligned is None:
        start_tower(tower, shop)
    else:
        take_weights(tower, _folder(own, "align", aligned.key) / "align")
    head, built = build(tower, shop, config.build, config.fit.tau)
    student = RaliStudent(tower, head, config.view, config.frames)
    told = {"scored": len(shop.lessons.scores), **built, "before": spread_of(student, shop), "meaning": dict(meaning)}
    keep_weights(student.cpu(), shop.work)
    return _settled(own, "build", Finished(key, rests_on, config, told), tiles, given.rejects)


def fit_own(own: Own, config: Config, given: OwnScores, out: Path) -> dict[str, Any]:
    """Step c: tune the basis to scores, and write the student to ``out``.

    Raises:
        StageError: no basis is finished, too many media do not decode, or a loss is not finite.
    """
    basis = needed(own.work, "build")
    tiles = _tiles(own, config)
    key = digest("fit", basis.key, _of(config, "views", "fit", "training"), own.media.state, given.scores)
    tower, recipe = _begun(own, config), config.build.recipe
    dims = config.build.dims if config.build.compress else tower.width
    student = RaliStudent(tower, BasisHead(tower.width, dims, recipe.bases, config.fit.tau), config.view, config.frames)
    take_weights(student, _folder(own, "build", basis.key))
    shop = _shop(own, ("fit", key), Seen(tiles, tower), Lessons({}, given.scores, len(given.scores)), config)
    _check_scored(shop)
    found = fit(student, shop, config.fit, _curves(own))
    aligned = finished(own.work, "align")
    sources = {} if aligned is None else aligned.told["sources"]
    student.made_from = {"texts": sources, "scores": STAGE, "media": len(shop.lessons.scores)}
    _publish(student, out)
    told = {"scored": len(shop.lessons.scores), **found, "parameters": student.parameters_count}
    told["onnx_difference"] = onnx_difference(student, tiles, out)
    return _settled(own, "fit", Finished(key, basis.key, config, told), tiles, given.rejects)


def _check_scored(shop: Workshop) -> None:
    if not shop.lessons.scores:
        raise StageError("no medium with a score decodes: see the rejects")


def _publish(student: RaliStudent, out: Path) -> None:
    """Write the student beside its place and rename it; a student that was there before is replaced."""
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    student.cpu().eval().save_pretrained(fresh)
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


# ------------------------------------------------------------------------ work folder


def _settled(own: Own, step: Step, done: Finished, tiles: Tiles, unused: list[dict[str, str]]) -> dict[str, Any]:
    """Tell of a finished step, and remove what other settings left of it; returns its report."""
    rejects = pd.concat([tiles.rejects, frame_of(REJECTS, unused)], ignore_index=True)
    write_table(own.work / f"{step}_rejects.parquet", REJECTS, rejects.drop_duplicates(list(REJECTS.key)))
    counts = {"media": len(own.media.names), "decoded": len(tiles.ids)}
    rejected = reasons([{"reason": str(reason)} for reason in rejects["reason"]])
    done = dataclasses.replace(done, told={**counts, "rejected": rejected, **_rounded(done.told)})
    write_json(own.work / f"{step}.json", dataclasses.asdict(done))
    for old in (own.work / step).glob("*"):
        if old.name != done.key:
            shutil.rmtree(old)
    return done.told


def _rounded(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 8) if isinstance(value, float) else value for name, value in told.items()}


def _tiles(own: Own, config: Config) -> Tiles:
    """Tiles of all media of the folder, decoded once for all steps; those of a former state of it are removed."""
    sweep(own.work)
    place, training = digest(str(own.media.root.resolve()))[:8], config.training
    folder = own.work / "tiles" / f"{place}-{own.media.state[:16]}"
    for old in folder.parent.glob(f"{place}-*"):
        if old != folder:
            shutil.rmtree(old)
    views = TileViews(config.view, config.frames, config.views, training.seed)
    preparation = Preparation(STAGE, training.threads, config.max_reject_share)
    return prepare_tiles(folder, own.media.frame, read_own, views, preparation)


def _begun(own: Own, config: Config) -> Tower:
    """The tower before alignment, the same in every step."""
    torch.manual_seed(config.training.seed)
    return config.tower.built(config.view, own.root)


def _shop(own: Own, named: tuple[Step, str], seen: Seen, lessons: Lessons, config: Config) -> Workshop:
    return Workshop(_folder(own, *named), own.work / "telemetry", seen, lessons.of(seen.ids), config.training)


def _folder(own: Own, step: Step, key: str) -> Path:
    return own.work / step / key


def _curves(own: Own) -> Path:
    return own.work / "curves"


def _of(config: Config, *names: str) -> dict[str, Any]:
    """Sections of a config as plain values, without what says how work is done."""
    values = dataclasses.asdict(config) | {"training": config.training.lasting()}
    return {name: values[name] for name in names}
