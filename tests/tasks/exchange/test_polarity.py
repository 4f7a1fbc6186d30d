import pytest

from tasks.errors import StageError
from tasks.exchange.polarity import check_meaning, witnesses
from tasks.human_scale import Meaning, Polarity

SCORES = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
WORDS = ["bad", "bad", "poor", "fair", "good", "excellent"]
LEVEL_WORDS = ["low", "low", "poor", "fair", "good", "high"]


def saying(words: list[str]) -> list[dict]:
    return [
        {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": f"The quality of it is {word}."}]}
        for word in words
    ]


def test_scores_outside_the_declared_scale_are_refused():
    with pytest.raises(StageError, match="outside the declared scale"):
        check_meaning(Meaning(Polarity.NEGATED_DMOS, -1, 0), [-0.5, 0.5], [{}, {}], "x")


@pytest.mark.parametrize("polarity", [Polarity.MOS, Polarity.DMOS])
def test_numbers_that_are_all_negative_are_ambiguous_under_another_name(polarity: Polarity):
    with pytest.raises(StageError, match="as in negated DMOS"):
        check_meaning(Meaning(polarity, -1, 0), [-0.5, -0.1], [{}, {}], "x")
    check_meaning(Meaning(Polarity.NEGATED_DMOS, -1, 0), [-0.5, -0.1, -0.0], [{}] * 3, "x")


@pytest.mark.parametrize("words", [WORDS, LEVEL_WORDS])
def test_level_words_contradict_a_wrong_polarity(words: list[str]):
    check_meaning(Meaning(Polarity.MOS, 0, 10), SCORES, saying(words), "x")
    check_meaning(Meaning(Polarity.DMOS, 0, 10), SCORES[::-1], saying(words), "x")
    with pytest.raises(StageError, match=r"declared as dmos, but the level words \(\+0\.99\)"):
        check_meaning(Meaning(Polarity.DMOS, 0, 10), SCORES, saying(words), "x")
    with pytest.raises(StageError, match="declared as mos"):
        check_meaning(Meaning(Polarity.MOS, 0, 10), SCORES[::-1], saying(words), "x")


@pytest.mark.parametrize("key", ["level", "gt_score_norm", "mos_norm"])
def test_levels_and_normalised_scores_do_too(key: str):
    values = [{key: number} for number in (1, 1, 2, 3, 4, 5)]
    with pytest.raises(StageError, match=f"but {key} "):
        check_meaning(Meaning(Polarity.DMOS, 0, 10), SCORES, values, "x")


def test_what_says_nothing_is_no_witness():
    assert witnesses(SCORES, [{}] * 6) == {}
    assert witnesses(SCORES, [{"level": True}] * 6) == {}
    assert witnesses(SCORES, [{"level": 3}] * 6) == {}
    assert witnesses(SCORES[:4], [{"level": n} for n in range(4)]) == {}
    assert witnesses(SCORES, [{"conversations": []}, {"conversations": [1]}, *saying(["nice"] * 4)]) == {}
