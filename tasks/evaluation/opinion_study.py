"""What a set of opinions shows: every number of ``vital opinions report``, as plain values that JSON can hold.

Undefined numbers are None with a note. A *cell* is a value with its interval: ``{"value", "low", "high", "note"}``.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models.correlation import srcc
from models.opinion_spread import POPULATION, SPREADS, sos_parameter
from models.scorer_agreement import Curve, Screening, calibration_curve, others_mean, screen
from tasks.errors import StageError
from tasks.evaluation.agreements import Sampling
from tasks.evaluation.chapters import agreement_matrix, matrix_rows
from tasks.evaluation.opinion_measures import Measure, Split, lacks, rounded
from tasks.evaluation.opinion_tables import OpinionSet

Floats = NDArray[np.float64]

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS: Final = 20
_CURVE_BINS: Final = 10
_COVERED: Final = 1.6448536269514722
"""Half the width of a Gaussian's central 90 %, in standard deviations."""


@dataclass(frozen=True)
class Options:
    """What is computed.

    Attributes:
        sigma: name of the spread that the report is about (``models.opinion_spread.SPREADS``).
        sampling: intervals, and the seed that also draws the halves of contents.
        scale: how scores were made; told in the report.
    """

    sigma: str
    sampling: Sampling
    scale: str


def study(opinions: OpinionSet, options: Options) -> dict[str, Any]:
    """Measure a set of opinions.

    Every spread is fitted on one half of the contents and measured on the other, both ways round.

    Raises:
        StageError: the chosen spread is unknown, or needs human scores that are not there.
    """
    _require(opinions, options.sigma)
    with tqdm(total=_planned(opinions), desc="opinions", unit="interval", disable=None, leave=False) as bar:
        measure = Measure(opinions, options.sampling, bar)
        split = Split(opinions, options.sampling)
        sigma_N = split.sigma(options.sigma)
        mu_N = opinions.scores_NS.mean(axis=1)
        return {
            "name": opinions.name,
            "samples": len(opinions.ids),
            "contents": len(set(opinions.content_N)) if opinions.contents_known else None,
            "skipped": opinions.skipped,
            "scale": options.scale,
            "sigma": options.sigma,
            "confidence": options.sampling.confidence,
            "mu_quantiles": _quantiles(mu_N),
            "sigma_quantiles": _quantiles(sigma_N),
            "scorers": _scorers(opinions, measure),
            "agreement": _rounded_matrix(opinions),
            "distortions": _distortions(opinions, sigma_N, options.sampling.min_type_samples),
            "human": _human(opinions, mu_N, sigma_N, measure),
            "spreads": _spreads(opinions, split, measure),
        }


def _require(opinions: OpinionSet, sigma: str) -> None:
    if sigma not in SPREADS:
        msg = f"there is no sigma {sigma!r}; there are {', '.join(SPREADS)}"
        raise StageError(msg)
    missing = lacks(opinions, SPREADS[sigma].needs)
    if missing:
        msg = f"the sigma {sigma!r} is fitted on {missing}, which were not given"
        raise StageError(msg)


def _planned(opinions: OpinionSet) -> int:
    """Intervals that will be computed, for the progress bar."""
    scorers, spreads = len(opinions.scorers), len(SPREADS)
    with_mos, with_sd = opinions.mos_N is not None, opinions.sd_N is not None
    return with_mos * (2 * scorers + 1 + spreads) + with_sd * (2 + spreads)


def _scorers(opinions: OpinionSet, measure: Measure) -> list[dict[str, Any]]:
    scores_NS, others_NS = opinions.scores_NS, others_mean(opinions.scores_NS)
    screened = screen(scores_NS)
    if opinions.mos_N is not None:
        measure.prepare([scores_NS.mean(axis=1), *scores_NS.T, *others_NS.T], opinions.mos_N)
    return [
        _scorer(opinions, name, (scores_NS[:, s], others_NS[:, s]), screened[s], measure)
        for s, name in enumerate(opinions.scorers)
    ]


