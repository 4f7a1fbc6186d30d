"""Readouts for people: Markdown, and one page that loads nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tasks.evaluation.contradiction_pages import readable, share_text
from tasks.evaluation.opinion_pages import table
from tasks.evaluation.pages import write_report
from tasks.evaluation.report import render

Report = Mapping[str, Any]

LABELS: Final = {
    "plcc": "PLCC",
    "plcc_fitted": "PLCC, fitted",
    "srcc": "SRCC",
    "krcc": "KRCC",
    "rmse": "RMSE",
    "rmse_fitted": "RMSE, fitted",
}


def write_pages(folder: Path, report: Report) -> list[Path]:
    """Write it as JSON, Markdown and HTML, and return the files."""
    return write_report(folder, "readout", report, markdown, page)


def page(report: Report) -> str:
    """The report as one HTML page that loads nothing."""
    content = {"title": "Readouts", "first": "readouts", "r": report, "labels": LABELS}
    return render(content | {"readable": readable, "conditions": conditions(report)}, "readout.html.j2")


def markdown(report: Report) -> str:
    """The report's tables as GitHub Markdown."""
    rows = [
        [
            *(model["source"], row["readout"], str(row["read"]), str(row["failed"])),
            *(_plain(row["mean"]), _plain(row["std"])),
        ]
        for model in report["models"]
        for row in model["readouts"]
    ]
    head = ["model", "readout", "read", "failed", "mean", "standard deviation"]
    parts = ["# Readouts", conditions(report), "One generation, read in several ways, on [0, 1]:", table(head, rows)]
    rows = [
        [
            model["source"],
            row["readout"],
            str(row["people"]["samples"]),
            *(_people(row["people"], key) for key in LABELS),
        ]
        for model in report["models"]
        for row in model["readouts"]
        if row["people"]
    ]
    if rows:
        head = ["model", "readout", "images", *LABELS.values()]
        parts += ["Against people, on [0, 1], higher is better (interval over contents):", table(head, rows)]
    rows = [
        [model["source"], f"{one['first']} and {one['second']}", str(one["both"]), _plain(one["mean"])]
        for model in report["models"]
        for one in model["apart"]
    ]
    if rows:
        parts += ["How far two readouts of one generation lie apart:", table(["model", "", "images", "mean"], rows)]
    lost = [f"{model['source']}: {readable(model['rejected'])}" for model in report["models"] if model["rejected"]]
    parts += [f"Media that were rejected: {'; '.join(lost) or 'none'}."]
    return "\n\n".join(parts) + "\n"


def conditions(report: Report) -> str:
    """Everything that the figures hang on, in a sentence for each model and one for the intervals."""
    drawn = report["bootstrap"]
    asked = " ".join(f"{model['source']}: {model['conditions']}" for model in report["models"])
    return (
        f"{asked} Intervals: {drawn['replicates']} replicates of contents, seed {drawn['seed']}, confidence "
        f"{drawn['confidence']:g}."
    )


def _people(people: Mapping[str, Any], key: str) -> str:
    return share_text(people[key])


def _plain(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
