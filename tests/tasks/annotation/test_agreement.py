from typing import Any

import numpy as np
import pytest

from tasks.annotation.agreement import (
    error_correlations,
    error_rates,
    first_ballots,
    pairwise_agreement,
    phi,
    planted_errors,
    planted_outcomes,
    round_correlations,
)

VERDICTS = {
    # assertion: (truth, judge a rounds 1-2, judge b rounds 1-2)
    "t1": (True, ("agree", "agree"), ("agree", "revise")),
    "t2": (True, ("severe", "severe"), ("agree", "agree")),
    "f1": (False, ("severe", "severe"), ("severe", "revise")),
    "f2": (False, ("agree", "severe"), ("agree", "severe")),
}


@pytest.fixture
def votes() -> list[dict[str, Any]]:
    return [
        {"assertion_id": key, "phase": phase, "judge": judge, "round": turn, "attempt": attempt, "verdict": verdict}
        for key, (_, one, two) in VERDICTS.items()
        for judge, verdicts in (("a", one), ("b", two))
        for turn, verdict in enumerate(verdicts, start=1)
        for phase, attempt in (("cross", 0), ("cross", 1), ("self", 0))
    ]


def test_agreement_and_errors_by_hand(votes: list[dict[str, Any]]):
    ballots = first_ballots(votes)
    assert len(ballots.seats) == 8
    assert pairwise_agreement(ballots) == {"a/b": round(4 / 8, 4)}
    errors = planted_errors(ballots, {key: value[0] for key, value in VERDICTS.items()})
    assert errors.seats == [(key, turn) for key in ("f1", "f2", "t1", "t2") for turn in (1, 2)]
    assert errors.wrong["a"].tolist() == [0, 0, 1, 0, 0, 0, 1, 1]
    assert errors.wrong["b"].tolist() == [0, 0, 1, 0, 0, 1, 0, 0]
    assert error_rates(errors) == {"a": 0.375, "b": 0.25}
    # phi of the 2x2 table n11=1, n10=2, n01=1, n00=4
    expected = (1 * 4 - 2 * 1) / np.sqrt(3 * 5 * 2 * 6)
    assert error_correlations(errors)["a/b"] == pytest.approx(expected, abs=1e-4)
    # judge a: round 1 is wrong about f2 and t2, round 2 about t2
    assert round_correlations(errors)["a"] == pytest.approx(
        phi(np.array([0, 1, 0, 1]), np.array([0, 0, 0, 1])), abs=1e-4
    )


def test_unplanted_assertions_take_no_part_in_errors(votes: list[dict[str, Any]]):
    errors = planted_errors(first_ballots(votes), {"t1": True})
    assert errors.seats == [("t1", 1), ("t1", 2)]


def test_phi_of_constant_errors_is_unknown_not_zero():
    assert phi(np.array([0, 0]), np.array([0, 1])) is None
    assert phi(np.array([0, 1, 1, 0]), np.array([0, 1, 1, 0])) == 1.0


def test_planted_outcomes_tell_rejected_from_corrected():
    columns = ("assertion_id", "origin", "planted_truth", "kept", "text")
    rows = [
        ("t1", "planted", True, True, "A"),
        ("t2", "planted", True, True, "B revised"),
        ("f1", "planted", False, False, "C"),
        ("f2", "planted", False, True, "D revised"),
        ("d1", "describer", None, True, "E"),
    ]
    reviewed = [dict(zip(columns, row, strict=True)) for row in rows]
    texts = {"t1": "A", "t2": "B", "f1": "C", "f2": "D", "d1": "E"}
    assert planted_outcomes(reviewed, texts) == {
        "true": 2,
        "false": 2,
        "true_kept": 1.0,
        "true_kept_verbatim": 0.5,
        "false_rejected": 0.5,
        "false_corrected": 0.5,
    }
    nothing = planted_outcomes(reviewed[4:], texts)
    assert nothing["true_kept"] is None
