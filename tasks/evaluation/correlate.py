"""Agreement with the reference on held-out contents: correlations, intervals by content, paired differences, plots.

Reads nothing but the per-sample predictions, so every number here can be recomputed without a model.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from models.correlation import fit_logistic
from tasks.errors import StageError
from tasks.evaluation.agreements import TARGET, WITHIN_TYPE, Measurements, Sampling
from tasks.evaluation.frames import strengths
from tasks.records import CORRELATIONS, DIFFERENCES, PREDICTIONS
from tasks.shards import atomic, frame_of, read_table, write_json, write_table
from tasks.stage import Place

log = logging.getLogger(__name__)

ZERO, WARM_UP, CONTROL = "vital-zero-", "vital-warm-up-", "base-warm-up-"
ASSISTANT = "vital-assistant-"
"""Prefixes of the names that ``predict`` gives to the decoders of the warm-up's matrix, and to the assistant."""
PROBE, PROBE_CONTROL = "vital-probe", "base-probe"
"""The paper's linear probe of the pre-trained encoder, and of the encoder before."""
STUDENT = "vital-rali"
"""The student without a language model."""
_PLOT_DIGITS: Final = 5


@dataclass(frozen=True)
class Readout:
    """What a kind of score means; polarity is declared here and never read off the data.

    Attributes:
        higher_is_better: whether a larger score is a better quality.
        unit_scale: whether scores lie on the reference's [0, 1] scale, so that an RMSE without a fit has a meaning.
        max_skipped_share: share of the samples that a model of this readout may leave without a score.
    """

    higher_is_better: bool
    unit_scale: bool
    max_skipped_share: float


@dataclass(frozen=True)
class Config:
    """Which comparisons are made, and how uncertainty is measured.

    Attributes:
        model: the pre-trained model, which the headline numbers describe.
        base: the same model before pre-training.
        baselines: other models it is compared with.
        readouts: every readout that predictions may have.
        sampling: bootstrap and smallest groups.
    """

    model: str
    base: str
    baselines: tuple[str, ...]
    readouts: dict[str, Readout]
    sampling: Sampling


@dataclass(frozen=True)
class Report:
    """Headline numbers of the pre-trained model on all held-out samples, and where the others stand.

    A number is None where it is undefined; ``gain`` is model minus base, with its paired interval. Dictionaries are
    keyed by model, ``zero_srcc``, ``warm_up_srcc`` and the like by decoder; ``assistant_gain`` is the assistant's SRCC
    minus that of the model it was fine-tuned from; ``probe_gain`` is the probe's minus that of the probe of the base;
    ``student_gap`` is the student's minus its teacher's.
    """

    samples: int
    contents: int
    skipped: dict[str, int]
    srcc: float | None
    srcc_low: float | None
    srcc_high: float | None
    krcc: float | None
    plcc: float | None
    plcc_fitted: float | None
    rmse: float | None
    rmse_fitted: float | None
    srcc_image: float | None
    srcc_video: float | None
    srcc_undistorted: float | None
    severity_srcc: float | None
    severity_srcc_of_target: float | None
    base_srcc: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    baseline_srcc: dict[str, float | None]
    zero_srcc: dict[str, float | None]
    warm_up_srcc: dict[str, float | None]
    control_srcc: dict[str, float | None]
    assistant_srcc: dict[str, float | None]
    assistant_gain: dict[str, float | None]
    probe_srcc: float | None
    base_probe_srcc: float | None
    probe_gain: float | None
    student_srcc: float | None
    student_plcc: float | None
    student_gap: float | None


def run(config: Config, place: Place) -> Report:
    """Measure; outputs ``correlations.parquet``, ``differences.parquet``, both as JSON, and ``plots/*.csv``.

    Raises:
        StageError: no predictions, an undeclared readout, an absent headline model, or too many skipped samples.
    """
    predictions = read_table(place.artifacts("predict") / "predictions.parquet", PREDICTIONS)
    skipped = count_skipped(predictions, config.readouts)
    usable = orient(predictions, config.readouts)
    _require_models(usable, config)
    pairs = comparisons(usable, config)
    correlations, differences = [], []
    for kind, part in usable.groupby("target_kind"):
        rows = pd.DataFrame(part)
        log.info("correlate: %s: %d models, %d contents", kind, len(set(rows["model"])), len(set(rows["content_id"])))
        measurements = Measurements(rows, config.sampling)
        correlations += [{"target_kind": kind, **row} for row in measurements.correlation_rows()]
        differences += [{"target_kind": kind, **row} for row in measurements.difference_rows(pairs)]
    tables = {
        "correlations": (CORRELATIONS, frame_of(CORRELATIONS, correlations)),
        "differences": (DIFFERENCES, frame_of(DIFFERENCES, differences)),
    }
    for name, (schema, table) in tables.items():
        write_table(place.out / f"{name}.parquet", schema, table)
        ordered = table.sort_values(list(schema.key), ignore_index=True)
        write_json(place.out / f"{name}.json", ordered.astype(object).where(ordered.notna(), None).to_dict("records"))
    write_plots(place.out / "plots", usable, tables["correlations"][1], config)
    return _report(usable, skipped, correlations, differences, config)


