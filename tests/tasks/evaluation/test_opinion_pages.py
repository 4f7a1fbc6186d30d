"""The page and the Markdown: complete, self-contained, deterministic, and made of the study's numbers alone."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_reader import Reader

from tasks.evaluation.agreements import Sampling
from tasks.evaluation.opinion_pages import markdown, page, write_pages
from tasks.evaluation.opinion_study import Options, study
from tasks.evaluation.opinion_tables import OpinionSet


def opinion_set(*, human: bool) -> OpinionSet:
    rng = np.random.default_rng(2)
    quality = rng.uniform(0.1, 0.9, 40)
    scores = np.clip(quality[:, None] + rng.normal(0, 0.08, (40, 4)), 0, 1)
    names, kinds = ["one", "a|b", "<script>x</script>", "four"], ["noise"] * 20 + ["blur"] * 18 + ["rare"] * 2
    known = {"contents_known": False, "distortion_N": kinds if human else None, "skipped": 3, "unmatched": 2}
    people = {"mos_N": quality, "sd_N": np.full(40, 0.1) + 0.1 * quality} if human else {}
    ids = [str(i) for i in range(40)]
    return OpinionSet("set & <b>", ids, names, scores, ids, **known, **people)


def study_of(*, human: bool) -> dict[str, Any]:
    return study(opinion_set(human=human), Options("population", Sampling(30, 1, 0.9, 0.05, 8, 5, 6), "unit"))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return study_of(human=True)


@pytest.mark.parametrize("human", [True, False])
def test_the_page_is_well_formed_and_loads_nothing(human: bool):  # noqa: FBT001 - a case of the table
    text = page(study_of(human=human))
    read = Reader(text)
    assert (read.wrong, read.open) == ([], [])
    assert read.all("script") == []
    assert "http://" not in text
    assert "https://" not in text
    assert all(chart["aria-label"] and chart["role"] == "img" for chart in read.all("svg"))
    assert len(read.all("svg")) == 8 + 2 * human
    assert len(read.all("table")) == len(read.all("caption"))
    ids = {attributes["id"] for _, attributes in read.found if "id" in attributes}
    assert {str(link["href"])[1:] for link in read.all("a")} <= ids
    assert ("No human scores were given." in text) != human


def test_numbers_on_both_are_those_of_the_study(found: dict[str, Any]):
    html, text = page(found), markdown(found)
    cell = found["human"]["mu_mos"]
    assert f"<b>{cell['value']:.3f}</b>" in html
    assert f"SRCC(mu, MOS) = {cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}] on 40 samples" in text
    row = found["spreads"][1]
    assert f"{row['sd']['value']:.3f}<small>{row['sd']['low']:.2f} to {row['sd']['high']:.2f}</small>" in html
    assert f"| sos | {row['mean']:.3f} |" in text
    assert "| rare | 2 | n/a |" in text
    assert "2 human scores have no sample here" in text
    assert "3 left out without a score" in text


def test_names_are_text_and_never_markup(found: dict[str, Any]):
    assert "<script>" not in page(found)
    assert "&lt;script&gt;x&lt;/script&gt;" in page(found)
    assert "<script>" not in markdown(found)
    lines = [line for line in markdown(found).splitlines() if line.startswith("| a")]
    assert all(line.startswith("| a\\|b |") for line in lines)
    tables = markdown(found).replace("\\|", "").split("\n\n")
    for table in (part.splitlines() for part in tables if part.startswith("| ")):
        assert len({line.count("|") for line in table}) == 1


def test_a_warning_and_an_outlier_are_seen(found: dict[str, Any]):
    changed = copy.deepcopy(found)
    changed["human"]["warning"] = "is the polarity right?"
    changed["scorers"][0]["reasons"] = ["agreement", "bt500"]
    for text in (page(changed), markdown(changed)):
        assert "is the polarity right?" in text
        assert "agreement, bt500" in text


def test_files_are_the_same_every_time_and_made_of_the_json(found: dict[str, Any], tmp_path: Path):
    paths = write_pages(tmp_path / "new" / "folder", found)
    names = ["opinions.json", "opinions.md", "opinions.html"]
    assert [path.name for path in paths] == names
    first = [path.read_bytes() for path in paths]
    again = write_pages(tmp_path, json.loads(first[0]))
    assert [path.read_bytes() for path in again] == first
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(names)
