"""Intervals against the house's own bootstrap, and spreads that never see what they are measured on."""

import io

import numpy as np
import pytest
from tqdm import tqdm

from models.correlation import bootstrap, fit_logistic, interval, resamples, srcc
from models.opinion_spread import SPREADS, Rated
from tasks.errors import StageError
from tasks.evaluation.agreements import Sampling
from tasks.evaluation.opinion_measures import Measure, Split, lacks
from tasks.evaluation.opinion_tables import OpinionSet

SAMPLING = Sampling(60, 3, 0.9, 0.05, min_samples=8, min_contents=5, min_type_samples=4)


def opinion_set(samples: int = 60, *, human: bool = True, seed: int = 0) -> OpinionSet:
    rng = np.random.default_rng(seed)
    quality = rng.uniform(0.1, 0.9, samples)
    scores = np.clip(quality[:, None] + rng.normal(0, 1, (samples, 5)) * np.linspace(0.03, 0.15, 5), 0, 1)
    mos, sd = np.clip(quality + rng.normal(0, 0.05, samples), 0, 1), 0.3 * np.sqrt(quality * (1 - quality))
    mos[3], sd[5] = np.nan, np.nan
    ids = [f"s{i}" for i in range(samples)]
    contents = [f"c{i % 12}" for i in range(samples)]
    found = OpinionSet("set", ids, list("abcde"), scores, contents, contents_known=True, distortion_N=None)
    return OpinionSet(**vars(found) | {"mos_N": mos, "sd_N": sd}) if human else found


def measure(opinions: OpinionSet, sampling: Sampling = SAMPLING) -> Measure:
    return Measure(opinions, sampling, tqdm(disable=True))


def test_a_cell_is_the_bootstrap_by_content_of_the_rated_samples():
    opinions = opinion_set()
    mu, known = opinions.scores_NS.mean(axis=1), np.isfinite(opinions.mos_N)
    groups = np.unique(np.array(opinions.content_N)[known], return_inverse=True)[1]
    x, y = mu[known], opinions.mos_N[known]
    expected = interval(bootstrap(x, y, groups, resamples(12, 60, 3))["srcc"], 0.9, 0.05)
    cell = measure(opinions).srcc(mu, opinions.mos_N)
    assert cell["value"] == pytest.approx(srcc(x, y), abs=1e-6)
    assert (cell["low"], cell["high"]) == pytest.approx(expected, abs=1e-6)
    assert cell["note"] == ""


def test_a_gain_is_paired():
    opinions = opinion_set()
    mu, first = opinions.scores_NS.mean(axis=1), opinions.scores_NS[:, 4]
    measured = measure(opinions)
    gain = measured.gain(mu, first, opinions.mos_N)
    apart = [measured.srcc(column, opinions.mos_N) for column in (mu, first)]
    assert gain["value"] == pytest.approx(apart[0]["value"] - apart[1]["value"], abs=2e-6)
    assert gain["low"] > apart[0]["low"] - apart[1]["high"]
    assert measured.gain(mu, mu, opinions.mos_N) == {"value": 0, "low": 0, "high": 0, "note": ""}


def test_what_is_prepared_together_is_what_is_measured_alone():
    opinions = opinion_set()
    scores, mos, sd = opinions.scores_NS, opinions.mos_N, opinions.sd_N
    columns = [*scores.T, np.full(60, 0.5), mos, scores[:, 0]]
    bar = tqdm(disable=False, file=io.StringIO())
    together = Measure(opinions, SAMPLING, bar)
    together.prepare(columns, sd)
    together.prepare([], mos)
    assert bar.n == 7  # five scorers, a constant, and the human scores; the first scorer is not measured again
    alone = measure(opinions)
    assert [together.srcc(column, sd) for column in columns] == [alone.srcc(column, sd) for column in columns]
    assert together.gain(mos, scores[:, 2], sd) == alone.gain(mos, scores[:, 2], sd)
    assert bar.n == 7


def test_what_has_no_interval_says_why():
    opinions = opinion_set()
    mu, mos = opinions.scores_NS.mean(axis=1), opinions.mos_N
    few = np.where(np.arange(60) < 7, mos, np.nan)
    assert measure(opinions).srcc(mu, few)["note"] == "6 samples are too few"
    narrow = np.where(np.isin(opinions.content_N, ["c0", "c1", "c2"]), mos, np.nan)
    cell = measure(opinions).srcc(mu, narrow)
    assert cell["note"] == "3 contents are too few for an interval"
    assert cell["value"] is not None
    assert cell["low"] is None
    assert measure(opinions).srcc(np.full(60, 0.5), mos)["note"] == "one side is constant"


@pytest.mark.parametrize("name", SPREADS)
def test_a_spread_is_fitted_on_the_other_half_of_the_contents(name: str):
    opinions = opinion_set()
    sigma = Split(opinions, SAMPLING).sigma(name)
    order = np.random.default_rng(3).permutation(12)
    half = order[np.unique(np.array(opinions.content_N), return_inverse=True)[1]] % 2
    usable = np.isfinite(opinions.mos_N) if name == "predictive" else np.isfinite(opinions.sd_N)
    usable = usable if name in {"predictive", "variance_function"} else np.full(60, True)
    fit = usable & (half == 1)
    spread = SPREADS[name].fit(Rated(opinions.scores_NS[fit], opinions.mos_N[fit], opinions.sd_N[fit]))
    assert sigma[half == 0] == pytest.approx(spread(opinions.scores_NS[half == 0]))


def test_the_error_of_mu_is_that_of_the_other_halfs_logistic():
    opinions = opinion_set()
    error = Split(opinions, SAMPLING).error()
    order = np.random.default_rng(3).permutation(12)
    half = order[np.unique(np.array(opinions.content_N), return_inverse=True)[1]] % 2
    mu, rated = opinions.scores_NS.mean(axis=1), np.isfinite(opinions.mos_N)
    curve = fit_logistic(mu[rated & (half == 1)], opinions.mos_N[rated & (half == 1)])
    mine = rated & (half == 0)
    assert error[mine] == pytest.approx(np.abs(opinions.mos_N[mine] - curve(mu[mine])))
    assert np.isnan(error[3])


def test_what_a_spread_lacks_is_told():
    plain = opinion_set(human=False)
    assert lacks(plain, SPREADS["predictive"].needs) == "human scores"
    assert lacks(plain, SPREADS["variance_function"].needs) == "human standard deviations"
    assert lacks(plain, SPREADS["sos"].needs) == ""
    assert np.isnan(Split(plain, SAMPLING).error()).all()
    with pytest.raises(StageError, match="'shrunk' cannot be made of these opinions: 5 samples are too few"):
        Split(opinion_set(10), SAMPLING).sigma("shrunk")