def orient(predictions: pd.DataFrame, readouts: Mapping[str, Readout]) -> pd.DataFrame:
    """Add ``oriented`` (the score, higher is better), ``unit_scale`` and ``strength`` of the distortion.

    Samples without a finite score are left out.

    Raises:
        StageError: a readout is not declared, a distortion is not known, or there is nothing to measure.
    """
    unknown = sorted(set(predictions["readout"]) - set(readouts))
    if unknown:
        msg = (
            f"predictions have the readout {unknown[0]!r}, whose polarity is not declared: add it to correlate.readouts"
        )
        raise StageError(msg)
    usable = pd.DataFrame(predictions[np.isfinite(predictions["score"]) & np.isfinite(predictions["target"])])
    if usable.empty:
        raise StageError("there are no predictions to correlate: run dvc repro predict")
    declared = [readouts[name] for name in usable["readout"]]
    sign_N = np.array([1.0 if readout.higher_is_better else -1.0 for readout in declared])
    unit_scale = [readout.unit_scale for readout in declared]
    return usable.assign(oriented=usable["score"] * sign_N, unit_scale=unit_scale, strength=strengths(usable))


def count_skipped(predictions: pd.DataFrame, readouts: Mapping[str, Readout]) -> dict[str, int]:
    """Samples that each model left without a finite score, within the modalities it predicts at all.

    Raises:
        StageError: a model skipped more than its readout's limit.
    """
    wanted = predictions.groupby(["target_kind", "modality"])["id"].agg(set)
    skipped: dict[str, int] = {}
    for name, rows in predictions.groupby("model"):
        scored = rows[np.isfinite(rows["score"])]
        groups = [key for key, _ in rows.groupby(["target_kind", "modality"])]
        expected = sum(len(wanted[key]) for key in groups)
        missing = expected - len(scored)
        skipped[str(name)] = missing
        readout = readouts.get(str(rows["readout"].iloc[0]))
        if readout is not None and missing > readout.max_skipped_share * expected:
            msg = (
                f"{name} has no score for {missing} of {expected} samples, more than the limit "
                f"{readout.max_skipped_share:g}: see the log of predict, or raise correlate.readouts"
            )
            raise StageError(msg)
    return skipped


def comparisons(predictions: pd.DataFrame, config: Config) -> list[tuple[str, str]]:
    """Pairs (model, other) that exist: gains of pre-training, warm-up, fine-tuning, probe and student."""
    present = set(predictions["model"])
    decoders = sorted(name.removeprefix(WARM_UP) for name in present if name.startswith(WARM_UP))
    pairs = [(config.model, other) for other in (config.base, *config.baselines)]
    for decoder in decoders:
        warm = WARM_UP + decoder
        pairs += [(warm, ZERO + decoder), (warm, CONTROL + decoder), (warm, config.model)]
    pairs += [(name, config.model) for name in sorted(present) if name.startswith(ASSISTANT)]
    pairs += [(PROBE, other) for other in (PROBE_CONTROL, config.model, *config.baselines)]
    pairs += [(STUDENT, other) for other in (config.model, PROBE, *config.baselines)]
    return [pair for pair in pairs if set(pair) <= present]


def write_plots(folder: Path, predictions: pd.DataFrame, correlations: pd.DataFrame, config: Config) -> None:
    """Write the CSV files that ``dvc plots show`` draws."""
    roles = {"pretrained": config.model, "base": config.base}
    kind = _headline_kind(predictions)
    predictions = pd.DataFrame(predictions[predictions["target_kind"] == kind])
    for role, model in roles.items():
        rows = pd.DataFrame(predictions[predictions["model"] == model]).sort_values("id")
        fitted = fit_logistic(rows["oriented"], rows["target"])(rows["oriented"])
        columns = pd.DataFrame(rows[["id", "modality", "distortion", "severity", "score", "target"]]).assign(
            fitted=fitted
        )
        _write_csv(folder / f"scatter_{role}.csv", columns)
    overall = correlations.query("target_kind == @kind and slice == 'all' and statistic == 'srcc'")
    bars = pd.DataFrame(overall).assign(srcc=lambda rows: rows["value"]).sort_values("model")
    _write_csv(folder / "srcc.csv", pd.DataFrame(bars[["model", "srcc", "low", "high"]]))
    lines = {TARGET: predictions.drop_duplicates("id").groupby("strength")["target"].mean()}
    for role, model in roles.items():
        lines[role] = predictions[predictions["model"] == model].groupby("strength")["oriented"].mean()
    _write_csv(folder / "severity.csv", pd.DataFrame(lines).rename_axis("strength").reset_index())


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    with atomic(path) as file:
        file.write(frame.round(_PLOT_DIGITS).to_csv(index=False, lineterminator="\n").encode())


