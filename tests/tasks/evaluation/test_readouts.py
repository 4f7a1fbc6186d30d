"""Readouts of one generation: counts, agreement with people, and pages that say which readout a figure is of."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau, pearsonr, spearmanr

from tasks.evaluation.readouts import Model, Read, measure
from tasks.evaluation.readouts_pages import markdown, page, write_pages
from tasks.evaluation.recorded import Comparing

COMPARING = Comparing(n_bootstrap=40)


@pytest.fixture(scope="module")
def reads() -> list[Read]:
    rng = np.random.default_rng(0)
    human = rng.random(30)
    expectation = np.clip(human + 0.1 * rng.standard_normal(30), 0, 1)
    words = [None if n % 10 == 0 else round(float(value) * 4) / 4 for n, value in enumerate(expectation)]
    return [
        Read(f"{n}.png", "<b>good</b>", {"word": w, "expectation": float(e)}, float(h), f"c{n % 15}")
        for n, (w, e, h) in enumerate(zip(words, expectation, human, strict=True))
    ]


def test_every_row_names_its_readout_and_agrees_with_people_as_scipy_says(reads: list[Read]):
    report = measure([Model("m", reads, {}, "asked.")], ["word", "expectation"], COMPARING)
    word, expectation = report["models"][0]["readouts"]
    assert [word["readout"], word["read"], word["failed"]] == ["word", 27, 3]
    assert [expectation["readout"], expectation["read"], expectation["failed"]] == ["expectation", 30, 0]
    own = [read.qualities["expectation"] for read in reads]
    human = [read.human for read in reads]
    people = expectation["people"]
    assert (people["samples"], people["contents"]) == (30, 15)
    assert people["srcc"]["value"] == pytest.approx(spearmanr(own, human).statistic, abs=1e-6)
    assert people["krcc"]["value"] == pytest.approx(kendalltau(own, human).statistic, abs=1e-6)
    assert people["plcc"]["value"] == pytest.approx(pearsonr(own, human).statistic, abs=1e-6)
    rmse = float(np.sqrt(np.mean((np.array(own) - np.array(human)) ** 2)))
    assert people["rmse"]["value"] == pytest.approx(rmse, abs=1e-6)
    assert people["plcc"]["low"] < people["plcc"]["value"] < people["plcc"]["high"]
    assert people["rmse_fitted"]["value"] <= people["rmse"]["value"]
    apart = [abs(r.qualities["word"] - r.qualities["expectation"]) for r in reads if r.qualities["word"] is not None]  # type: ignore[operator]
    assert report["models"][0]["apart"] == [
        {"first": "word", "second": "expectation", "both": 27, "mean": pytest.approx(np.mean(apart), abs=1e-6)}
    ]


def test_constant_and_missing_readouts_are_told_not_computed(reads: list[Read]):
    flat = [Read(one.medium, "", {"word": 0.5, "number": None}, one.human, one.content) for one in reads]
    word, number = measure([Model("m", flat, {}, "")], ["word", "number"], COMPARING)["models"][0]["readouts"]
    assert word["people"]["srcc"]["value"] is None
    assert word["people"]["note"] == "the predictions are constant"
    assert (number["failed"], number["mean"], number["people"]) == (30, None, None)


def test_pages_say_the_same_and_nothing_hostile(reads: list[Read], tmp_path: Path):
    report = measure([Model("m", reads, {"truncated": 2}, "judge, seed 0.")], ["word", "expectation"], COMPARING)
    for text in (markdown(report), page(report)):
        assert "judge, seed 0." in text
        assert "truncated 2" in text
        assert "<b>good</b>" not in text
        assert f"{report['models'][0]['readouts'][1]['people']['srcc']['value']:.3f}" in text
    one, two = write_pages(tmp_path / "a", report), write_pages(tmp_path / "b", report)
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert json.loads(one[0].read_text()) == report
