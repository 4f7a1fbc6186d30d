"""Rewards: a table of answers with what each earns, read in both ways, and what holds of any answer."""

import dataclasses
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ModelError
from models.rewards import (
    CLASSES,
    IMAGE_A,
    IMAGE_B,
    KINDS,
    SEVERITIES,
    Better,
    Degradation,
    KindWeights,
    RewardRule,
    Score,
    Truth,
    agreement,
    quality_of,
    rating_of,
    read_answer,
    reward_of,
)

ONE = KindWeights(answer=1.0, format=1.0)
FREE = RewardRule(tags="free", score_shape="step", tolerance=0.35, score=ONE, degradation=ONE, pair=ONE)
STRICT = dataclasses.replace(FREE, tags="strict_newline")
ROWS = [line.split("\t") for line in (Path(__file__).parent / "teacher_answers.tsv").read_text().splitlines()]


def truth_of(kind: str, told: str) -> Truth:
    if kind == "score":
        return Score(float(told))
    if kind == "pair":
        return Better(told)
    name, severity = (None if word == "null" else word for word in told.split("/"))
    return Degradation(name, severity)


@pytest.mark.parametrize("row", ROWS, ids=range(1, len(ROWS) + 1))
def test_every_answer_of_the_table_earns_what_it_says(row: list[str]):
    kind, told, text, layout, worth, strict_layout, strict_worth, failure = row
    text, truth = text.replace("\\n", "\n"), truth_of(kind, told)
    for rule, wanted in ((FREE, (layout, worth)), (STRICT, (strict_layout, strict_worth))):
        found = reward_of(text, truth, rule)
        assert (found.format, found.answer) == tuple(map(float, wanted))
        assert found.total == found.format + found.answer
    assert reward_of(text, truth, FREE).failure == (None if failure == "-" else failure)


def test_the_table_is_large_enough_and_holds_every_kind_and_every_failure():
    assert len({tuple(row) for row in ROWS}) == len(ROWS) >= 40
    assert {row[0] for row in ROWS} == set(KINDS)
    failures = {"no_answer", "several_answers", "no_object", "no_value", "off_scale"}
    assert {row[7] for row in ROWS} == {"-", *failures}
    assert any(row[3] != row[5] for row in ROWS)
    assert any(row[4] != row[6] for row in ROWS)


@given(hundredths=st.integers(100, 500), off=st.integers(-60, 60))
def test_the_step_is_strict_whatever_the_binary_rounding(hundredths: int, off: int):
    rating = Decimal(hundredths + off) / 100
    if not 1 <= rating <= 5:
        return
    text = f'<think>x</think><answer>{{"rating": {rating}}}</answer>'
    assert reward_of(text, Score((hundredths - 100) / 400), FREE).answer == float(abs(off) < 35)


@given(distance=st.floats(0.0, 2.0), up=st.booleans())
def test_the_smooth_reward_is_a_half_cosine_that_ends_at_the_tolerance(distance: float, up: bool):  # noqa: FBT001
    smooth = dataclasses.replace(FREE, score_shape="cosine")
    truth, said = Score(0.5), Score(quality_of(3.0 + (distance if up else -distance)))
    expected = 0.5 * (1 + math.cos(math.pi * distance / 0.35)) if distance < 0.35 - 1e-9 else 0.0
    assert agreement(said, truth, smooth) == pytest.approx(expected, abs=1e-9)
    assert agreement(truth, truth, smooth) == 1.0


def test_weights_are_used():
    weighted = dataclasses.replace(FREE, score=KindWeights(2.0, 0.5), pair=KindWeights(0.0, 3.0))
    score = '<think>x</think><answer>{"rating": 3}</answer>'
    assert reward_of(score, Score(0.5), weighted).total == 2.5
    assert reward_of(score, Score(0.9), weighted).total == 0.5
    assert reward_of("<think>x</think><answer>Image A</answer>", IMAGE_A, weighted).total == 3.0
    assert reward_of("<answer>Image A</answer>", IMAGE_A, weighted).total == 0.0
    assert reward_of('<answer>{"distortion_class": null, "severity": null}</answer>', Degradation(None, None), weighted)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KindWeights(-1.0, 1.0), "negative"),
        (lambda: KindWeights(0.0, 0.0), "positive"),
        (lambda: KindWeights(math.inf, 1.0), "negative"),
        (lambda: dataclasses.replace(FREE, tolerance=0.0), "tolerance"),
        (lambda: dataclasses.replace(FREE, tolerance=5.0), "tolerance"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make()


@given(quality=st.floats(0.0, 1.0))
def test_the_scale_of_answers_runs_from_one_to_five_and_back(quality: float):
    assert rating_of(quality) == pytest.approx(1 + 4 * quality)
    assert quality_of(rating_of(quality)) == pytest.approx(quality, abs=1e-12)


@pytest.mark.parametrize("quality", [-0.1, 1.1, math.nan])
def test_a_quality_off_its_scale_is_refused(quality: float):
    with pytest.raises(ModelError, match=r"\[0, 1\]"):
        rating_of(quality)


PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "\n", "{", "}", '"rating"', ": ", "3.2", '"3.2"', "null", "[" * 60,
     "Image A", "1" * 400, "NaN", '"distortion_class"', '"noise"', ",", '"severity"', "\u2028", "x"]
)  # fmt: skip
TRUTHS = (Score(0.5), Degradation("noise", "slight"), Degradation(None, None), IMAGE_B)


@given(text=st.lists(PIECES, max_size=25).map("".join), truth=st.sampled_from(TRUTHS))
def test_any_text_has_a_reward_within_its_bounds_and_a_reason_where_nothing_is_read(text: str, truth: Truth):
    for rule in (FREE, STRICT):
        found, reading = reward_of(text, truth, rule), read_answer(text, truth.kind, rule.tags)
        assert 0.0 <= found.answer <= 1.0
        assert found.format in (0.0, 1.0)
        assert (reading.said is None) == (found.failure is not None)
        assert reading.said is not None or found.answer == 0.0


def test_thoughts_are_read_from_well_formed_answers_alone():
    for tags in ("free", "strict_newline"):
        text = "<think>\nEdges are soft.\n</think>\n<answer>\nImage B\n</answer>"
        assert read_answer(text, "pair", tags).thought == "Edges are soft."
        assert read_answer(f"Well: {text}", "pair", tags).thought == ""


def test_what_can_be_degraded_is_named_once():
    assert len(set(CLASSES)) == 4
    assert len(set(SEVERITIES)) == 5