def _scorer(
    opinions: OpinionSet, name: str, own_and_others: tuple[Floats, Floats], screened: Screening, measure: Measure
) -> dict[str, Any]:
    """Distribution, agreement, curves, and what mu loses without this scorer."""
    own_N, others_N = own_and_others
    mu_N = opinions.scores_NS.mean(axis=1)
    counts, edges = np.histogram(own_N, _BINS, (0.0, 1.0))
    row = {
        "name": name,
        "mean": rounded(own_N.mean()),
        "std": rounded(own_N.std()),
        "quantiles": _quantiles(own_N),
        "histogram": {"edges": _list(edges), "counts": counts.tolist()},
        "with_others": rounded(screened.with_others),
        "robust_z": rounded(screened.robust_z),
        "far_share": rounded(screened.far_share),
        "balance": rounded(screened.balance),
        "reasons": list(screened.reasons),
        "mu_without": rounded(srcc(mu_N, others_N)),
        "curves": {"others": _curve(calibration_curve(own_N, others_N, _CURVE_BINS))},
    }
    if opinions.mos_N is None:
        return row
    rated = np.isfinite(opinions.mos_N)
    row["curves"]["mos"] = _curve(calibration_curve(own_N[rated], opinions.mos_N[rated], _CURVE_BINS))
    return row | {"mos": measure.srcc(own_N, opinions.mos_N), "mu_loses": measure.gain(mu_N, others_N, opinions.mos_N)}


def _curve(curve: Curve) -> dict[str, Any]:
    named = {"score": curve.score_K, "reference": curve.reference_K}
    return {key: _list(values) for key, values in named.items()} | {
        "count": curve.count_K.tolist(),
        "error": rounded(curve.error),
    }


def _rounded_matrix(opinions: OpinionSet) -> dict[str, Any]:
    values = agreement_matrix(opinions.scores_NS)
    matrix = matrix_rows(opinions.scorers, [[rounded(value) for value in row] for row in values])
    return matrix | {"mean": rounded(_mean_pairwise(values))}


def _mean_pairwise(values: list[list[float | None]]) -> float | None:
    pairs = [value for i, row in enumerate(values) for value in row[:i] if value is not None]
    return float(np.mean(pairs)) if pairs else None


def _distortions(opinions: OpinionSet, sigma_N: Floats, fewest: int) -> list[dict[str, Any]]:
    """Agreement within each type: between scorers, of each with the others, and of mu with people."""
    if opinions.distortion_N is None:
        return []
    kind_N = np.array(opinions.distortion_N)
    rows = []
    for kind in sorted(set(opinions.distortion_N)):
        mine = kind_N == kind
        scores_NS = opinions.scores_NS[mine]
        row: dict[str, Any] = {"distortion": kind, "samples": int(mine.sum()), "sigma": rounded(sigma_N[mine].mean())}
        if mine.sum() < fewest:
            rows.append(row | {"pairwise": None, "with_others": None, "mos": None, "note": "too few samples"})
            continue
        others_NS = others_mean(scores_NS)
        own = [rounded(srcc(scores_NS[:, s], others_NS[:, s])) for s in range(len(opinions.scorers))]
        row |= {"pairwise": rounded(_mean_pairwise(agreement_matrix(scores_NS)))}
        row |= {"with_others": dict(zip(opinions.scorers, own, strict=True)), "note": ""}
        rows.append(row | {"mos": _srcc_rated(scores_NS.mean(axis=1), opinions.mos_N, mine, fewest)})
    return rows


def _srcc_rated(mu_n: Floats, mos_N: Floats | None, mine: NDArray[np.bool_], fewest: int) -> float | None:
    if mos_N is None:
        return None
    rated = np.isfinite(mos_N[mine])
    return rounded(srcc(mu_n[rated], mos_N[mine][rated])) if rated.sum() >= fewest else None


