"""Figures of inferences, against numbers that are worked out here by hand or by scipy."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

from tasks.errors import StageError
from tasks.evaluation.choices import Resampling
from tasks.evaluation.inferences import Figures, compared, qualities

RESAMPLING = Resampling(n_bootstrap=300, seed=2, confidence=0.9, min_contents=5)
SURE = {"high": [1, 0, 0, 0, 0], "good": [0, 1, 0, 0, 0], "fair": [0, 0, 1, 0, 0], "low": [0, 0, 0, 0, 1]}


def row(number: int, word: str | None, drawn: list[str | None], **changes: Any) -> dict[str, Any]:
    """A medium with a content of its own, whose level is certain, said to be sharp."""
    told = {
        "model": "one", "id": f"m{number}", "content_id": f"c{number}", "target": 0.1 * number,
        "description": "The image is sharp.", "word": word, "drawn": drawn, "layers": 4, "commit_layer": 2,
        "level_probs": [float(p) for p in SURE[word or "fair"]], "text_probs": [0.0, 0.0, 1.0, 0.0, 0.0],
        "switches": 1, "late_switch": False, "shares": [0.5, 0.25, 0.25, 0.0], "effective_tokens": 3.0,
    }  # fmt: skip
    return told | changes


ROWS = [
    row(0, "low", ["low", "low"], late_switch=True),
    row(1, "fair", ["fair", "low"]),
    row(2, "fair", ["fair", None], commit_layer=4),
    row(3, None, [None, None]),
    row(4, "good", ["good", "good"]),
    row(5, "high", ["high", "good"], shares=[0.1, 0.9, 0.0, 0.0]),
]


@pytest.fixture
def figures() -> Figures:
    other = [one | {"model": "two", "drawn": ["fair", "fair"], "late_switch": False} for one in ROWS]
    return Figures(pd.DataFrame([*ROWS, *other]), RESAMPLING)


def test_shares_are_means_over_media(figures: Figures):
    found = {name: share.value for name, share in figures.of("one").items()}
    assert found["unreadable"] == pytest.approx(1 / 6)
    assert found["drawn_unreadable"] == pytest.approx(3 / 12)
    assert found["unstable_pairwise"] == pytest.approx(3 / 6)  # a failed answer is a class of its own
    assert found["unstable_any_change"] == pytest.approx(3 / 6)
    assert found["unstable_modal"] == pytest.approx(3 * 0.5 / 6)
    assert found["late_switch"] == pytest.approx(1 / 6)
    assert found["commit_depth"] == pytest.approx((5 * 0.5 + 1.0) / 6)
    assert found["attention_image"] == pytest.approx((5 * 0.5 + 0.1) / 6)
    assert found["attention_description"] == pytest.approx((5 * 0.25 + 0.9) / 6)
    # from the text alone every medium is fair (.5): low is .4 off, good .2, high .4
    assert found["text_difference"] == pytest.approx((0.4 + 0 + 0 + 0 + 0.2 + 0.4) / 6)
    assert found["text_flip"] == pytest.approx(3 / 6)
    # praise contradicts low; agrees with good and high; a verdict of fair is open
    assert found["words_against"] == pytest.approx(1 / 3)


def test_agreement_is_that_of_what_could_be_read(figures: Figures):
    found = figures.of("one")
    words = np.array([0.1, 0.5, 0.5, 0.7, 0.9])  # the fourth names none
    targets = np.array([0.0, 0.1, 0.2, 0.4, 0.5])
    assert found["srcc_word"].value == pytest.approx(spearmanr(words, targets).statistic)
    assert found["plcc_word"].value == pytest.approx(pearsonr(words, targets).statistic)
    assert found["srcc_word"].samples == 5
    assert found["srcc_expectation"].samples == 6
    assert found["srcc_text"].value is None, "from the text alone all media are the same"
    assert found["srcc_word"].low <= found["srcc_word"].value <= found["srcc_word"].high + 1e-12
    with pytest.raises(StageError, match="unknown readout"):
        qualities(pd.DataFrame(ROWS), "guess")


def test_differences_are_paired(figures: Figures):
    apart = figures.difference("two", "one")
    assert apart["unstable_pairwise"].value == pytest.approx(-0.5)
    assert apart["late_switch"].value == pytest.approx(-1 / 6)
    assert (apart["srcc_expectation"].value, apart["srcc_expectation"].low, apart["srcc_expectation"].high) == (0, 0, 0)
    assert apart["srcc_text"].value is None
    told = compared(figures, [("two", "one")])
    assert list(told.models) == ["one", "two"]
    assert told.differences[0]["figures"]["unstable_pairwise"]["value"] == pytest.approx(-0.5)


def test_few_contents_give_no_intervals_and_unlike_media_no_figures():
    few = Figures(pd.DataFrame(ROWS[:4]), RESAMPLING).of("one")
    assert few["late_switch"].value == pytest.approx(1 / 4)
    assert few["late_switch"].low is None
    with pytest.raises(StageError, match="same media"):
        Figures(pd.DataFrame([*ROWS, *({**one, "model": "two"} for one in ROWS[1:])]), RESAMPLING)
