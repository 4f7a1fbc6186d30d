"""The page: complete, self-contained, deterministic, accessible, and clean in a real browser."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import plant
import pytest
from html_reader import Reader

from tasks.errors import StageError
from tasks.evaluation import charts, correlate, report, result_chapters
from tasks.evaluation.agreements import Sampling
from tasks.evaluation.chapters import agreement_matrix, pool_chapter, review_chapter
from tasks.records import CANDIDATES, CORRELATIONS, EXAMPLES, OPINIONS, REJECTS, REVIEWED, VOTES
from tasks.shards import frame_of, read_table, write_json
from tasks.stage import Place, read_params, stage_config
from tests.tasks.evaluation.browser import Browser


def build(root: Path, checkout: Path, *, videos: bool = True) -> Path:
    """A plant with correlations and a gate's results."""
    plant.build_plant(root, videos=videos)
    config = stage_config("correlate", read_params(checkout))
    sampling = Sampling(50, 1, 0.95, 0.05, min_samples=4, min_contents=2, min_type_samples=4)
    config = dataclasses.replace(config, sampling=sampling)
    correlate.run(config, Place(root, root / "work", root / "artifacts/correlate"))
    entry = {"table": "opinions", "severity": "warning", "rows": 9, "unexpected": 1, "ids": ["abc"], "problem": ""}
    holds = entry | {"name": "opinions.mu", "says": "mu is a mean", "success": True, "unexpected": 0, "ids": []}
    fails = entry | {"name": "opinions.odd", "says": "nothing is odd", "success": False}
    write_json(root / "artifacts/validate/results.json", {"success": True, "expectations": [holds, fails]})
    return root


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Path:
    return build(tmp_path_factory.mktemp("plant"), checkout)


@pytest.fixture(scope="module")
def config(checkout: Path) -> report.Config:
    return stage_config("report", read_params(checkout))


@pytest.fixture(scope="module")
def page(planted: Path, config: report.Config) -> Path:
    out = planted / "artifacts/report"
    report.run(config, Place(planted, planted / "work", out))
    return out / "report.html"


def run_on(root: Path, config: report.Config, out: Path) -> str:
    report.run(config, Place(root, root / "work", out))
    return (out / "report.html").read_text()


def test_the_page_tells_the_whole_line(page: Path):
    text = page.read_text()
    for chapter in ("pool", "opinions", "severity", "review", "training", "benchmark", "questions", "lineage", "gate"):
        assert f'<h2 id="{chapter}">' in text
    for fact in (
        "the image data is broken",
        "vital-warm-up-nano",
        "color_diffusion 4 of photos/03.png changes nothing",
        "fragments",
        "planted falsehood",
        "opinions.odd",
        "held_out",
        "Warm-up of mini",
        "Fine-tuning on instructions",
        "yes no (40)",
    ):
        assert fact in text, fact
    assert len(page.read_bytes()) < 3_000_000


