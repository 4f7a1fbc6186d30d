"""Drift of opinions: the right numbers of a known change, and nothing where nothing changed."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from models.levels import LEVELS, level_of
from tasks.errors import StageError
from tasks.evaluation.opinion_drift import DriftLimits, DriftOptions, drift_checks, drift_of, measures_of
from tests.tasks.evaluation.versioned_plant import LIMITS, RECIPE, opinions

OPTIONS = DriftOptions(bins=10, examples=2)


def table(**changes: Any) -> pd.DataFrame:
    return pd.DataFrame(opinions(RECIPE | changes))


def changed(name: str, version: str, offset: float, **more: Any) -> pd.DataFrame:
    versions, offsets = dict(RECIPE["versions"]), dict(RECIPE["offsets"])
    versions[name], offsets[name] = version, offset
    return table(versions=versions, offsets=offsets, **more)


def by_name(drift: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in drift["scorers"]}


def test_no_change_is_no_drift():
    drift = drift_of(table(), table(), OPTIONS)
    assert set(measures_of(drift).values()) == {0.0}
    assert drift["samples"] == {"before": 200, "after": 200, "shared": 200, "new": 0, "gone": 0}
    assert drift["examples"] == []
    assert all(check.holds for check in drift_checks(drift, DriftLimits(0, 0, 0, 0, 0, 0, 0)))


def test_a_new_scorer_version_has_the_numbers_of_its_change():
    before, after = table(), changed("noisy", "2", 0.12)
    drift = drift_of(before, after, OPTIONS)
    rows = by_name(drift)
    assert [rows[name]["rescored"] for name in ("sharp", "noisy", "whole")] == [0, 200, 0]
    assert rows["noisy"]["versions"] == [["1"], ["2"]]
    assert rows["noisy"]["shift"] == pytest.approx(0.12, abs=1e-6)
    assert rows["noisy"]["shared_shift"] == pytest.approx(0.12, abs=1e-6)
    assert rows["sharp"]["psi"] == rows["sharp"]["ks"] == 0.0
    old, new = ([row[1] for row in side["scores"]] for side in (before, after))
    assert rows["noisy"]["ks"] == pytest.approx(ks_2samp(old, new).statistic, abs=1e-6)
    edges = [-np.inf, *np.percentile(old, range(10, 100, 10)), np.inf]
    p, q = (np.histogram(side, edges)[0] + 0.5 for side in (old, new))
    p, q = p / p.sum(), q / q.sum()
    assert rows["noisy"]["psi"] == pytest.approx(float(((q - p) * np.log(q / p)).sum()), abs=1e-6)
    assert drift["mu"]["shift"] == pytest.approx(0.04, abs=1e-6)
    spreads = [np.std(np.stack(side["scores"].to_list()), axis=1).mean() for side in (before, after)]
    assert drift["sigma"]["shift"] == pytest.approx(spreads[1] - spreads[0], abs=1e-6)
    moved = [(level_of(a), level_of(b)) for a, b in zip(before["mu"], after["mu"], strict=True)]
    cells = {(a, b): drift["levels"]["table"][i][j] for i, a in enumerate(LEVELS) for j, b in enumerate(LEVELS)}
    assert cells == {cell: moved.count(cell) for cell in cells}
    assert drift["levels"]["migrated"] == pytest.approx(sum(a != b for a, b in moved) / 200)
    assert sum(drift["levels"]["after"]) == 200


def test_examples_are_the_farthest_of_each_move_with_their_origin():
    samples = pd.DataFrame({"id": ["p0000"], "source": ["a|b.png"], "distortion": ["jpeg"], "severity": [3]})
    drift = drift_of(table(photos=1), changed("noisy", "2", 0.3, photos=1), OPTIONS, samples)
    (example,) = drift["examples"]
    assert (example["id"], example["source"], example["distortion"], example["severity"]) == (
        "p0000", "a|b.png", "jpeg", 3,
    )  # fmt: skip
    many = drift_of(table(), changed("noisy", "2", 0.3), OPTIONS)["examples"]
    assert len(many) == 2 * len({(row["from"], row["to"]) for row in many})
    assert all(level_of(row["mu"][0]) == row["from"] for row in many)
    assert all(row["source"] is None for row in many)


def test_new_media_move_distributions_but_no_level():
    drift = drift_of(table(photos=150), table(photos=200), OPTIONS)
    assert drift["samples"] == {"before": 150, "after": 200, "shared": 150, "new": 50, "gone": 0}
    assert drift["mu"]["ks"] > 0.0
    assert drift["mu"]["shared_shift"] == drift["levels"]["migrated"] == 0.0
    apart = table(photos=10)
    apart["id"] = "q" + apart["id"]
    alone = drift_of(table(), apart, OPTIONS)
    assert alone["samples"]["shared"] == 0
    assert alone["mu"]["shared_shift"] is None
    assert measures_of(alone)["gone"] == 1.0


def test_a_version_that_has_lost_samples_is_beyond_the_limits_although_nothing_moved():
    lost = drift_of(table(photos=200), table(photos=180), OPTIONS)
    checks = {check.measure: check for check in drift_checks(lost, DriftLimits(**LIMITS))}
    assert [name for name, check in checks.items() if not check.holds] == ["gone"]
    assert str(checks["gone"]) == "gone <= 0.05 (found 0.1000)"
    fewer = drift_of(table(photos=200), table(photos=191), OPTIONS)
    assert {check.measure: check for check in drift_checks(fewer, DriftLimits(**LIMITS))}["gone"].holds


def test_scorers_that_come_or_go_are_named_and_not_compared():
    rows = by_name(drift_of(table(), table(versions={"sharp": "1", "extra": "7"}), OPTIONS))
    assert {name: row["state"] for name, row in rows.items()} == {
        "sharp": "kept", "extra": "new", "noisy": "gone", "whole": "gone",
    }  # fmt: skip
    assert rows["extra"]["versions"] == [[], ["7"]]


def test_limits_are_told_with_what_was_found():
    checks = {check.measure: check for check in drift_checks(
        drift_of(table(), changed("noisy", "2", 0.12), OPTIONS), DriftLimits(**LIMITS)
    )}  # fmt: skip
    assert not checks["psi"].holds
    assert not checks["mu_shift"].holds
    assert str(checks["mu_shift"]) == "mu_shift <= 0.02 (found 0.0400)"
    assert checks["migrated_far"].holds


def test_nonsense_is_refused():
    with pytest.raises(StageError, match="one of them has none"):
        drift_of(table(photos=0).reindex(columns=table().columns), table(), OPTIONS)
    with pytest.raises(ValueError, match="at least 2"):
        DriftOptions(bins=1, examples=0)
    with pytest.raises(ValueError, match="at least 0"):
        DriftLimits(**{**LIMITS, "psi": -1.0})
