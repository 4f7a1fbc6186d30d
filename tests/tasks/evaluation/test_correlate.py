import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plant
import pytest
from scipy.stats import spearmanr

from tasks.errors import StageError
from tasks.evaluation import correlate
from tasks.evaluation.agreements import Sampling
from tasks.records import CORRELATIONS, DIFFERENCES, PREDICTIONS
from tasks.shards import read_table
from tasks.stage import Place, read_params, stage_config

SAMPLING = Sampling(200, 5, 0.95, 0.05, min_samples=4, min_contents=2, min_type_samples=4)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant")
    plant.build_plant(root)
    return root


@pytest.fixture
def config(checkout: Path) -> correlate.Config:
    found = stage_config("correlate", read_params(checkout))
    return dataclasses.replace(found, sampling=SAMPLING)


@pytest.fixture
def place(planted: Path, tmp_path: Path) -> Place:
    return Place(planted, tmp_path / "work", tmp_path / "out")


@pytest.fixture
def predictions(planted: Path) -> pd.DataFrame:
    return read_table(planted / "artifacts/predict/predictions.parquet", PREDICTIONS)


def replace_predictions(place: Place, tmp_path: Path, frame: pd.DataFrame) -> Place:
    """A workspace that has these predictions and nothing else."""
    plant.write(tmp_path, "predict", "predictions", PREDICTIONS, frame)
    return Place(tmp_path, place.work, place.out)


def test_tables_hold_what_scipy_says(config: correlate.Config, place: Place, predictions: pd.DataFrame):
    report = correlate.run(config, place)
    table = read_table(place.out / "correlations.parquet", CORRELATIONS).set_index(["model", "slice", "statistic"])
    for model, rows in predictions.groupby("model"):
        sign = -1 if model == "niqe" else 1
        assert table.loc[(model, "all", "srcc"), "value"] == pytest.approx(
            spearmanr(sign * rows["score"], rows["target"])[0], abs=1e-6
        )
        undistorted = rows[rows["severity"] == 0]["content_id"].nunique()
        assert table.loc[(model, "image", "srcc"), "samples"] == (rows["modality"] == "image").sum()
        assert table.loc[(model, "undistorted", "srcc"), "contents"] == undistorted
    rows = predictions[predictions["model"] == "vital-base-micro"]
    assert report.srcc == pytest.approx(spearmanr(rows["score"], rows["target"])[0], abs=1e-6)
    assert report.srcc_low < report.srcc < report.srcc_high
    assert report.samples == len(rows)
    assert report.contents == rows["content_id"].nunique()
    assert set(report.zero_srcc) == set(report.warm_up_srcc) == set(report.control_srcc) == {"nano", "micro", "mini"}
    assert set(report.assistant_srcc) == set(report.assistant_gain) == {"micro"}
    assert report.assistant_gain["micro"] == pytest.approx(report.assistant_srcc["micro"] - report.srcc, abs=1e-5)
    assert set(report.baseline_srcc) == {"linear-probe", "niqe"}
    assert all(value > 0 for value in report.baseline_srcc.values())
    json.dumps(dataclasses.asdict(report), allow_nan=False)


def test_within_type_is_the_mean_over_types(config: correlate.Config, place: Place, predictions: pd.DataFrame):
    correlate.run(config, place)
    table = read_table(place.out / "correlations.parquet", CORRELATIONS).set_index(["model", "slice", "statistic"])
    rows = predictions[(predictions["model"] == "base-micro") & (predictions["severity"] > 0)]
    groups = [g for _, g in rows.groupby("distortion") if len(g) >= 4 and len(set(g["severity"])) > 1]
    severity = np.mean([spearmanr(g["score"], -g["severity"])[0] for g in groups])
    target = np.mean([spearmanr(g["score"], g["target"])[0] for g in groups])
    assert len(groups) == 3
    assert table.loc[("base-micro", "within_type", "severity_srcc"), "value"] == pytest.approx(severity, abs=1e-6)
    assert table.loc[("base-micro", "within_type", "target_srcc"), "value"] == pytest.approx(target, abs=1e-6)
    assert table.loc[("target", "within_type", "severity_srcc"), "value"] > 0.5


