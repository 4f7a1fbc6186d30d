"""Stage ``report``: the whole line on one self-contained page, made of tables that other stages published.

The page loads nothing: pictures are data URIs, charts inline SVG, there is no script. Equal inputs give equal bytes.
"""

import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from tasks.errors import StageError
from tasks.evaluation import chapters, reasoning_chapter, result_chapters
from tasks.evaluation.pictures import Thumbnails
from tasks.pool import load_candidates
from tasks.records import (
    CORRELATIONS,
    DIFFERENCES,
    EXAMPLES,
    OPINIONS,
    PREDICTIONS,
    REJECTS,
    REVIEWED,
    VOTES,
    RowSchema,
)
from tasks.shards import atomic, frame_of, read_table
from tasks.stage import Place

log = logging.getLogger(__name__)

PAGE: Final = "report.html"
_TEMPLATES: Final = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Config:
    """How the page looks.

    Attributes:
        title: of the page.
        thumbnail_px: longer side of a thumbnail. thumbnail_quality: of its JPEG, 1 to 95.
        severity_types: distortions that are shown by severity.
        models: whose predictions are drawn.
        max_megabytes: a page larger than this is an error.
    """

    title: str
    thumbnail_px: int
    thumbnail_quality: int
    severity_types: int
    models: tuple[str, ...]
    max_megabytes: float


@dataclass(frozen=True)
class Report:
    """What the page holds."""

    kilobytes: int
    pictures: int
    models: int
    gate: bool


def run(config: Config, place: Place) -> Report:
    """Write ``report.html``.

    Raises:
        StageError: an input is missing, or the page is larger than it may be.
    """
    thumbnails = Thumbnails(place, config.thumbnail_px, config.thumbnail_quality)
    content = gather(config, place, thumbnails)
    page = render(content).encode()
    if len(page) > config.max_megabytes * 1e6:
        msg = f"the page has {len(page) / 1e6:.1f} MB, more than report.max_megabytes: lower report.thumbnail_px"
        raise StageError(msg)
    with atomic(place.out / PAGE) as file:
        file.write(page)
    gate = content["gate"]
    return Report(
        kilobytes=round(len(page) / 1000),
        pictures=len(thumbnails),
        models=len(content["benchmark"]["models"]),
        gate=bool(gate and gate["success"]),
    )


def gather(config: Config, place: Place, thumbnails: Thumbnails) -> dict[str, Any]:
    """Everything that the template shows.

    Raises:
        StageError: a stage has not been run.
    """
    candidates = load_candidates(place)
    opinions = _read(place, "score", "opinions", OPINIONS)
    votes, reviewed = _read(place, "review", "votes", VOTES), _read(place, "review", "reviewed", REVIEWED)
    examples = _read(place, "assemble", "examples", EXAMPLES)
    predictions = _read(place, "predict", "predictions", PREDICTIONS)
    correlations = _read(place, "correlate", "correlations", CORRELATIONS)
    differences = _read(place, "correlate", "differences", DIFFERENCES)
    rejects = pd.concat([_read(place, stage, "rejects", REJECTS) for stage in chapters.REJECTING], ignore_index=True)
    return {
        "title": config.title,
        "first": "pool",
        "pool": chapters.pool_chapter(candidates, rejects),
        "opinions": chapters.opinion_chapter(candidates, opinions),
        "pmod": chapters.pmod_examples(candidates, opinions, thumbnails),
        "severities": chapters.severity_examples(candidates, opinions, thumbnails, config.severity_types),
        "review": chapters.review_chapter(votes, reviewed, _figures(place, "review")),
        "story": chapters.story(candidates, votes, reviewed, examples, thumbnails),
        "tasks": dict(sorted(Counter(examples["task"]).items())),
        "training": result_chapters.training_chapter(place),
        "questions": result_chapters.questions_chapter(place),
        "reasoning": reasoning_chapter.reasoning_chapter(place),
        "benchmark": result_chapters.benchmark_chapter(predictions, correlations, differences),
        "scatters": result_chapters.scatter_charts(predictions, config.models),
        "severity_chart": result_chapters.severity_chart(predictions, config.models),
        "lineage": result_chapters.lineage(place),
        "gate": result_chapters.gate_chapter(place),
        "headline": config.models[0] if config.models else None,
    }


def render(content: dict[str, Any], template: str = "report.html.j2") -> str:
    """Fill a template of this folder; every text is escaped, since judges and sources are not trusted."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - only pages pay for it

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["decimals"] = _decimals
    return environment.get_template(template).render(content)


def _decimals(value: float | None, digits: int = 3) -> str:
    return "n/a" if value is None or pd.isna(value) else f"{value:.{digits}f}"


def _figures(place: Place, stage: str) -> dict[str, Any]:
    """What a stage measured itself."""
    path = place.root / "metrics" / f"{stage}.json"
    if not path.is_file():
        msg = f"metrics/{stage}.json is missing: run dvc repro {stage}"
        raise StageError(msg)
    return json.loads(path.read_text())


def _read(place: Place, stage: str, name: str, schema: RowSchema) -> pd.DataFrame:
    """Read a table; rejects that a stage did not write are none."""
    path = place.artifacts(stage) / f"{name}.parquet"
    if schema is REJECTS and not path.is_file():
        return frame_of(REJECTS, [])
    return read_table(path, schema)
