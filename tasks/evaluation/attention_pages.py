"""Where models look, for people: Markdown, and one page that loads nothing."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from tasks.evaluation.contradiction_pages import readable, share_text
from tasks.evaluation.lens_pages import THUMBNAIL_PX, THUMBNAIL_QUALITY, asked, cell, sampled
from tasks.evaluation.opinion_pages import table
from tasks.evaluation.pages import write_report
from tasks.evaluation.pictures import Picture, pictures_of
from tasks.evaluation.report import render

Report = Mapping[str, Any]

WHOLE_LABELS: Final = {"entropy": "entropy, nats", "effective_tokens": "effective tokens"}
LABELS: Final = {
    "mass": "mass",
    "per_token": "per token, even = 1",
    "concentration": "on its top tenth",
    "effective": "effective tokens within",
    "effective_share": "of its tokens",
    "tokens": "tokens",
}
_DIM: Final = 0.15
"""Brightness of what is not looked at."""


def write_pages(folder: Path, report: Report) -> list[Path]:
    """Write it as JSON, Markdown and HTML, and return the files."""
    return write_report(folder, "attention", report, markdown, page)


def page(report: Report) -> str:
    """The report as one HTML page that loads nothing; pictures are made of the media that are still there."""
    names = [example["medium"] for model in report["models"] for example in model["examples"]]
    pictures = pictures_of(names, THUMBNAIL_PX, THUMBNAIL_QUALITY)
    content = {
        "title": "Attention",
        "first": "figures",
        "r": report,
        "groups": report["readout"]["groups"],
        "present": {group for model in report["models"] for group in _groups(model)},
        "seen_groups": _groups,
        "labels": LABELS,
        "whole_labels": WHOLE_LABELS,
        "conditions": conditions(report),
        "asked": asked,
        "readable": readable,
        "heads": heads,
        "pictures": pictures,
        "overlays": overlays,
    }
    return render(content, "attention.html.j2")


def markdown(report: Report) -> str:
    """The report's tables as GitHub Markdown."""
    groups = report["readout"]["groups"]
    rows = [
        [
            model["model"],
            str(model["media"]),
            readable(model["rejected"]),
            *(share_text(model["figures"][name]) for name in WHOLE_LABELS),
        ]
        for model in report["models"]
    ]
    rows += [
        [_apart(one), str(one["shared"]), "paired", *(_text(one["figures"], name) for name in WHOLE_LABELS)]
        for one in report["differences"]
    ]
    parts = ["# Attention", conditions(report), table(["model", "media", "left out", *WHOLE_LABELS.values()], rows)]
    figures = [(model["model"], model["figures"]) for model in report["models"]]
    figures += [(_apart(one), one["figures"]) for one in report["differences"] if one["figures"]]
    rows = [
        [name, group, *(share_text(found["groups"][group][figure]) for figure in LABELS)]
        for name, found in figures
        for group in groups
    ]
    parts += ["Groups of tokens:", table(["model", "tokens of", *LABELS.values()], rows)]
    for model in report["models"]:
        parts += [f"## {cell(model['model'])}", asked(model), "Mass by layer, mean over heads and media:"]
        parts += [_layers(model, groups)]
    return "\n\n".join(parts) + "\n"


def conditions(report: Report) -> str:
    """Everything that the figures hang on, in one sentence."""
    drawn = report["bootstrap"]
    return (
        "Readout: attention of the token that predicts the level word, mean over heads and layers unless told by layer "
        f"or head. {sampled(report['sampling'])} Intervals: {drawn['replicates']} replicates of media, seed "
        f"{drawn['seed']}, confidence {drawn['confidence']:g}."
    )


def heads(model: Mapping[str, Any], group: str) -> list[list[float]]:
    """Mass on a group, a row for each layer and a column for each head."""
    values = [row["mass"][group]["value"] for row in model["by_head"]]
    return [values[start : start + model["heads"]] for start in range(0, len(values), model["heads"])]


def overlays(example: Mapping[str, Any], picture: Picture, number: str) -> list[dict[str, Any]]:
    """Each view of a picture, drawn bright where it is looked at.

    Args:
        number: tells the drawings of one page apart.
    """
    views = example["views"] or []
    weights = [weight for view in views for weight in view["weights"]]
    total = sum(weights)
    if total <= 0:
        return []
    even = total / len(weights)
    most = max(weights) / even
    return [
        {
            "name": view["name"],
            "share": sum(view["weights"]) / total,
            "tokens": len(view["weights"]),
            "most": max(view["weights"]) / even,
            "drawing": _spotlight(view, picture, (f"picture-{number}", place), even, most),
        }
        for place, view in enumerate(views)
    ]


def _spotlight(view: Mapping[str, Any], picture: Picture, name: tuple[str, int], even: float, most: float) -> Markup:
    """The picture, each token's place as bright as the attention that it gets; titles tell how much that is.

    Args:
        name: of the picture, whose first view holds it for all, and number of the view.
    """
    masked, titled = [], []
    for (top, left, bottom, right), weight in zip(view["boxes"], view["weights"], strict=True):
        ratio = weight / even
        place = (
            f'x="{left * picture.width:.1f}" y="{top * picture.height:.1f}" '
            f'width="{(right - left) * picture.width:.1f}" height="{(bottom - top) * picture.height:.1f}"'
        )
        masked.append(f'<rect {place} fill="#fff" fill-opacity="{ratio / most:.3f}"/>')
        titled.append(f'<rect class="frame" {place}><title>{ratio:.2f} times an even share</title></rect>')
    size = f'width="{picture.width}" height="{picture.height}"'
    label = escape(f"attention over the picture: {view['name']}")
    shown, mask = name[0], f"{name[0]}-{name[1]}"
    held = "" if name[1] else f'<defs><image id="{shown}" href="{escape(picture.uri)}" {size}/></defs>'
    return Markup(  # noqa: S704 - every text is escaped
        f'<svg viewBox="0 0 {picture.width} {picture.height}" role="img" aria-label="{label}">{held}'
        f'<mask id="{mask}">{"".join(masked)}</mask><use href="#{shown}" opacity="{_DIM}"/>'
        f'<use href="#{shown}" mask="url(#{mask})"/>{"".join(titled)}</svg>'
    )


def _groups(model: Mapping[str, Any]) -> list[str]:
    """Groups that have tokens in some question."""
    return [name for name, figures in model["figures"]["groups"].items() if figures["tokens"]["value"]]


def _apart(one: Mapping[str, Any]) -> str:
    return f"{one['first']} minus {one['second']}"


def _text(figures: Mapping[str, Any] | None, name: str) -> str:
    return "no media of both" if figures is None else share_text(figures[name])


def _layers(model: Mapping[str, Any], groups: Sequence[str]) -> str:
    rows = [
        [
            str(row["layer"]),
            *(share_text(row["mass"][group]) for group in groups),
            share_text(row["effective_tokens"]),
            *(share_text(row["concentration"][group]) for group in ("image", "description")),
        ]
        for row in model["by_layer"]
    ]
    head = ["layer", *groups, "effective tokens", "image's top tenth", "description's top tenth"]
    return table(head, rows)
