"""Compare the machine opinion with people: SRCC of mu and of each scorer with human scores, beside NIQE.

    python benchmarks/human_scores.py FOLDER

FOLDER holds ``manifest.csv`` with the columns path, kind, mos and direction (``higher_better`` or ``lower_better``;
DMOS is negated on that word alone), and the images below it. ``niqe`` is the project's own; ``niqe (published)`` uses
the authors' pristine model where ``params/niqe_pris_params.npz`` lies in FOLDER. Differences to NIQE are paired, over
images where both are defined. Nothing is fitted to these numbers; what was decided with a look at them is told in
docs/scorers.md.
"""

import argparse
import csv
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from arguments import folder_with
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.errors import ModelError
from models.niqe import PristineModel, niqe
from models.scorers import BUILT_INS
from tasks.annotation.opinions import load_scorers, opinion_of
from tasks.media import decode_image

BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Rated:
    """One image people rated; ``quality`` is higher for better."""

    path: Path
    quality: float


def read_manifest(folder: Path) -> dict[str, list[Rated]]:
    """Rated images by set: the folder below ``images``."""
    sets: dict[str, list[Rated]] = defaultdict(list)
    with (folder / "manifest.csv").open() as file:
        for row in csv.DictReader(file):
            path = folder / row["path"]
            if row["kind"] != "image" or not row["mos"] or not path.is_file():
                continue
            sign = {"higher_better": 1.0, "lower_better": -1.0}[row["direction"]]
            sets[path.parent.name].append(Rated(path, sign * float(row["mos"])))
    return dict(sets)


def srcc(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation, ties by mean rank."""
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Bootstrap 95 % interval of the rank correlation."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(first), len(first)) for _ in range(BOOTSTRAPS)]
    values = [srcc(first[draw], second[draw]) for draw in draws if np.ptp(second[draw]) > 0]
    return tuple(np.nanpercentile(values, [2.5, 97.5]))  # type: ignore[return-value]


def difference(first: np.ndarray, second: np.ndarray, quality: np.ndarray) -> tuple[float, float, float]:
    """SRCC of the first minus that of the second, and its paired bootstrap 95 % interval."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(quality), len(quality)) for _ in range(BOOTSTRAPS)]
    values = [srcc(first[d], quality[d]) - srcc(second[d], quality[d]) for d in draws if np.ptp(quality[d]) > 0]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return srcc(first, quality) - srcc(second, quality), float(low), float(high)


def published_pristine(folder: Path) -> PristineModel | None:
    """NIQE's published pristine model, if the folder has it."""
    path = folder / "params" / "niqe_pris_params.npz"
    if not path.is_file():
        return None
    with np.load(path) as params:
        return PristineModel(params["mu_pris_param"].reshape(-1), params["cov_pris_param"])


def measure(rated: list[Rated], published: PristineModel | None) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Predictions (higher is better) by name, and the human qualities."""
    scorers = load_scorers()
    columns: dict[str, list[float]] = defaultdict(list)
    for item in rated:
        data = item.path.read_bytes()
        result = opinion_of(data, scorers)
        columns["mu"].append(result.mu)
        for name, score in result.scores.items():
            columns[name].append(score)
        pixels = decode_image(data)
        columns["niqe"].append(_naturalness(pixels, None))
        if published:
            columns["niqe (published)"].append(_naturalness(pixels, published))
    return {name: np.array(values) for name, values in columns.items()}, np.array([item.quality for item in rated])


def _naturalness(pixels: np.ndarray, pristine: PristineModel | None) -> float:
    """NIQE, negated; NaN where it is undefined (every patch flat)."""
    try:
        return -niqe(pixels, pristine)
    except ModelError:
        return float("nan")


def main() -> None:
    """Print one table per set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=folder_with("manifest.csv"))
    folder = parser.parse_args().folder
    for name, rated in read_manifest(folder).items():
        if len(rated) < 5:
            continue
        predictions, quality = measure(rated, published_pristine(folder))
        print(f"{name}: {len(rated)} images")
        for column, values in predictions.items():
            defined = ~np.isnan(values)
            low, high = interval(values[defined], quality[defined])
            note = "" if defined.all() else f"  undefined for {(~defined).sum()}, left out"
            print(
                f"  {column:22s} SRCC {srcc(values[defined], quality[defined]):+.3f}  [{low:+.3f}, {high:+.3f}]{note}"
            )
        for rival in (column for column in predictions if column.startswith("niqe")):
            both = ~np.isnan(predictions[rival])
            gain, low, high = difference(predictions["mu"][both], predictions[rival][both], quality[both])
            print(f"  mu - {rival:17s}      {gain:+.3f}  [{low:+.3f}, {high:+.3f}]")
        residuals = np.stack([_residual(predictions[key], quality) for key in BUILT_INS])
        matrix = np.array([[srcc(a, b) for b in residuals] for a in residuals])
        print(f"  largest SRCC of two scorers' residuals: {matrix[~np.eye(len(matrix), dtype=bool)].max():+.3f}")


def _residual(values: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """What a straight line through the human scores leaves of a scorer."""
    slope, offset = np.polyfit(quality, values, 1)
    return values - slope * quality - offset


if __name__ == "__main__":
    main()
