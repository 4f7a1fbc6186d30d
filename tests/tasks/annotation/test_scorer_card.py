"""The model card tells the figures of its scorers, and the shipped one is that of the shipped weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from models.scorers import BUILT_INS
from models.scorers.built_in import WEIGHTS
from tasks.annotation.scorer_card import CARD, HeldOut, srcc, write_card


def _held_out() -> HeldOut:
    rng = np.random.default_rng(0)
    kinds = np.array(["pristine"] * 10 + ["jpeg"] * 20 + ["white_noise"] * 20 + ["rare"] * 3)
    return HeldOut(rng.uniform(size=len(kinds)), kinds)


def test_figures_are_correlations_within_each_kind_that_has_enough_samples() -> None:
    held_out = _held_out()
    score = np.random.default_rng(1).uniform(size=len(held_out.kind_N))
    figures = held_out.figures(score)
    jpeg = held_out.kind_N == "jpeg"
    expected = spearmanr(score[jpeg], held_out.target_N[jpeg]).statistic
    assert figures["srcc_by_kind"]["jpeg"] == pytest.approx(expected, abs=1e-4)
    assert list(figures["srcc_by_kind"]) == ["jpeg", "white_noise"]
    assert figures["mean_absolute_error"] == pytest.approx(np.abs(score - held_out.target_N).mean(), abs=1e-4)
    assert figures["pristine_mean"] == pytest.approx(score[:10].mean(), abs=1e-4)
    assert srcc(score, score) == 1.0


def test_the_card_names_data_figures_and_what_fails(tmp_path: Path) -> None:
    held_out = _held_out()
    good = held_out.figures(held_out.target_N)
    bad = held_out.figures(np.where(held_out.kind_N == "jpeg", -held_out.target_N, held_out.target_N))
    training = {"sources": ["parks"], "photographs": 7, "held_out": 2, "samples": 50, "clips": 4, "parameters": 1234}
    cards = {"one": {"version": "3+abc", "training": training, "figures": good | {"clips": 2, "srcc_clips": 0.25}}}
    write_card(tmp_path, cards, bad)
    text = (tmp_path / CARD).read_text()
    assert "5 pristine photographs (parks), 50 stills and 4 clips" in text
    assert "| one | 3+abc | 1,234 | 1.00 |" in text
    assert "| .25 |" in text
    assert "| jpeg | 20 | 1.00 | -1.00 |" in text
    assert "Below .50 for the mean opinion: none; the wrong way round: jpeg " in text


def test_the_shipped_card_is_that_of_the_shipped_weights() -> None:
    text = (WEIGHTS / CARD).read_text()
    for name in BUILT_INS:
        card = json.loads((WEIGHTS / f"{name}.json").read_text())
        assert f"| {name} | {card['version']} |" in text
        assert card["training"]["sources"] == ["kodak", "pristine_wikimedia"]
