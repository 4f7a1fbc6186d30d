"""Figures of readers and encoders against SciPy, and the tables that tell them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

from tasks.evaluation.choices import Resampling
from tasks.evaluation.swap_figures import SwapFigures, markdown
from tasks.records import SWAPS
from tasks.shards import frame_of

RESAMPLING = Resampling(n_bootstrap=400, seed=1, confidence=0.95, min_contents=10)
PAIRS = [(reader, encoder) for reader in ("soft", "rough") for encoder in ("soft", "rough", "pretrained", "ract")]
NOISE = {"soft": 0.15, "rough": 0.25, "pretrained": 0.6, "ract": 0.02, "mixed": 0.1}


@pytest.fixture(scope="module")
def swaps() -> pd.DataFrame:
    """Forty contents of three media; an encoder's noise says how good it is, and every fifth rating cannot be read."""
    rng = np.random.default_rng(5)
    target_N = rng.random(120)
    rows = []
    for reader, encoder in [*PAIRS, ("mixed", "mixed")]:
        score_N = np.clip(target_N + NOISE[encoder] * rng.standard_normal(120), 0.0, 1.0)
        for number, (score, target) in enumerate(zip(score_N, target_N, strict=True)):
            rows.append({
                "reader": reader, "encoder": encoder, "id": f"{number:03d}", "content_id": f"c{number // 3}",
                "data_sets": [["soft"], ["rough"], ["soft", "rough"]][number % 3], "target": target,
                "expectation": score, "rating": None if number % 5 == 0 else round(score, 1), "said": "",
            })  # fmt: skip
    return frame_of(SWAPS, rows)


@pytest.fixture(scope="module")
def figures(swaps: pd.DataFrame) -> SwapFigures:
    return SwapFigures(swaps, ("soft", "rough"), RESAMPLING)


def chosen(swaps: pd.DataFrame, reader: str, encoder: str, scope: str = "all") -> pd.DataFrame:
    rows = swaps[(swaps["reader"] == reader) & (swaps["encoder"] == encoder)]
    return rows if scope == "all" else rows[[scope in mine for mine in rows["data_sets"]]]


@pytest.mark.parametrize("scope", ["all", "soft", "rough"])
@pytest.mark.parametrize(("statistic", "theirs"), [("srcc", spearmanr), ("plcc", pearsonr)])
def test_tables_hold_what_scipy_says(
    swaps: pd.DataFrame, figures: SwapFigures, scope: str, statistic: str, theirs: Any
):
    table = figures.table(statistic, "expectation", scope)
    assert set(table) == {"soft", "rough", "mixed"}
    for reader, encoder in PAIRS:
        rows = chosen(swaps, reader, encoder, scope)
        wanted = theirs(rows["expectation"], rows["target"]).statistic
        assert table[reader][encoder] == pytest.approx(wanted, abs=1e-6)
    assert set(table["mixed"]) == {"mixed"}


def test_ratings_that_cannot_be_read_are_counted_and_left_out(swaps: pd.DataFrame, figures: SwapFigures):
    rows = chosen(swaps, "soft", "ract")
    read = rows[rows["rating"].notna()]
    wanted = spearmanr(read["rating"], read["target"]).statistic
    assert figures.table("srcc", "rating")["soft"]["ract"] == pytest.approx(wanted, abs=1e-6)
    assert figures.unread() == {"soft": 0.2, "rough": 0.2, "mixed": 0.2}
    told = [row for row in figures.to_json()["pairs"] if (row["reader"], row["encoder"]) == ("soft", "ract")]
    rating = next(row for row in told if row["data_set"] == "all" and row["readout"] == "rating")
    assert (rating["media"], rating["unread"]) == (120, 24)
    assert rating["std_ratio"] == pytest.approx(read["rating"].std(ddof=0) / read["target"].std(ddof=0), abs=1e-6)


def test_readers_apart_is_the_largest_gap_of_plcc_under_one_encoder(figures: SwapFigures):
    table, apart = figures.table("plcc"), figures.apart()
    assert apart["mixed"] is None
    for encoder in ("soft", "rough", "pretrained", "ract"):
        assert apart[encoder] == pytest.approx(abs(table["soft"][encoder] - table["rough"][encoder]), abs=1e-6)


def test_gains_are_paired_differences_whose_interval_says_which_encoder_is_better(figures: SwapFigures):
    table, gains = figures.table("srcc"), figures.gains()
    assert {(row["reader"], row["over"]) for row in gains} == {
        ("soft", "pretrained"), ("soft", "soft"), ("rough", "pretrained"), ("rough", "rough")
    }  # fmt: skip
    for row in gains:
        if row["data_set"] == "all":
            wanted = table[row["reader"]]["ract"] - table[row["reader"]][row["over"]]
            assert row["gain"] == pytest.approx(wanted, abs=2e-6)
        assert 0.0 < row["low"] < row["gain"] < row["high"]


def test_few_contents_have_no_interval_and_constant_scores_no_figure(swaps: pd.DataFrame):
    few = SwapFigures(swaps[swaps["content_id"].isin(["c0", "c1", "c2"])], ("soft", "rough"), RESAMPLING)
    assert all(row["low"] is None and row["gain"] is not None for row in few.gains() if row["data_set"] == "all")
    flat = SwapFigures(swaps.assign(expectation=0.5), ("soft", "rough"), RESAMPLING)
    assert all(value is None for row in flat.table("srcc").values() for value in row.values())
    assert all(row["gain"] is None for row in flat.gains())
    assert "| soft | - / - |" in markdown(flat)


def test_tables_name_readout_and_scope(figures: SwapFigures):
    told = markdown(figures)
    for readout in ("expectation", "rating"):
        for scope in ("all", "soft", "rough"):
            assert f"SRCC / PLCC by the {readout}, media of {scope}:" in told
    rows = [line for line in told.splitlines() if line.startswith("| mixed |")]
    assert len(rows) == 6
    assert all(row.count("- / -") == 4 for row in rows)
