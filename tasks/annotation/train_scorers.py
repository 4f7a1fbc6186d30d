"""``python -m tasks.annotation.train_scorers``: train the built-in scorers from pristine photographs alone.

Renders the training set into a cache folder, trains each network of the recipe, calibrates it on the training contents
against full-reference measures, and writes ``<name>.safetensors``, ``<name>.onnx``, the card ``<name>.json`` and, when
all are trained, ``MODEL_CARD.md``. Both rendering and training continue after a kill. No human score is read anywhere.
"""

import argparse
import dataclasses
import hashlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from models.distortions import GENERATOR
from models.errors import ModelError
from models.scorers.built_in import BUILT_INS, WEIGHTS
from models.scorers.identity import identity
from models.scorers.protocol import Calibration
from tasks.annotation.scorer_card import HeldOut, srcc, write_card
from tasks.annotation.scorer_samples import Rendering
from tasks.annotation.scorer_set import Floats, TrainingSet, find_photographs, load_set, render_all
from tasks.annotation.scorer_training import Material, ScorerRecipe, learning_code, measure_all, raw_scores, train
from tasks.errors import ConfigError, VitalError
from tasks.shards import atomic, digest, write_json
from tasks.stage import build_config

log = logging.getLogger(__name__)

RECIPE: Final = Path(__file__).resolve().parents[2] / "models/scorers/training.yaml"
_MOST_KNOTS: Final = 40
_LEAST_SLOPE: Final = 1e-3
"""Smallest rise from knot to knot: a calibration never makes two raw scores equal."""


@dataclass(frozen=True)
class Recipe:
    """The training recipe of all built-in scorers; see ``models/scorers/training.yaml``.

    Attributes:
        release: first part of every scorer's version.
        held_out: photographs kept for the figures.
        knots: of each calibration.
        calibration_samples: training samples a calibration is fitted on.
        calibration_target: measures that define the common scale.
        rendering: how samples are made.
        scorers: name -> how it is trained.
    """

    release: int
    held_out: int
    knots: int
    calibration_samples: int
    calibration_target: dict[str, float]
    rendering: Rendering
    scorers: dict[str, ScorerRecipe]


@dataclass(frozen=True)
class TrainingData:
    """Rendered samples and which photographs are for training; ``sources`` are the names of their folders."""

    stills: TrainingSet
    clips: TrainingSet
    training_photos: int
    photos: int
    sources: tuple[str, ...]
    key: str

    def rows(self, *, training: bool, clips: bool = False) -> np.ndarray:
        """Indices of the samples of training, or of held-out, contents."""
        photo_N = (self.clips if clips else self.stills).labels.photo_N
        return np.flatnonzero((photo_N < self.training_photos) == training)

    def held_out(self, mixture: dict[str, float]) -> HeldOut:
        """What is known of the stills of held-out contents."""
        rows, labels = self.rows(training=False), self.stills.labels
        return HeldOut(labels.target(mixture)[rows], labels.kind_N[rows])


@dataclass(frozen=True)
class Trained:
    """A scorer's card, and its calibrated scores of the stills of held-out contents."""

    card: dict[str, Any]
    held_out_N: Floats


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.annotation.train_scorers", description=__doc__)
    parser.add_argument("--pristine", type=Path, nargs="+", required=True, help="folders of pristine photographs")
    parser.add_argument("--only", choices=sorted(BUILT_INS), help="train this scorer alone")
    parser.add_argument("--seed", type=int, default=1, help="decides samples, weights and batches")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="YAML recipe")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for weights, ONNX twins and cards")
    parser.add_argument("--cache", type=Path, default=Path(".work/train_scorers"), help="rendered samples, checkpoints")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="rendering processes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        recipe = read_recipe(arguments.recipe)
        data = prepare(arguments.pristine, recipe, arguments.seed, arguments.cache, arguments.workers)
        names = [arguments.only] if arguments.only else list(BUILT_INS)
        trained = {
            name: train_one(name, recipe, data, arguments.seed, arguments.cache, arguments.out) for name in names
        }
        if not arguments.only:
            mean_N = np.mean([one.held_out_N for one in trained.values()], axis=0)
            cards = {name: one.card for name, one in trained.items()}
            write_card(arguments.out, cards, data.held_out(recipe.calibration_target).figures(mean_N))
    except (VitalError, ModelError) as error:
        log.error("train_scorers failed: %s", error)  # noqa: TRY400 - one line, no traceback
        return 1
    return 0


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        ConfigError: it is missing, not YAML, or has unknown or missing keys.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        msg = f"{path} is not a readable recipe: {' '.join(str(error).split())}"
        raise ConfigError(msg) from error
    if not isinstance(values, dict):
        msg = f"{path} must be a mapping"
        raise ConfigError(msg)
    return build_config(Recipe, path.name, values)


