"""What the report says about models: loss curves, agreement, comparisons, lineage and the gate."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from tasks.evaluation import charts
from tasks.evaluation.agreements import TARGET, WITHIN_TYPE
from tasks.evaluation.charts import Axis, Series
from tasks.evaluation.frames import numbers, ordered, records, strengths, where
from tasks.stage import Place

Floats = NDArray[np.float64]

_POINTS: Final = 300
"""Points of a drawn curve; longer histories are averaged over windows."""
_COLUMNS: Final = (
    ("SRCC", "all", "srcc"),
    ("KRCC", "all", "krcc"),
    ("PLCC", "all", "plcc"),
    ("PLCC fitted", "all", "plcc_fitted"),
    ("RMSE fitted", "all", "rmse_fitted"),
    ("SRCC images", "image", "srcc"),
    ("SRCC videos", "video", "srcc"),
    ("SRCC undistorted", "undistorted", "srcc"),
    ("SRCC severity", WITHIN_TYPE, "severity_srcc"),
)
_LINEAGE: Final = (
    *("collect", "distort", "score", "describe", "review", "assemble", "validate"),
    *("base", "pretrain", "warm_up", "assistant", "linear_probe", "two_stage"),
    *("teach", "ract", "explain", "rali"),
    *("predict", "answer", "reason", "cross_swap", "correlate"),
)


def training_chapter(place: Place) -> list[dict[str, Any]]:
    """A chart per loss curve that exists: pre-training, each decoder's warm-ups, fine-tuning, and the probes."""
    curves = _task_curves(place.artifacts("pretrain"), "Pre-training of the encoder", "Loss of pre-training")
    for folder in sorted(path for path in place.artifacts("warm_up").iterdir() if path.is_dir()):
        curves += _variant_curves(folder, f"Warm-up of {folder.name}", f"Loss of warming up {folder.name}")
    curves += _task_curves(place.artifacts("assistant"), "Fine-tuning on instructions", "Loss of the assistant")
    return curves + _variant_curves(place.artifacts("linear_probe"), "Linear probe", "Loss of the linear probe")


def _variant_curves(folder: Path, name: str, title: str) -> list[dict[str, Any]]:
    """The loss curves of all variants of one training, if there are any, in one chart."""
    found = {variant.name: _history(variant) for variant in sorted(folder.iterdir()) if variant.is_dir()}
    known = {variant: history for variant, history in found.items() if history is not None}
    if not known:
        return []
    series = {variant: numbers(history["loss"]) for variant, history in known.items()}
    return [{"name": name, "chart": _curves(title, max(known.values(), key=len), series)}]


def _task_curves(folder: Path, name: str, title: str) -> list[dict[str, Any]]:
    """The loss curve of one training, over all and per task, if it exists."""
    history = _history(folder)
    if history is None:
        return []
    columns = [column for column in history.columns if column == "loss" or column.startswith("loss_")]
    series = {
        ("all tasks" if column == "loss" else column.removeprefix("loss_")): numbers(history[column])
        for column in columns
    }
    return [{"name": name, "chart": _curves(title, history, series)}]


def questions_chapter(place: Place) -> list[dict[str, Any]]:
    """Per source of questions: right answers of every model by kind, beside blind answers and chance."""
    told = json.loads((place.artifacts("answer") / "accuracies.json").read_text())["accuracies"]
    cells = {(row["source"], row["model"], row["slice"], row["measure"]): row for row in told}
    found = []
    for source in dict.fromkeys(row["source"] for row in told):
        mine = [row for row in told if row["source"] == source]
        models, slices = (list(dict.fromkeys(row[name] for row in mine)) for name in ("model", "slice"))
        asked = [(model, measure) for model in models for measure in ("greedy", "likeliest")]
        asked += [(models[0], measure) for measure in ("blind", "chance")]
        rows = [
            {
                "model": "no model" if measure in ("blind", "chance") else model,
                "measure": measure,
                "cells": [_cell(cells[source, model, where, measure] | {"note": ""}) for where in slices],
            }
            for model, measure in asked
        ]
        counts = [cells[source, models[0], where, "chance"]["questions"] for where in slices]
        found.append({"source": source, "slices": list(zip(slices, counts, strict=True)), "rows": rows})
    return found


def _history(folder: Path) -> pd.DataFrame | None:
    path = folder / "history.json"
    return pd.DataFrame(json.loads(path.read_text())) if path.is_file() else None


def _curves(title: str, history: pd.DataFrame, series: Mapping[str, Floats]) -> Any:
    drawn = []
    for style, (name, losses) in enumerate(series.items()):
        steps = np.arange(len(losses), dtype=np.float64)
        known = np.isfinite(losses)  # a step that held no example of a task has no loss of it
        windows = max(1, min(_POINTS, int(known.sum())))
        x = [float(part.mean()) for part in np.array_split(steps[known], windows) if len(part)]
        y = [float(part.mean()) for part in np.array_split(losses[known], windows) if len(part)]
        drawn.append(Series(name, x, y, style % 6))
    low, high = charts.nice_range([value for one in drawn for value in one.y])
    return charts.lines(title, Axis("step", 0, max(1, len(history) - 1)), Axis("loss", min(0.0, low), high), drawn)


