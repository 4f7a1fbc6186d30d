"""Figures of what models inferred: INFERENCES rows to shares, agreements and paired differences, all over contents.

Shape legend: ``N`` media, ``R`` drawn answers, ``G`` contents, ``B`` replicates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.correlation import agreement, bootstrap, interval, resamples
from models.instruments.attention_share import GROUPS
from models.instruments.contradiction import gap
from models.instruments.instability import FAILED, unstable_shares
from models.instruments.replicates import Replicates, Share
from models.instruments.word_balance import Agreement, compare
from models.levels import CENTRES, LEVELS, expectation
from tasks.errors import StageError
from tasks.evaluation.choices import Resampling
from tasks.evaluation.recorded import told_shares

Floats = NDArray[np.float64]

READOUTS: Final = ("word", "expectation", "text")
"""How a quality is read: the level word that was said, the expectation over the level words after what was said, and
the same after the description alone."""
_AGREEMENTS: Final = ("srcc", "plcc")
_MAX_UNDEFINED: Final = 0.05
_MIN_SAMPLES: Final = 3


def qualities(rows: pd.DataFrame, readout: str) -> Floats:
    """Quality of each row, ``[N]`` on [0, 1]; NaN where it cannot be read.

    Raises:
        StageError: there is no such readout.
    """
    if readout == "word":
        centre_of = dict(zip(LEVELS, CENTRES.tolist(), strict=True))
        return np.array([centre_of.get(word, np.nan) for word in rows["word"]], dtype=np.float64)
    if readout not in READOUTS:
        msg = f"unknown readout {readout!r}; there are {', '.join(READOUTS)}"
        raise StageError(msg)
    column = "level_probs" if readout == "expectation" else "text_probs"
    return np.array([np.nan if probs is None else float(expectation(probs)) for probs in rows[column]])


def classes(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Level of each drawn answer ``[N, R]``, from 0 for the best; ``FAILED`` for one without a level."""
    number_of = {level: number for number, level in enumerate(LEVELS)}
    return np.array([[number_of.get(word, FAILED) for word in drawn] for drawn in rows["drawn"]], dtype=np.int64)


def per_medium(rows: pd.DataFrame) -> dict[str, Floats]:
    """Every figure that is a mean over media, ``[N]`` each; NaN where it is not defined for a medium.

    Args:
        rows: INFERENCES rows of one model, sorted by medium.
    """
    class_NR = classes(rows)
    depth_N = rows["commit_layer"].to_numpy(np.float64) / rows["layers"].to_numpy(np.float64)
    share_NG = np.array(rows["shares"].tolist(), dtype=np.float64)
    return {
        "unreadable": rows["word"].isna().to_numpy(np.float64),
        **{f"unstable_{name}": values_N for name, values_N in unstable_shares(class_NR, "own_class").items()},
        "drawn_unreadable": (class_NR == FAILED).mean(axis=1),
        **_contradiction(rows),
        "words_against": _words_against(rows),
        "switches": rows["switches"].to_numpy(np.float64),
        "late_switch": rows["late_switch"].to_numpy(np.float64),
        "commit_depth": depth_N,
        **{f"attention_{group}": share_NG[:, number] for number, group in enumerate(GROUPS)},
        "attention_tokens": rows["effective_tokens"].to_numpy(np.float64),
    }


def _contradiction(rows: pd.DataFrame) -> dict[str, Floats]:
    """How far the quality from the description alone is from that of the whole; NaN without a description."""
    whole_N, text_N = qualities(rows, "expectation"), qualities(rows, "text")
    told_N = np.isfinite(text_N)
    found = {name: np.full(len(rows), np.nan) for name in ("text_difference", "text_flip")}
    if told_N.any():
        apart = gap(whole_N[told_N], text_N[told_N])
        found["text_difference"][told_N], found["text_flip"][told_N] = apart.difference_N, apart.flip_N
    return found


def _words_against(rows: pd.DataFrame) -> Floats:
    """1 where the words of a description contradict the verdict, 0 where they agree; NaN where they take no side."""
    taken = {Agreement.AGREES: 0.0, Agreement.CONTRADICTS: 1.0}
    pairs = zip(rows["description"], qualities(rows, "expectation"), strict=True)
    return np.array([taken.get(compare(text, float(quality)), np.nan) for text, quality in pairs])


