"""Drift for people: everything the report says, nothing loaded, and names that are text."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from infra.model_record import ModelFile
from tasks.evaluation.data_facts import data_facts, read_samples
from tasks.evaluation.drift_pages import card, markdown, page, write_pages
from tasks.evaluation.opinion_drift import DriftLimits, DriftOptions, drift_checks, drift_of, measures_of
from tasks.records import OPINIONS
from tasks.shards import read_table
from tasks.stage import ANNOTATION
from tests.tasks.evaluation.versioned_plant import LIMITS, RECIPE, make, new_folder, opinions

NASTY = '<img src="x" onerror="alert(1)">|`'


_ALL = {"calls": 9, "tokens_in": 9000, "tokens_out": 900, "cost": 3.5}
_NEW = {"calls": 1, "tokens_in": 1000, "tokens_out": 100, "cost": 0.25}
CALLS = [{"stage": "review", "role": "gpt", "model": "gpt-5", "all": _ALL, "new": _NEW}]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    recipe = RECIPE | {"photos": 60, "versions": {"sharp": "1", "noisy": "2", "extra": "1"}, "offsets": {"noisy": 0.2}}
    for stage in ANNOTATION:
        make(stage, recipe, new_folder(folder / stage))
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    samples = read_samples(folder.joinpath).assign(source=NASTY)
    before = pd.DataFrame(opinions(RECIPE | {"photos": 50}))
    after = read_table(folder / "score/opinions.parquet", OPINIONS)
    drift = drift_of(before, after, DriftOptions(10, 2), samples)
    return {
        "name": "vital-data",
        "last": "vital-data@v0.0.1",
        "drift": drift,
        "measures": measures_of(drift),
        "checks": [dataclasses.asdict(check) for check in drift_checks(drift, DriftLimits(**LIMITS))],
        "facts": {**data_facts(folder.joinpath, paths), "costs": {"score": {"wall_s": 1.5}}, "calls": CALLS},
    }


def test_the_page_loads_nothing_and_escapes_what_it_was_given(report: dict[str, Any]):
    text = page(report)
    assert "<img" not in text
    assert "onerror=&#34;" in text
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert text.count('<svg class="chart"') == 4  # mu, sigma, and the two scorers that both versions have
    assert "mu_shift &lt;= 0.02" in text
    assert page(report) == text


def test_markdown_has_every_table(report: dict[str, Any]):
    text = markdown(report)
    assert "<img" not in text
    for told in (
        "50 samples in both, 10 new, 0 gone",
        "DOES NOT HOLD: psi <= 0.1",
        "| noisy | 1 -> 2 | 50 |",
        "| extra | none -> 1 | new |",
        "| whole | 1 -> none | gone |",
        "| media | 60 | 60 |",
        "| score | wall_s 1.5 |",
        "Paid to endpoints for the answers in use: 3.50, of it by the last run: 0.25.",
        "| review | gpt | gpt-5 | 9 | 9000 | 900 | 3.5 | 1 | 1000 | 100 | 0.25 |",
        "| originals: image train | 60 |",
    ):
        assert told in text


def test_a_version_that_nobody_was_paid_for_says_so(report: dict[str, Any]):
    assert "Paid to endpoints" in page(report)
    free = report | {"facts": {name: value for name, value in report["facts"].items() if name != "calls"}}
    assert "No endpoint was paid: texts and votes come from measurement." in markdown(free)
    assert "Paid to endpoints" not in page(free)


def test_the_card_of_a_first_version_says_that_nothing_was_compared(report: dict[str, Any]):
    first = report | {"last": None, "drift": None, "measures": None, "checks": []}
    text = card(first, [ModelFile("a", 2_500_000, "s", "m")])
    assert "Made after: nothing, this is the first version" in text
    assert "Files: 1, 2.5 MB" in text
    assert "nothing was compared" in text
    assert "This is the first version: nothing was compared." in page(first)


def test_files_are_those_texts(report: dict[str, Any], tmp_path: Path):
    paths = write_pages(tmp_path / "pages", report)
    assert [path.name for path in paths] == ["drift.json", "drift.md", "drift.html"]
    assert paths[1].read_text() == markdown(report)
    assert paths[2].read_text() == page(report)
