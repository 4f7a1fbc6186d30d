"""``python -m tasks.annotation.fit_signals``: fit the thresholds of ``models/signals`` on training contents.

Every training content of ``artifacts/collect`` is distorted by the recipe of ``distort`` at cells whose effect on a
fault is certain (caused, or left alone); each family measures them on the evidence that describers and judges draw,
and a logistic curve per family and fault separates the two classes, weighted equally. Clips are few in a small pool,
so slow camera moves over training photographs join them. Nothing but the curves, the recipe's numbers and the measured
separation is written.
"""

import argparse
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from models.distortions import IMAGE_TYPES, VIDEO_TYPES, distort_clip, distort_image
from models.signals.claims import ATTRIBUTE_OF, Fault
from models.signals.evidence import EvidenceConfig, Medium, Pixels, draw_evidence
from models.signals.scale import DESCRIBER_FAMILY, FAMILIES, THRESHOLDS_PATH, Curve, measure
from tasks.annotation.parts import rows_of
from tasks.annotation.recipe import causing_cells, sparing_cells
from tasks.annotation.sample_pixels import load_pixels
from tasks.errors import StageError, VitalError
from tasks.media import decode_video
from tasks.records import CANDIDATES, Modality, Split
from tasks.shards import read_table, write_json
from tasks.stage import Place, build_config, read_params

log = logging.getLogger(__name__)

VIDEO_FAULTS: Final = (Fault.SHAKE, Fault.STUTTER)
IMAGE_FAULTS: Final = tuple(fault for fault in Fault if fault not in VIDEO_FAULTS)
_STEPS: Final = 100
_MOVE_FPS: Final = 24.0

_Looks = list[dict[str, Any]]


@dataclass(frozen=True)
class FitConfig:
    """Recipe of the fit.

    Attributes:
        seed: of cells, distortions, camera moves and evidence.
        contents: training photographs used, at most.
        cells: causing and sparing cells drawn per photograph and fault.
        clip_cells: the same per clip.
        moves: camera moves over photographs made into clips.
        move_frames: frames of each.
        looks: evidences drawn per child.
        ridge: penalty of the squared standardised slope, per example.
        evidence: what one look consists of.
    """

    seed: int
    contents: int
    cells: int
    clip_cells: int
    moves: int
    move_frames: int
    looks: int
    ridge: float
    evidence: EvidenceConfig


@dataclass(frozen=True)
class _Job:
    root: Path
    row: dict[str, Any]
    config: FitConfig
    move: bool


def fit(root: Path, config: FitConfig, processes: int = 2) -> dict[str, Any]:
    """Measure and fit; returns the content of ``thresholds.json``.

    Raises:
        StageError: the pool has no training photograph or too few clips.
    """
    looks = _measure_all(_jobs(root, config), processes)
    curves: dict[str, dict[str, dict[str, float]]] = {}
    separation: dict[str, dict[str, float]] = {}
    for family in FAMILIES:
        curves[family], separation[family] = {}, {}
        for fault in Fault:
            present, absent = _classes(looks, family, fault)
            curve = fit_curve(present, absent, config.ridge)
            curves[family][fault] = {"centre": round(curve.centre, 6), "slope": round(curve.slope, 6)}
            right = (np.mean([curve(x) >= 0.5 for x in present]) + np.mean([curve(x) < 0.5 for x in absent])) / 2
            separation[family][fault] = round(float(right), 4)
    counts = {fault: len(_classes(looks, DESCRIBER_FAMILY, fault)[0]) for fault in Fault}
    return {
        "command": "python -m tasks.annotation.fit_signals",
        "curves": curves,
        "balanced_accuracy": separation,
        "present_looks": counts,
        "fit": asdict(config),
    }


