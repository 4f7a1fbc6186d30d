"""The table of a study: each variant's measures per seed, and what it differs by from the control, with an interval.

Everything is read from the trials' results, so a clone of the repository draws the same tables without a model. A
difference is paired twice over: both rows have the same seeds, and every replicate draws the same seeds and the same
contents for both; within a replicate the drawn seeds are averaged. Legend: ``K`` trials, ``S`` seeds, ``N`` media,
``B`` replicates.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from infra.study_files import SIZES, Study, base_params
from infra.trials import ALIKE, ANNOTATED, Conditions, has_other_code, largest_gap, read_media, read_result, staleness
from models.correlation import interval, resamples, srcc_replicates_many
from models.instruments.replicates import Replicates
from tasks.errors import StageError
from tasks.evaluation import charts
from tasks.evaluation.agreements import Sampling
from tasks.stage import build_config

PAGE: Final = "docs/studies.md"
SRCC: Final = "SRCC"
_TOLD: Final = 6
_SIZE_WORDS: Final[dict[str, str]] = dict(zip(SIZES, ("contents", "examples", "examples of the warm-up"), strict=True))
_STYLE: Final = (
    "<style>svg{font:12px sans-serif;background:#fff}.grid{stroke:#ddd}.axis{stroke:#555}"
    ".line{fill:none;stroke-width:2}.s0{stroke:#2a6fb0}.s1{stroke:#c2571a}.s2{stroke:#3b8a4a}rect.s0{fill:#2a6fb0}rect.s1{fill:#c2571a}"
    "rect.s2{fill:#3b8a4a}</style>"
)
"""What the report's page gives its charts, for a chart that stands alone."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One model of one variant.

    Attributes:
        measures: measure -> seed -> value; None where it is undefined.
        size: mean over the seeds of what the study's curve is drawn over; None if it has no size.
    """

    variant: str
    model: str
    measures: Mapping[str, Mapping[int, float | None]]
    size: float | None

    @property
    def name(self) -> str:
        """As study files write it."""
        return f"{self.variant}/{self.model}"

    def mean(self, measure: str) -> float | None:
        """Over the seeds; None if it is undefined for one of them."""
        values = list(self.measures[measure].values())
        return statistics.fmean(v for v in values if v is not None) if values and None not in values else None

    def deviation(self, measure: str) -> float | None:
        """Standard deviation of the seeds' values; None below two of them."""
        values = [value for value in self.measures[measure].values() if value is not None]
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Difference:
    """First minus second, over the seeds that both have; bounds are None where contents are too few.

    Attributes:
        of: SRCC, or a figure that is a mean over media.
    """

    of: str
    first: str
    second: str
    seeds: tuple[int, ...]
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class StudyTable:
    """What the results of a study say.

    Attributes:
        against_control: row -> its difference to the control.
        differences: those that the study file names, in SRCC and then in each of its figures.
        notes: what is missing, stale, or made by other code.
    """

    study: Study
    rows: tuple[Row, ...]
    against_control: Mapping[str, Difference]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def make_table(study: Study, checkout: Path, now: Conditions | None = None) -> StudyTable:
    """Read the results of a study and compare them; stale ones are named and left out.

    Args:
        now: what the checkout's trials would depend on today; None leaves that comparison out.

    Raises:
        InfraError: a result is broken, or a setting of the study is unknown.
        StageError: the scores of a result do not fit its media.
    """
    results, notes = _usable(study, checkout, now)
    if not results:
        return StudyTable(study, (), {}, (), tuple(notes))
    comparison = _Comparison(study, results, checkout)
    rows = tuple(_rows(study, results))
    against = {
        row.name: found for row in rows if (found := comparison.difference(SRCC, row.name, _control(study, row, rows)))
    }
    pairs = [
        comparison.difference(of, first, second) for of in (SRCC, *study.figures) for first, second in study.differences
    ]
    return StudyTable(study, rows, against, tuple(pair for pair in pairs if pair), tuple(notes))


