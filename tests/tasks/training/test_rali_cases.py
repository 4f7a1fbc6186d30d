"""The cases: what each changes, what they share, and that finished ones are not made again."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rali_ground import CONFIG, write_explained

from tasks.pool import load_candidates
from tasks.records import Split
from tasks.stage import Place
from tasks.training import rali_cases
from tasks.training.rali_cases import CASES, run_cases


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_pretrained: Callable[[Path], None]) -> Place:
    write_pretrained(line)
    write_explained(line)
    return place_for(line, "rali_cases")


def test_each_case_changes_what_its_name_says():
    settings = {name: dataclasses.asdict(change(CONFIG)) for name, change in CASES.items()}

    def differs(name: str) -> dict[str, Any]:
        def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
            found: dict[str, Any] = {}
            for key, value in values.items():
                found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
            return found

        full, own = flat(settings["full"]), flat(settings[name])
        return {key: own[key] for key in own if own[key] != full[key]}

    assert differs("full") == {}
    assert differs("no_alignment") == {"align.enabled": False}
    assert differs("no_pca") == {"build.compress": False}
    assert differs("no_buckets") == {"build.recipe.grouping": "none"}
    assert differs("no_seed_augmentation") == {"align.texts_per_image": 1}
    assert differs("no_fit") == {"fit.enabled": False}
    assert differs("text_then_opinions") == {"fit.trained": "all"}
    assert differs("opinions_alone") == {"align.enabled": False, "fit.trained": "all", "fit.steps": 4 + 5}


def test_cases_score_every_held_out_medium_and_share_an_alignment(place: Place, monkeypatch: pytest.MonkeyPatch):
    aligned: list[Path] = []
    align = rali_cases.align

    def counted(*given: Any) -> Any:
        aligned.append(given[2].work)
        return align(*given)

    monkeypatch.setattr(rali_cases, "align", counted)
    cases = ("full", "no_pca", "no_alignment", "no_seed_augmentation")
    found = run_cases(CONFIG, place, cases, (0, 1))
    pool = load_candidates(place)
    held_out = set(pool.loc[pool["split"] == Split.HELD_OUT, "id"])
    assert set(found["model"]) == {f"{case}-seed{seed}" for case in cases for seed in (0, 1)}
    for _, rows in found.groupby("model"):
        assert set(rows["id"]) == held_out
    scores = found.pivot_table(index="id", columns="model", values="score")
    assert not scores["full-seed0"].equals(scores["full-seed1"])
    assert not scores["full-seed0"].equals(scores["no_alignment-seed0"])
    assert len(aligned) == 6
    assert len(set(aligned)) == 4  # full and no_pca of a seed have one alignment
    again = run_cases(CONFIG, place, cases, (0, 1))
    pd.testing.assert_frame_equal(again, found)
    assert len(aligned) == 6
