"""The numbers of the report on opinions, against what is planted and against published label sets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.correlation import srcc
from models.opinion_spread import SPREADS
from tasks.errors import StageError
from tasks.evaluation.agreements import Sampling
from tasks.evaluation.human_scores import Human, Polarity, gather
from tasks.evaluation.opinion_measures import Split
from tasks.evaluation.opinion_study import Options, study
from tasks.evaluation.opinion_tables import Columns, OpinionSet, Scale

SAMPLING = Sampling(40, 3, 0.9, 0.05, min_samples=8, min_contents=5, min_type_samples=6)
OPTIONS = Options("population", SAMPLING, "unit")
QUICK = Sampling(2, 3, 0.9, 0.05, min_samples=8, min_contents=5, min_type_samples=6)


def opinion_set(samples: int = 90, *, human: bool = True) -> OpinionSet:
    """Six scorers, one of them by chance; noise is worse; people disagree in the middle of the scale."""
    rng = np.random.default_rng(1)
    quality = rng.uniform(0.1, 0.9, samples)
    scores = np.clip(quality[:, None] + rng.normal(0, 0.06, (samples, 6)), 0, 1)
    scores[:, 5] = rng.uniform(0, 1, samples)
    kinds = ["noise" if i % 2 else "blur" for i in range(samples - 3)] + ["rare"] * 3
    mos = np.clip(quality + rng.normal(0, 0.04, samples), 0, 1) if human else None
    sd = np.sqrt(0.1 * quality * (1 - quality)) if human else None
    ids, contents = [f"s{i}" for i in range(samples)], [f"c{i // 3}" for i in range(samples)]
    known = {"contents_known": True, "distortion_N": kinds, "mos_N": mos, "sd_N": sd}
    return OpinionSet("set", ids, list("abcdef"), scores, contents, **known)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return study(opinion_set(), OPTIONS)


def test_the_study_is_json_and_the_same_every_time(found: dict[str, Any]):
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert study(opinion_set(), OPTIONS) == found


def test_every_scorer_is_described(found: dict[str, Any]):
    opinions = opinion_set()
    for s, row in enumerate(found["scorers"]):
        own, others = opinions.scores_NS[:, s], np.delete(opinions.scores_NS, s, axis=1).mean(axis=1)
        assert row["mean"] == pytest.approx(own.mean(), abs=1e-6)
        assert row["quantiles"]["95"] == pytest.approx(np.quantile(own, 0.95), abs=1e-6)
        assert sum(row["histogram"]["counts"]) == 90
        assert row["with_others"] == pytest.approx(srcc(own, others), abs=1e-6)
        assert row["mu_without"] == pytest.approx(srcc(opinions.scores_NS.mean(axis=1), others), abs=1e-6)
        assert row["mos"]["value"] == pytest.approx(srcc(own, opinions.mos_N), abs=1e-6)
        assert sum(row["curves"]["mos"]["count"]) == sum(row["curves"]["others"]["count"]) == 90
    assert found["agreement"]["rows"][1]["values"][0] == pytest.approx(
        srcc(opinions.scores_NS[:, 1], opinions.scores_NS[:, 0]), abs=1e-6
    )


def test_a_scorer_by_chance_is_an_outlier_whom_mu_is_better_without(found: dict[str, Any]):
    assert [bool(row["reasons"]) for row in found["scorers"]] == [False] * 5 + [True]
    assert found["scorers"][5]["mu_loses"]["high"] < 0
    assert all(row["mu_loses"]["value"] > 0 for row in found["scorers"][:5])


def test_agreement_by_distortion_says_where_there_are_too_few(found: dict[str, Any]):
    rows = {row["distortion"]: row for row in found["distortions"]}
    assert list(rows) == ["blur", "noise", "rare"]
    assert (rows["rare"]["pairwise"], rows["rare"]["note"]) == (None, "too few samples")
    mine = np.array(opinion_set().distortion_N) == "blur"
    opinions = opinion_set()
    mu = opinions.scores_NS[mine].mean(axis=1)
    assert rows["blur"]["mos"] == pytest.approx(srcc(mu, opinions.mos_N[mine]), abs=1e-6)
    assert rows["blur"]["samples"] == mine.sum()


def test_people_are_measured(found: dict[str, Any]):
    opinions, human = opinion_set(), found["human"]
    assert human["mu_mos"]["value"] == pytest.approx(srcc(opinions.scores_NS.mean(axis=1), opinions.mos_N), abs=1e-6)
    assert human["sigma_sd"]["value"] == pytest.approx(srcc(opinions.scores_NS.std(axis=1), opinions.sd_N), abs=1e-6)
    assert human["sos"] == pytest.approx(0.1, rel=0.05)
    assert human["warning"] == ""


def test_every_sigma_is_compared(found: dict[str, Any]):
    rows = {row["name"]: row for row in found["spreads"]}
    assert list(rows) == list(SPREADS)
    assert rows["population"]["sd"] == found["human"]["sigma_sd"]
    assert rows["population"]["sd_gain"] is None
    assert rows["variance_function"]["sd_gain"]["low"] > 0.3  # people's spread is made of their mean here
    assert rows["variance_function"]["level"] == pytest.approx(1, abs=0.05)
    error = Split(opinion_set(), SAMPLING).error()
    sigma = Split(opinion_set(), SAMPLING).sigma("predictive")
    assert rows["predictive"]["covered"] == pytest.approx(np.mean(error <= 1.644854 * sigma), abs=1e-6)
    assert study(opinion_set(), Options("sos", SAMPLING, "unit"))["human"]["sigma_sd"] == rows["sos"]["sd"]


def test_without_people_the_rest_is_told():
    found = study(opinion_set(human=False), OPTIONS)
    assert found["human"] is None
    assert "mos" not in found["scorers"][0]
    notes = {row["name"]: row["note"] for row in found["spreads"]}
    assert notes["predictive"] == "needs human scores"
    assert notes["variance_function"] == "needs human standard deviations"
    assert notes["shrunk"] == ""


def test_a_wrong_polarity_is_noticed():
    opinions = opinion_set()
    turned = OpinionSet(**vars(opinions) | {"mos_N": 1 - opinions.mos_N})
    assert "polarity" in study(turned, OPTIONS)["human"]["warning"]


@pytest.mark.parametrize(
    ("sigma", "human", "told"),
    [
        ("sums", True, "there is no sigma 'sums'; there are population, sos"),
        ("predictive", False, "fitted on human scores, which were not given"),
        ("variance_function", False, "fitted on human standard deviations, which were not given"),
    ],
)
def test_a_sigma_that_cannot_be_is_told(sigma: str, human: bool, told: str):  # noqa: FBT001 - a case of the table
    with pytest.raises(StageError, match=told):
        study(opinion_set(human=human), Options(sigma, SAMPLING, "unit"))


def known_facts(shared_data: Path, name: str, mos: str, sd: str) -> tuple[float, float, float]:
    """SRCC(mu, MOS), that of the best single model, and SRCC(sigma, human SD) of percentile ranks."""
    frame = pd.read_csv(shared_data / "labels" / name)
    models = list(frame.columns[list(frame.columns).index("clip_vit_l14") :])
    assert len(models) == 15
    ranks = frame[models].rank() / len(frame)
    best = max(ranks[model].corr(frame[mos], method="spearman") for model in models)
    mean, spread = ranks.mean(axis=1), ranks.std(axis=1, ddof=0)
    return mean.corr(frame[mos], method="spearman"), best, spread.corr(frame[sd], method="spearman")


@pytest.mark.parametrize(
    ("name", "human", "facts"),
    [
        (
            "koniq10k_human_dist_plus_15_machine_scores.csv",
            Human("MOS", 0, 100, Polarity.MOS, sd="SD", sd_range=(1, 5)),
            (0.564, 0.574, 0.050),
        ),
        (
            "agiqa3k_mos_std_plus_15_machine_scores.csv",
            Human("mos_quality", 0, 5, Polarity.MOS, sd="std_quality"),
            (0.751, 0.735, 0.043),
        ),
    ],
)
def test_the_known_facts_of_published_label_sets(
    shared_data: Path, name: str, human: Human, facts: tuple[float, float, float]
):
    """The figures of the maintainers' README (shared/data), to three decimals; pandas agrees to six."""
    opinions = gather(shared_data / "labels" / name, Columns(scorers="clip_vit_l14:visualglm", scale=Scale.RANK), human)
    found = study(opinions, Options("population", QUICK, "rank"))
    values = (
        found["human"]["mu_mos"]["value"],
        max(row["mos"]["value"] for row in found["scorers"]),
        found["human"]["sigma_sd"]["value"],
    )
    assert tuple(round(value, 3) for value in values) == facts
    assert values == pytest.approx(known_facts(shared_data, name, human.mos, str(human.sd)), abs=2e-6)