def _usable(
    study: Study, checkout: Path, now: Conditions | None
) -> tuple[dict[tuple[str, int], dict[str, Any]], list[str]]:
    """Results by variant and seed that may stand in one table, and what is to say about the others."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    missing, stale = [], []
    for trial in study.trials():
        result = read_result(trial, checkout)
        if result is None:
            missing.append(trial.name)
        elif reason := staleness(result, study, trial, checkout, now):
            stale.append(f"{trial.name} ({reason})")
        else:
            found[trial.variant.name, trial.seed] = result
    found, foreign, gap = _of_one_annotation(found, study.name, checkout)
    stale += [f"{variant}-seed{seed} (made of other data than the rest)" for variant, seed in foreign]
    notes = [f"{label}: {_few(names)}" for label, names in (("Missing", missing), ("Stale, left out", stale)) if names]
    if gap:
        notes.append(f"Annotated on several machines: targets of held-out media differ by up to {gap:.1g}.")
    codes = {result["code"] for result in found.values()}
    if len(codes) > 1:
        notes.append("Not all results were made by the same code: their files name the commits.")
    elif any(has_other_code(result, now) for result in found.values()):
        notes.append("The code has changed since; `vital study run --new-code` runs the trials again.")
    return found, notes


def _of_one_annotation(
    found: dict[tuple[str, int], dict[str, Any]], study: str, checkout: Path
) -> tuple[dict[tuple[str, int], dict[str, Any]], list[tuple[str, int]], float]:
    """Results whose media and targets are those of most, the others, and how far targets of the former lie apart."""
    kept: dict[tuple[str, int], dict[str, Any]] = {}
    if not found:
        return kept, [], 0.0
    usual = Counter(_made_of(result) for result in found.values()).most_common(1)[0][0]
    gaps: dict[str, float | None] = {}
    for name in {result["media"] for result in found.values()}:
        ours, theirs = (read_media(study, media, checkout) for media in (usual[0], name))
        gaps[name] = largest_gap(*(dict(zip(m["id"], m["target"], strict=True)) for m in (ours, theirs)))
    for key, result in found.items():
        gap = gaps[result["media"]]
        if _made_of(result)[1:] == usual[1:] and gap is not None and gap <= ALIKE:
            kept[key] = result
    return (
        kept,
        [key for key in found if key not in kept],
        max(gaps[result["media"]] or 0.0 for result in kept.values()),
    )


def _made_of(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Media, and the inputs that no machine's rounding changes."""
    return result["media"], *(sha for name, sha in sorted(result["inputs"].items()) if name not in ANNOTATED)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return f"{len(names)} trials, {', '.join(names[:_TOLD])}{more}" if len(names) > 1 else names[0]


def _rows(study: Study, results: Mapping[tuple[str, int], Mapping[str, Any]]) -> list[Row]:
    rows: list[Row] = []
    for variant in study.variants:
        mine = {seed: result for (name, seed), result in results.items() if name == variant}
        told = {model for result in mine.values() for model in result["models"]}
        models = [model for model in study.models if model in told] if study.models else sorted(told)
        for model in models:
            of = {
                seed: result["models"][model]["measures"] for seed, result in mine.items() if model in result["models"]
            }
            measures = {name: {seed: of[seed][name]["value"] for seed in of} for name in next(iter(of.values()))}
            measures |= _figures(study, variant, model, mine)
            sizes = [mine[seed]["sizes"].get(study.size) for seed in of] if study.size else [None]
            size = statistics.fmean(s for s in sizes if s is not None) if None not in sizes else None
            rows.append(Row(variant, model, measures, size))
    return rows


def _figures(
    study: Study, variant: str, model: str, mine: Mapping[int, Mapping[str, Any]]
) -> dict[str, dict[int, float | None]]:
    """Figure -> seed -> mean over the media that it is defined for."""
    found: dict[str, dict[int, float | None]] = {}
    for name in study.figures:
        found[name] = {}
        for seed, result in mine.items():
            if model in result["models"]:
                value_N = _figure(result["models"][model], name, f"{variant}-seed{seed}")
                defined_N = value_N[np.isfinite(value_N)]
                found[name][seed] = float(defined_N.mean()) if len(defined_N) else None
    return found


def _figure(told: Mapping[str, Any], name: str, trial: str) -> Floats:
    """A figure of every medium, ``[N]``.

    Raises:
        StageError: the result has no such figure.
    """
    figures = told.get("figures", {})
    if name not in figures:
        has = ", ".join(sorted(figures)) or "none: only trials that run two_stage have any"
        msg = f"the result of {trial} has no figure {name!r}; it has {has}"
        raise StageError(msg)
    return np.array(figures[name].split(), dtype=np.float64)


