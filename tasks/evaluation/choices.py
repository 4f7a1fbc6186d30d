"""How well questions with options are answered: accuracy by kind, against chance and against answering blindly.

Intervals are bootstrapped over contents, since questions about one content are not independent; all models share the
replicates, so differences are paired.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.correlation import interval, resamples
from tasks.question_text import LETTERS, options_in

Floats = NDArray[np.float64]

GREEDY: Final = "greedy"
LIKELIEST: Final = "likeliest"
BLIND: Final = "blind"
CHANCE: Final = "chance"
MEASURES: Final = (GREEDY, LIKELIEST, BLIND, CHANCE)
"""What the answer begins with; the likeliest of the options' letters; the most frequent right option of the wording in
training, without a look at the medium; and a drawn letter."""

ALL: Final = "all"
_DIGITS: Final = 6


@dataclass(frozen=True)
class Resampling:
    """How uncertainty is measured.

    Attributes:
        n_bootstrap: replicates. seed: of their contents. confidence: of the percentile intervals.
        min_contents: contents that an interval needs.
    """

    n_bootstrap: int
    seed: int
    confidence: float
    min_contents: int

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.n_bootstrap < 1 or not 0.0 < self.confidence < 1.0 or self.min_contents < 2:
            raise ValueError("n_bootstrap must be positive, confidence in (0, 1) and min_contents at least 2")


@dataclass(frozen=True)
class Measured:
    """A share of right answers, or a difference of two, with its interval (None from too few contents)."""

    value: float
    low: float | None
    high: float | None
    questions: int
    contents: int

    def to_json(self) -> dict[str, Any]:
        """As the accuracy table holds it."""
        return {name: round(x, _DIGITS) if isinstance(x, float) else x for name, x in vars(self).items()}


class BlindAnswers:
    """What one would answer who knows the training questions and never looks: per wording its most frequent option."""

    def __init__(self, turns: Iterable[tuple[str, str]]) -> None:
        """Count the right options of training turns (question, answer)."""
        self._counts: dict[str, Counter[str]] = {}
        for question, answer in turns:
            stem, options = options_in(question)
            letter = answer.strip()[:1]
            if options and letter and letter in LETTERS[: len(options)]:
                self._counts.setdefault(stem, Counter())[options[LETTERS.index(letter)]] += 1

    def letter(self, question: str) -> str | None:
        """Letter of the most frequent of the options that are shown; None if training has no such question."""
        stem, options = options_in(question)
        counts = self._counts.get(stem)
        if not options or not counts or not any(counts[option] for option in options):
            return None
        return LETTERS[max(range(len(options)), key=lambda index: (counts[options[index]], -index))]


def correctness(answers: pd.DataFrame, measure: str) -> Floats:
    """Per row of ANSWERS 1 for a right answer and 0 for a wrong one or none; of ``chance`` the probability.

    Without a training question of its wording, a question is drawn blindly by chance.
    """
    chance = 1.0 / answers["options"].to_numpy(np.float64)
    if measure == CHANCE:
        return chance
    column = {GREEDY: "chosen", LIKELIEST: "likeliest", BLIND: "blind"}[measure]
    right = (answers[column] == answers["letter"]).to_numpy(np.float64)
    return np.where(answers[column].isna(), chance, right) if measure == BLIND else right


class Accuracies:
    """Measures of one set of questions; every model has answered all of them."""

    def __init__(self, answers: pd.DataFrame, resampling: Resampling) -> None:
        self._resampling = resampling
        self._answers = answers.sort_values(["model", "instruction_id"], kind="stable")
        self.models = sorted(set(answers["model"]))
        self.slices = [ALL, *sorted(set(answers["kind"]))]

    def of(self, model: str, where: str, measure: str) -> Measured:
        """Share of right answers of a model on a slice."""
        rows = self._rows(model, where)
        return self._measured(rows, correctness(rows, measure))

    def difference(self, model: str, other: tuple[str, str], where: str, measure: str) -> Measured:
        """Right answers of ``model`` minus those of another (model, measure) on the same questions."""
        rows, others = self._rows(model, where), self._rows(other[0], where)
        return self._measured(rows, correctness(rows, measure) - correctness(others, other[1]))

    def _rows(self, model: str, where: str) -> pd.DataFrame:
        mine = self._answers["model"] == model
        return pd.DataFrame(self._answers[mine if where == ALL else mine & (self._answers["kind"] == where)])

    def _measured(self, rows: pd.DataFrame, value_N: Floats) -> Measured:
        contents, group_N = np.unique(rows["content_id"].to_numpy(str), return_inverse=True)
        groups = len(contents)
        low = high = None
        if groups >= self._resampling.min_contents:
            ends = interval(self._replicates(value_N, group_N, groups), self._resampling.confidence, 0.0)
            low, high = ends if ends is not None else (None, None)
        return Measured(float(value_N.mean()), low, high, len(rows), groups)

    def _replicates(self, value_N: Floats, group_N: NDArray[np.intp], groups: int) -> Floats:
        drawn_BG = resamples(groups, self._resampling.n_bootstrap, self._resampling.seed).astype(np.float64)
        sums_G = np.bincount(group_N, value_N, minlength=groups)
        counts_G = np.bincount(group_N, minlength=groups)
        return (drawn_BG @ sums_G) / (drawn_BG @ counts_G)


def by_slice(accuracies: Accuracies, model: str, measure: str) -> dict[str, float]:
    """Shares of right answers on every slice."""
    return {where: round(accuracies.of(model, where, measure).value, _DIGITS) for where in accuracies.slices}


def table(accuracies: Accuracies, pairs: Sequence[tuple[str, str]], source: str) -> dict[str, list[dict[str, Any]]]:
    """Every measure of every model on every slice, and paired differences.

    Args:
        pairs: models to compare, the first minus the second; the first of each is also compared with blind answers.
        source: of the questions; every row carries it.
    """
    found = [
        {"source": source, "model": model, "slice": where, "measure": measure}
        | accuracies.of(model, where, measure).to_json()
        for model in accuracies.models
        for where in accuracies.slices
        for measure in MEASURES
    ]
    wanted = [(model, other, (other, measure), measure) for model, other in pairs for measure in (GREEDY, LIKELIEST)]
    wanted += [(model, BLIND, (model, BLIND), GREEDY) for model in dict.fromkeys(model for model, _ in pairs)]
    gaps = [
        {"source": source, "model": model, "other": other, "slice": where, "measure": measure}
        | accuracies.difference(model, against, where, measure).to_json()
        for model, other, against, measure in wanted
        for where in accuracies.slices
    ]
    return {"accuracies": found, "differences": gaps}
