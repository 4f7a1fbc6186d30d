"""One-stage and two-stage models by every instrument: what is stored, what hangs on nothing, and what is refused."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.levels import LEVELS
from models.quality_lmm import IMAGE_PREFIX, VIDEO_PREFIX, QualityLMM
from models.two_stage import Description, TwoStageLMM
from tasks.errors import StageError
from tasks.evaluation import reason
from tasks.evaluation.choices import Resampling
from tasks.pool import load_candidates
from tasks.records import INFERENCES, Split
from tasks.shards import read_table
from tasks.stage import Place

CONFIG = reason.Config(
    max_media=None,
    repeats=3,
    temperature=1.0,
    top_p=1.0,
    seed=5,
    batch=4,
    threads=1,
    device="cpu",
    max_reject_share=0.0,
    sampling=Resampling(n_bootstrap=50, seed=1, confidence=0.9, min_contents=2),
)


@pytest.fixture
def place(
    line: Path,
    place_for: Callable[[Path, str], Place],
    write_pretrained: Callable[[Path], None],
    write_two_stage: Callable[[Path], None],
) -> Place:
    write_pretrained(line)
    write_two_stage(line)
    return place_for(line, "reason")


def told(place: Place) -> pd.DataFrame:
    return read_table(place.out / "inferences.parquet", INFERENCES)


def test_all_models_are_asked_about_all_held_out_media(place: Place):
    report = reason.run(CONFIG, place)
    rows = told(place)
    pool = load_candidates(place)
    held_out = set(pool[pool["split"] == Split.HELD_OUT]["id"])
    assert set(rows["model"]) == {"pretrained", "one_stage", "two_stage"}
    assert all(set(mine["id"]) == held_out for _, mine in rows.groupby("model"))
    assert report.media == len(held_out)
    for row in rows.to_dict("records"):
        sentence = VIDEO_PREFIX if row["modality"] == "video" else IMAGE_PREFIX
        assert row["verdict"].startswith(sentence)
        assert len(row["drawn"]) == 3
        assert sum(row["level_probs"]) == pytest.approx(1.0)
        assert sum(row["shares"]) == pytest.approx(1.0)
        assert 1 <= row["commit_layer"] <= row["layers"]
        assert (row["text_probs"] is None) == (row["model"] == "pretrained")
        assert row["model"] != "two_stage" or row["shares"][0] == 0.0, "no image for the reasoner to look at"
        assert row["model"] != "pretrained" or row["description"] == ""
    figures = json.loads((place.out / "figures.json").read_text())
    assert {name: {key: one["value"] for key, one in found.items()} for name, found in figures["models"].items()} == (
        report.figures
    )
    # a verdict that rests on the description alone is the same with and without the medium
    assert report.figures["two_stage"]["text_difference"] == 0.0
    assert report.figures["one_stage"]["text_difference"] > 0.0
    assert report.figures["pretrained"]["text_difference"] is None
    apart = report.two_stage_minus_one_stage
    for name in ("unstable_pairwise", "late_switch", "attention_image"):
        expected = report.figures["two_stage"][name] - report.figures["one_stage"][name]
        assert apart[name] == pytest.approx(expected, abs=2e-6)


def test_what_is_stored_is_what_the_two_stage_model_says_itself(place: Place):
    reason.run(dataclasses.replace(CONFIG, max_media=3), place)
    rows = told(place)
    mine = rows[rows["model"] == "two_stage"]
    both = TwoStageLMM.from_pretrained(place.root / "artifacts" / "two_stage")
    texts = [Description(row.description, row.modality == "video") for row in mine.itertuples()]
    verdicts = both.judge(texts)
    assert np.allclose(verdicts.probabilities_N5.numpy(), np.array(mine["level_probs"].tolist()), atol=1e-5)
    said = [read_level(answer) for answer in verdicts.answers]
    assert [one for one in said if one] == [word for one, word in zip(said, mine["word"], strict=True) if one]


def read_level(answer: str) -> str | None:
    found = [level for level in LEVELS if level in answer.lower().split()]
    return found[0] if len(found) == 1 else None


def test_batches_and_kills_change_no_row(place: Place, monkeypatch: pytest.MonkeyPatch):
    small = dataclasses.replace(CONFIG, max_media=4)
    reason.run(small, place)
    whole = told(place)
    other = Place(place.root, place.work / "other", place.work / "other" / "out")
    asked = reason._asked

    def killed(name: str, *rest: object) -> list:
        if name == "two_stage":
            raise KeyboardInterrupt
        return asked(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(reason, "_asked", killed)
    with pytest.raises(KeyboardInterrupt):
        reason.run(dataclasses.replace(small, batch=1), other)
    monkeypatch.setattr(reason, "_asked", lambda name, *rest: asked(name, *rest) if name == "two_stage" else 1 / 0)
    reason.run(dataclasses.replace(small, batch=1), other)
    exact = ["model", "id", "description", "verdict", "word", "commit_layer", "switches", "late_switch"]
    assert told(other)[exact].equals(whole[exact])
    assert [list(drawn) for drawn in told(other)["drawn"]] == [list(drawn) for drawn in whole["drawn"]]
    for column in ("level_probs", "shares"):
        assert np.allclose(*(np.array(rows[column].tolist()) for rows in (told(other), whole)), atol=1e-5)


def test_models_that_two_stage_left_out_are_left_out(place: Place):
    folder = place.root / "artifacts" / "two_stage"
    shutil.rmtree(folder / "one_stage")
    few = dataclasses.replace(CONFIG, max_media=2, repeats=2)
    report = reason.run(few, place)
    assert set(report.figures) == {"pretrained", "two_stage"}
    assert report.two_stage_minus_one_stage == {}
    (folder / "two_stage.json").write_text('{"input": "block_mask", "reasoner": "separate"}')
    other = Place(place.root, place.work / "other", place.work / "other" / "out")
    assert set(reason.run(few, other).figures) == {"pretrained"}


def test_a_model_on_another_encoder_is_refused(place: Place):
    base = QualityLMM.from_pretrained(place.root / "artifacts" / "base" / "small")
    base.save_pretrained(place.root / "artifacts" / "two_stage" / "one_stage")
    with pytest.raises(StageError, match="one_stage does not stand on the encoder of the line"):
        reason.run(dataclasses.replace(CONFIG, max_media=2), place)


def test_greedy_repeats_and_lonely_answers_are_refused():
    with pytest.raises(ValueError, match="greedy answers never differ"):
        dataclasses.replace(CONFIG, temperature=0.0)
    with pytest.raises(ValueError, match="repeats must be at least 2"):
        dataclasses.replace(CONFIG, repeats=1)
