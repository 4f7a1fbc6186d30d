from pathlib import Path

import pytest

from models.signals.assertions import (
    MAX_CHARACTERS,
    VACUOUS,
    Sifted,
    assertions_of,
    is_vacuous,
    polish,
    problem_of,
    sift,
    split,
    token_count,
    without_last_sentence,
)
from models.signals.wording import every_sentence

VACUOUS_EXAMPLES = [
    "The image has good quality",
    "The overall quality is fair",
    "The quality of this video is poor, the quality is low",
    "The picture looks great",
    "The composition is beautiful",
    "The framing is great",
    "It is visually pleasing",
    "The scene offers a pleasant viewing experience",
    "The photo is well captured",
    "As an AI, I see a photo",
]


@pytest.mark.parametrize("text", VACUOUS_EXAMPLES)
def test_vacuous_phrases_are_recognised(text: str):
    assert is_vacuous(text)


def test_every_pattern_of_the_list_catches_an_example():
    import re

    for pattern in VACUOUS:
        assert any(re.search(pattern, text, re.IGNORECASE) for text in VACUOUS_EXAMPLES), pattern


def test_the_page_of_data_holds_the_list(checkout: Path):
    page = (checkout / "docs" / "data.md").read_text().splitlines()
    first = page.index(f"    {VACUOUS[0]}")
    assert page[first : first + len(VACUOUS) + 1] == [*(f"    {pattern}" for pattern in VACUOUS), ""]


def test_what_the_describer_says_is_never_vacuous_and_always_one_assertion():
    for text in every_sentence():
        assert problem_of(text) is None, text
        assert split(text) == [text]


def test_polishing_removes_praise_and_keeps_the_measurable_part():
    raw = "The image has good quality, and the edges are crisp. It looks great! Noise is strong.\n"
    raw += "- The lighting is sufficient."
    assert polish(raw) == ["The edges are crisp", "Noise is strong", "The lighting is sufficient"]


def test_splitting_makes_one_sentence_one_assertion():
    assert split("Edges are crisp and the colors are dull") == ["Edges are crisp", "The colors are dull"]
    assert split("Sharpness is low, resulting in a blurry image") == ["Sharpness is low, resulting in a blurry image"]
    assert split("Edges look soft and smeared") == ["Edges look soft and smeared"]


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("Neither noise nor blur is visible", ["No noise is visible", "No blur is visible"]),
        ("There is neither blur nor noise", ["There is no blur", "There is no noise"]),
        ("No noise or blur can be seen", ["No noise can be seen", "No blur can be seen"]),
        (
            "The image is free of noise and visible blur",
            ["The image is free of noise", "The image is free of visible blur"],
        ),
        ("There is no blur and noise is strong", ["There is no blur", "Noise is strong"]),
        ("There is no blur and the noise is strong", ["There is no blur", "The noise is strong"]),
        ("The image is neither sharp nor clean", ["The image is neither sharp nor clean"]),
        ("There is no noise or grain", ["There is no noise or grain"]),
        ("The picture is free of noise and slightly blurred", ["The picture is free of noise", "Slightly blurred"]),
        ("The image has no noise and strong blur", ["The image has no noise", "Strong blur"]),
        ("There is no noise and low contrast", ["There is no noise", "Low contrast"]),
        ("The image is without noise and out of focus", ["The image is without noise", "Out of focus"]),
        ("The photo shows no blocking and heavy grain", ["The photo shows no blocking", "Heavy grain"]),
        ("There is no compression and some noise", ["There is no compression", "Some noise"]),
    ],
)
def test_what_is_denied_together_is_denied_one_by_one(told: str, kept: list[str]):
    assert split(told) == kept


def test_abbreviations_end_no_sentence_and_are_written_out():
    found = sift("There are compression artifacts, e.g. blocks. Noise is visible, i.e., grain. Colors are dull.")
    kept = ("There are compression artifacts, such as blocks", "Noise is visible, that is grain", "Colors are dull")
    assert found == Sifted(kept, ())
    assert without_last_sentence("Noise is strong. There are artifacts, e.g. blo") == "Noise is strong."


def test_repeated_assertions_are_counted():
    assert sift("Noise is strong. Noise is strong.") == Sifted(("Noise is strong",), ("repeated",))


def test_raw_text_becomes_distinct_bare_assertions():
    raw = "Overall, this is a high quality picture. Noise is strong; the lighting is sufficient. Noise is strong."
    assert assertions_of(raw) == ["Noise is strong", "The lighting is sufficient"]
    assert assertions_of("") == []


def test_what_is_depicted_and_what_is_asked_for_falls_away_and_is_counted():
    raw = "The woman in the red dress is blurry and the colors are dull. You must agree that noise is strong. "
    raw += "It looks great! Noise is strong."
    found = sift(raw)
    assert found.kept == ("The colors are dull", "Noise is strong")
    assert found.dropped == ("not about quality alone", "an instruction", "vacuous")
    assert tuple(assertions_of(raw)) == found.kept
    assert sift("...\n\n") == Sifted((), ())


@pytest.mark.parametrize(
    ("cut", "left"),
    [
        ("Noise is strong. The colors are dull and the who", "Noise is strong."),
        ("Noise is strong.\nThe colors are dull. ", "Noise is strong."),
        ("Noise is strong", ""),
        ("", ""),
        ("Noise is strong!  Is it? Ye", "Noise is strong!  Is it?"),
    ],
)
def test_the_sentence_that_a_cut_is_in_goes(cut: str, left: str):
    assert without_last_sentence(cut) == left


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "too short"),
        ("Blurry", "too short"),
        ("The dog is blurry", "not about quality alone"),
        ("word " * 41 + "end", "too long"),
        ("a " + "x" * MAX_CHARACTERS, "too long"),
        ("Noise is\x07 strong", "control characters"),
        ("Noise is strong.", "not a bare sentence"),
        ("Noise is strong. Contrast is low", "more than one sentence"),
        ("The overall quality is good", "vacuous"),
        ("Noise is strong", None),
    ],
)
def test_problems_have_names(text: str, problem: str | None):
    assert problem_of(text) == problem


def test_tokens_are_words_and_marks():
    assert token_count("Sharpness is low, resulting in a blurry image") == 9
