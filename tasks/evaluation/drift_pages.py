"""Drift of a data set for people: one self-contained page, Markdown, and the card of a version.

All of it is made of a comparison's report alone (tasks/evaluation/compare.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from infra.model_record import Check, ModelFile
from tasks.evaluation import charts
from tasks.evaluation.charts import Axis, Series
from tasks.evaluation.opinion_pages import cell_text, table
from tasks.evaluation.pages import write_report
from tasks.evaluation.report import render

Report = Mapping[str, Any]

_PAID: Final = ("calls", "tokens_in", "tokens_out", "cost")


def write_pages(folder: Path, report: Report) -> list[Path]:
    """Write it as JSON, Markdown and HTML, and return the files."""
    return write_report(folder, "drift", report, markdown, page)


def markdown(report: Report) -> str:
    """The report's tables as GitHub Markdown."""
    parts = [f"# Drift of {cell_text(report['name'])}", *_drift(report), *_facts(report)]
    return "\n\n".join(parts) + "\n"


def card(report: Report, files: Sequence[ModelFile]) -> str:
    """The card of a version of the data set, Markdown."""
    name, last, megabytes = report["name"], report["last"], sum(file.size for file in files) / 1e6
    head = [
        f"- Made after: {last or 'nothing, this is the first version'}",
        f"- Files: {len(files)}, {megabytes:.1f} MB: a folder for every stage of annotation",
        f"- Get: `vital registry get {name} --out FOLDER`, or `dvc artifacts get REPO {name}`",
    ]
    limits = (
        "Opinions are those of the scorers named here, and descriptions what the judges named here let pass: no human "
        "has seen them. The limits say that nothing moved much since the last version, not that either is right."
    )
    parts = [f"# {name}", "Machine opinions, reviewed descriptions and training examples of a pool of media."]
    parts += ["\n".join(head), *_facts(report), *_drift(report), "## Limits of use", limits]
    return "\n\n".join(parts) + "\n"


def page(report: Report) -> str:
    """The report as one HTML page that loads nothing."""
    drift = report["drift"]
    content = {
        "title": f"Drift of {report['name']}",
        "first": "limits",
        "r": report,
        "d": drift,
        "checks": [{"text": str(check), "holds": check.holds} for check in _checks(report)],
        "charts": [] if drift is None else _charts(drift),
        "matrix": None if drift is None else _matrix(drift["levels"]),
    }
    return render(content, "drift.html.j2")


def _checks(report: Report) -> list[Check]:
    return [Check(**check) for check in report["checks"]]