def _control(study: Study, row: Row, rows: Sequence[Row]) -> str:
    """The control variant's row of the same model if there is one, else the control itself."""
    alike = f"{study.control.partition('/')[0]}/{row.model}"
    return alike if any(other.name == alike for other in rows) else study.control


class _Comparison:
    """Scores of all trials, and their SRCC and figures on shared replicates of the contents."""

    def __init__(self, study: Study, results: Mapping[tuple[str, int], Mapping[str, Any]], checkout: Path) -> None:
        params = base_params(checkout)
        self._sampling: Sampling = build_config(Sampling, "correlate.sampling", params["correlate"]["sampling"])
        self._results = results
        name = next(iter(results.values()))["media"]
        media = read_media(study.name, name, checkout)
        contents = sorted(set(media["content_id"]))
        numbers = {content: number for number, content in enumerate(contents)}
        self._keys: dict[tuple[str, int], int] = {}
        scores: list[Floats] = []
        for (variant, seed), result in results.items():
            for model, told in result["models"].items():
                self._keys[f"{variant}/{model}", seed] = len(scores)
                scores.append(_scores(told["scores"], len(media["id"]), f"{variant}-seed{seed}"))
        drawn_BG = resamples(len(contents), self._sampling.n_bootstrap, self._sampling.seed)
        group_N = np.array([numbers[content] for content in media["content_id"]], dtype=np.int64)
        target_N = np.array(media["target"], dtype=np.float64)
        self._few = len(contents) < self._sampling.min_contents
        srcc_KB = srcc_replicates_many(np.stack(scores), target_N, group_N, drawn_BG)
        self._replicates = Replicates(group_N, drawn_BG, self._sampling.confidence, self._sampling.max_undefined_share)
        self._of = {(SRCC, *key): srcc_KB[number] for key, number in self._keys.items()}

    def difference(self, of: str, first: str, second: str) -> Difference | None:
        """Compare two rows; None if they are the same or have no seed in common."""
        seeds = sorted(seed for name, seed in self._keys if name == first and (second, seed) in self._keys)
        if first == second or not seeds:
            return None
        gaps_SB = [self._on_replicates(of, first, s) - self._on_replicates(of, second, s) for s in seeds]
        found = None
        if not self._few:
            found = interval(
                self._over_seeds(np.stack(gaps_SB)), self._sampling.confidence, self._sampling.max_undefined_share
            )
        low, high = found or (None, None)
        value = statistics.fmean(self._value(of, first, seed) - self._value(of, second, seed) for seed in seeds)
        return Difference(of, first, second, tuple(seeds), value, low, high)

    def _on_replicates(self, of: str, row: str, seed: int) -> Floats:
        """SRCC or a figure of one model on every replicate, ``[B]``."""
        key = (of, row, seed)
        if key not in self._of:
            self._of[key] = self._replicates.means(self._figure_of(of, row, seed))
        return self._of[key]

    def _figure_of(self, of: str, row: str, seed: int) -> Floats:
        variant, _, model = row.partition("/")
        return _figure(self._results[variant, seed]["models"][model], of, f"{variant}-seed{seed}")

    def _over_seeds(self, gaps_SB: Floats) -> Floats:
        """Mean over as many seeds as there are, drawn anew with replacement for each replicate, ``[replicates]``."""
        drawn_SB = np.random.default_rng(self._sampling.seed).integers(len(gaps_SB), size=gaps_SB.shape)
        return np.take_along_axis(gaps_SB, drawn_SB, axis=0).mean(axis=0)

    def _value(self, of: str, row: str, seed: int) -> float:
        if of != SRCC:
            value_N = self._figure_of(of, row, seed)
            return float(value_N[np.isfinite(value_N)].mean()) if np.isfinite(value_N).any() else float("nan")
        variant, _, model = row.partition("/")
        value = self._results[variant, seed]["models"][model]["measures"]["srcc"]["value"]
        return float("nan") if value is None else value


def _scores(text: str, wanted: int, trial: str) -> Floats:
    scores_N = np.array(text.split(), dtype=np.float64)
    if len(scores_N) != wanted:
        msg = f"the result of {trial} has {len(scores_N)} scores for {wanted} media: remove it and run the study again"
        raise StageError(msg)
    return scores_N


