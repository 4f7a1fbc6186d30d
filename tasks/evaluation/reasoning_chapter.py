"""What the report says about reasoning: stages of inference, the teacher, readers and encoders, and the student.

Each part is there if its stage has run in the workspace.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from tasks.evaluation import charts
from tasks.evaluation.charts import Axis, Series
from tasks.stage import Place

FIGURES: Final = {
    "srcc_expectation": "SRCC, expectation",
    "srcc_word": "SRCC, word",
    "plcc_expectation": "PLCC, expectation",
    "unstable_pairwise": "unstable answers, pairwise",
    "unstable_any_change": "unstable answers, any change",
    "text_flip": "level flips without the medium",
    "words_against": "words against the verdict",
    "late_switch": "late switches",
    "attention_image": "attention on the medium",
    "attention_description": "attention on the description",
}
"""Figure of ``reason`` -> what the page calls it; what a run does not have is left out."""
_WINDOWS: Final = 60
"""Points of a drawn curve at most."""


def reasoning_chapter(place: Place) -> dict[str, Any]:
    """Everything that there is; empty parts are None or empty lists."""
    artifacts = place.root / "artifacts"
    return {
        "inference": _inference(artifacts / "reason"),
        "teacher": _teacher(artifacts / "teach"),
        "swaps": _swaps(artifacts / "cross_swap"),
        "student": _student(artifacts / "rali"),
    }


def _inference(folder: Path) -> dict[str, Any] | None:
    """Figures of ``reason``: a row for each, a cell for each model, and the paired difference."""
    told = _read(folder / "figures.json")
    if told is None:
        return None
    models, apart = list(told["models"]), [one["figures"] for one in told["differences"]]
    names = [name for name in FIGURES if any(name in told["models"][model] for model in models)]
    rows = [
        {
            "name": FIGURES[name],
            "cells": [_cell(told["models"][model].get(name)) for model in models],
            "gap": _cell(apart[0].get(name)) if apart else None,
        }
        for name in names
    ]
    return {"models": [model.replace("_", "-") for model in models], "rows": rows, "compared": bool(apart)}


def _teacher(folder: Path) -> dict[str, Any] | None:
    """The reward of ``teach`` by step, and the share of groups that taught nothing."""
    history = _read(folder / "history.json")
    if not history:
        return None
    rows = pd.DataFrame(history)
    wanted = {"reward": "reward", "format": "in the layout", "wasted": "wasted groups"}
    series = {said: rows[name].to_list() for name, said in wanted.items() if name in rows}
    return {"chart": _curves("Rewards of the teacher", "share, or reward", series), "steps": len(rows)}


def _swaps(folder: Path) -> list[dict[str, Any]]:
    """Per data set, readers by encoders: SRCC by the expectation over the level words."""
    told = _read(folder / "figures.json")
    if told is None:
        return []
    rows = [row for row in told["pairs"] if row["readout"] == "expectation"]
    readers, encoders, scopes = (
        list(dict.fromkeys(row[key] for row in rows)) for key in ("reader", "encoder", "data_set")
    )
    cells = {(row["data_set"], row["reader"], row["encoder"]): row["srcc"] for row in rows}
    return [
        {
            "data_set": scope,
            "names": encoders,
            "rows": [
                {"name": reader, "values": [cells.get((scope, reader, encoder)) for encoder in encoders]}
                for reader in readers
            ],
        }
        for scope in scopes
    ]


def _student(folder: Path) -> list[dict[str, Any]]:
    """The curves of alignment and tuning, as far as there are any."""
    found = []
    for file, name in (("align.json", "Alignment to text"), ("fit.json", "Tuning to scores")):
        history = _read(folder / file)
        if history:
            losses = [row["loss"] for row in history]
            found.append(
                {"name": name, "chart": _curves(f"Loss of the student: {name.lower()}", "loss", {"loss": losses})}
            )
    return found


def _curves(title: str, axis: str, series: Mapping[str, Sequence[float]]) -> Any:
    drawn = []
    for style, (name, values) in enumerate(series.items()):
        windows = min(_WINDOWS, len(values))
        y = [float(part.mean()) for part in np.array_split(np.asarray(values, dtype=np.float64), windows)]
        x = [float(part.mean()) for part in np.array_split(np.arange(len(values), dtype=np.float64), windows)]
        drawn.append(Series(name, x, y, style))
    low, high = charts.nice_range([value for one in drawn for value in one.y])
    steps = max(len(values) for values in series.values())
    room = 0.3 * (high - low) if len(drawn) > 1 else 0.0  # for the legend
    return charts.lines(title, Axis("step", 0, max(1, steps - 1)), Axis(axis, min(0.0, low), high + room), drawn)


def _cell(share: Mapping[str, Any] | None) -> dict[str, Any]:
    """Value and interval as the page's cells hold them."""
    if share is None:
        return {"value": None, "low": None, "high": None, "note": "not measured"}
    return {key: share[key] for key in ("value", "low", "high")} | {"note": ""}


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else None