def test_the_page_is_well_formed_and_accessible(page: Path):
    found = Reader(page.read_text())
    assert found.wrong == []
    assert found.open == []
    assert found.all("html") == [{"lang": "en"}]
    pictures = found.all("img")
    assert len(pictures) >= 15
    assert all(picture["alt"] and picture["src"].startswith("data:image/jpeg;base64,") for picture in pictures)
    assert all(chart["aria-label"] and chart["role"] == "img" for chart in found.all("svg"))
    assert len(found.all("svg")) == len(found.all("title")) - 1
    assert len(found.all("table")) == len(found.all("caption"))
    assert all(head.get("scope") in {"row", "col"} for head in found.all("th"))
    ids = [attributes["id"] for _, attributes in found.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [link["href"] for link in found.all("a")]
    assert {href[1:] for href in anchors if href.startswith("#")} <= set(ids)
    assert [href for href in anchors if not href.startswith("#")] == ["../validate/docs/index.html"]


def test_the_page_loads_nothing(page: Path):
    found = Reader(page.read_text())
    assert found.all("script") == []
    assert "http://" not in page.read_text()
    assert "https://" not in page.read_text()
    assert "@import" not in page.read_text()
    assert [link["href"] for link in found.all("link")] == ["data:,"]


def test_equal_inputs_give_equal_bytes(page: Path, planted: Path, config: report.Config, tmp_path: Path):
    moved = Path(shutil.copytree(planted, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("report")))
    assert run_on(moved, config, tmp_path / "out") == page.read_text()
    assert str(planted) not in page.read_text()


def test_numbers_on_the_page_are_those_of_the_tables(page: Path, planted: Path):
    text = page.read_text()
    opinions = read_table(planted / "artifacts/score/opinions.parquet", OPINIONS)
    best = opinions.sort_values(["mu", "id"]).iloc[round(0.97 * (len(opinions) - 1))]
    assert f"mu {best['mu']:.3f}, sigma {best['sigma']:.3f}" in text
    rows = json.loads((planted / "artifacts/correlate/correlations.json").read_text())
    row = next(
        r for r in rows if (r["model"], r["slice"], r["statistic"]) == ("vital-base-micro", "image", "plcc_fitted")
    )
    assert row["value"] is not None
    overall = next(r for r in rows if (r["model"], r["slice"], r["statistic"]) == ("niqe", "all", "srcc"))
    assert f"{overall['value']:.3f}<small>{overall['low']:.2f} to {overall['high']:.2f}</small>" in text


def test_a_pool_without_videos_and_a_line_without_rejects(tmp_path: Path, checkout: Path, config: report.Config):
    root = build(tmp_path / "plant", checkout, videos=False)
    for stage in ("collect", "distort", "score", "describe", "review", "assemble"):
        plant.write(root, stage, "rejects", REJECTS, frame_of(REJECTS, []))
    (root / "artifacts/predict/rejects.parquet").unlink()
    text = run_on(root, config, tmp_path / "out")
    assert "This pool holds no videos." in text
    assert "Nothing was rejected." in text
    assert Reader(text).open == []


def test_empty_tables_leave_a_page(planted: Path, tmp_path: Path, config: report.Config):
    root = Path(shutil.copytree(planted, tmp_path / "plant"))
    originals = read_table(root / "artifacts/collect/candidates.parquet", CANDIDATES)
    for stage, name, schema in (
        ("distort", "candidates", CANDIDATES),
        ("score", "opinions", OPINIONS),
        ("review", "votes", VOTES),
        ("review", "reviewed", REVIEWED),
        ("assemble", "examples", EXAMPLES),
    ):
        plant.write(root, stage, name, schema, frame_of(schema, []))
    for stage in ("warm_up", "linear_probe"):
        shutil.rmtree(root / f"artifacts/{stage}")
        (root / f"artifacts/{stage}").mkdir()
    for stage in ("pretrain", "assistant"):
        (root / f"artifacts/{stage}/history.json").unlink()
    text = run_on(root, config, tmp_path / "out")
    for sentence in ("No sample was scored.", "There are no loss curves.", "The pool holds no distorted children."):
        assert sentence in text
    assert f"<b>{len(originals)}</b>" in text


def test_what_judges_write_is_text_and_never_markup(planted: Path, tmp_path: Path, config: report.Config):
    root = Path(shutil.copytree(planted, tmp_path / "plant"))
    votes = read_table(root / "artifacts/review/votes.parquet", VOTES)
    plant.write(
        root,
        "review",
        "votes",
        VOTES,
        votes.assign(reason="<script>alert(1)</script>", judge=votes["judge"] + '"><b>x'),
    )
    text = run_on(root, config, tmp_path / "out")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert Reader(text).wrong == []


def test_a_page_beyond_the_limit_is_refused(planted: Path, config: report.Config, tmp_path: Path):
    small = dataclasses.replace(config, max_megabytes=0.05)
    with pytest.raises(StageError, match=r"more than report\.max_megabytes"):
        run_on(planted, small, tmp_path)


def test_a_missing_input_says_what_to_run(planted: Path, config: report.Config, tmp_path: Path):
    moved = Path(shutil.copytree(planted, tmp_path / "plant"))
    shutil.rmtree(moved / "artifacts/correlate")
    with pytest.raises(StageError, match="dvc repro correlate"):
        run_on(moved, config, tmp_path / "out")


def test_chapters_count_what_the_tables_hold(planted: Path):
    originals = read_table(planted / "artifacts/collect/candidates.parquet", CANDIDATES).assign(stage="collect")
    children = read_table(planted / "artifacts/distort/candidates.parquet", CANDIDATES).assign(stage="distort")
    candidates = pd.concat([originals, children], ignore_index=True)
    rejects = read_table(planted / "artifacts/review/rejects.parquet", REJECTS)
    pool = pool_chapter(candidates, rejects)
    assert sum(row["image_contents"] + row["video_contents"] for row in pool["splits"]) == len(originals)
    assert sum(row["image_samples"] + row["video_samples"] for row in pool["splits"]) == len(candidates)
    assert sum(sum(row["counts"]) for row in pool["cells"]) == len(children)
    assert pool["rejects"][0]["count"] == len(rejects)
    votes = read_table(planted / "artifacts/review/votes.parquet", VOTES)
    reviewed = read_table(planted / "artifacts/review/reviewed.parquet", REVIEWED)
    review = review_chapter(votes, reviewed, json.loads((planted / "metrics/review.json").read_text()))
    planted_rows = reviewed[reviewed["origin"] == "planted"]
    false = planted_rows[planted_rows["planted_truth"] == False]  # noqa: E712 - a nullable column
    assert review["planted_false"] == {"count": len(false), "share": 1 - false["kept"].astype(bool).mean()}
    assert review["agreement"]["names"] == ["spatial", "spectral", "statistical"]
    assert review["agreement"]["rows"][0]["values"][1] < 1.0
    assert review["agreement"]["rows"][0]["values"][2] == 1.0


def test_figures_of_judges_are_those_that_review_measured(planted: Path, tmp_path: Path, config: report.Config):
    root = Path(shutil.copytree(planted, tmp_path / "plant"))
    pairs = ("spatial/spectral", "spatial/statistical", "spectral/statistical")
    figures = {
        "judge_agreement": dict(zip(pairs, (0.61, 0.62, 0.63), strict=True)),
        "error_phi": dict(zip(pairs, (0.17, None, -0.19), strict=True)),
    }
    write_json(root / "metrics/review.json", figures)
    text = run_on(root, config, tmp_path / "out")
    chapter = text[text.index('id="review"') : text.index('id="training"')]
    cells = re.findall(r'<td style="--v:[^"]*">([^<]+)</td>', chapter)
    assert cells[:9] == ["1.00", "0.61", "0.62", "0.61", "1.00", "0.63", "0.62", "0.63", "1.00"]
    assert cells[9:] == ["1.00", "0.17", "n/a", "0.17", "1.00", "-0.19", "n/a", "-0.19", "1.00"]


def test_without_reviews_figures_the_page_says_what_to_run(planted: Path, tmp_path: Path, config: report.Config):
    root = Path(shutil.copytree(planted, tmp_path / "plant"))
    (root / "metrics/review.json").unlink()
    with pytest.raises(StageError, match=r"metrics/review\.json is missing: run dvc repro review"):
        run_on(root, config, tmp_path / "out")


def test_the_severity_chart_is_drawn_over_strength():
    """Mean shift's levels 1 to 5 have the strengths 4, 2, 0, 2, 4."""
    rows = [
        {"id": f"{level}", "model": "m", "distortion": "mean_shift", "severity": level, "score": s, "target": s}
        for level, s in ((1, 0.1), (2, 0.6), (4, 0.8), (5, 0.3))
    ]
    chart = str(result_chapters.severity_chart(pd.DataFrame(rows), ["m"]))
    drawn = str(
        charts.lines(
            "Mean score by strength of the distortion",
            charts.Axis("strength", 0, 5),
            charts.Axis("mean score", 0.0, 1.0),
            [charts.Series(name, [2.0, 4.0], [0.7, 0.2], style) for style, name in enumerate(("reference", "m"))],
        )
    )
    assert chart == drawn


def test_an_interval_that_few_contents_forbid_is_told(planted: Path, tmp_path: Path, config: report.Config):
    root = Path(shutil.copytree(planted, tmp_path / "plant"))
    table = read_table(root / "artifacts/correlate/correlations.parquet", CORRELATIONS)
    videos = table["slice"] == "video"
    note = "3 contents are too few for an interval"
    plant.write(
        root,
        "correlate",
        "correlations",
        CORRELATIONS,
        table.assign(
            value=table["value"].mask(videos, 0.5),
            low=table["low"].mask(videos),
            high=table["high"].mask(videos),
            note=table["note"].mask(videos, note),
        ),
    )
    assert f'0.500<small class="note">{note}</small>' in run_on(root, config, tmp_path / "out")


def test_scorer_agreement_is_symmetric_with_unit_diagonal():
    scores = np.random.default_rng(0).uniform(size=(30, 4))
    scores[:, 3] = 0.5
    matrix = agreement_matrix(scores)
    assert [matrix[i][i] for i in range(4)] == [1.0] * 4
    assert matrix[0][1] == matrix[1][0]
    assert matrix[0][3] is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0, 0.13, [0, 0.05, 0.1]), (-3, 17, [0, 5, 10, 15]), (2, 2, [2])],
)
def test_axes_have_round_ticks(low: float, high: float, expected: list[float]):
    assert charts.Axis("x", low, high).ticks() == pytest.approx(expected)