def fit_curve(present: ArrayLike, absent: ArrayLike, ridge: float) -> Curve:
    """Logistic curve between two samples of one measure, classes weighted equally, by Newton's method.

    Raises:
        StageError: a class is empty.
    """
    there, missing = np.asarray(present, np.float64), np.asarray(absent, np.float64)
    if not len(there) or not len(missing):
        raise StageError("a fault has no training example: collect more media, or raise describe.fit.contents")
    x = np.concatenate([there, missing])
    y = np.concatenate([np.ones(len(there)), np.zeros(len(missing))])
    weight = np.where(y == 1, 0.5 / len(there), 0.5 / len(missing))
    middle, spread = float(np.median(x)), float(x.std()) or 1.0
    design = np.stack([np.ones_like(x), (x - middle) / spread], axis=1)
    penalty = np.diag([0.0, ridge])
    beta = np.zeros(2)
    for _ in range(_STEPS):
        p = 0.5 * (1 + np.tanh(design @ beta / 2))
        gradient = design.T @ (weight * (y - p)) - penalty @ beta
        hessian = design.T @ (design * (weight * p * (1 - p))[:, None]) + penalty + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        beta += step * min(1.0, 2.0 / (np.abs(step).max() + 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    slope = beta[1] / spread if abs(beta[1]) > 1e-9 else 1e-9 / spread
    return Curve(middle - beta[0] / slope, slope)


def _classes(looks: _Looks, family: str, fault: Fault) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measures of one family with and without one fault."""
    rows = [row for row in looks if row["family"] == family and row["fault"] == fault]
    present, absent = ([row["measure"] for row in rows if row["present"] is wanted] for wanted in (True, False))
    return np.array(present, np.float64), np.array(absent, np.float64)


def _jobs(root: Path, config: FitConfig) -> list[_Job]:
    folder = Place(root, root, root).artifacts("collect")
    originals = rows_of(read_table(folder / "candidates.parquet", CANDIDATES).assign(stage="collect"))
    training = [row for row in originals if row["split"] == Split.TRAIN]
    clips = [row for row in training if row["modality"] == Modality.VIDEO]
    photographs = [row for row in training if row["modality"] == Modality.IMAGE][: config.contents]
    if not photographs:
        raise StageError("the pool has no training photograph to fit thresholds on")
    moves = [_Job(root, row, config, move=True) for row in photographs[: config.moves]]
    return [*moves, *(_Job(root, row, config, move=False) for row in [*clips, *photographs])]


def _measure_all(jobs: list[_Job], processes: int) -> _Looks:
    rows: _Looks = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for found in tqdm(pool.map(_measure_content, jobs), total=len(jobs), desc="fit_signals"):
            rows.extend(found)
    return rows


def _measure_content(job: _Job) -> _Looks:
    medium = load_pixels(Place(job.root, job.root, job.root), job.row, job.config.move_frames)
    generator = np.random.default_rng([job.config.seed, int(str(job.row["id"])[:12], 16), job.move])
    if job.row["modality"] == Modality.VIDEO:
        return [row for found in _clip_children(medium, float(job.row["fps"]), job, generator) for row in found]
    if job.move:
        frames = camera_move(medium, job.config.move_frames, generator)
        return [row for found in _clip_children(frames, _MOVE_FPS, job, generator) for row in found]
    return [row for found in _image_children(medium, job, generator) for row in found]


def _image_children(pixels: Pixels, job: _Job, generator: np.random.Generator) -> Iterator[_Looks]:
    yield _look(pixels, job, "original", dict.fromkeys(IMAGE_FAULTS, False))
    for fault in IMAGE_FAULTS:
        for present, cells in ((True, causing_cells(fault)), (False, sparing_cells(fault))):
            usable = [cell for cell in cells if cell[0] in IMAGE_TYPES]
            for kind, level in _draw(usable, job.config.cells, generator):
                child = distort_image(pixels, kind, level, int(generator.integers(2**31)))
                yield _look(child, job, f"{kind}-{level}-{fault}", {fault: present})


def _clip_children(frames: Pixels, fps: float, job: _Job, generator: np.random.Generator) -> Iterator[_Looks]:
    yield _look(frames, job, "original", dict.fromkeys(VIDEO_FAULTS, False))
    for fault in VIDEO_FAULTS:
        for present, cells in ((True, causing_cells(fault)), (False, sparing_cells(fault))):
            usable = [cell for cell in cells if cell[0] in VIDEO_TYPES or not present]
            for kind, level in _draw(usable, job.config.clip_cells, generator):
                data = distort_clip(list(frames), fps, kind, level, int(generator.integers(2**31)))
                child = decode_video(data, len(frames)).frames_THWC
                yield _look(child, job, f"{kind}-{level}-{fault}", {fault: present})


def _draw(cells: list[tuple[str, int]], count: int, generator: np.random.Generator) -> list[tuple[str, int]]:
    chosen = generator.permutation(len(cells))[:count]
    return [cells[index] for index in chosen]


def _look(medium: Pixels, job: _Job, name: str, classes: dict[Fault, bool]) -> _Looks:
    """Measure one child: rows of family, fault, present, measure."""
    rows: _Looks = []
    shown = Medium(medium)
    attributes = tuple(dict.fromkeys(ATTRIBUTE_OF[fault] for fault in classes))
    for family in FAMILIES:
        for look in range(job.config.looks):
            evidence = draw_evidence(shown, job.config.evidence, str(job.row["id"]), name, family, look)
            found = measure(family, evidence, attributes)
            rows.extend(
                {
                    "family": family,
                    "fault": fault,
                    "present": present,
                    "measure": found[ATTRIBUTE_OF[fault]],
                    "cell": name,
                }
                for fault, present in classes.items()
            )
    return rows


def camera_move(pixels: Pixels, frames: int, generator: np.random.Generator) -> Pixels:
    """A steady pan over a photograph, ``[T, H, W, 3]``: constant velocity, to half a pixel, bilinear."""
    height, width = pixels.shape[:2]
    high, wide = (max(64, int(size * 0.7)) // 2 * 2 for size in (height, width))
    start = generator.uniform(0, 1, 2) * (height - high - 1, width - wide - 1)
    end = generator.uniform(0, 1, 2) * (height - high - 1, width - wide - 1)
    source = pixels.astype(np.float32)
    views = []
    for share in np.linspace(0, 1, frames):
        top, left = start + (end - start) * share
        row, column = int(top), int(left)
        down, right = np.float32(top - row), np.float32(left - column)
        part = source[row : row + high + 1, column : column + wide + 1]
        rows = part[:-1] * (1 - down) + part[1:] * down
        views.append((rows[:, :-1] * (1 - right) + rows[:, 1:] * right).round().astype(np.uint8))
    return np.stack(views)


def main() -> int:
    """Fit and write ``models/signals/thresholds.json``; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fit the thresholds of the measured signals on training contents.")
    parser.add_argument("--out", type=Path, default=THRESHOLDS_PATH, help="file to write")
    parser.add_argument("--processes", type=int, default=2, help="worker processes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    root = Path.cwd()
    try:
        config = build_config(FitConfig, "describe.fit", read_params(root)["describe"]["fit"])
        content = fit(root, config, arguments.processes)
    except VitalError as error:
        log.error("%s", error)  # noqa: TRY400 - one line for people, no traceback
        return 1
    write_json(arguments.out, content)
    for family, values in content["balanced_accuracy"].items():
        log.info("%-12s %s", family, "  ".join(f"{fault} {value:.2f}" for fault, value in values.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
