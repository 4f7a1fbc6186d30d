"""Accuracy of answers by letter: hand-counted shares, paired differences, intervals by content, blind answers."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation.choices import ALL, Accuracies, BlindAnswers, Resampling, by_slice, correctness, table
from tasks.question_text import choice_text
from tasks.records import ANSWERS

SAMPLING = Resampling(n_bootstrap=400, seed=1, confidence=0.9, min_contents=3)
ROWS = [  # kind, content, options, right, chosen, likeliest, blind
    ("yes_no", "a", 2, "A", "A", "A", "A"),
    ("yes_no", "b", 2, "B", "A", "B", "A"),
    ("which", "b", 4, "C", None, "C", None),
    ("which", "c", 4, "D", "D", "A", "D"),
]


def answers(
    model: str = "m", rows: list[tuple[str, str, int, str, str | None, str, str | None]] = ROWS
) -> pd.DataFrame:
    columns = ("kind", "content_id", "options", "letter", "chosen", "likeliest", "blind")
    records = [
        {"model": model, "instruction_id": str(n), "source": "s", "said": "", **dict(zip(columns, row, strict=True))}
        for n, row in enumerate(rows)
    ]
    return ANSWERS.to_arrow(pd.DataFrame.from_records(records, columns=ANSWERS.columns)).to_pandas()


def test_shares_are_those_counted_by_hand():
    found = Accuracies(answers(), SAMPLING)
    assert found.slices == [ALL, "which", "yes_no"]
    assert by_slice(found, "m", "greedy") == {ALL: 0.5, "which": 0.5, "yes_no": 0.5}
    assert by_slice(found, "m", "likeliest") == {ALL: 0.75, "which": 0.5, "yes_no": 1.0}
    assert by_slice(found, "m", "chance") == {ALL: 0.375, "which": 0.25, "yes_no": 0.5}
    assert by_slice(found, "m", "blind") == {ALL: 0.5625, "which": 0.625, "yes_no": 0.5}
    measured = found.of("m", ALL, "greedy")
    assert (measured.questions, measured.contents) == (4, 3)
    assert found.of("m", "which", "greedy").low is None  # two contents cannot show how contents differ


def test_an_answer_without_a_letter_is_wrong_and_a_wording_never_seen_is_drawn():
    assert correctness(answers(), "greedy").tolist() == [1, 0, 0, 1]
    assert correctness(answers(), "blind").tolist() == [1, 0, 0.25, 1]


def test_differences_are_paired():
    same = Accuracies(pd.concat([answers(), answers("other")]), SAMPLING)
    gap = same.difference("m", ("other", "greedy"), ALL, "greedy")
    assert (gap.value, gap.low, gap.high) == (0.0, 0.0, 0.0)
    better = [(*row[:4], row[3], *row[5:]) for row in ROWS]
    found = Accuracies(pd.concat([answers("better", better), answers()]), SAMPLING)
    gap = found.difference("better", ("m", "greedy"), ALL, "greedy")
    assert gap.value == 0.5
    assert gap.low is not None
    assert gap.high is not None
    assert 0.0 <= gap.low <= 0.5 <= gap.high <= 1.0


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), min_size=8, max_size=60))
def test_an_interval_holds_the_value_of_most_draws_and_repeats(drawn: list[tuple[str, bool]]):
    rows = [("which", content, 4, "A", "A" if right else "B", "A", "A") for content, right in drawn]
    measured = Accuracies(answers(rows=rows), SAMPLING).of("m", ALL, "greedy")
    assert measured == Accuracies(answers(rows=rows[::-1]), SAMPLING).of("m", ALL, "greedy")
    assert measured.value == pytest.approx(np.mean([right for _, right in drawn]))
    if len({content for content, _ in drawn}) < 3:
        assert measured.low is None
    else:
        assert measured.low is not None
        assert measured.high is not None
        assert 0.0 <= measured.low <= measured.high <= 1.0


def test_many_contents_give_the_interval_of_a_share():
    rng = np.random.default_rng(0)
    rows = [("which", str(n), 4, "A", "A" if rng.random() < 0.3 else "B", "A", "A") for n in range(900)]
    sampling = Resampling(n_bootstrap=2000, seed=1, confidence=0.95, min_contents=10)
    measured = Accuracies(answers(rows=rows), sampling).of("m", ALL, "greedy")
    spread = 1.96 * np.sqrt(measured.value * (1 - measured.value) / 900)  # the normal interval of a binomial share
    assert measured.low == pytest.approx(measured.value - spread, abs=0.005)
    assert measured.high == pytest.approx(measured.value + spread, abs=0.005)


def test_blind_answers_know_the_wording_and_not_the_medium():
    asked, options = "Is it blurry?", ["Yes", "No"]
    blind = BlindAnswers(
        [
            (choice_text(asked, options), "A"),
            (choice_text(asked, options), "B"),
            (choice_text(asked, options[::-1]), "A. No"),
            ("Describe it.", "A fine picture"),
        ]
    )
    assert blind.letter(choice_text(asked, options)) == "B"
    assert blind.letter(choice_text(asked, options[::-1])) == "A"
    assert blind.letter(choice_text("Is it sharp?", options)) is None
    assert blind.letter(choice_text(asked, ["Maybe", "Never"])) is None
    assert blind.letter("Describe it.") is None


def test_the_table_holds_every_model_slice_and_measure():
    found = table(Accuracies(pd.concat([answers(), answers("n")]), SAMPLING), [("m", "n")], "s")
    assert len(found["accuracies"]) == 2 * 3 * 4
    assert {(row["other"], row["measure"]) for row in found["differences"]} == {
        ("n", "greedy"),
        ("n", "likeliest"),
        ("blind", "greedy"),
    }
    gap = next(row for row in found["differences"] if (row["other"], row["slice"]) == ("blind", ALL))
    assert gap["value"] == pytest.approx(0.5 - 0.5625)


@pytest.mark.parametrize("changes", [{"n_bootstrap": 0}, {"confidence": 1.0}, {"min_contents": 1}])
def test_resampling_has_ranges(changes: dict[str, float]):
    with pytest.raises(ValueError, match="n_bootstrap must be positive"):
        Resampling(**{"n_bootstrap": 10, "seed": 1, "confidence": 0.9, "min_contents": 3} | changes)  # type: ignore[arg-type]
