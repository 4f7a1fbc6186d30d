"""Leaks of the verdict: sentences with what must be found in them, and what holds of any text."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.levels import LEVELS
from models.reasoning_text import VERDICT_LEVELS, leaks, verdict_of, without_verdict
from models.signals.wording import every_sentence

LINES = (Path(__file__).parent / "reasoning_sentences.tsv").read_text().splitlines()
SENTENCES = [tuple(line.split("\t")) for line in LINES]
CLEAN = [sentence for told, sentence in SENTENCES if told == "-"]
GIVEN_AWAY = [tuple(line.split("\t")) for line in (Path(__file__).parent / "leak_lines.tsv").read_text().splitlines()]
"""What holds a line's verdict (digits, rating, level, or clean), and the line; written before the lexicon saw them."""
TEXTS = st.lists(
    st.one_of(
        st.sampled_from([sentence for _, sentence in SENTENCES]),
        st.sampled_from(
            [". ", ".", "!? ", '." ', "\n", "\r\n", " ", "...", "7", "/", "10", "\u2028", "overall", "rated"]
        ),
        st.text(max_size=8),
    ),
    max_size=12,
).map("".join)


def told(text: str) -> str:
    return " ".join(f"{leak.kind}:{leak.text.replace(' ', '_')}" for leak in leaks(text)) or "-"


@pytest.mark.parametrize(("wanted", "sentence"), SENTENCES)
def test_every_leak_of_a_sentence_is_found_and_nothing_else(wanted: str, sentence: str):
    assert told(sentence) == wanted


def test_the_sentences_are_two_hundred_different_ones_of_both_kinds():
    assert len({sentence for _, sentence in SENTENCES}) == len(SENTENCES) == 200
    assert len(CLEAN) >= 80
    assert all(any(f"{kind}:" in found for found, _ in SENTENCES) for kind in ("level", "verdict", "score"))


def test_every_line_that_gives_its_verdict_away_is_found_and_no_clean_one():
    missed = [line for kind, line in GIVEN_AWAY if kind != "clean" and not leaks(line)]
    accused = [(line, told(line)) for kind, line in GIVEN_AWAY if kind == "clean" and leaks(line)]
    assert (missed, accused) == ([], [])
    kinds = [kind for kind, _ in GIVEN_AWAY]
    assert {kind: kinds.count(kind) for kind in kinds} == {"digits": 70, "rating": 66, "level": 64, "clean": 100}
    assert len({line for _, line in GIVEN_AWAY}) == len(GIVEN_AWAY)
    assert not {line for _, line in GIVEN_AWAY} & {sentence for _, sentence in SENTENCES}


def test_a_leak_stands_where_it_says():
    text = "Edges are crisp.\nThe quality is Poor, 7/10."
    assert [text[leak.start :][: len(leak.text)] for leak in leaks(text)] == ["quality", "Poor", "7/10"]


@given(TEXTS)
def test_what_is_left_of_any_text_has_no_leak_and_is_left_alone_the_next_time(text: str):
    body = without_verdict(text)
    assert leaks(body.text) == ()
    assert without_verdict(body.text).text == body.text
    assert without_verdict(body.text).dropped == ()


@given(TEXTS)
def test_sentences_are_dropped_or_stay_as_they_stood(text: str):
    body = without_verdict(text)
    assert bool(body.dropped) == bool(leaks(text))
    assert all(sentence in text and leaks(sentence) for sentence in body.dropped)
    assert sorted("".join(f"{body.text}{''.join(body.dropped)}".split())) == sorted("".join(text.split()))


@given(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=6))
def test_clean_sentences_stay_in_their_order(chosen: list[tuple[str, str]]):
    body = without_verdict(" ".join(f"{sentence}." for _, sentence in chosen))
    assert body.text == " ".join(f"{sentence}." for found, sentence in chosen if found == "-")


def test_our_own_wording_leaks_level_words_alone():
    found = {(leak.kind, leak.text) for sentence in every_sentence() for leak in leaks(sentence)}
    assert found == {("level", "high"), ("level", "low"), ("level", "good")}


@pytest.mark.parametrize("level", LEVELS)
def test_the_forced_sentence_leaks_and_is_a_verdict_of_its_level(level: str):
    sentence = f"The quality of the image is {level}"
    assert [leak.text for leak in leaks(sentence)] == ["quality", level]
    assert verdict_of(f"Noise is visible. {sentence}.") == level


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("The image is blurry. Therefore, the quality of this image is very poor.", "low"),
        ("The light is fine. In summary, the overall quality of the image is very good.", "high"),
        ("The edges are soft, resulting in poor image quality.", "poor"),
        ("With low noise and good light, the quality is excellent.", "high"),
        ("The quality is relatively good.", "good"),
        ("It has a below average quality.", "poor"),
        ("The rating is above average.", "good"),
        ("The quality is acceptable.", "fair"),
        ("The quality is average.", "fair"),
        ("Its overall visual quality is bad.", "low"),
        ("The quality is good. The image is sharp.", "good"),
        ("The quality is poor at first. Yet the quality is good.", "good"),
        ("The image is not blurry, and its quality is good.", "good"),
        ("The quality is not good.", None),
        ("The quality isn't bad.", None),
        ("The quality is good, the rating is poor.", None),
        ("The focus is good.", None),
        ("The quality suffers from noise.", None),
        ("The image quality would be better without the noise.", None),
        ("The quality is affected by low light.", None),
        ("The quality is reduced by high noise.", None),
        ("Overall, the brightness is low.", None),
        ("The quality of the details is high.", None),
        ("The quality is between poor and fair.", None),
        ("The quality is less than good.", None),
        ("Overall, it is a good image.", "good"),
        ("Overall, this is a poor picture.", "poor"),
        ("I would rate it as good.", "good"),
        ("Rating: fair.", "fair"),
        ("Overall quality: low.", "low"),
        ("", None),
    ],
)
def test_a_verdict_is_read_from_the_last_sentence_that_gives_one_and_never_guessed(text: str, level: str | None):
    assert verdict_of(text) == level


def test_absolute_category_rating_stands_in_the_order_of_the_levels():
    words = ("excellent", "good", "fair", "poor", "bad")
    assert tuple(VERDICT_LEVELS) == LEVELS
    assert tuple(verdict_of(f"The quality is {word}.") for word in words) == LEVELS
    meanings = [word for listed in VERDICT_LEVELS.values() for word in listed]
    assert len(set(meanings)) == len(meanings)