def _charts(drift: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Both distributions of mu, sigma and every scorer that both versions have."""
    rows = [("mu", drift["mu"]), ("sigma", drift["sigma"])]
    rows += [(row["name"], row) for row in drift["scorers"] if row["state"] == "kept"]
    return [{"name": name, "chart": _histograms(name, row["histogram"])} for name, row in rows]


def _histograms(name: str, counts: Sequence[Sequence[int]]) -> Markup:
    shares = [np.array(side) / max(1, sum(side)) for side in counts]
    centres = ((np.arange(len(counts[0])) + 0.5) / len(counts[0])).tolist()
    top = 1.1 * max(0.01, float(np.max(shares)))
    series = [Series(when, centres, shares[i].tolist(), i) for i, when in enumerate(("before", "after"))]
    return charts.lines(f"Distribution of {name}", Axis(name, 0, 1), Axis("share", 0, top), series)


def _matrix(levels: Mapping[str, Any]) -> dict[str, Any]:
    """Shares of each row, for shading, with the counts."""
    rows = []
    for name, counts in zip(levels["names"], levels["table"], strict=True):
        total = max(1, sum(counts))
        rows.append({"name": name, "cells": [{"count": count, "share": count / total} for count in counts]})
    return {"names": levels["names"], "rows": rows}


def _drift(report: Report) -> list[str]:
    drift = report["drift"]
    if drift is None:
        return ["## Drift", "There is no earlier version: nothing was compared."]
    samples, levels = drift["samples"], drift["levels"]
    told = (
        f"Beside {report['last']}: {samples['shared']} samples in both, {samples['new']} new, {samples['gone']} gone. "
        f"{100 * levels['migrated']:.2f} % of those in both are in another level, "
        f"{100 * levels['migrated_far']:.2f} % two or more levels away."
    )
    checks = [f"- {'holds' if check.holds else 'DOES NOT HOLD'}: {check}" for check in _checks(report)]
    names = levels["names"]
    moves = [[name, *map(str, row)] for name, row in zip(names, levels["table"], strict=True)]
    parts = ["## Drift", told, "\n".join(checks), _measures(drift)]
    parts += ["Level before (row) and after (column) of the samples in both:", table(["", *names], moves)]
    if drift["examples"]:
        parts += ["What moved most, of each move:", _examples(drift["examples"])]
    return parts


def _measures(drift: Mapping[str, Any]) -> str:
    head = ["", "versions", "rescored", "mean before", "mean after", "PSI", "KS", "shift", "shift of the same samples"]
    rows = []
    for row in [*drift["scorers"], {"name": "mu", **drift["mu"]}, {"name": "sigma", **drift["sigma"]}]:
        old, new = ([", ".join(side) for side in row["versions"]]) if "versions" in row else ("", "")
        versions = old if old == new else f"{old or 'none'} -> {new or 'none'}"
        if row.get("state", "kept") != "kept":
            rows.append([row["name"], versions, row["state"], *[""] * 6])
            continue
        numbers = [*row["mean"], row["psi"], row["ks"], row["shift"], row["shared_shift"]]
        rows.append([row["name"], versions, str(row.get("rescored", "")), *map(_number, numbers)])
    return table(head, rows)


def _examples(examples: Sequence[Mapping[str, Any]]) -> str:
    head = ["from", "to", "mu before", "mu after", "sample", "source", "distortion"]
    rows = []
    for row in examples:
        kind = f"{row['distortion']} {row['severity']}" if row["distortion"] else ""
        mu = [_number(value) for value in row["mu"]]
        rows.append([row["from"], row["to"], *mu, row["id"], row["source"] or "", kind])
    return table(head, rows)


def _facts(report: Report) -> list[str]:
    facts = report["facts"]
    counts = [[name, str(value)] for name, value in facts["counts"].items()]
    counts += [[f"originals: {name}", str(value)] for name, value in facts["originals"].items()]
    counts += [[f"examples: {name}", str(value)] for name, value in facts["examples"].items()]
    rejects = [
        [stage, reason, str(value)] for stage, reasons in facts["rejects"].items() for reason, value in reasons.items()
    ]
    judges = [
        [row["judge"], row["model"], row["prompt_version"], row["phase"], str(row["votes"]), _verdicts(row["verdicts"])]
        for row in facts["judges"]
    ]
    scorers = [[name, ", ".join(versions)] for name, versions in facts["scorers"].items()]
    paid = [[kind, str(row["total"]), str(row["new"])] for kind, row in facts["paid"].items()]
    costs = [
        [stage, ", ".join(f"{name} {value}" for name, value in values.items())]
        for stage, values in facts["costs"].items()
    ]
    parts = [
        "## Counts",
        table(["what", "number"], counts),
        "## Rejects",
        table(["stage", "reason", "number"], rejects),
    ]
    parts += ["## Scorers", table(["scorer", "versions"], scorers), "## Judges"]
    parts += [table(["judge", "model", "prompt", "phase", "votes", "verdicts"], judges), "## Costs"]
    parts += ["What the last version did not have was computed or asked:", table(["what", "all", "new"], paid)]
    parts += _calls(facts.get("calls", ()))
    return [*parts, "Each stage, when it was last computed in this workspace:", table(["stage", "cost"], costs)]


def _calls(roles: Sequence[Mapping[str, Any]]) -> list[str]:
    """What endpoints were paid; prices are those of the params file, tokens the servers' counts or our estimates."""
    if not roles:
        return ["No endpoint was paid: texts and votes come from measurement."]
    head = ["stage", "role", "model", *(f"{what}, {part}" for part in ("all", "new") for what in _PAID)]
    rows = [
        [
            row["stage"],
            row["role"],
            row["model"],
            *(f"{row[part][what]:g}" for part in ("all", "new") for what in _PAID),
        ]
        for row in roles
    ]
    sums = {part: sum(row[part]["cost"] for row in roles) for part in ("all", "new")}
    told = f"Paid to endpoints for the answers in use: {sums['all']:.2f}, of it by the last run: {sums['new']:.2f}."
    return [told, table(head, rows)]


def _verdicts(verdicts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in verdicts.items())


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
