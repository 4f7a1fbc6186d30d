"""Sentences of a gate: bounds from below, from above, and measures that do not exist."""

import pytest

from infra.model_record import Check


@pytest.mark.parametrize(
    ("check", "holds", "told"),
    [
        (Check("srcc", 0.5, 0.5), True, "srcc >= 0.5 (found 0.5000)"),
        (Check("psi", None, 0.1, at_most=0.1), True, "psi <= 0.1 (found 0.1000)"),
        (Check("psi", None, 0.11, at_most=0.1), False, "psi <= 0.1 (found 0.1100)"),
        (Check("kept", 0.1, 0.05, at_most=0.9), False, "kept >= 0.1 and <= 0.9 (found 0.0500)"),
        (Check("psi", None, None, at_most=0.1), False, "psi <= 0.1 (found missing)"),
        (Check("psi", None, float("nan"), at_most=0.1), False, "psi <= 0.1 (found nan)"),
    ],
)
def test_a_check_holds_within_its_bounds(check: Check, holds: bool, told: str):  # noqa: FBT001 - a table of cases
    assert check.holds is holds
    assert str(check) == told
