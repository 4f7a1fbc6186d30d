"""What the lens reads, for people: Markdown, and one page that loads nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tasks.evaluation.contradiction_pages import readable, share_text
from tasks.evaluation.opinion_pages import table
from tasks.evaluation.pages import write_report
from tasks.evaluation.pictures import pictures_of
from tasks.evaluation.report import render

Report = Mapping[str, Any]

LABELS: Final = {
    "late_switch": "switch late",
    "switches": "switches",
    "commit_depth": "depth of commitment",
    "commit_layer": "commit layer",
    "margin": "final margin",
    "distinct_top": "distinct top tokens",
}
WAYS: Final = {
    "judge": "the verdict alone",
    "one_answer": "description and verdict in one answer",
    "two_stage": "a verdict from its own description, without the medium",
}
THUMBNAIL_PX: Final = 320
THUMBNAIL_QUALITY: Final = 80
_SHOWN_IN_MARKDOWN: Final = 3


def write_pages(folder: Path, report: Report) -> list[Path]:
    """Write it as JSON, Markdown and HTML, and return the files."""
    return write_report(folder, "lens", report, markdown, page)


def page(report: Report) -> str:
    """The report as one HTML page that loads nothing; thumbnails are made of the media that are still there."""
    names = [example["medium"] for model in report["models"] for example in model["examples"]]
    content = {
        "title": "Logit lens",
        "first": "figures",
        "r": report,
        "labels": LABELS,
        "paired": [name for name in LABELS if any(name in (one["figures"] or {}) for one in report["differences"])],
        "conditions": conditions(report),
        "asked": asked,
        "readable": readable,
        "visible": visible,
        "pictures": pictures_of(names, THUMBNAIL_PX, THUMBNAIL_QUALITY),
    }
    return render(content, "lens.html.j2")


def markdown(report: Report) -> str:
    """The report's tables as GitHub Markdown."""
    head = ["model", "media", "left out", *LABELS.values()]
    rows = [
        [model["model"], str(model["media"]), readable(model["rejected"]), *_shares(model["figures"], LABELS)]
        for model in report["models"]
    ]
    rows += [
        [
            f"{one['first']} minus {one['second']}",
            str(one["shared"]),
            "paired",
            *(_shares(one["figures"], LABELS) if one["figures"] else ["no media of both"]),
        ]
        for one in report["differences"]
    ]
    parts = ["# Logit lens", conditions(report), table(head, rows)]
    for model in report["models"]:
        parts += [f"## {cell(model['model'])}", asked(model), "Mean over media (the most probable level in bold):"]
        parts += [_layers(model)]
        for example in model["examples"][:_SHOWN_IN_MARKDOWN]:
            parts += [f"{cell(example['medium'])}: {told(example)}", _example(model, example)]
    return "\n\n".join(parts) + "\n"


def conditions(report: Report) -> str:
    """Everything that the figures hang on, in one sentence."""
    readout, drawn = report["readout"], report["bootstrap"]
    return (
        f"Readout: final norm and vocabulary head at every layer, at the token that predicts the level word; levels "
        f"among each other, and the {readout['top']} most probable tokens of all. Late is the last "
        f"{100 * readout['late_share']:.0f} % of the layers, rounded up. {sampled(report['sampling'])} Intervals: "
        f"{drawn['replicates']} replicates of media, seed {drawn['seed']}, confidence {drawn['confidence']:g}."
    )


def sampled(sampling: Mapping[str, Any]) -> str:
    """How descriptions were written."""
    if sampling["temperature"] == 0:
        return "Descriptions, where a model writes any, are greedy."
    return (
        f"Descriptions, where a model writes any, are drawn at temperature {sampling['temperature']:g}, top-p "
        f"{sampling['top_p']:g}, seed {sampling['seed']}."
    )


def asked(model: Mapping[str, Any]) -> str:
    """How a model was asked, in its own course's texts."""
    course = model["course"]
    texts = {"judge": ("judge",), "one_answer": ("describe",), "two_stage": ("describe", "judge_text")}[course["way"]]
    questions = ", then ".join(f'"{course[name]}"' if course[name] else "nothing" for name in texts)
    return f'Asked for {WAYS[course["way"]]}. The user says {questions}; the level word follows "{course["opening"]}".'


def told(example: Mapping[str, Any]) -> str:
    """What the lens saw of one medium, in words."""
    late = " (late)" if example["late_switch"] else ""
    return (
        f"ends at {example['level']}, settled at layer {example['commit_layer']}{late}, "
        f"switches: {example['switches']}, final margin {example['margin']:.3f}, "
        f"different top tokens: {example['distinct_top']}"
    )


def visible(token: str) -> str:
    """A token whose spaces and control characters can be seen."""
    return "".join("␣" if c == " " else c if c.isprintable() else repr(c)[1:-1] for c in token)


def cell(text: str) -> str:
    """A name that is not to start markup."""
    return " ".join(str(text).split()).replace("<", "&lt;")


def _shares(figures: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> list[str]:
    return [share_text(figures[name]) if name in figures else "" for name in names]


def _layers(model: Mapping[str, Any]) -> str:
    words = model["course"]["words"]
    head = ["layer", *words, "other tokens", "effective candidates", "most probable tokens (share of media)"]
    rows = [
        [
            str(row["layer"]),
            *_bold([row["levels"][word]["value"] for word in words]),
            f"{row['other']['value']:.3f}",
            f"{row['effective_candidates']:.2f}",
            ", ".join(f"{visible(one['token'])} {one['share']:.2f}" for one in row["most_probable"]),
        ]
        for row in model["by_layer"]
    ]
    return table(head, rows)


def _example(model: Mapping[str, Any], example: Mapping[str, Any]) -> str:
    ranks = [f"{number}." for number in range(1, 1 + max(len(row["top"]) for row in example["layers"]))]
    rows = [
        [
            *(str(number), *_bold(row["levels"]), f"{row['other']:.3f}"),
            *(f"{visible(token)} {probability:.3f}" for token, probability in row["top"]),
        ]
        for number, row in enumerate(example["layers"], 1)
    ]
    return table(["layer", *model["course"]["words"], "other tokens", *ranks], rows)


def _bold(levels: Sequence[float]) -> list[str]:
    best = max(range(len(levels)), key=lambda number: levels[number])
    return [f"**{value:.3f}**" if number == best else f"{value:.3f}" for number, value in enumerate(levels)]
