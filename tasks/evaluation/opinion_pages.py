"""A study of opinions for people: one self-contained page, and Markdown. Both are made of the study's numbers alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from tasks.evaluation import charts
from tasks.evaluation.charts import Axis, Series
from tasks.evaluation.pages import write_report
from tasks.evaluation.report import render

Study = Mapping[str, Any]

_UNIT: Final = Axis("score", 0, 1)
_PLAIN_STYLE: Final = 5


def write_pages(folder: Path, found: Study) -> list[Path]:
    """Write it as JSON, Markdown and HTML, and return the files."""
    return write_report(folder, "opinions", found, markdown, page)


def page(found: Study) -> str:
    """The study as one HTML page that loads nothing."""
    human = found["human"]
    content = {
        "title": f"Opinions: {found['name']}",
        "first": "scorers",
        "s": found,
        "outliers": sum(bool(row["reasons"]) for row in found["scorers"]),
        "cards": [_card(row) for row in found["scorers"]],
        "bars": None if human is None else _bars(found),
        "spread_bars": None if human is None or human["sigma_sd"] is None else _spread_bars(found),
    }
    return render(content, "opinions.html.j2")


def _card(row: Mapping[str, Any]) -> dict[str, Any]:
    """Histogram and calibration curves of one scorer."""
    edges = np.array(row["histogram"]["edges"])
    values = np.repeat((edges[:-1] + edges[1:]) / 2, row["histogram"]["counts"])
    named = {"others": "mean of the others", "mos": "people"}
    curves = {name: row["curves"][key] for key, name in named.items() if key in row["curves"]}
    series = [
        Series(name, curve["score"], curve["reference"], style) for style, (name, curve) in enumerate(curves.items())
    ]
    series.append(Series("equal", [0.0, 1.0], [0.0, 1.0], _PLAIN_STYLE))
    human = row["curves"].get("mos")
    return {
        "name": row["name"],
        "histogram": charts.histogram(f"Scores of {row['name']}", _UNIT, [("all", values)], len(edges) - 1),
        "curve": charts.lines(f"Calibration of {row['name']}", _UNIT, Axis("reference", 0, 1), series),
        "error": row["curves"]["others"]["error"],
        "human_error": None if human is None else human["error"],
    }


def _bars(found: Study) -> Any:
    rows = [("mu", found["human"]["mu_mos"]), *((row["name"], row["mos"]) for row in found["scorers"])]
    return _intervals("SRCC with human scores", rows)


def _spread_bars(found: Study) -> Any:
    rows = [(row["name"], row["sd"]) for row in found["spreads"] if row["sd"] is not None]
    return _intervals("SRCC with human standard deviations", rows)


def _intervals(title: str, cells: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    rows = [(name, *(cell[key] for key in ("value", "low", "high"))) for name, cell in cells]
    low, high = charts.nice_range([0.0, *(number for row in rows for number in row[1:] if number is not None)])
    return charts.intervals(title, Axis("SRCC", low, high), rows, zero=True)


def markdown(found: Study) -> str:
    """The study's tables as GitHub Markdown."""
    human = found["human"]
    contents = "" if found["contents"] is None else f" of {found['contents']} contents"
    skipped = f", {found['skipped']} left out without a score" if found["skipped"] else ""
    summary = (
        f"{found['samples']} samples{contents}{skipped}; {len(found['scorers'])} scorers (scale {found['scale']}); "
        f"mean SRCC of two scorers {_number(found['agreement']['mean'])}; {100 * found['confidence']:g} % intervals "
        f"by {'samples' if found['contents'] is None else 'contents'}."
    )
    parts = [f"# Opinions: {cell_text(found['name'])}", summary]
    if human is not None:
        parts += [_people(found)]
    parts += ["## Scorers", _scorer_table(found), "## Agreement of scorers", _matrix_table(found)]
    if found["distortions"]:
        parts += ["## Agreement by distortion", _distortion_table(found)]
    parts += ["## What sigma says", _spread_table(found)]
    return "\n\n".join(parts) + "\n"