def _human(opinions: OpinionSet, mu_N: Floats, sigma_N: Floats, measure: Measure) -> dict[str, Any] | None:
    """Agreement of mu with the mean human score, and of sigma with the human standard deviation."""
    mos_N, sd_N = opinions.mos_N, opinions.sd_N
    if mos_N is None:
        return None
    rated = np.isfinite(mos_N)
    agreement = measure.srcc(mu_N, mos_N)
    opposed = agreement["high"] is not None and agreement["high"] < 0
    found = {"rated": int(rated.sum()), "unmatched": opinions.unmatched, "mu_mos": agreement}
    found |= {"warning": "mu falls where human scores rise: is the polarity declared right?" if opposed else ""}
    if sd_N is None:
        return found | {"with_sd": 0, "sigma_sd": None, "mos_sd": None, "parabola_sd": None, "sos": None}
    both = rated & np.isfinite(sd_N)
    measure.prepare([sigma_N, mos_N, mos_N * (1 - mos_N)], sd_N)
    return found | {
        "with_sd": int(both.sum()),
        "sigma_sd": measure.srcc(sigma_N, sd_N),
        "mos_sd": measure.srcc(mos_N, sd_N),
        "parabola_sd": measure.srcc(mos_N * (1 - mos_N), sd_N),
        "sos": rounded(sos_parameter(mos_N[both], sd_N[both] ** 2)) if both.any() else None,
    }


def _spreads(opinions: OpinionSet, split: Split, measure: Measure) -> list[dict[str, Any]]:
    """Every way to make sigma, or why it cannot be made."""
    made = {name: _made(name, opinions, split) for name in SPREADS}
    sigmas = [sigma_N for sigma_N in made.values() if not isinstance(sigma_N, str)]
    if opinions.sd_N is not None:
        measure.prepare(sigmas, opinions.sd_N)
    if opinions.mos_N is not None:
        measure.prepare(sigmas, split.error())
    return [_spread(name, sigma_N, opinions, split, measure) for name, sigma_N in made.items()]


def _made(name: str, opinions: OpinionSet, split: Split) -> Floats | str:
    """Sigma of a spread, or what it lacks."""
    missing = lacks(opinions, SPREADS[name].needs)
    if missing:
        return f"needs {missing}"
    try:
        return split.sigma(name)
    except StageError as error:
        return str(error)


def _spread(name: str, sigma_N: Floats | str, opinions: OpinionSet, split: Split, measure: Measure) -> dict[str, Any]:
    """One way to make sigma, measured on contents it was not fitted on."""
    method = SPREADS[name]
    row: dict[str, Any] = {"name": name, "says": method.says, "needs": str(method.needs), "note": ""}
    empty = dict.fromkeys(("mean", "with_population", "sd", "sd_gain", "level", "error", "covered"))
    if isinstance(sigma_N, str):
        return row | empty | {"note": sigma_N}
    plain_N = opinions.scores_NS.std(axis=1)
    row |= empty | {"mean": rounded(sigma_N.mean()), "with_population": rounded(srcc(sigma_N, plain_N))}
    if opinions.sd_N is not None:
        rated = np.isfinite(opinions.sd_N)
        row |= {"sd": measure.srcc(sigma_N, opinions.sd_N), "level": _ratio(sigma_N[rated], opinions.sd_N[rated])}
        row["sd_gain"] = None if name == POPULATION else measure.gain(sigma_N, plain_N, opinions.sd_N)
    if opinions.mos_N is not None:
        error_N = split.error()
        known = np.isfinite(error_N)
        row["error"] = measure.srcc(sigma_N, error_N)
        row["covered"] = rounded((error_N[known] <= _COVERED * sigma_N[known]).mean()) if known.any() else None
    return row


def _ratio(sigma_n: Floats, sd_n: Floats) -> float | None:
    return rounded(sigma_n.mean() / sd_n.mean()) if len(sd_n) and sd_n.mean() > 0 else None


def _quantiles(values_N: Floats) -> dict[str, float | None]:
    found = np.quantile(values_N, QUANTILES)
    return {f"{100 * share:g}": rounded(value) for share, value in zip(QUANTILES, found, strict=True)}


def _list(values: Floats) -> list[float | None]:
    return [rounded(value) for value in values]
