"""The chapter holds what the stages say, part by part, and nothing where a stage has not run."""

from pathlib import Path

import pytest

from tasks.evaluation.reasoning_chapter import FIGURES, reasoning_chapter
from tasks.shards import write_json
from tasks.stage import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, tmp_path / "work", tmp_path / "work" / "out")


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "samples": 9}


def test_where_nothing_has_run_every_part_is_empty(place: Place):
    assert reasoning_chapter(place) == {"inference": None, "teacher": None, "swaps": [], "student": []}


def test_instruments_are_a_row_each_with_a_cell_for_each_model_and_the_paired_difference(place: Place):
    models = {
        "one_stage": {"srcc_expectation": share(0.5), "unstable_pairwise": share(0.3)},
        "two_stage": {"srcc_expectation": share(0.6)},
    }
    apart = [{"first": "two_stage", "second": "one_stage", "figures": {"srcc_expectation": share(0.1)}}]
    write_json(place.root / "artifacts/reason/figures.json", {"models": models, "differences": apart})
    told = reasoning_chapter(place)["inference"]
    assert told["models"] == ["one-stage", "two-stage"]
    assert [row["name"] for row in told["rows"]] == [FIGURES["srcc_expectation"], FIGURES["unstable_pairwise"]]
    first, second = told["rows"]
    assert [cell["value"] for cell in first["cells"]] == [0.5, 0.6]
    assert first["gap"]["value"] == 0.1
    assert [cell["value"] for cell in second["cells"]] == [0.3, None]
    assert second["gap"]["note"] == "not measured"


def test_readers_and_encoders_become_a_table_per_data_set(place: Place):
    pairs = [
        {"reader": reader, "encoder": encoder, "data_set": scope, "readout": readout, "srcc": value}
        for scope in ("all", "soft")
        for readout in ("expectation", "rating")
        for (reader, encoder), value in {("soft", "soft"): 0.4, ("soft", "ract"): 0.5, ("mixed", "mixed"): 0.3}.items()
    ]
    write_json(place.root / "artifacts/cross_swap/figures.json", {"pairs": pairs, "gains": [], "apart": {}})
    swaps = reasoning_chapter(place)["swaps"]
    assert [one["data_set"] for one in swaps] == ["all", "soft"]
    assert swaps[0]["names"] == ["soft", "ract", "mixed"]
    assert swaps[0]["rows"] == [
        {"name": "soft", "values": [0.4, 0.5, None]},
        {"name": "mixed", "values": [None, None, 0.3]},
    ]


def test_curves_are_drawn_of_what_was_trained(place: Place):
    rows = [{"step": step, "reward": 0.1 * step, "format": 0.5, "wasted": 0.0, "loss": 1.0} for step in range(90)]
    write_json(place.root / "artifacts/teach/history.json", rows)
    write_json(place.root / "artifacts/rali/align.json", [{"loss": 3.0 - 0.1 * step} for step in range(9)])
    write_json(place.root / "artifacts/rali/fit.json", [])
    told = reasoning_chapter(place)
    assert told["teacher"]["steps"] == 90
    assert "Rewards of the teacher" in told["teacher"]["chart"]
    assert "wasted groups" in told["teacher"]["chart"]
    assert [one["name"] for one in told["student"]] == ["Alignment to text"]
