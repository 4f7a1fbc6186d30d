"""Tables of agreement: every model on every slice with intervals by content, and paired differences between models.

Predictions come oriented (higher is better) in the column ``oriented``, with the strength of their distortion in
``strength``. All models share one set of bootstrap
replicates per slice, drawn over the slice's contents, so that differences are paired.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.correlation import STATISTICS, Agreement, agreement, bootstrap, interval, resamples, srcc, srcc_replicates
from tasks.records import Modality

Floats = NDArray[np.float64]

TARGET: Final = "target"
"""Name under which the reference itself is measured against the strength of distortions."""
WITHIN_TYPE: Final = "within_type"
SLICES: Final = ("all", "image", "video", "undistorted", "distorted")
_DIGITS: Final = 6


@dataclass(frozen=True)
class Sampling:
    """How uncertainty is measured.

    Attributes:
        n_bootstrap: replicates. seed: of their contents.
        confidence: of the percentile intervals.
        max_undefined_share: replicates that may leave a statistic undefined before its interval is given up.
        min_samples: samples that a slice needs.
        min_contents: contents that an interval needs; fewer say too little about how contents differ.
        min_type_samples: samples that a distortion type needs to count in the means over types.
    """

    n_bootstrap: int
    seed: int
    confidence: float
    max_undefined_share: float
    min_samples: int
    min_contents: int
    min_type_samples: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.n_bootstrap < 1 or not 0 < self.confidence < 1:
            msg = (
                f"n_bootstrap must be positive and confidence lie in (0, 1), not {self.n_bootstrap}, {self.confidence}"
            )
            raise ValueError(msg)
        if self.min_contents < 2:
            msg = f"min_contents must be at least 2, not {self.min_contents}: one content has no spread"
            raise ValueError(msg)


@dataclass(frozen=True)
class Measured:
    """One model on one slice: point estimates, replicates ``[B]`` per statistic, and what they were made of."""

    points: dict[str, float | None]
    replicates: dict[str, Floats]
    samples: int
    contents: int
    note: str


class Measurements:
    """Measures models on slices, each pair of model and samples once."""

    def __init__(self, predictions: pd.DataFrame, sampling: Sampling) -> None:
        self._sampling = sampling
        self._parts = {where: take_slice(predictions, where) for where in (*SLICES, WITHIN_TYPE)}
        self._draws = {where: _Draw(part, sampling) for where, part in self._parts.items()}
        self._known: dict[tuple[str, str, frozenset[str]], Measured] = {}

    def models(self, where: str) -> list[str]:
        """Models that have predictions on the slice."""
        return sorted(set(self._parts[where]["model"]))

    def ids(self, model: str, where: str) -> frozenset[str]:
        """Samples of the slice that the model predicted."""
        part = self._parts[where]
        return frozenset(part.loc[part["model"] == model, "id"])

    def of(self, model: str, where: str, ids: frozenset[str]) -> Measured:
        """Measure a model on some samples of a slice."""
        key = model, where, ids
        if key not in self._known:
            part = self._parts[where]
            rows = pd.DataFrame(part[(part["model"] == model) & part["id"].isin(list(ids))])
            self._known[key] = (_within if where == WITHIN_TYPE else _measure)(rows, self._draws[where])
        return self._known[key]

    def of_target(self) -> Measured:
        """Measure the reference against the strength of distortions, as if it were a model."""
        part = self._parts[WITHIN_TYPE]
        rows = pd.DataFrame(part.drop_duplicates("id"))
        return _within(rows.assign(oriented=rows["target"], unit_scale=True), self._draws[WITHIN_TYPE])

    def correlation_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of CORRELATIONS (without ``target_kind``)."""
        for where in (*SLICES, WITHIN_TYPE):
            for model in self.models(where):
                measured = self.of(model, where, self.ids(model, where))
                yield from _rows({"model": model, "slice": where}, measured, self._sampling)
        yield from _rows({"model": TARGET, "slice": WITHIN_TYPE}, self.of_target(), self._sampling)

    def difference_rows(self, pairs: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        """Rows of DIFFERENCES (without ``target_kind``): first minus second of each pair, on their common samples."""
        for where in (*SLICES, WITHIN_TYPE):
            for model, other in pairs:
                common = self.ids(model, where) & self.ids(other, where)
                measured = [self.of(name, where, common) for name in (model, other)]
                yield from _difference_rows({"model": model, "other": other, "slice": where}, measured, self._sampling)


def take_slice(predictions: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the predictions of one slice."""
    masks = {
        "all": lambda rows: np.ones(len(rows), dtype=bool),
        "image": lambda rows: rows["modality"] == Modality.IMAGE,
        "video": lambda rows: rows["modality"] == Modality.VIDEO,
        "undistorted": lambda rows: rows["severity"] == 0,
        "distorted": lambda rows: rows["severity"] > 0,
        WITHIN_TYPE: lambda rows: rows["severity"] > 0,
    }
    return pd.DataFrame(predictions[masks[name](predictions)])


class _Draw:
    """Bootstrap replicates over the contents of a slice, shared by all its models."""

    def __init__(self, part: pd.DataFrame, sampling: Sampling) -> None:
        self.sampling = sampling
        self._codes = {content: code for code, content in enumerate(sorted(set(part["content_id"])))}
        self.multiplicities_BG = resamples(max(1, len(self._codes)), sampling.n_bootstrap, sampling.seed)

    def groups(self, rows: pd.DataFrame) -> NDArray[np.int64]:
        """Content number of each row."""
        return np.array([self._codes[content] for content in rows["content_id"]], dtype=np.int64)


def _measure(rows: pd.DataFrame, draw: _Draw) -> Measured:
    contents = len(set(rows["content_id"]))
    if len(rows) < draw.sampling.min_samples:
        return Measured(dict.fromkeys(STATISTICS), {}, len(rows), contents, f"{len(rows)} samples are too few")
    rows = rows.sort_values("id")
    score_N, target_N = _floats(rows["oriented"]), _floats(rows["target"])
    found = agreement(score_N, target_N)
    values = {name: getattr(found, name) for name in STATISTICS}
    replicates = _replicates(found, score_N, target_N, rows, draw)
    if not bool(rows["unit_scale"].all()):  # the difference of two scales means nothing
        values["rmse"] = None
        replicates.pop("rmse", None)
    return Measured(values, replicates, len(rows), contents, found.note or _too_few(contents, draw.sampling))


def _replicates(
    found: Agreement, score_N: Floats, target_N: Floats, rows: pd.DataFrame, draw: _Draw
) -> dict[str, Floats]:
    if found.note or _too_few(len(set(rows["content_id"])), draw.sampling):
        return {}
    return bootstrap(score_N, target_N, draw.groups(rows), draw.multiplicities_BG)


def _too_few(contents: int, sampling: Sampling) -> str:
    """Why there is no interval; empty if there are contents enough."""
    return "" if contents >= sampling.min_contents else f"{contents} contents are too few for an interval"


def _within(rows: pd.DataFrame, draw: _Draw) -> Measured:
    """Mean over distortion types of two SRCCs within the type: with (negated) strength and with the target.

    Strength, not level: where KADIS goes in both directions, level 5 may be no stronger than level 1. A type in which
    the model's scores are constant has no SRCC and does not count.
    """
    groups = [pd.DataFrame(group).sort_values("id") for _, group in rows.groupby("distortion")]
    groups = [
        group for group in groups if len(group) >= draw.sampling.min_type_samples and len(set(group["strength"])) > 1
    ]
    if not groups:
        note = f"no distortion type has {draw.sampling.min_type_samples} samples of two strengths"
        return Measured(dict.fromkeys(("severity_srcc", "target_srcc")), {}, 0, 0, note)
    references = {"severity_srcc": lambda group: -group["strength"], "target_srcc": lambda group: group["target"]}
    points: dict[str, float | None] = {}
    replicates: dict[str, Floats] = {}
    for name, reference in references.items():
        pairs = [(_floats(group["oriented"]), _floats(reference(group)), draw.groups(group)) for group in groups]
        found = [srcc(score_N, other_N) for score_N, other_N, _ in pairs]
        defined = [value for value in found if value is not None]
        points[name] = float(np.mean(defined)) if defined else None
        replicates[name] = _mean_defined(np.stack([srcc_replicates(*pair, draw.multiplicities_BG) for pair in pairs]))
    used = pd.concat(groups)
    contents = len(set(used["content_id"]))
    few, note = _too_few(contents, draw.sampling), f"mean over {len(groups)} types"
    return Measured(points, {} if few else replicates, len(used), contents, f"{note}; {few}" if few else note)


def _floats(column: Any) -> Floats:
    return column.to_numpy(np.float64)


def _mean_defined(values_TB: Floats) -> Floats:
    """Mean over the types that a replicate leaves defined."""
    defined_TB = np.isfinite(values_TB)
    with np.errstate(invalid="ignore"):
        return np.where(defined_TB, values_TB, 0.0).sum(axis=0) / defined_TB.sum(axis=0)


def _rows(key: dict[str, str], measured: Measured, sampling: Sampling) -> Iterator[dict[str, Any]]:
    for statistic, value in measured.points.items():
        if key["model"] == TARGET and statistic == "target_srcc":
            continue
        yield {
            **key,
            "statistic": statistic,
            "value": _rounded(value),
            **_interval(measured.replicates.get(statistic), sampling),
            "samples": measured.samples,
            "contents": measured.contents,
            "note": measured.note,
        }


def _difference_rows(key: dict[str, str], measured: Sequence[Measured], sampling: Sampling) -> Iterator[dict[str, Any]]:
    first, second = measured
    for statistic, value in first.points.items():
        other = second.points[statistic]
        both = statistic in first.replicates and statistic in second.replicates
        gap_B = first.replicates[statistic] - second.replicates[statistic] if both else None
        defined_B = gap_B[np.isfinite(gap_B)] if gap_B is not None else np.empty(0)
        yield {
            **key,
            "statistic": statistic,
            "difference": _rounded(None if value is None or other is None else value - other),
            **_interval(gap_B, sampling),
            "positive": _rounded(float((defined_B > 0).mean()) if len(defined_B) else None),
            "samples": first.samples,
            "contents": first.contents,
            "note": first.note or second.note,
        }


def _interval(values_B: Floats | None, sampling: Sampling) -> dict[str, float | None]:
    found = None if values_B is None else interval(values_B, sampling.confidence, sampling.max_undefined_share)
    return {"low": _rounded(found[0]), "high": _rounded(found[1])} if found else {"low": None, "high": None}


def _rounded(value: float | None) -> float | None:
    """Six digits: what rounding of the last bit does on another processor must not change the tables' bytes."""
    return None if value is None else round(value, _DIGITS)