def test_a_published_dmos_is_turned_once(shared_data: Path, tmp_path: Path):
    """The README's |SRCC| of scores with the image and from the caption alone, before and after tuning (CSIQ)."""
    columns: dict[str, list[float]] = {}
    for model in ("baseline", "self_consistent"):
        rows = json.loads((shared_data / f"reasoning/csiq_{model}.json").read_text())
        rows.sort(key=lambda row: row["image"].lower())
        columns[f"{model}_image"] = [row["overall_score"] for row in rows]
        columns[f"{model}_text"] = [row["reasoning_score"] for row in rows]
        columns |= {"dmos": [float(row["gt_score"]) for row in rows], "name": [row["image"] for row in rows]}
    pd.DataFrame(columns).to_csv(tmp_path / "csiq.csv", index=False)
    given = Columns(scorers=",".join(name for name in columns if "_" in name), scale=Scale.RANK)
    given = Columns(**vars(given) | {"content": r"name:([^/.]+)\.[^/]+$", "distortion": "name:/([^/]+)/[^/]+$"})
    opinions = gather(tmp_path / "csiq.csv", given, Human("dmos", 0, 1, Polarity.DMOS))
    found = study(opinions, Options("population", QUICK, "rank"))
    assert [round(row["mos"]["value"], 3) for row in found["scorers"]] == [0.634, 0.535, 0.647, 0.620]
    assert (found["samples"], found["contents"], len(found["distortions"])) == (866, 30, 6)
    assert found["human"]["warning"] == ""
