"""Claims in recorded texts, and how far qualities follow from them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.errors import StageError
from tasks.evaluation.contradiction import Keys, Options, read_file
from tasks.evaluation.grounding import Fitting, contents_of, ground_recorded, measure
from tasks.evaluation.grounding_pages import markdown, page, write_pages
from tasks.evaluation.recorded import Comparing
from tasks.human_scale import Meaning, Polarity

OPTIONS = Options(1, 5, Meaning(Polarity.DMOS, 0, 1), Comparing(max_reject_share=0.1))
FITTING = Fitting(permutations=19)
TEXTS = {1: "The picture is sharp.", -1: "The picture is blurry.", 0: ""}
NOISE = {1: "It is free of noise.", -1: "There is strong noise.", 0: ""}


def records(images: int = 120) -> list[dict[str, Any]]:
    """The model's score follows from its claims, and people's does not."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(images):
        sharp, clean = (int(sign) for sign in rng.integers(-1, 2, 2))
        text = f"{TEXTS[sharp]} {NOISE[clean]} A house."
        score = 3 + sharp + 0.5 * clean
        found.append({"image": f"set/{number % 20}.{number}.png", "overall_score": score, "perception_text": text,
                      "gt_score": float(rng.random())})  # fmt: skip
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.json").write_text(json.dumps(records()))
    return tmp_path / "a.json"


def test_a_score_that_follows_from_claims_is_explained_and_peoples_is_told_beside_it(path: Path):
    contents = contents_of([path], "image", r"image:/(\d+)\.")
    assert len(contents) == 120
    report = ground_recorded([path], Keys(), OPTIONS, FITTING, contents)
    (file,) = report["files"]
    assert file["model"]["r2"] >= 0.95
    assert file["model"]["p_value"] == 0.05
    weights = file["model"]["weights"]
    assert weights["sharpness"] == pytest.approx(0.25, abs=0.02)
    assert weights["noise"] == pytest.approx(0.125, abs=0.02)
    assert file["people"]["r2"] <= 0.05
    assert (file["model"]["samples"], file["model"]["contents"]) == (120, 20)
    signs = [record["perception_text"].count("blurry") for record in records()]
    assert file["said"]["sharpness"]["faulty"] == sum(signs)


def test_people_are_left_out_where_nothing_says_what_their_scores_mean(path: Path):
    (file,) = ground_recorded([path], Keys(), Options(1, 5, None), FITTING)["files"]
    assert file["people"] is None
    assert file["model"]["contents"] == 120


def test_people_are_measured_on_what_they_scored(path: Path):
    score = Keys().image_score
    answers, _ = read_file(path, Keys(text_score=score, text_text=None), OPTIONS)
    unrated = [replace(one, human=None) if number % 3 == 0 else one for number, one in enumerate(answers)]
    file = measure(unrated, {}, "a", OPTIONS, FITTING, {})
    assert (file["model"]["samples"], file["people"]["samples"]) == (120, 80)
    few = [replace(one, human=None) if number > 3 else one for number, one in enumerate(answers)]
    assert measure(few, {}, "a", OPTIONS, FITTING, {})["people"] is None


def test_texts_that_are_missing_are_counted_up_to_a_limit(tmp_path: Path):
    some = records()
    for record in some[:6]:
        record["perception_text"] = ""
    (tmp_path / "a.json").write_text(json.dumps(some))
    (file,) = ground_recorded([tmp_path / "a.json"], Keys(), OPTIONS, FITTING)["files"]
    assert file["rejected"] == {"no_text": 6}
    strict = Options(1, 5, None, Comparing(max_reject_share=0.01))
    with pytest.raises(StageError, match="6 of 120 records have no text"):
        ground_recorded([tmp_path / "a.json"], Keys(), strict, FITTING)


def test_too_few_contents_are_an_error_that_names_the_file(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps(records(3)))
    with pytest.raises(StageError, match=r"a\.json: 3 contents are too few for 5 folds"):
        ground_recorded([tmp_path / "a.json"], Keys(), OPTIONS, FITTING)


def test_pages_say_the_same(path: Path, tmp_path: Path):
    report = ground_recorded([path], Keys(), OPTIONS, FITTING)
    explained = f"{report['files'][0]['model']['r2']:.3f}"
    for text in (markdown(report), page(report)):
        assert explained in text
        assert "19 permutations, seed 0" in text
        assert "a.json" in text
    one, two = write_pages(tmp_path / "x", report), write_pages(tmp_path / "y", report)
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]
