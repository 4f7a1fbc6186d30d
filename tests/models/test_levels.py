import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ModelError
from models.levels import CENTRES, EDGES, LEVELS, expectation, level_of, level_token_ids


class WordTokenizer:
    def __init__(self, table: dict[str, list[int]]) -> None:
        self.table = table

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert add_special_tokens is False
        return self.table[text]


def test_levels_run_from_best_to_worst_with_the_decided_centres():
    assert LEVELS == ("high", "good", "fair", "poor", "low")
    assert CENTRES.tolist() == [0.9, 0.7, 0.5, 0.3, 0.1]
    assert np.allclose((EDGES[:-1] + EDGES[1:]) / 2, CENTRES)


@pytest.mark.parametrize(
    ("quality", "level"),
    [
        (1.0, "high"),
        (0.8, "high"),
        (0.7999, "good"),
        (0.6, "good"),
        (0.4, "fair"),
        (0.2, "poor"),
        (0.1999, "low"),
        (0.0, "low"),
    ],
)
def test_a_level_is_the_fifth_of_the_scale_and_includes_its_lower_edge(quality: float, level: str):
    assert level_of(quality) == level


@given(st.floats(0, 1))
def test_every_quality_has_the_level_whose_bin_holds_it(quality: float):
    index = LEVELS.index(level_of(quality))
    assert EDGES[index + 1] - 1e-9 <= quality <= EDGES[index] + 1e-9


@pytest.mark.parametrize("quality", [-0.01, 1.01, float("nan")])
def test_a_quality_outside_the_scale_is_refused(quality: float):
    with pytest.raises(ModelError, match="must lie in"):
        level_of(quality)


def test_the_expectation_weighs_the_centres():
    assert expectation([[1, 0, 0, 0, 0], [0, 0.5, 0, 0.5, 0]]).tolist() == pytest.approx([0.9, 0.5])


def test_level_ids_are_looked_up_with_their_leading_space():
    table = {f" {word}": [10 + i] for i, word in enumerate(LEVELS)}
    assert level_token_ids(WordTokenizer(table)) == (10, 11, 12, 13, 14)


def test_a_level_of_two_tokens_is_refused():
    table = {f" {word}": [10 + i] for i, word in enumerate(LEVELS)} | {" fair": [3, 4]}
    with pytest.raises(ModelError, match="'fair' is 2 tokens"):
        level_token_ids(WordTokenizer(table))


def test_levels_that_share_a_token_are_refused():
    table = {f" {word}": [10 + i] for i, word in enumerate(LEVELS)} | {" low": [13]}
    with pytest.raises(ModelError, match="share token ids"):
        level_token_ids(WordTokenizer(table))
