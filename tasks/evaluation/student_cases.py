"""The table of a student's cases: SRCC and PLCC per seed, and what each case differs by from the full one.

A difference is paired: both cases have the same seeds, and every replicate draws the same contents for both.
Legend: ``K`` cases and seeds, ``N`` media, ``B`` replicates.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from models.correlation import agreement, interval, resamples, srcc_replicates_many
from tasks.errors import StageError
from tasks.evaluation.agreements import Sampling

FULL: Final = "full"


@dataclass(frozen=True)
class CaseRow:
    """One case over its seeds.

    Attributes:
        srcc, plcc: of each seed, in their order; None where undefined. std_ratio: of each seed, the scores' standard
            deviation over that of the targets.
        gap: mean SRCC minus that of the full case, low and high its interval; None for the full case itself, or where
            contents are too few.
    """

    case: str
    srcc: tuple[float | None, ...]
    plcc: tuple[float | None, ...]
    std_ratio: tuple[float, ...]
    gap: float | None
    low: float | None
    high: float | None


def case_rows(
    predictions: pd.DataFrame, cases: Sequence[str], seeds: Sequence[int], sampling: Sampling
) -> list[CaseRow]:
    """Measure PREDICTIONS rows whose ``model`` is ``CASE-seedK``.

    Raises:
        StageError: a case lacks a medium that another one has.
    """
    names = [f"{case}-seed{seed}" for case in cases for seed in seeds]
    wide = predictions.pivot_table(index="id", columns="model", values="score")
    if wide[names].isna().to_numpy().any():
        raise StageError("the cases do not have the same media: delete their work folder and run them again")
    known = predictions.drop_duplicates("id").set_index("id").loc[wide.index]
    target_N = known["target"].to_numpy(np.float64)
    contents, group_N = np.unique(known["content_id"].to_numpy(str), return_inverse=True)
    drawn_BG = resamples(len(contents), sampling.n_bootstrap, sampling.seed)
    srcc_KB = srcc_replicates_many(wide[names].to_numpy(np.float64).T, target_N, group_N, drawn_BG)
    replicates = {case: srcc_KB[place * len(seeds) :][: len(seeds)].mean(axis=0) for place, case in enumerate(cases)}
    rows = []
    for case in cases:
        found = [agreement(wide[f"{case}-seed{seed}"], target_N) for seed in seeds]
        srcc, plcc = tuple(one.srcc for one in found), tuple(one.plcc for one in found)
        ratios = tuple(float(wide[f"{case}-seed{seed}"].std(ddof=0) / target_N.std()) for seed in seeds)
        gap, low, high = None, None, None
        if case != FULL and FULL in replicates and None not in srcc:
            full = statistics.fmean(_srcc(wide[f"{FULL}-seed{seed}"], target_N) for seed in seeds)
            gap = statistics.fmean(value for value in srcc if value is not None) - full
            if len(contents) >= sampling.min_contents:
                gaps_B = replicates[case] - replicates[FULL]
                low, high = interval(gaps_B, sampling.confidence, sampling.max_undefined_share) or (None, None)
        rows.append(CaseRow(case, srcc, plcc, ratios, gap, low, high))
    return rows


def _srcc(scores: Any, target_N: Any) -> float:
    value = agreement(scores, target_N).srcc
    return float("nan") if value is None else value


def as_json(rows: Sequence[CaseRow], seeds: Sequence[int]) -> dict[str, Any]:
    """What is written to a file."""
    return {"seeds": list(seeds), "cases": [asdict(row) for row in rows]}


def markdown(rows: Sequence[CaseRow], seeds: Sequence[int]) -> str:
    """The table."""
    told = ", ".join(map(str, seeds))
    head = ["case", f"SRCC, seeds {told}", "mean ± deviation", "PLCC, mean", "std ratio, mean", "SRCC minus full's"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        gap = "" if row.gap is None else f"{row.gap:+.3f}"
        if row.low is not None:
            gap += f" [{row.low:+.3f}, {row.high:+.3f}]"
        cells = [row.case, " ".join(map(_number, row.srcc)), _spread(row.srcc), _mean(row.plcc)]
        lines.append([*cells, f"{statistics.fmean(row.std_ratio):.2f}", gap])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return _number(statistics.fmean(known)) if len(known) == len(values) else "undefined"


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    deviation = f" ± {statistics.stdev(known):.3f}" if len(known) > 1 else ""
    return _mean(values) + deviation