def _people(found: Study) -> str:
    human = found["human"]
    lines = [f"- SRCC(mu, MOS) = {_cell(human['mu_mos'])} on {human['rated']} samples"]
    best = max(found["scorers"], key=lambda row: -2.0 if row["mos"]["value"] is None else row["mos"]["value"])
    lines.append(f"- best single scorer: {cell_text(best['name'])}, {_cell(best['mos'])}")
    if human["sigma_sd"] is not None:
        told = f"on {human['with_sd']} samples, sigma {found['sigma']}"
        lines.append(f"- SRCC(sigma, human SD) = {_cell(human['sigma_sd'])} {told}")
        own = f"SRCC(MOS, SD) = {_cell(human['mos_sd'])}, SRCC(MOS (1 - MOS), SD) = {_cell(human['parabola_sd'])}"
        lines.append(f"- people themselves: {own}, SOS parameter {_number(human['sos'])}")
    if human["warning"]:
        lines.append(f"- **{human['warning']}**")
    if human["unmatched"]:
        lines.append(f"- {human['unmatched']} human scores have no sample here")
    return "\n".join(lines)


def _scorer_table(found: Study) -> str:
    human = found["human"] is not None
    head = ["scorer", "mean", "5 %", "median", "95 %", "SRCC with others", "modified z", "far out", "outlier"]
    head += ["mu without it"] + (["SRCC with MOS", "mu loses", "calibration error"] if human else [])
    rows = []
    for row in found["scorers"]:
        cells = [row["name"], _number(row["mean"]), *(_number(row["quantiles"][q], 2) for q in ("5", "50", "95"))]
        cells += [_number(row["with_others"]), _number(row["robust_z"], 2), f"{100 * row['far_share']:.1f} %"]
        cells += [", ".join(row["reasons"]) or "no", _number(row["mu_without"])]
        if human:
            cells += [_cell(row["mos"]), _cell(row["mu_loses"]), _number(row["curves"]["mos"]["error"])]
        rows.append(cells)
    return table(head, rows)


def _matrix_table(found: Study) -> str:
    matrix = found["agreement"]
    rows = [[row["name"], *(_number(value, 2) for value in row["values"])] for row in matrix["rows"]]
    return table(["scorer", *matrix["names"]], rows)


def _distortion_table(found: Study) -> str:
    names = [row["name"] for row in found["scorers"]]
    human = found["human"] is not None
    rows = []
    for row in found["distortions"]:
        own = row["with_others"] or {}
        cells = [row["distortion"], str(row["samples"]), _number(row["pairwise"]), _number(row["sigma"])]
        cells += [_number(row["mos"])] if human else []
        rows.append([*cells, *(_number(own.get(name), 2) for name in names)])
    head = ["distortion", "samples", "two scorers", "sigma", *(["mu with MOS"] if human else []), *names]
    return table(head, rows)


def _spread_table(found: Study) -> str:
    head = ["sigma", "mean", "SRCC with population", "SRCC with human SD", "gain over population", "level"]
    head += ["SRCC with error", "covered (90 %)", "note"]
    rows = []
    for row in found["spreads"]:
        cells = [row["name"], _number(row["mean"]), _number(row["with_population"])]
        cells += [_cell(row["sd"]), _cell(row["sd_gain"]), _number(row["level"], 2), _cell(row["error"])]
        rows.append([*cells, _number(row["covered"]), row["note"]])
    return table(head, rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub Markdown; see :func:`cell_text`."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell_text(cell) for cell in line)} |" for line in lines)


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "n/a"
    text = _number(cell["value"])
    return text if cell["low"] is None else f"{text} [{_number(cell['low'])}, {_number(cell['high'])}]"


def _number(value: float | None, digits: int = 3) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def cell_text(text: str) -> str:
    """Names come from files: nothing in them may end a cell or start markup."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