def _require_models(predictions: pd.DataFrame, config: Config) -> None:
    present = sorted(set(predictions["model"]))
    for name in (config.model, config.base):
        if name not in present:
            msg = f"no predictions of {name!r} (correlate.model, correlate.base); there are {', '.join(present)}"
            raise StageError(msg)


def _headline_kind(predictions: pd.DataFrame) -> str:
    """Human scores where there are some, else the machine opinion."""
    kinds = set(predictions["target_kind"])
    return "mos" if "mos" in kinds else min(kinds)


class _Lookup:
    """Single numbers of the finished tables."""

    def __init__(self, kind: str, correlations: list[dict[str, Any]], differences: list[dict[str, Any]]) -> None:
        self._found = {(r["model"], r["slice"], r["statistic"]): r for r in correlations if r["target_kind"] == kind}
        self._gaps = {
            (r["model"], r["other"], r["slice"], r["statistic"]): r for r in differences if r["target_kind"] == kind
        }

    def value(self, model: str, where: str = "all", statistic: str = "srcc", column: str = "value") -> float | None:
        return self._found.get((model, where, statistic), {}).get(column)

    def gap(self, model: str, other: str, column: str) -> float | None:
        return self._gaps.get((model, other, "all", "srcc"), {}).get(column)

    def by_decoder(self, prefix: str) -> dict[str, float | None]:
        models = sorted({model for model, _, _ in self._found if model.startswith(prefix)})
        return {model.removeprefix(prefix): self.value(model) for model in models}


def _report(
    usable: pd.DataFrame,
    skipped: dict[str, int],
    correlations: list[dict[str, Any]],
    differences: list[dict[str, Any]],
    config: Config,
) -> Report:
    found = _Lookup(_headline_kind(usable), correlations, differences)
    model, base = config.model, config.base
    rows = pd.DataFrame(usable[usable["model"] == model])
    return Report(
        samples=len(rows),
        contents=len(set(rows["content_id"])),
        skipped={name: count for name, count in sorted(skipped.items()) if count},
        srcc=found.value(model),
        srcc_low=found.value(model, column="low"),
        srcc_high=found.value(model, column="high"),
        krcc=found.value(model, statistic="krcc"),
        plcc=found.value(model, statistic="plcc"),
        plcc_fitted=found.value(model, statistic="plcc_fitted"),
        rmse=found.value(model, statistic="rmse"),
        rmse_fitted=found.value(model, statistic="rmse_fitted"),
        srcc_image=found.value(model, "image"),
        srcc_video=found.value(model, "video"),
        srcc_undistorted=found.value(model, "undistorted"),
        severity_srcc=found.value(model, WITHIN_TYPE, "severity_srcc"),
        severity_srcc_of_target=found.value(TARGET, WITHIN_TYPE, "severity_srcc"),
        base_srcc=found.value(base),
        gain=found.gap(model, base, "difference"),
        gain_low=found.gap(model, base, "low"),
        gain_high=found.gap(model, base, "high"),
        baseline_srcc={name: found.value(name) for name in config.baselines},
        zero_srcc=found.by_decoder(ZERO),
        warm_up_srcc=found.by_decoder(WARM_UP),
        control_srcc=found.by_decoder(CONTROL),
        assistant_srcc=found.by_decoder(ASSISTANT),
        assistant_gain={name: found.gap(ASSISTANT + name, model, "difference") for name in found.by_decoder(ASSISTANT)},
        probe_srcc=found.value(PROBE),
        base_probe_srcc=found.value(PROBE_CONTROL),
        probe_gain=found.gap(PROBE, PROBE_CONTROL, "difference"),
        student_srcc=found.value(STUDENT),
        student_plcc=found.value(STUDENT, statistic="plcc"),
        student_gap=found.gap(STUDENT, model, "difference"),
    )
