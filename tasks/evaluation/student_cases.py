"""The table of a student's cases: SRCC and PLCC per seed, and what each case differs by from the full one.

A difference is paired: both cases have the same seeds, and every replicate draws the same contents for both. Beside the
held-out media as a whole there are scopes: those of types that no case has learnt from, the others, and tables of media
that people have rated. In a scope the teacher stands among the cases; it has no seeds.
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
TEACHER: Final = "teacher"
PEOPLE: Final = "mos"
"""Kind of target of media that people have rated; the number of their table begins their ids."""


@dataclass(frozen=True)
class CaseRow:
    """One case over its seeds.

    Attributes:
        srcc, plcc: of each seed, in their order, one of the teacher; None where undefined. std_ratio: likewise, the
            scores' standard deviation over that of the targets.
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


@dataclass(frozen=True)
class Scope:
    """The cases, and the teacher, on some media.

    Attributes:
        title: what media they are. media, contents: how many.
    """

    title: str
    media: int
    contents: int
    rows: list[CaseRow]


def case_rows(
    predictions: pd.DataFrame, cases: Sequence[str], seeds: Sequence[int], sampling: Sampling
) -> list[CaseRow]:
    """Measure PREDICTIONS rows whose ``model`` is ``CASE-seedK``, or ``teacher``, which comes last if it is there.

    Raises:
        StageError: a case lacks a medium that another one has.
    """
    models = {case: [f"{case}-seed{seed}" for seed in seeds] for case in cases}
    if TEACHER in set(predictions["model"]):
        models[TEACHER] = [TEACHER]
    names = [name for own in models.values() for name in own]
    wide = predictions.pivot_table(index="id", columns="model", values="score")
    if wide[names].isna().to_numpy().any():
        raise StageError("the cases do not have the same media: delete their work folder and run them again")
    known = predictions.drop_duplicates("id").set_index("id").loc[wide.index]
    target_N = known["target"].to_numpy(np.float64)
    contents, group_N = np.unique(known["content_id"].to_numpy(str), return_inverse=True)
    drawn_BG = resamples(len(contents), sampling.n_bootstrap, sampling.seed)
    srcc_KB = srcc_replicates_many(wide[names].to_numpy(np.float64).T, target_N, group_N, drawn_BG)
    replicates = {case: srcc_KB[[names.index(name) for name in own]].mean(axis=0) for case, own in models.items()}
    rows = []
    for case, own in models.items():
        found = [agreement(wide[name], target_N) for name in own]
        srcc, plcc = tuple(one.srcc for one in found), tuple(one.plcc for one in found)
        ratios = tuple(float(wide[name].std(ddof=0) / target_N.std()) for name in own)
        gap, low, high = None, None, None
        if case != FULL and FULL in replicates and None not in srcc:
            full = statistics.fmean(_srcc(wide[name], target_N) for name in models[FULL])
            gap = statistics.fmean(value for value in srcc if value is not None) - full
            if len(contents) >= sampling.min_contents:
                gaps_B = replicates[case] - replicates[FULL]
                low, high = interval(gaps_B, sampling.confidence, sampling.max_undefined_share) or (None, None)
        rows.append(CaseRow(case, srcc, plcc, ratios, gap, low, high))
    return rows


def line_of(predictions: pd.DataFrame) -> pd.DataFrame:
    """The cases' own rows about the line's media."""
    own = (predictions["target_kind"] != PEOPLE) & (predictions["model"] != TEACHER)
    return pd.DataFrame(predictions[own])


def unseen_scopes(
    predictions: pd.DataFrame, unseen: Sequence[str], cases: Sequence[str], seeds: Sequence[int], sampling: Sampling
) -> list[Scope]:
    """Held-out media of types that no case has learnt from, of all others (originals among them), and all.

    Raises:
        StageError: as :func:`case_rows`.
    """
    line = pd.DataFrame(predictions[predictions["target_kind"] != PEOPLE])
    strange = line["distortion"].isin(unseen)
    parts = {"unseen types": line[strange], "seen types": line[~strange], "all": line}
    return [_scope(title, pd.DataFrame(part), cases, seeds, sampling) for title, part in parts.items()]


def people_scopes(
    predictions: pd.DataFrame, tables: Sequence[str], cases: Sequence[str], seeds: Sequence[int], sampling: Sampling
) -> list[Scope]:
    """Media that people have rated, a scope per table.

    Raises:
        StageError: as :func:`case_rows`.
    """
    rated = pd.DataFrame(predictions[predictions["target_kind"] == PEOPLE])
    numbers = rated["id"].str.split(":", n=1).str[0]
    parts = [pd.DataFrame(rated[numbers == str(number)]) for number in range(len(tables))]
    return [_scope(title, part, cases, seeds, sampling) for title, part in zip(tables, parts, strict=True)]


def _scope(title: str, part: pd.DataFrame, cases: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> Scope:
    rows = case_rows(part, cases, seeds, sampling)
    return Scope(title, len(set(part["id"])), len(set(part["content_id"])), rows)


def _srcc(scores: Any, target_N: Any) -> float:
    value = agreement(scores, target_N).srcc
    return float("nan") if value is None else value


def as_json(rows: Sequence[CaseRow], seeds: Sequence[int]) -> dict[str, Any]:
    """What is written to a file."""
    return {"seeds": list(seeds), "cases": [asdict(row) for row in rows]}


def scope_json(scope: Scope) -> dict[str, Any]:
    """A scope in that file."""
    told = asdict(scope)
    return {"title": told["title"], "media": scope.media, "contents": scope.contents, "cases": told["rows"]}


def scope_markdown(scope: Scope, seeds: Sequence[int]) -> str:
    """A scope's heading and table."""
    return f"\n{scope.title} ({scope.media} media of {scope.contents} contents):\n\n{markdown(scope.rows, seeds)}"


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
