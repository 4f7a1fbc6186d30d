"""Figures of readers and encoders: agreement with the reference per data set, and paired differences between encoders.

Shape legend: ``N`` media, ``G`` contents, ``B`` replicates.
"""

import itertools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.correlation import Agreement, agreement, interval, resamples, srcc_replicates
from tasks.evaluation.choices import Resampling

Floats = NDArray[np.float64]

PRETRAINED: Final = "pretrained"
RACT: Final = "ract"
MIXED: Final = "mixed"
"""Encoders beside those of the data sets' teachers; ``mixed`` is a reader, too."""
ALL: Final = "all"
"""The media of all data sets."""
READOUTS: Final = ("expectation", "rating")
_MAX_UNDEFINED: Final = 0.05
_DIGITS: Final = 6


class SwapFigures:
    """Figures of all pairs about the same media.

    Args:
        swaps: SWAPS rows. data_sets: their names.
    """

    def __init__(self, swaps: pd.DataFrame, data_sets: Sequence[str], resampling: Resampling) -> None:
        self.data_sets, self._resampling = tuple(data_sets), resampling
        self._pairs: dict[tuple[str, str], pd.DataFrame] = {}
        for reader in (*data_sets, MIXED):
            for encoder in (*data_sets, PRETRAINED, RACT, MIXED):
                rows = pd.DataFrame(swaps[(swaps["reader"] == reader) & (swaps["encoder"] == encoder)])
                if len(rows):
                    self._pairs[reader, encoder] = pd.DataFrame(rows.sort_values("id"))
        self._known: dict[tuple[tuple[str, str], str, str], Agreement] = {}

    @property
    def scopes(self) -> tuple[str, ...]:
        """What figures are told of."""
        return (ALL, *self.data_sets)

    @property
    def readers(self) -> list[str]:
        """In the order in which tables tell them."""
        return list(dict.fromkeys(reader for reader, _ in self._pairs))

    @property
    def encoders(self) -> list[str]:
        """In the order in which tables tell them."""
        return list(dict.fromkeys(encoder for _, encoder in self._pairs))

    def table(
        self, statistic: str, readout: str = "expectation", scope: str = ALL
    ) -> dict[str, dict[str, float | None]]:
        """Reader -> encoder -> ``srcc`` or ``plcc``; None where it is undefined."""
        found: dict[str, dict[str, float | None]] = {}
        for reader, encoder in self._pairs:
            found.setdefault(reader, {})[encoder] = self._value((reader, encoder), scope, readout, statistic)
        return found

    def apart(self, readout: str = "expectation") -> dict[str, float | None]:
        """Encoder -> largest difference of PLCC between two readers of it; None from a single reader.

        The paper's figure for the question whether readers of different data sets can stand for each other.
        """
        table = self.table("plcc", readout)
        found: dict[str, float | None] = {}
        for encoder in self.encoders:
            values = [value for row in table.values() if (value := row.get(encoder)) is not None]
            gaps = [abs(one - other) for one, other in itertools.combinations(values, 2)]
            found[encoder] = round(max(gaps), _DIGITS) if gaps else None
        return found

    def unread(self) -> dict[str, float]:
        """Reader -> share of its answers that name no rating."""
        ratings: dict[str, list[Floats]] = {}
        for (reader, _), rows in self._pairs.items():
            ratings.setdefault(reader, []).append(_floats(rows, "rating"))
        return {name: round(float(np.isnan(np.concatenate(some)).mean()), _DIGITS) for name, some in ratings.items()}

    def gains(self) -> list[dict[str, Any]]:
        """What RACT's encoder is worth to each reader: SRCC minus that with the pre-trained one, and with its own."""
        return [
            self._gain(reader, other, scope)
            for reader in self.data_sets
            for other in (PRETRAINED, reader)
            for scope in self.scopes
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything, ready for a file."""
        rows = [
            {"reader": pair[0], "encoder": pair[1], "data_set": scope, "readout": readout}
            | self._row(pair, scope, readout)
            for pair in self._pairs
            for scope in self.scopes
            for readout in READOUTS
        ]
        return {"pairs": rows, "gains": self.gains(), "apart": {readout: self.apart(readout) for readout in READOUTS}}

    def _row(self, pair: tuple[str, str], scope: str, readout: str) -> dict[str, Any]:
        rows = _within(self._pairs[pair], scope)
        values = {name: self._value(pair, scope, readout, name) for name in ("srcc", "plcc")}
        score_N, target_N = _floats(rows, readout), _floats(rows, "target")
        read_N = np.isfinite(score_N)
        ratio = None
        if read_N.any() and target_N[read_N].std() > 0.0:
            ratio = _rounded(float(score_N[read_N].std() / target_N[read_N].std()))
        return {**values, "media": len(rows), "unread": int((~read_N).sum()), "std_ratio": ratio}

    def _gain(self, reader: str, other: str, scope: str) -> dict[str, Any]:
        """By the expectation, which every answer has."""
        own, theirs = (self._value((reader, name), scope, "expectation", "srcc") for name in (RACT, other))
        told = {"reader": reader, "over": other, "data_set": scope}
        if own is None or theirs is None:
            return {**told, "gain": None, "low": None, "high": None}
        low, high = self._interval(*(_within(self._pairs[reader, name], scope) for name in (RACT, other))) or (
            None,
            None,
        )
        return {**told, "gain": _rounded(own - theirs), "low": low, "high": high}

    def _value(self, pair: tuple[str, str], scope: str, readout: str, statistic: str) -> float | None:
        key = pair, scope, readout
        if key not in self._known:
            rows = _within(self._pairs[pair], scope)
            score_N, target_N = _floats(rows, readout), _floats(rows, "target")
            read_N = np.isfinite(score_N)
            self._known[key] = agreement(score_N[read_N], target_N[read_N])
        return _rounded(getattr(self._known[key], statistic))

    def _interval(self, first: pd.DataFrame, second: pd.DataFrame) -> tuple[float | None, float | None] | None:
        contents, group_N = np.unique(first["content_id"].to_numpy(str), return_inverse=True)
        if len(contents) < self._resampling.min_contents:
            return None
        drawn_BG = resamples(len(contents), self._resampling.n_bootstrap, self._resampling.seed)
        target_N = _floats(first, "target")
        both = [
            srcc_replicates(_floats(rows, "expectation"), target_N, group_N.astype(np.int64), drawn_BG)
            for rows in (first, second)
        ]
        found = interval(both[0] - both[1], self._resampling.confidence, _MAX_UNDEFINED)
        return None if found is None else (_rounded(found[0]), _rounded(found[1]))


def markdown(figures: SwapFigures) -> str:
    """The tables, a reader in each row, SRCC / PLCC by both readouts, and what RACT's encoder is worth."""
    lines: list[str] = []
    for readout in READOUTS:
        for scope in figures.scopes:
            lines += _swap_lines(figures, readout, scope)
    lines += ["| reader | over the encoder | media | gain of SRCC | interval |", "|---|---|---|---|---|"]
    for row in figures.gains():
        interval_told = "-" if row["low"] is None else f"[{row['low']:+.3f}, {row['high']:+.3f}]"
        gain = "-" if row["gain"] is None else f"{row['gain']:+.3f}"
        lines.append(f"| {row['reader']} | {row['over']} | {row['data_set']} | {gain} | {interval_told} |")
    return "\n".join([*lines, ""])


def _swap_lines(figures: SwapFigures, readout: str, scope: str) -> list[str]:
    srcc, plcc = (figures.table(name, readout, scope) for name in ("srcc", "plcc"))
    lines = [f"SRCC / PLCC by the {readout}, media of {scope}:", ""]
    lines += [f"| reader | {' | '.join(figures.encoders)} |", f"|---|{'---|' * len(figures.encoders)}"]
    for reader in figures.readers:
        cells = [_cell(srcc[reader].get(name), plcc[reader].get(name)) for name in figures.encoders]
        lines.append(f"| {reader} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(*values: float | None) -> str:
    return " / ".join("-" if value is None else f"{value:.3f}" for value in values)


def _within(rows: pd.DataFrame, scope: str) -> pd.DataFrame:
    return rows if scope == ALL else pd.DataFrame(rows[[scope in mine for mine in rows["data_sets"]]])


def _floats(rows: pd.DataFrame, name: str) -> Floats:
    """A column, NaN where it is null."""
    return np.asarray(rows[name], dtype=np.float64)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
