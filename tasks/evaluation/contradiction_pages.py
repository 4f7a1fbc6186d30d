"""Contradiction for people: Markdown, and one page that loads nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tasks.evaluation.opinion_pages import table
from tasks.evaluation.pages import write_report
from tasks.evaluation.report import render

Report = Mapping[str, Any]

LABELS: Final = {
    "mean_abs_difference": "mean absolute difference on [0, 1]",
    "level_flip": "on another level",
    "two_level_flip": "two levels away or more",
}


def write_pages(folder: Path, report: Report) -> list[Path]:
    """Write it as JSON, Markdown and HTML, and return the files."""
    return write_report(folder, "contradiction", report, markdown, page)


def page(report: Report) -> str:
    """The report as one HTML page that loads nothing."""
    content = {"title": "Contradiction", "first": "scores", "r": report, "labels": LABELS, "readable": readable}
    return render(content, "contradiction.html.j2")


def markdown(report: Report) -> str:
    """The report's tables as GitHub Markdown."""
    files = report["files"]
    parts = ["# Contradiction", _conditions(files[0])]
    head = ["file", "images", "left out", "difference on the model's scale", *LABELS.values()]
    rows = [
        [
            *(file["source"], str(file["compared"]), readable(file["rejected"])),
            *(f"{file['difference_on_scale']:.3f}", *_gaps(file["gaps"])),
        ]
        for file in files
    ]
    parts += ["Score with the image against score from the text alone (interval over images):", table(head, rows)]
    if report["differences"]:
        rows = [
            [f"{one['first']} minus {one['second']}", str(one["shared"]), *(_gaps(one["gaps"]) if one["gaps"] else [])]
            for one in report["differences"]
        ]
        parts += ["Paired, on the images that both files have:", table(["", "images", *LABELS.values()], rows)]
    if any(file["people"] for file in files):
        parts += ["Against people, higher is better:", _people(files)]
    parts += ["Words against the verdict that stands with them:", _words(files)]
    return "\n\n".join(parts) + "\n"


def readable(reasons: Mapping[str, int]) -> str:
    """Counts by reason in words."""
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items()) or "none"


def _conditions(file: Report) -> str:
    low, high = file["scale"]
    people = file["human"]
    told = (
        "no scores of people"
        if people is None
        else f"people: {people['polarity']}, {people['low']:g} to {people['high']:g}"
    )
    drawn = file["bootstrap"]
    return (
        f"Readout: {file['readout']}; model's scale {low:g} to {high:g}; {told}; levels are fifths of the scale; "
        f"{drawn['replicates']} replicates of images, seed {drawn['seed']}, confidence {drawn['confidence']:g}."
    )


def _gaps(gaps: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [share_text(gaps[name]) for name in LABELS]


def share_text(share: Mapping[str, Any]) -> str:
    """A share and its interval."""
    if share["value"] is None:
        return "n/a"
    bounds = "" if share["low"] is None else f" [{share['low']:.3f}, {share['high']:.3f}]"
    return f"{share['value']:.3f}{bounds}"


def _people(files: Sequence[Report]) -> str:
    rows = [
        [file["source"], who, *(_plain(file["people"][who][name]) for name in ("plcc", "srcc", "krcc", "plcc_fitted"))]
        for file in files
        if file["people"]
        for who in ("image", "text")
    ]
    return table(["file", "score", "PLCC", "SRCC", "KRCC", "PLCC, fitted"], rows)


def _plain(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _words(files: Sequence[Report]) -> str:
    kinds = ("agrees", "contradicts", "open", "no_text")
    rows = [
        [file["source"], who, *(str(file["words"][who][kind]) for kind in kinds)]
        for file in files
        for who in ("image", "text")
    ]
    return table(["file", "text with", "agree", "contradict", "open", "no text"], rows)
