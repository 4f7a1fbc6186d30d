"""Questions and example answers: what is written is what is read, and earns everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.distortions import CELLS, strength
from models.rewards import (
    CLASSES,
    IMAGE_A,
    IMAGE_B,
    KINDS,
    SEVERITIES,
    Degradation,
    KindWeights,
    RewardRule,
    Score,
    reward_of,
)
from models.teaching import answer, degradation_of, question, shown

ONE = KindWeights(1.0, 1.0)
NAMED = st.builds(Degradation, st.sampled_from(CLASSES), st.sampled_from(SEVERITIES))
TRUTHS = st.one_of(
    st.builds(Score, st.floats(0.0, 1.0)), st.just(Degradation(None, None)), NAMED, st.sampled_from((IMAGE_A, IMAGE_B))
)


@given(truth=TRUTHS, thought=st.sampled_from(["Edges are soft.", "Image A: dark. Image B: crisp.\nNothing else."]))
def test_an_example_answer_earns_everything_in_the_way_it_is_read(truth: Score | Degradation, thought: str):
    for tags in ("free", "strict_newline"):
        rule = RewardRule(tags, "step", 0.35, ONE, ONE, ONE)
        assert reward_of(answer(thought, truth, tags), truth, rule).total == 2.0


def test_examples_have_line_breaks_only_where_they_are_asked_for():
    assert answer("Soft.", Score(0.6), "free") == '<think>Soft.</think><answer>{"rating": 3.40}</answer>'
    assert answer("Soft.", IMAGE_B, "strict_newline") == "<think>\nSoft.\n</think>\n<answer>\nImage B\n</answer>"


@pytest.mark.parametrize("kind", KINDS)
def test_the_full_question_says_how_to_answer_and_the_short_one_does_not(kind: str):
    short, full = (question(kind, style) for style in ("short", "full"))  # type: ignore[arg-type]
    assert full.startswith(short)
    assert "<think>" in full
    assert "<think>" not in short
    assert "video" in question("score", "short", is_video=True)


def test_media_stand_before_the_question():
    assert shown("score", "*") == "*\n"
    assert shown("pair", "*") == "Image A: *\nImage B: *\n"


def test_distortions_are_told_by_class_and_strength():
    assert degradation_of(None, 0) == Degradation(None, None)
    assert degradation_of("jpeg2000", 1) == Degradation("compression", "slight")
    assert degradation_of("lens_blur", 5) == Degradation("blur", "catastrophic")
    assert degradation_of("color_shift", 3) is None
    found = {degradation_of(kind, level) for kind, level in CELLS} - {None}
    assert {one.name for one in found if one} == set(CLASSES)
    assert all(
        one.severity == SEVERITIES[strength(kind, level) - 1]
        for kind, level in CELLS
        if (one := degradation_of(kind, level)) is not None
    )
