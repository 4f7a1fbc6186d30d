import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.question_text import choice_text, letter_of, options_in
from tasks.records import MEDIUM_MARK

WORDS = st.text(string.ascii_letters + " ,'", min_size=1).filter(lambda text: text.strip() == text)


@given(WORDS, st.lists(WORDS, min_size=2, max_size=6))
def test_what_was_written_is_read_again(stem: str, options: list[str]):
    text = f"{MEDIUM_MARK}\n{choice_text(stem, options)}"
    assert options_in(text) == (stem, options)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Is it sharp?\nA. Yes\nB. No", ("Is it sharp?", ["Yes", "No"])),
        ("Is it sharp?\n(A) Yes\n(B) No\nAnswer by letter.", ("Is it sharp?", ["Yes", "No"])),
        ("How?\nA) Low \n  B) High\nC) Fair\nE) Odd", ("How?", ["Low", "High", "Fair"])),
        ("Is it sharp?", ("Is it sharp?", [])),
        ("It has an\nA. B. Smith in it?", ("It has an\nA. B. Smith in it?", [])),
        ("B. Yes\nC. No", ("B. Yes\nC. No", [])),
        (f"{MEDIUM_MARK}\nA. Yes\nB. No", ("", ["Yes", "No"])),
    ],
)
def test_options_are_lines_lettered_in_turn(text: str, found: tuple[str, list[str]]):
    assert options_in(text) == found


@pytest.mark.parametrize(
    ("text", "options", "letter"),
    [
        ("B", 4, "B"),
        (" B. Blurry", 4, "B"),
        ("Because it is A", 4, "B"),  # the protocol reads one character and nothing else
        ("C", 2, None),
        ("b", 4, None),
        ("The answer is A", 4, None),
        ("", 4, None),
        (" \n", 4, None),
    ],
)
def test_the_first_character_is_the_answer(text: str, options: int, letter: str | None):
    assert letter_of(text, options) == letter
