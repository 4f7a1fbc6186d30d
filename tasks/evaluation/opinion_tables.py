"""Opinions to report on, as scores in [0, 1], from any table that holds them.

That is the table of the stage ``score``, a label file with a column per scorer, or what ``vital score --json`` printed.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from tasks.errors import StageError
from tasks.evaluation.named_columns import (
    JSON_LINES,
    UNDISTORTED,
    grouped,
    has_column,
    known_columns,
    numeric,
    read_any,
    repeated,
    sample_names,
)
from tasks.records import CANDIDATES, OPINIONS
from tasks.shards import read_table

Floats = NDArray[np.float64]

_FEWEST: Final = 3


class Scale(StrEnum):
    """How a scorer's numbers become scores in [0, 1]."""

    UNIT = "unit"
    RANK = "rank"


@dataclass(frozen=True)
class Columns:
    """What the columns of a table with opinions mean.

    Attributes:
        id: name of the sample. None means ``id`` or, failing that, ``path``, ``name`` or ``image_name``.
        scorers: columns of scores, separated by commas; ``first:last`` is all columns from one to another. None takes
            a table that says itself who its scorers are.
        lower: scorers for which less is better.
        content: samples of one content are not independent. distortion: group whose agreement is told apart. Both are
            ``COLUMN`` or ``COLUMN:REGEX``, the group 1 of which is taken, of this table or of the human scores'; None
            means what the score stage knows.
        scale: of the scores.
    """

    id: str | None = None
    scorers: str | None = None
    lower: tuple[str, ...] = ()
    content: str | None = None
    distortion: str | None = None
    scale: Scale = Scale.UNIT


@dataclass(frozen=True)
class OpinionSet:
    """Opinions of ``N`` samples by ``S`` scorers, with what is known of the samples.

    Attributes:
        name: what the report calls it. ids: of the samples. scorers: names. scores_NS: [0, 1], higher is better.
        content_N: names of contents; each sample its own where none are known (``contents_known``).
        distortion_N: type of each sample, or None.
        mos_N, sd_N: human scores on [0, 1], higher is better, NaN where there is none; or None.
        skipped: samples without scores. unmatched: human scores without a sample.
    """

    name: str
    ids: list[str]
    scorers: list[str]
    scores_NS: Floats
    content_N: list[str]
    contents_known: bool
    distortion_N: list[str] | None
    mos_N: Floats | None = None
    sd_N: Floats | None = None
    skipped: int = 0
    unmatched: int = 0


def load_opinions(source: Path, columns: Columns) -> tuple[OpinionSet, pd.DataFrame]:
    """Read opinions, and the table they come from in the same order.

    Args:
        source: a workspace, an ``opinions.parquet`` of the score stage, a CSV, TSV or Parquet file, or the JSON lines
            of ``vital score --json``.
        columns: what the table's columns mean.

    Raises:
        StageError: the file is missing or damaged, a column is unknown or not numeric, a score is missing or outside
            [0, 1], a scorer is constant, samples repeat, or there are fewer than two scorers or three samples.
    """
    found, frame = _read_scores(source, columns)
    _require_use(found)
    return found, frame


def _read_scores(source: Path, columns: Columns) -> tuple[OpinionSet, pd.DataFrame]:
    if source.is_dir():
        source = source / "artifacts" / "score" / "opinions.parquet"
    frame = read_any(source)
    if list(frame.columns) == OPINIONS.columns:
        return _of_stage(source, frame, columns), frame
    if columns.scorers is None and source.suffix in JSON_LINES:
        return _of_printed(source, frame, columns)
    return _of_labels(source, frame, columns), frame


def _of_stage(source: Path, frame: pd.DataFrame, columns: Columns) -> OpinionSet:
    """The score stage's table; contents and distortions come from its workspace's candidates, if they are there."""
    orders = {tuple(names) for names in frame["scorers"]}
    if len(orders) > 1:
        msg = f"{source}: rows have different scorers; run the score stage again"
        raise StageError(msg)
    names = list(orders.pop())
    scores_NS = np.stack([np.asarray(values, dtype=np.float64) for values in frame["scores"]])
    ids = [str(one) for one in frame["id"]]
    chosen = _chosen(names, columns.scorers, source)
    scores_NS = _on_scale(scores_NS[:, [names.index(name) for name in chosen]], chosen, columns, source)
    found = OpinionSet(source.parent.name, ids, chosen, scores_NS, ids, contents_known=False, distortion_N=None)
    tables = [source.parents[1] / stage / "candidates.parquet" for stage in ("collect", "distort")]
    if source.parent.name != "score" or not all(table.is_file() for table in tables):
        return found
    candidates = pd.concat([read_table(table, CANDIDATES) for table in tables]).set_index("id")
    if not set(ids) <= set(candidates.index):
        msg = f"{source}: some opinions have no candidate in collect or distort beside it: their runs differ"
        raise StageError(msg)
    if columns.content is not None or columns.distortion is not None:
        msg = f"the candidates beside {source} say contents and distortions: leave --content and --distortion away"
        raise StageError(msg)
    rows = candidates.loc[ids]
    distortion_N = [UNDISTORTED if pd.isna(kind) else str(kind) for kind in rows["distortion"]]
    content_N = [str(one) for one in rows["content_id"]]
    return replace(found, content_N=content_N, contents_known=True, distortion_N=distortion_N)