# ------------------------------------------------------------------- Markdown


def markdown(table: StudyTable) -> str:
    """The table and its notes."""
    study = table.study
    parts: list[str] = []
    if table.rows:
        models = len({row.model for row in table.rows}) > 1
        seeds = sorted({seed for row in table.rows for seed in row.measures["srcc"]})
        told = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
        head = ["variant", *(["model"] if models else []), *([_SIZE_WORDS[study.size]] if study.size else [])]
        head += [f"SRCC, {told}", "mean ± deviation", f"PLCC, {told}", "mean ± deviation", "undistorted alone"]
        head += ["severity within a type", *(_words(name) for name in study.figures), "SRCC minus control's (interval)"]
        lines = [head, ["---"] * len(head)]
        lines += [_cells(row, table, seeds, models=models) for row in table.rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    if table.differences:
        lines = [["of", "in", "minus that in", "difference (interval)"], ["---"] * 4]
        lines += [[_words(d.of), f"`{d.first}`", f"`{d.second}`", _told_difference(d)] for d in table.differences]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    if not table.rows:
        parts.append(f"No trial has run yet: `vital study run {study.name}`.")
    elif table.notes:
        parts.append("\n".join(f"* {note}" for note in table.notes))
    return "\n\n".join(parts)


def _cells(row: Row, table: StudyTable, seeds: Sequence[int], *, models: bool) -> list[str]:
    cells = [row.variant, *([row.model] if models else [])]
    cells += ["" if row.size is None else f"{row.size:.0f}"] if table.study.size else []
    for measure in ("srcc", "plcc"):
        cells += [" ".join(_number(row.measures[measure].get(seed)) for seed in seeds)]
        cells += [f"{_number(row.mean(measure))} ± {_number(row.deviation(measure))}"]
    cells += [_number(row.mean("undistorted_srcc")), _number(row.mean("severity_srcc"))]
    cells += [f"{_number(row.mean(name))} ± {_number(row.deviation(name))}" for name in table.study.figures]
    difference = table.against_control.get(row.name)
    return [*cells, "" if difference is None else _told_difference(difference)]


def _told_difference(difference: Difference) -> str:
    bounds = "" if difference.low is None else f" ({_signed(difference.low)}, {_signed(difference.high)})"
    return f"{_signed(difference.value)}{bounds}"


def _words(figure: str) -> str:
    return figure.replace("_", " ")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}".replace("0.", ".", 1)


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}".replace("0.", ".", 1)


def curve(table: StudyTable) -> str | None:
    """SVG of mean SRCC over the study's size, a line per model; None if the study has no size or no results."""
    size = table.study.size
    rows = [row for row in table.rows if row.size is not None and row.mean("srcc") is not None]
    if size is None or not rows:
        return None
    series: list[charts.Series] = []
    for number, model in enumerate(dict.fromkeys(row.model for row in rows)):
        points = sorted((row.size or 0.0, row.mean("srcc") or 0.0) for row in rows if row.model == model)
        series.append(charts.Series(model, [x for x, _ in points], [y for _, y in points], number))
    low, high = charts.nice_range([y for one in series for y in one.y], 0.2)
    x = charts.Axis(_SIZE_WORDS[size], 0.0, max(a for one in series for a in one.x) * 1.05)
    drawn = charts.lines(f"SRCC over {_SIZE_WORDS[size]}", x, charts.Axis("SRCC, mean over seeds", low, high), series)
    return (
        str(drawn)
        .replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        .replace("<title>", f"{_STYLE}<title>")
    )


def updated(page: str, table: StudyTable) -> str:
    """The page with this study's table between its marks.

    Raises:
        StageError: the page lacks them.
    """
    name = table.study.name
    begin, end = f"<!-- study {name}: made by vital study table {name} --write -->", f"<!-- end of study {name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        msg = f"{PAGE} lacks the lines {begin!r} and {end!r}"
        raise StageError(msg)
    picture = f"\n\n![SRCC over {_SIZE_WORDS[str(table.study.size)]}]({picture_name(name)})" if curve(table) else ""
    return f"{before}{begin}\n\n{markdown(table)}{picture}\n\n{end}{after}"


def picture_name(study: str) -> str:
    """File of a study's curve, beside the page."""
    return f"studies_{study}.svg"
