"""``python -m tasks.evaluation.trial``: score the held-out contents with a trial's models and measure them.

The workspace is a trial's (``infra.trials``); models are read out and measured as ``predict`` and ``correlate`` do,
with their sections of the workspace's params. What is measured goes to ``.work/measures.json``, scores and all.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from infra.errors import InfraError
from infra.params import Params
from infra.trials import MEASURES
from models.correlation import interval
from models.errors import ModelError
from models.quality_lmm import QualityLMM
from tasks.errors import StageError, VitalError
from tasks.evaluation import correlate, predict, reason
from tasks.evaluation.agreements import WITHIN_TYPE, Measurements, Sampling
from tasks.evaluation.correlate import orient
from tasks.evaluation.inferences import per_medium, qualities
from tasks.prepared import CachedFeatures
from tasks.records import INFERENCES, Split
from tasks.shards import read_table, write_json
from tasks.stage import SHARED, Place, read_params, stage_config
from tasks.targets import scored_candidates

log = logging.getLogger(__name__)

STATISTICS: Final = {
    "srcc": ("all", "srcc"),
    "plcc": ("all", "plcc"),
    "undistorted_srcc": ("undistorted", "srcc"),
    "severity_srcc": (WITHIN_TYPE, "severity_srcc"),
}
"""Name of a measure in the result -> slice and statistic of ``correlate``."""
DIGITS: Final = 5
"""Decimals of scores and measures in a result."""


def measure(root: Path) -> dict[str, Any]:
    """Score and measure the models that the trial in ``root`` has made.

    Returns:
        ``media`` (columns over the held-out media, by id) and ``models``: per model its readout, measures with
        intervals over contents, and its scores in the order of the media.

    Raises:
        StageError: too many media do not decode, or a score is not finite.
    """
    params = read_params(root)
    config, measured_by = stage_config("predict", params), stage_config("correlate", params)
    torch.set_num_threads(config.threads)
    place = Place(root, root / ".work" / "measure", root / ".work" / "measure" / "out")
    pool = scored_candidates(place)
    held_out = pd.DataFrame(pool[pool["split"] == Split.HELD_OUT])
    if (place.root / "artifacts" / "two_stage").is_dir():
        return _measure_reasons(place, params, measured_by)
    entries = _entries(place)
    encoders, features = _features(place, held_out, entries, config)
    media = predict.decodable(held_out, features[predict.VITAL]).sort_values("id", ignore_index=True)
    rows: list[pd.DataFrame] = []
    for entry in entries:
        model = predict.load_entry(entry, encoders)
        rows.append(predict.level_rows(entry.name, model, media, features[entry.encoder], config))
    predictions = pd.concat(rows, ignore_index=True)
    if len(predictions) != len(entries) * len(media):
        raise StageError("a model gave a medium no finite score: its weights are broken")
    predictions["score"] = predictions["score"].round(DIGITS)  # measures are those of the scores that are kept
    return _measured(predictions, media, measured_by)


def _measured(predictions: pd.DataFrame, media: pd.DataFrame, measured_by: correlate.Config) -> dict[str, Any]:
    measurements = Measurements(orient(predictions, measured_by.readouts), measured_by.sampling)
    names = list(dict.fromkeys(predictions["model"]))
    return {
        "media": _columns(media),
        "models": {name: _told(name, predictions, measurements, measured_by.sampling) for name in names},
    }


def _measure_reasons(place: Place, params: Params, measured_by: correlate.Config) -> dict[str, Any]:
    """Ask one-stage and two-stage models as the stage ``reason`` does; its figures stand beside the usual measures."""
    config = stage_config("reason", params)
    asked = Place(place.root, place.work / "reason", place.work / "reason" / "out")
    asked.out.mkdir(parents=True, exist_ok=True)
    reason.run(config, asked)
    inferences = read_table(asked.out / "inferences.parquet", INFERENCES).sort_values(["model", "id"])
    pool = scored_candidates(place)
    told_of = set(inferences["id"])
    media = pd.DataFrame(pool[[medium in told_of for medium in pool["id"]]]).sort_values("id", ignore_index=True)
    parts: list[pd.DataFrame] = []
    for name, rows in inferences.groupby("model", sort=True):
        qualities_N = qualities(rows, "expectation").round(DIGITS)
        parts.append(predict.prediction_rows(str(name), media, qualities_N, None, "expectation"))
    told = _measured(pd.concat(parts, ignore_index=True), media, measured_by)
    for name, rows in inferences.groupby("model", sort=True):
        figures = per_medium(rows)
        told["models"][str(name)]["figures"] = {key: _listed(values_N) for key, values_N in figures.items()}
    return told


def _listed(values_N: NDArray[np.float64]) -> str:
    """A figure of every medium, in their order; ``nan`` where it is undefined."""
    return " ".join(f"{value:.{DIGITS}g}" for value in values_N)


def _entries(place: Place) -> list[predict.Entry]:
    """Models that this trial has trained, not those that it started from."""
    made = [predict.pretrained_entry(place)] if not (place.root / "artifacts" / "pretrain").is_symlink() else []
    return [*made, *(predict.warm_up_entries(place) if (place.root / "artifacts" / "warm_up").is_dir() else [])]


def _features(
    place: Place, held_out: pd.DataFrame, entries: list[predict.Entry], config: predict.Config
) -> tuple[dict[str, QualityLMM], dict[str, CachedFeatures]]:
    """Encoders, and what they say about the held-out media; that of the base encoder is kept for all trials."""
    vital = {predict.VITAL: QualityLMM.from_pretrained(place.artifacts("pretrain") / "model")}
    features = predict.encode(place.work / "features", place, held_out, vital, config)
    if not any(entry.encoder == predict.BASE for entry in entries):
        return vital, features
    decoder = predict.pretrained_decoder(place)
    base = {predict.BASE: QualityLMM.from_pretrained(place.artifacts("base") / decoder)}
    shared = place.root / ".work" / SHARED
    folder = (shared if shared.is_dir() else place.work) / "base_features"
    return {**vital, **base}, features | predict.encode(folder, place, held_out, base, config)


def _columns(media: pd.DataFrame) -> dict[str, list[Any]]:
    """What tables need to know about the media; targets are not rounded, since ties count in ranks."""
    names = ("id", "content_id", "modality", "severity")
    return {name: media[name].tolist() for name in names} | {"target": [float(value) for value in media["target"]]}


def _told(name: str, predictions: pd.DataFrame, measurements: Measurements, sampling: Sampling) -> dict[str, Any]:
    rows = pd.DataFrame(predictions[predictions["model"] == name]).sort_values("id")
    measures: dict[str, dict[str, float | None]] = {}
    for measure_name, (where, statistic) in STATISTICS.items():
        found = measurements.of(name, where, measurements.ids(name, where))
        value, replicates_B = found.points.get(statistic), found.replicates.get(statistic)
        bounds = None
        if replicates_B is not None:
            bounds = interval(replicates_B, sampling.confidence, sampling.max_undefined_share)
        low, high = bounds or (None, None)
        measures[measure_name] = {"value": _rounded(value), "low": _rounded(low), "high": _rounded(high)}
    scores = " ".join(f"{score:.{DIGITS}f}" for score in rows["score"])
    return {"readout": str(rows["readout"].iloc[0]), "measures": measures, "scores": scores}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def main() -> int:
    """Measure the trial in the working directory; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    root = Path(os.path.curdir).resolve()
    try:
        write_json(root / MEASURES, measure(root))
    except (VitalError, ModelError, InfraError) as error:
        log.error("measure failed: %s", error)  # noqa: TRY400 - one line for people, as python -m tasks has it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