STRENGTHS = {"mean_shift": (4, 2, 0, 2, 4), "contrast_change": (2, 1, 0, 4, 5), "jpeg": (1, 2, 3, 4, 5)}
"""Of KADIS's levels 1 to 5: what each parameter does to a picture, worked out from the parameters by hand."""


def both_ways(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions on distortions whose levels go in both directions; targets and the model follow the strength."""
    contents = sorted(set(predictions["content_id"]))
    cells = [
        (content, kind, level, strengths[level - 1])
        for content in contents
        for kind, strengths in STRENGTHS.items()
        for level in range(1, 6)
        if strengths[level - 1]
    ]
    frame = pd.DataFrame(cells, columns=["content_id", "distortion", "severity", "strength"])
    frame["id"] = [f"{content}-{kind}-{level}" for content, kind, level, _ in cells]
    frame = frame.assign(modality="image", target_kind="machine_opinion", target=0.9 - 0.1 * frame["strength"])
    frame = frame.assign(score=frame["target"], readout="expectation", level_probs=[[]] * len(frame))
    models = [frame.assign(model=name) for name in ("vital-base-micro", "base-micro")]
    return pd.concat(models, ignore_index=True)[list(predictions.columns)]


def test_severity_is_ranked_by_strength_and_not_by_the_number_of_the_level(
    config: correlate.Config, place: Place, predictions: pd.DataFrame, tmp_path: Path
):
    report = correlate.run(config, replace_predictions(place, tmp_path / "both_ways", both_ways(predictions)))
    assert report.severity_srcc == pytest.approx(1.0, abs=1e-6)
    assert report.severity_srcc_of_target == pytest.approx(1.0, abs=1e-6)
    lines = pd.read_csv(place.out / "plots/severity.csv")
    assert list(lines["strength"]) == [1, 2, 3, 4, 5]
    assert list(lines["target"]) == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.4])


def test_a_severity_of_an_unknown_distortion_is_one_line(
    config: correlate.Config, place: Place, predictions: pd.DataFrame, tmp_path: Path
):
    predictions.loc[predictions["severity"] > 0, "distortion"] = "rain"
    with pytest.raises(StageError, match=r"unknown distortion 'rain'.*write severity 0 where none is known"):
        correlate.run(config, replace_predictions(place, tmp_path / "rain", predictions))


def test_a_slice_of_few_contents_has_a_value_and_no_interval(
    config: correlate.Config, place: Place, predictions: pd.DataFrame
):
    contents = predictions["content_id"].nunique()
    careful = dataclasses.replace(config, sampling=dataclasses.replace(SAMPLING, min_contents=contents))
    report = correlate.run(careful, place)
    assert report.srcc_low is not None
    assert report.gain_low is not None
    table = read_table(place.out / "correlations.parquet", CORRELATIONS).set_index(["model", "slice", "statistic"])
    images = predictions[predictions["modality"] == "image"]["content_id"].nunique()
    assert images < contents
    for where, statistic in (("image", "srcc"), ("within_type", "severity_srcc")):
        row = table.loc[("base-micro", where, statistic)]
        assert np.isfinite(row["value"])
        assert np.isnan(row["low"])
        assert np.isnan(row["high"])
        assert f"{images} contents are too few for an interval" in row["note"]
    table = read_table(place.out / "differences.parquet", DIFFERENCES).set_index(["model", "slice", "statistic"])
    gaps = table[table["other"] == "base-micro"].loc[("vital-base-micro", "image", "srcc")]
    assert np.isfinite(gaps["difference"])
    assert np.isnan([gaps["low"], gaps["positive"]]).all()
    assert "too few for an interval" in gaps["note"]


def test_one_content_is_never_enough_for_an_interval():
    with pytest.raises(ValueError, match="min_contents must be at least 2"):
        dataclasses.replace(SAMPLING, min_contents=1)


def test_differences_are_paired_on_common_samples(config: correlate.Config, place: Place, predictions: pd.DataFrame):
    report = correlate.run(config, place)
    table = read_table(place.out / "differences.parquet", DIFFERENCES).set_index(
        ["model", "other", "slice", "statistic"]
    )
    gain = table.loc[("vital-base-micro", "base-micro", "all", "srcc")]
    assert gain["difference"] == pytest.approx(report.srcc - report.base_srcc, abs=2e-6)
    assert 0 < gain["low"] < gain["difference"] < gain["high"]
    assert gain["positive"] > 0.97
    niqe = table.loc[("vital-base-micro", "niqe", "all", "srcc")]
    assert niqe["samples"] == (predictions["model"] == "niqe").sum() < gain["samples"]
    assert {("vital-warm-up-nano", "vital-zero-nano"), ("vital-warm-up-mini", "base-warm-up-mini")} <= {
        (model, other) for model, other, _, _ in table.index
    }
    raw = table.loc[("vital-base-micro", "niqe", "all", "rmse")]
    assert np.isnan(raw["difference"])  # NIQE is not on the target's scale


def test_the_same_predictions_give_the_same_bytes(config: correlate.Config, place: Place, tmp_path: Path):
    correlate.run(config, place)
    again = Place(place.root, tmp_path / "w2", tmp_path / "out2")
    correlate.run(config, again)
    first = sorted(p for p in place.out.rglob("*") if p.is_file())
    assert len(first) == 8
    for path in first:
        assert path.read_bytes() == (again.out / path.relative_to(place.out)).read_bytes(), path.name


def test_constant_predictions_are_null_with_a_message(
    config: correlate.Config, place: Place, predictions: pd.DataFrame, tmp_path: Path
):
    predictions.loc[predictions["model"] == "base-micro", "score"] = 0.5
    report = correlate.run(config, replace_predictions(place, tmp_path / "constant", predictions))
    assert report.base_srcc is None
    assert report.gain is None
    table = read_table(place.out / "correlations.parquet", CORRELATIONS).set_index(["model", "slice", "statistic"])
    row = table.loc[("base-micro", "all", "srcc")]
    assert np.isnan(row["value"])
    assert "constant" in row["note"]


def test_an_undeclared_readout_stops_the_stage(
    config: correlate.Config, place: Place, predictions: pd.DataFrame, tmp_path: Path
):
    predictions.loc[predictions["model"] == "niqe", "readout"] = "brisque"
    with pytest.raises(StageError, match=r"'brisque'.*polarity is not declared.*correlate\.readouts"):
        correlate.run(config, replace_predictions(place, tmp_path / "undeclared", predictions))


def test_skipped_samples_are_counted_and_limited(
    config: correlate.Config, place: Place, predictions: pd.DataFrame, tmp_path: Path
):
    niqe = predictions.index[predictions["model"] == "niqe"]
    few = predictions.drop(niqe[:1])
    few.loc[niqe[1], "score"] = np.nan
    report = correlate.run(config, replace_predictions(place, tmp_path / "few", few))
    assert report.skipped == {"niqe": 2}
    with pytest.raises(StageError, match=r"niqe has no score for 10 of 28 samples, more than the limit 0\.1"):
        correlate.run(config, replace_predictions(place, tmp_path / "many", predictions.drop(niqe[:10])))
    lost = predictions.drop(predictions.index[predictions["model"] == "base-micro"][:1])
    with pytest.raises(StageError, match="base-micro has no score for 1 of"):
        correlate.run(config, replace_predictions(place, tmp_path / "lost", lost))


@pytest.mark.parametrize(
    ("keep", "message"), [(lambda p: p["model"] == "niqe", "no predictions of"), (lambda p: p["score"] > 99, "predict")]
)
def test_missing_predictions_say_what_is_there(
    config: correlate.Config, place: Place, predictions: pd.DataFrame, tmp_path: Path, keep: Any, message: str
):
    with pytest.raises(StageError, match=message):
        correlate.run(config, replace_predictions(place, tmp_path / "missing", predictions[keep(predictions)]))


def test_human_scores_take_the_headline(
    config: correlate.Config, place: Place, predictions: pd.DataFrame, tmp_path: Path
):
    human = predictions.assign(id=predictions["id"] + "h", target=1 - predictions["target"], target_kind="mos")
    both = pd.concat([predictions, human], ignore_index=True)
    report = correlate.run(config, replace_predictions(place, tmp_path / "both", both))
    table = read_table(place.out / "correlations.parquet", CORRELATIONS).set_index(
        ["target_kind", "model", "slice", "statistic"]
    )
    assert report.srcc == table.loc[("mos", "vital-base-micro", "all", "srcc"), "value"]
    assert report.srcc == pytest.approx(
        -table.loc[("machine_opinion", "vital-base-micro", "all", "srcc"), "value"], abs=1e-6
    )
