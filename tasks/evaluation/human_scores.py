"""Human scores beside opinions, joined by sample; scale and polarity are declared and converted here, once."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.errors import StageError
from tasks.evaluation.named_columns import grouped, known_columns, numeric, read_any, repeated, sample_names
from tasks.evaluation.opinion_tables import Columns, OpinionSet, load_opinions

Floats = NDArray[np.float64]


class Polarity(StrEnum):
    """Whether more means better (mean opinion score) or worse (differential mean opinion score)."""

    MOS = "mos"
    DMOS = "dmos"


@dataclass(frozen=True)
class Human:
    """Where human scores are and what they mean.

    Attributes:
        mos: column of the mean scores. low, high: ends of their scale. polarity: whether higher is better.
        path: table that holds them; None is the table of the opinions. id: its column of sample names.
        sd: column of standard deviations. sd_range: ends of the scale they are on, if it is another.
    """

    mos: str
    low: float
    high: float
    polarity: Polarity
    path: Path | None = None
    id: str | None = None
    sd: str | None = None
    sd_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        for low, high in ((self.low, self.high), self.sd_range or (0.0, 1.0)):
            if not (np.isfinite([low, high]).all() and low < high):
                msg = f"the range {low:g} to {high:g} is empty: write its lower end first"
                raise StageError(msg)


def gather(source: Path, columns: Columns, human: Human | None = None) -> OpinionSet:
    """Opinions with the human scores and groups that were asked for.

    Raises:
        StageError: see :func:`load_opinions` and :func:`with_human`, or a column of groups is in neither table.
    """
    found, frame = load_opinions(source, columns)
    joined = found if human is None else with_human(found, frame, columns, human)
    lacking = ((columns.content, joined.contents_known), (columns.distortion, joined.distortion_N is not None))
    for wanted, known in lacking:
        if wanted is not None and not known:
            msg = f"no table has the column of {wanted!r}; for that of the opinions, {known_columns(frame)}"
            raise StageError(msg)
    return joined


def with_human(found: OpinionSet, frame: pd.DataFrame, columns: Columns, human: Human) -> OpinionSet:
    """Add human scores to opinions; human scores without a sample, and samples without one, are counted.

    Args:
        found, frame: from :func:`load_opinions`. columns: what it was called with. human: where the scores are.

    Raises:
        StageError: the file is missing or damaged, a column is unknown or not numeric, a score lies outside its range,
            a sample repeats, no sample has a human score, or all human scores are equal.
    """
    table, source = (frame, Path(found.name)) if human.path is None else (read_any(human.path), human.path)
    ids = found.ids if human.path is None else sample_names(table, human.id or columns.id, source)
    twice = repeated(ids)
    if twice is not None:
        msg = f"{source}: the sample {twice!r} has more than one human score"
        raise StageError(msg)
    raw_N = numeric(table, human.mos, source)
    row_of = {key: row for row, key in enumerate(ids)}
    rows = [row_of.get(key) for key in found.ids]
    mine_N = _picked(raw_N, rows)
    rated = np.isfinite(mine_N)
    if not rated.any():
        example = f"for example {found.ids[0]!r} here and {ids[0]!r} there"
        msg = f"no sample of the opinions has a human score in {source} ({example}): see --id and --human-id"
        raise StageError(msg)
    if np.ptp(mine_N[rated]) == 0:
        msg = f"{source}: every human score in {human.mos!r} is the same: nothing can be ranked"
        raise StageError(msg)
    joined = found if human.path is None else _with_groups(found, table, rows, columns, source)
    unmatched = int(np.isfinite(raw_N).sum() - rated.sum())
    joined = replace(joined, mos_N=_unit(mine_N, human, source), unmatched=unmatched)
    if human.sd is None:
        return joined
    return replace(joined, sd_N=_deviation(_picked(numeric(table, human.sd, source), rows), human.sd, human, source))


def _with_groups(
    found: OpinionSet, table: pd.DataFrame, rows: list[int | None], columns: Columns, source: Path
) -> OpinionSet:
    """Contents and distortions that only the table of human scores knows."""
    wanted = {"content_N": columns.content, "distortion_N": columns.distortion}
    known = {"content_N": found.contents_known, "distortion_N": found.distortion_N is not None}
    changes: dict[str, Any] = {}
    for name, spec in wanted.items():
        if spec is None or known[name]:
            continue
        named = grouped(table, spec, source)
        if None in rows:
            msg = f"{source} knows {spec!r} of {len(rows) - rows.count(None)} of {len(rows)} samples: leave it away"
            raise StageError(msg)
        changes[name] = [named[row] for row in rows if row is not None]
    return replace(found, **changes, contents_known=found.contents_known or "content_N" in changes)


def _picked(values: Floats, rows: list[int | None]) -> Floats:
    return np.array([np.nan if row is None else values[row] for row in rows])


def _unit(values: Floats, human: Human, source: Path) -> Floats:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low < human.low or high > human.high:
        msg = f"{source}: {human.mos} runs from {low:g} to {high:g}, outside its range {human.low:g} to {human.high:g}"
        raise StageError(msg)
    unit = (values - human.low) / (human.high - human.low)
    return unit if human.polarity is Polarity.MOS else 1 - unit


def _deviation(values: Floats, name: str, human: Human, source: Path) -> Floats:
    known = values[np.isfinite(values)]
    if len(known) == 0 or known.min() < 0:
        told = "holds no number for these samples" if len(known) == 0 else "has a negative standard deviation"
        msg = f"{source}: the column {name!r} {told}"
        raise StageError(msg)
    low, high = human.sd_range or (human.low, human.high)
    return values / (high - low)