def benchmark_chapter(
    predictions: pd.DataFrame, correlations: pd.DataFrame, differences: pd.DataFrame
) -> dict[str, Any]:
    """Model table, bars, paired differences; human scores where there are some, else the machine opinion."""
    kinds = sorted(set(correlations["target_kind"]), key=lambda kind: kind != "mos")
    if not kinds:
        return {"kind": None, "models": []}
    kind = kinds[0]
    cells = {
        (row["model"], row["slice"], row["statistic"]): row
        for row in records(where(correlations, correlations["target_kind"] == kind))
    }
    models = sorted(
        {model for model, _, _ in cells if model != TARGET},
        key=lambda model: (-_number(cells.get((model, "all", "srcc"), {}).get("value"), -2.0), model),
    )
    table = [
        {"model": model, "cells": [_cell(cells.get((model, where, name))) for _, where, name in _COLUMNS]}
        for model in models
    ]
    overall = {model: _cell(cells[model, "all", "srcc"]) for model in models}
    bars = [(model, cell["value"], cell["low"], cell["high"]) for model, cell in overall.items()]
    low = min([0.0, *(low for _, _, low, _ in bars if low is not None)])
    gaps = _difference_rows(where(differences, differences["target_kind"] == kind))
    rows = where(predictions, predictions["target_kind"] == kind)
    return {
        "kind": {"mos": "human scores", "machine_opinion": "machine opinion"}.get(kind, kind),
        "columns": [title for title, _, _ in _COLUMNS],
        "models": table,
        "target": _cell(cells.get((TARGET, WITHIN_TYPE, "severity_srcc"))),
        "bars": charts.intervals("SRCC of every model with its interval", Axis("SRCC", low, 1.0), bars),
        "differences": gaps,
        "gaps": _gap_chart(gaps),
        "samples": len(set(rows["id"])),
        "contents": len(set(rows["content_id"])),
    }


def _gap_chart(gaps: Sequence[Mapping[str, Any]]) -> Markup:
    rows = [
        (f"{gap['model']} - {gap['other']}", *(gap["cell"][key] for key in ("value", "low", "high"))) for gap in gaps
    ]
    low, high = charts.nice_range([number for row in rows for number in row[1:] if number is not None])
    return charts.intervals("Paired differences of SRCC", Axis("difference of SRCC", low, high), rows, zero=True)


def _difference_rows(differences: pd.DataFrame) -> list[dict[str, Any]]:
    rows = where(differences, (differences["slice"] == "all") & (differences["statistic"] == "srcc"))
    return [
        {"model": row["model"], "other": row["other"], "cell": _cell(row | {"value": row["difference"]})}
        | {"positive": _optional(row["positive"]), "samples": row["samples"]}
        for row in records(rows)
    ]


def _cell(row: Mapping[str, Any] | None) -> dict[str, Any]:
    """Value and interval; the note where one of them is missing."""
    if row is None:
        return {"value": None, "low": None, "high": None, "note": "not measured"}
    found = {key: _optional(row[key]) for key in ("value", "low", "high")}
    return found | {"note": row["note"] if None in (found["value"], found["low"]) else ""}


def _optional(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _number(value: Any, default: float) -> float:
    return default if value is None or pd.isna(value) else float(value)


def scatter_charts(predictions: pd.DataFrame, models: Sequence[str]) -> list[dict[str, Any]]:
    """Predictions against the reference, images and videos apart."""
    found = []
    for model in models:
        rows = ordered(where(predictions, predictions["model"] == model), "id")
        if rows.empty:
            continue
        series = [
            Series(str(modality), list(group["target"]), list(group["score"]), style)
            for style, (modality, group) in enumerate(rows.groupby("modality"))
        ]
        unit = bool(rows["score"].between(0, 1).all())
        y = Axis("prediction", 0, 1) if unit else Axis("prediction", *charts.nice_range(rows["score"]))
        chart = charts.scatter(f"{model} against the reference", Axis("reference", 0, 1), y, series, diagonal=unit)
        found.append({"model": model, "chart": chart})
    return found


def severity_chart(predictions: pd.DataFrame, models: Sequence[str]) -> Any:
    """Mean prediction by strength of distortion of the models on the reference's scale, and the reference's own."""
    series = [_by_strength("reference", predictions.drop_duplicates("id"), "target", 0)]
    for style, model in enumerate(models, 1):
        rows = where(predictions, predictions["model"] == model)
        if len(rows) and bool(rows["score"].between(0, 1).all()):
            series.append(_by_strength(model, rows, "score", style))
    low, high = charts.nice_range([value for one in series for value in one.y])
    axis = Axis("mean score", min(0.0, low), max(1.0, high))
    return charts.lines("Mean score by strength of the distortion", Axis("strength", 0, 5), axis, series)


def _by_strength(name: str, rows: pd.DataFrame, column: str, style: int) -> Series:
    strength_N, values_N = strengths(rows), numbers(rows[column])
    found = np.unique(strength_N)
    return Series(
        name, [float(one) for one in found], [float(values_N[strength_N == one].mean()) for one in found], style
    )


def lineage(place: Place) -> list[dict[str, Any]]:
    """What the results were made from: a hash over names and bytes of every stage's output."""
    rows = []
    for stage in _LINEAGE:
        folder = place.root / "artifacts" / stage
        if not folder.is_dir():
            continue
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sha = hashlib.sha256()
        for path in files:
            with path.open("rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
            sha.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        rows.append({"stage": stage, "files": len(files), "megabytes": megabytes, "sha256": sha.hexdigest()})
    return rows


def gate_chapter(place: Place) -> dict[str, Any] | None:
    """The validation results, failures first."""
    path = place.artifacts("validate") / "results.json"
    if not path.is_file():
        return None
    results = json.loads(path.read_text())
    entries = sorted(results.get("expectations", []), key=lambda entry: (entry["success"], entry["name"]))
    return {
        "success": results["success"],
        "expectations": entries,
        "failed": sum(not entry["success"] for entry in entries),
    }
