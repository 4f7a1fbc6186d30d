"""What is read out of answers, and out of which nothing is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ModelError
from models.instruments.readout import NumberReadout, WordReadout
from models.levels import LEVELS, level_of


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        ("The quality of the image is good.", "good"),
        ("The quality of the image is GOOD", "good"),
        ("High contrast, low noise. The quality of the image is fair", "fair"),
        ("The overall quality of this photo is really poor.", "poor"),
        ("Quality: low", "low"),
        ("I would rate it: poor", "poor"),
        ("<think>high or low?</think><answer>good</answer>", "good"),
        ("The contrast is high and the light is low.", None),
        ("A tree.", None),
        ("", None),
        ("The quality is good. The quality is poor.", None),
        ("The highlights are goodish.", None),
    ],
)
def test_a_stated_level_word_is_read(answer: str, level: str | None):
    found = WordReadout()(answer)
    assert (None if found is None else LEVELS[found]) == level


def test_other_words_can_be_levels():
    readout = WordReadout(("excellent", "good", "fair", "poor", "bad"))
    assert readout("The quality is bad") == 4
    assert readout("The quality is low") is None
    for levels in (("good",), ("good", "Good"), ()):
        with pytest.raises(ModelError, match="two different levels"):
            WordReadout(levels)


@pytest.mark.parametrize(
    ("answer", "quality"),
    [
        ('<think>3 things: 2 good</think><answer>{"rating": 3.00}</answer>', 0.5),
        ('{"rating": 5}', 1.0),
        ('{\n "score": 1.8\n}', 0.2),
        ("I give it 4 out of 5.", 0.75),
        ("4.2/5", 0.8),
        ("2.6", 0.4),
        ("Between 2 and 4.", None),
        ("7", None),
        ("{rating: x}", None),
        ('{"rating": true}', None),
        ('{"rating": 2} or {"rating": 3}', None),
        ("about 50%", None),
        ("no number", None),
    ],
)
def test_a_stated_number_is_read(answer: str, quality: float | None):
    readout = NumberReadout(1, 5)
    found = readout.quality(answer)
    assert found == (None if quality is None else pytest.approx(quality))
    assert readout(answer) == (None if quality is None else LEVELS.index(level_of(quality)))


def test_a_scale_has_two_ends():
    with pytest.raises(ModelError, match="is empty"):
        NumberReadout(5, 1)


@given(st.text())
def test_no_text_breaks_a_readout(text: str):
    assert WordReadout()(text) in {None, 0, 1, 2, 3, 4}
    assert NumberReadout(1, 5)(text) in {None, 0, 1, 2, 3, 4}
