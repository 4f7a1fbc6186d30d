"""Instability for people: Markdown, and one page that loads nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from models.instruments.instability import ESTIMATORS
from tasks.evaluation.contradiction_pages import readable, share_text
from tasks.evaluation.opinion_pages import table
from tasks.evaluation.pages import write_report
from tasks.evaluation.report import render

Report = Mapping[str, Any]

LABELS: Final = {
    "pairwise": "two answers differ (pairwise)",
    "any_change": "not all answers equal (any change)",
    "modal": "not the most frequent answer (modal)",
}
WAYS: Final = {"own_class": "failed answers are a class of their own", "left_out": "failed answers are left out"}


def write_pages(folder: Path, report: Report) -> list[Path]:
    """Write it as JSON, Markdown and HTML, and return the files."""
    return write_report(folder, "instability", report, markdown, page)


def page(report: Report) -> str:
    """The report as one HTML page that loads nothing."""
    content = {"title": "Instability", "first": "shares", "r": report, "labels": LABELS, "ways": WAYS}
    return render(content | {"readable": readable, "conditions": conditions(report)}, "instability.html.j2")


def markdown(report: Report) -> str:
    """The report's tables as GitHub Markdown."""
    parts = ["# Instability", conditions(report)]
    head = ["file", "images", "answers each", "failed", "left out", *(LABELS[name] for name in ESTIMATORS)]
    for way, told in WAYS.items():
        rows = [
            [
                *(file["source"], str(file["images"]), str(file["answers"]), str(file["failed"])),
                *(readable(file["left_out"]), *_shares(file["unstable"][way])),
            ]
            for file in report["files"]
        ]
        rows += [
            [
                f"{one['first']} minus {one['second']}",
                str(one["shared"]),
                "",
                "",
                "paired",
                *_shares(one["unstable"][way]),
            ]
            for one in report["differences"]
            if one["unstable"]
        ]
        parts += [f"{told[:1].upper()}{told[1:]} (interval over contents):", table(head, rows)]
    gaps = [[file["source"], share_text(file["score_gap"])] for file in report["files"] if "score_gap" in file]
    if gaps:
        parts += ["Two scores of one image, on [0, 1]:", table(["file", "mean absolute difference"], gaps)]
    return "\n\n".join(parts) + "\n"


def conditions(report: Report) -> str:
    """Everything that the figures hang on, in one sentence."""
    readout, drawn = report["readout"], report["bootstrap"]
    told = ", ".join(f"{name} {value}" for name, value in report["sampling"].items()) or "not told"
    read = f"levels {', '.join(readout['levels'])}" if readout["name"] == "word" else f"fifths of {readout['scale']}"
    return (
        f"Readout: {readout['name']}, {read}; sampling: {told}; {drawn['replicates']} replicates of contents, seed "
        f"{drawn['seed']}, confidence {drawn['confidence']:g}."
    )


def _shares(shares: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [share_text(shares[name]) for name in ESTIMATORS]