def test_charts_place_points_and_escape_names():
    axis = charts.Axis("x <", 0, 10)
    chart = str(charts.scatter("a & b", axis, axis, [charts.Series("one", [0, 10], [0, 10], 0)], diagonal=True))
    assert 'cx="52.0" cy="246.0"' in chart
    assert 'cx="428.0" cy="12.0"' in chart
    assert "<title>a &amp; b</title>" in chart
    assert "x &lt;" in chart
    gap = str(charts.lines("t", axis, axis, [charts.Series("s", [0, 5, 10], [1, float("nan"), 2], 0)]))
    assert gap.count("M") == 2


def test_a_browser_shows_the_page_without_errors_or_requests(browser: Browser, page: Path):
    browser.show(page)
    assert browser.elsewhere(page) == []
    assert browser.complaints() == []
    pictures = browser.value("[...document.images].map(i => [i.complete, i.naturalWidth])")
    assert len(pictures) >= 15
    assert all(complete and width > 0 for complete, width in pictures)


def test_a_phone_shows_the_page_without_sideways_scrolling(browser: Browser, page: Path):
    browser.phone()
    browser.show(page)
    assert browser.value("document.documentElement.scrollWidth") <= 390
    sizes = browser.value(
        "[...document.querySelectorAll('svg .tick')].map(t => t.getBoundingClientRect().height).filter(h => h > 0)"
    )
    assert min(sizes) >= 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_have_contrast(browser: Browser, page: Path, scheme: str):
    browser.scheme(scheme)
    browser.show(page)
    ground = "getComputedStyle(document.body).backgroundColor"
    assert (browser.luminance(ground) > 0.5) == (scheme == "light")
    for selector in ("body", "caption", ".tile span", "nav a", ".yes", ".no"):
        ink = f"getComputedStyle(document.querySelector({selector!r})).color"
        assert browser.contrast(ink, ground) >= 4.5, selector


def test_right_answers_stand_beside_blind_ones_and_chance(planted: Path):
    (found,) = result_chapters.questions_chapter(Place(planted, planted / "work", planted / "out"))
    assert found["source"] == "line"
    assert found["slices"] == [("all", 40), ("yes_no", 40), ("which", 40)]
    rows = {(row["model"], row["measure"]): [cell["value"] for cell in row["cells"]] for row in found["rows"]}
    assert rows["vital-assistant-micro", "likeliest"] == pytest.approx([0.7, 0.8, 0.55])
    assert rows["no model", "chance"] == [0.4, 0.5, 0.25]
    assert rows["no model", "blind"] == [0.45, 0.45, 0.45]
    assert len(rows) == 3 * 2 + 2