def prepare(folders: Sequence[Path], recipe: Recipe, seed: int, cache: Path, workers: int) -> TrainingData:
    """Render what is missing and open the set."""
    photographs = find_photographs(folders, seed)
    rendered = render_all(photographs, recipe.rendering, seed, cache / "samples", workers)
    training = len(rendered) - min(recipe.held_out, len(rendered) // 2)
    reference = rendered[:training]
    stills, clips = (load_set(rendered, reference, clips=part) for part in (False, True))
    key = digest([folder.name for folder in rendered], training)
    return TrainingData(stills, clips, training, len(rendered), tuple(folder.resolve().name for folder in folders), key)


def train_one(name: str, recipe: Recipe, data: TrainingData, seed: int, cache: Path, out: Path) -> Trained:
    """Train, calibrate, measure, export and write one scorer; the card is written last."""
    from models.scorers.export import to_onnx, to_safetensors  # noqa: PLC0415 - needs torch

    own = recipe.scorers.get(name)
    if own is None:
        msg = f"the recipe has no scorer {name!r}"
        raise ConfigError(msg)
    rows, clip_rows = data.rows(training=True), data.rows(training=True, clips=True)
    key = digest(name, dataclasses.asdict(own), seed, data.key, learning_code())
    material = Material(data.stills, data.clips, rows, clip_rows)
    measured = measure_all(name, material, cache / "figures", data.key)
    network = train(name, own, material, measured, seed, cache / "checkpoints" / f"{name}-{key}.pt")
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(rows, size=min(recipe.calibration_samples, len(rows)), replace=False))
    target = data.stills.labels.target(recipe.calibration_target)
    calibration = fit_calibration(raw_scores(network, measured.stills, chosen), target[chosen], recipe.knots)
    weights, twin = to_safetensors(network), to_onnx(name, network)
    held_out_N = _calibrated(calibration, raw_scores(network, measured.stills, data.rows(training=False)))
    figures = data.held_out(recipe.calibration_target).figures(held_out_N)
    if measured.clips is not None:
        held_out = data.rows(training=False, clips=True)
        clip_target = data.clips.labels.target(recipe.calibration_target)[held_out]
        figures |= {
            "clips": len(held_out),
            "srcc_clips": srcc(raw_scores(network, measured.clips, held_out), clip_target),
        }
    knots = dataclasses.asdict(calibration)
    for suffix, content in (("safetensors", weights), ("onnx", twin)):
        with atomic(out / f"{name}.{suffix}") as file:
            file.write(content)
    card = {
        "name": name,
        "idea": BUILT_INS[name].idea,
        "version": f"{recipe.release}+{identity(weights, twin, calibration, BUILT_INS[name].view)}",
        "sha256": {"safetensors": hashlib.sha256(weights).hexdigest(), "onnx": hashlib.sha256(twin).hexdigest()},
        "calibration": knots,
        "training": {
            "recipe": dataclasses.asdict(own),
            "seed": seed,
            "generator": GENERATOR,
            "sources": list(data.sources),
            "photographs": data.photos,
            "held_out": data.photos - data.training_photos,
            "samples": len(rows),
            "clips": len(clip_rows),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
        },
        "figures": figures,
    }
    write_json(out / f"{name}.json", card)
    log.info("%s %s: SRCC %.3f on held-out contents", name, card["version"], figures["srcc"])
    return Trained(card, held_out_N)


def _calibrated(calibration: Calibration, raw_N: Floats) -> Floats:
    return np.array([calibration(raw) for raw in raw_N])


def fit_calibration(raw_N: Floats, target_N: Floats, knots: int) -> Calibration:
    """Monotone map raw -> [0, 1]: isotonic means of the target in equally filled bins of the raw score.

    Beyond the outermost bins the line goes on to 0 and 1, so that scores outside the training range still differ.

    Args:
        raw_N: raw scores of training samples.
        target_N: their full-reference target in [0, 1].
        knots: bins.
    """
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415 - training alone pays for it

    order = np.argsort(raw_N, kind="stable")
    bins = [part for part in np.array_split(order, knots) if len(part)]
    raw = np.array([raw_N[part].mean() for part in bins])
    raw, first = np.unique(raw, return_index=True)
    if len(raw) > _MOST_KNOTS:
        msg = f"knots: {len(raw)} are too many, the rise between them would be lost; use at most {_MOST_KNOTS}"
        raise ConfigError(msg)
    means = np.array([target_N[bins[index]].mean() for index in first])
    if len(raw) < 2:
        raise ModelError("a scorer whose raw scores are all equal cannot be calibrated: train it longer")
    quality = np.clip(IsotonicRegression().fit(raw, means).predict(raw), 0.02, 0.98)
    quality = np.clip(quality + _LEAST_SLOPE * (np.arange(len(raw)) - len(raw) / 2), 0.001, 0.999)
    slope = (quality[-1] - quality[0]) / (raw[-1] - raw[0])
    low, high = raw[0] - quality[0] / slope, raw[-1] + (1 - quality[-1]) / slope
    return Calibration(tuple(float(x) for x in (low, *raw, high)), tuple(float(x) for x in (0.0, *quality, 1.0)))


if __name__ == "__main__":
    sys.exit(main())