class Figures:
    """Figures of all models about the same media, whose replicates they share.

    Args:
        inferences: INFERENCES rows; every model has the same media.

    Raises:
        StageError: it has not.
    """

    def __init__(self, inferences: pd.DataFrame, resampling: Resampling) -> None:
        self._rows = {str(model): rows.sort_values("id") for model, rows in inferences.groupby("model", sort=True)}
        first = next(iter(self._rows.values()))
        if any(rows["id"].tolist() != first["id"].tolist() for rows in self._rows.values()):
            raise StageError("the models were not asked about the same media")
        contents, group_N = np.unique(first["content_id"].to_numpy(str), return_inverse=True)
        drawn_BG = resamples(len(contents), resampling.n_bootstrap, resampling.seed)
        self._enough = len(contents) >= resampling.min_contents
        self.media, self.contents = len(first), len(contents)
        self._replicates = Replicates(group_N.astype(np.int64), drawn_BG, resampling.confidence, _MAX_UNDEFINED)
        self._target_N = first["target"].to_numpy(np.float64)
        self._per_medium = {model: per_medium(rows) for model, rows in self._rows.items()}
        self._agreements = {
            (model, readout): self._agreement(qualities(rows, readout))
            for model, rows in self._rows.items()
            for readout in READOUTS
        }

    @property
    def models(self) -> list[str]:
        """Names, sorted."""
        return list(self._rows)

    def of(self, model: str) -> dict[str, Share]:
        """Every figure of a model, ``srcc_<readout>`` and ``plcc_<readout>`` with the machine opinion among them."""
        found = {name: self._mean(values_N) for name, values_N in self._per_medium[model].items()}
        for readout in READOUTS:
            values, replicates, samples = self._agreements[model, readout]
            for name in _AGREEMENTS:
                found[f"{name}_{readout}"] = self._share(values[name], replicates.get(name), samples)
        return found

    def difference(self, first: str, second: str) -> dict[str, Share]:
        """First less second in every figure, paired medium by medium; agreements are paired by their replicates."""
        ours, theirs = self._per_medium[first], self._per_medium[second]
        found = {name: self._mean(ours[name] - theirs[name]) for name in ours}
        for readout in READOUTS:
            one, other = self._agreements[first, readout], self._agreements[second, readout]
            for name in _AGREEMENTS:
                values = one[0][name], other[0][name]
                apart = None if None in values else float(values[0] or 0.0) - float(values[1] or 0.0)
                shared = name in one[1] and name in other[1]
                replicates_B = one[1][name] - other[1][name] if shared else None
                found[f"{name}_{readout}"] = self._share(apart, replicates_B, min(one[2], other[2]))
        return found

    def _mean(self, values_N: Floats) -> Share:
        found = self._replicates.mean(values_N)
        return found if self._enough else Share(found.value, None, None, found.samples)

    def _agreement(self, quality_N: Floats) -> tuple[dict[str, float | None], dict[str, Floats], int]:
        """SRCC and PLCC of what could be read, their replicates, and how many media that were."""
        read_N = np.isfinite(quality_N)
        if read_N.sum() < _MIN_SAMPLES:
            return dict.fromkeys(_AGREEMENTS), {}, int(read_N.sum())
        found = agreement(quality_N[read_N], self._target_N[read_N])
        values = {name: getattr(found, name) for name in _AGREEMENTS}
        if None in values.values():
            return values, {}, int(read_N.sum())
        replicates = bootstrap(
            quality_N[read_N],
            self._target_N[read_N],
            self._replicates.group_N[read_N],
            self._replicates.multiplicities_BG,
        )
        return values, {name: replicates[name] for name in _AGREEMENTS}, int(read_N.sum())

    def _share(self, value: float | None, replicates_B: Floats | None, samples: int) -> Share:
        bounds = None
        if self._enough and replicates_B is not None:
            bounds = interval(replicates_B, self._replicates.confidence, _MAX_UNDEFINED)
        low, high = bounds or (None, None)
        return Share(value, low, high, samples)


@dataclass(frozen=True)
class Comparison:
    """Figures of some models, and of pairs of them, as JSON holds them."""

    models: dict[str, dict[str, dict[str, Any]]]
    differences: list[dict[str, Any]]


def compared(figures: Figures, pairs: Sequence[tuple[str, str]]) -> Comparison:
    """Tell the figures of every model, and the first less the second of each pair."""
    apart = [
        {"first": first, "second": second, "figures": told_shares(figures.difference(first, second))}
        for first, second in pairs
    ]
    return Comparison({model: told_shares(figures.of(model)) for model in figures.models}, apart)