def _of_printed(source: Path, frame: pd.DataFrame, columns: Columns) -> tuple[OpinionSet, pd.DataFrame]:
    """What ``vital score --json`` printed: lines with an error are counted, not lost."""
    if not {"path", "scores"} <= set(frame.columns):
        msg = f"{source} has no path and scores: name the columns of scores by --scorers"
        raise StageError(msg)
    usable = frame["scores"].map(lambda value: isinstance(value, dict))
    kept = cast("pd.DataFrame", frame[usable]).reset_index(drop=True)
    if kept.empty:
        msg = f"{source} holds errors alone: nothing was scored"
        raise StageError(msg)
    scores = pd.DataFrame(list(kept["scores"]))
    flat = pd.DataFrame({"path": kept["path"]}).join(scores)
    told = replace(columns, id=columns.id or "path", scorers=",".join(map(str, scores.columns)))
    return replace(_of_labels(source, flat, told), skipped=len(frame) - len(kept)), flat


def _of_labels(source: Path, frame: pd.DataFrame, columns: Columns) -> OpinionSet:
    """A table with a column per scorer."""
    if columns.scorers is None:
        msg = f"{source} does not say which columns are scorers: name them by --scorers; {known_columns(frame)}"
        raise StageError(msg)
    names = _chosen([str(name) for name in frame.columns], columns.scorers, source)
    scores_NS = np.stack([numeric(frame, name, source) for name in names], axis=1)
    ids = sample_names(frame, columns.id, source)
    groups = [
        grouped(frame, wanted, source) if wanted is not None and has_column(frame, wanted) else None
        for wanted in (columns.content, columns.distortion)
    ]
    scores_NS = _on_scale(scores_NS, names, columns, source)
    known = groups[0] is not None
    return OpinionSet(
        source.stem, ids, names, scores_NS, groups[0] or ids, contents_known=known, distortion_N=groups[1]
    )


def _chosen(known: list[str], wanted: str | None, source: Path) -> list[str]:
    """Names of scorers that ``wanted`` lists, in its order; ``a:b`` is every column from a to b."""
    if wanted is None:
        return known
    chosen: list[str] = []
    for part in (part.strip() for part in wanted.split(",")):
        first, colon, last = (part, "", "") if part in known else part.partition(":")
        ends = [_position(known, name, source) for name in ((first, last) if colon else (first,))]
        if ends[-1] < ends[0]:
            msg = f"{source}: column {last!r} comes before {first!r}: write {last}:{first}"
            raise StageError(msg)
        chosen += known[ends[0] : ends[-1] + 1]
    twice = repeated(chosen)
    if twice is not None:
        msg = f"the scorer {twice!r} is named twice"
        raise StageError(msg)
    return chosen


def _position(known: list[str], name: str, source: Path) -> int:
    if name not in known:
        msg = f"{source} has no column {name!r}; it has {', '.join(known)}"
        raise StageError(msg)
    return known.index(name)


def _on_scale(scores_NS: Floats, names: list[str], columns: Columns, source: Path) -> Floats:
    """Scores in [0, 1], higher is better: as they are, or percentile ranks (mid-ranks over N) within each scorer."""
    unknown = sorted(set(columns.lower) - set(names))
    if unknown:
        msg = f"{unknown[0]!r} is no scorer of {source}; they are {', '.join(names)}"
        raise StageError(msg)
    for name, values in zip(names, scores_NS.T, strict=True):
        if not np.isfinite(values).all():
            msg = f"{source}: {name} has no score for {int((~np.isfinite(values)).sum())} of {len(values)} samples"
            raise StageError(msg)
        if columns.scale is Scale.UNIT and not (values.min() >= 0 and values.max() <= 1):
            msg = (
                f"{source}: {name} has scores from {values.min():g} to {values.max():g}, outside [0, 1]: calibrate it, "
                "or compare ranks by --scale rank"
            )
            raise StageError(msg)
    turned_S = np.array([name in columns.lower for name in names])
    if columns.scale is Scale.UNIT:
        return np.where(turned_S, 1 - scores_NS, scores_NS)
    ranks = [rankdata(column) for column in np.where(turned_S, -scores_NS, scores_NS).T]
    return np.stack(ranks, axis=1) / len(scores_NS)


def _require_use(found: OpinionSet) -> None:
    if len(found.scorers) < 2:
        raise StageError("one scorer has nobody to agree with: two or more are needed")
    if len(found.ids) < _FEWEST:
        msg = f"{len(found.ids)} samples are too few for a report; {_FEWEST} are needed"
        raise StageError(msg)
    twice = repeated(found.ids)
    if twice is not None:
        msg = f"the sample {twice!r} occurs more than once: name another column by --id"
        raise StageError(msg)
    constant = [name for name, column in zip(found.scorers, found.scores_NS.T, strict=True) if np.ptp(column) == 0]
    if constant:
        msg = f"{', '.join(constant)}: the same score for every sample, which ranks nothing: leave it out by --scorers"
        raise StageError(msg)
