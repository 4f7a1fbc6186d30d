"""Grounding for people: Markdown, and one page that loads nothing."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tasks.evaluation.contradiction_pages import readable
from tasks.evaluation.opinion_pages import table
from tasks.evaluation.pages import write_report
from tasks.evaluation.report import render

Report = Mapping[str, Any]

WHOSE: Final = {"model": "the model's scores", "people": "people's scores"}
LABELS: Final = {
    "r2": "R2, ridge",
    "p_value": "p",
    "ordinal_r2": "R2, ordinal",
    "ordinal_accuracy": "levels right, ordinal",
    "majority": "levels right by guess",
}


def write_pages(folder: Path, report: Report) -> list[Path]:
    """Write it as JSON, Markdown and HTML, and return the files."""
    return write_report(folder, "ground", report, markdown, page)


def page(report: Report) -> str:
    """The report as one HTML page that loads nothing."""
    content = {"title": "Grounding", "first": "explained", "r": report, "labels": LABELS, "rows": list(_rows(report))}
    return render(content | {"readable": readable, "conditions": conditions(report)}, "ground.html.j2")


def markdown(report: Report) -> str:
    """The report's tables as GitHub Markdown."""
    rows = [
        [
            *(file["source"], WHOSE[whose], str(found["samples"]), str(found["contents"]), readable(file["rejected"])),
            *(plain(found[name]) for name in LABELS),
        ]
        for file, whose, found in _rows(report)
    ]
    head = ["file", "of", "images", "contents", "left out", *LABELS.values()]
    parts = ["# Grounding", conditions(report), "On contents that the regression has not seen:", table(head, rows)]
    rows = [
        [file["source"], WHOSE[whose], *(plain(found["weights"][name]) for name in report["features"])]
        for file, whose, found in _rows(report)
    ]
    parts += ["Weight of a claim that an attribute is fine (a fault weighs its negative):"]
    parts += [table(["file", "of", *report["features"]], rows)]
    rows = [
        [
            file["source"],
            *(f"{file['said'][name]['fine']} / {file['said'][name]['faulty']}" for name in report["features"]),
            str(file["nothing_said"]),
        ]
        for file in report["files"]
    ]
    parts += ["Texts that call an attribute fine / faulty:", table(["file", *report["features"], "none"], rows)]
    return "\n\n".join(parts) + "\n"


def conditions(report: Report) -> str:
    """Everything that the figures hang on, in one sentence."""
    fitting, (low, high) = report["fitting"], report["scale"]
    return (
        f"Features: claims of the model's text by attribute, fine 1, faulty -1; readout: {report['readout']}, scale "
        f"{low:g} to {high:g}; {fitting['folds']} folds of contents, {fitting['permutations']} permutations, seed "
        f"{fitting['seed']}."
    )


def _rows(report: Report) -> Iterator[tuple[Report, str, Report]]:
    for file in report["files"]:
        for whose in WHOSE:
            if file[whose]:
                yield file, whose, file[whose]


def plain(value: float | None) -> str:
    """A number with three decimals."""
    return "n/a" if value is None else f"{value:.3f}"
