"""What the votes say about the judges: agreement, errors on planted assertions, and how far errors go together."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.judges import Verdict
from tasks.records import Origin

CROSS: Final = "cross"
"""Phase of the votes of the judges; "self" is the annotator's."""

Flags = NDArray[np.int64]


@dataclass(frozen=True)
class Ballots:
    """Verdicts of the first ballots.

    Attributes:
        seats: (assertion id, round), sorted.
        verdicts: judge -> verdict per seat.
    """

    seats: list[tuple[str, int]]
    verdicts: dict[str, list[str]]


@dataclass(frozen=True)
class Errors:
    """Wrong votes about planted assertions: 1 where a judge agrees with a falsehood, or not with a truth."""

    seats: list[tuple[str, int]]
    wrong: dict[str, Flags]


def first_ballots(votes: Iterable[Mapping[str, Any]]) -> Ballots:
    """Collect the judges' first votes from rows of VOTES."""
    cast: dict[str, dict[tuple[str, int], str]] = {}
    for vote in votes:
        if vote["phase"] == CROSS and vote["attempt"] == 0:
            cast.setdefault(vote["judge"], {})[vote["assertion_id"], int(vote["round"])] = vote["verdict"]
    seats = sorted(set().union(*cast.values())) if cast else []
    return Ballots(seats, {judge: [cast[judge][seat] for seat in seats] for judge in sorted(cast)})


def pairwise_agreement(ballots: Ballots) -> dict[str, float]:
    """Share of (assertion, round) on which two judges cast the same verdict, per pair "a/b"."""
    return {
        f"{one}/{two}": round(float(np.mean(np.array(ballots.verdicts[one]) == np.array(ballots.verdicts[two]))), 4)
        for one, two in itertools.combinations(ballots.verdicts, 2)
        if ballots.seats
    }


def planted_errors(ballots: Ballots, truth: Mapping[str, bool]) -> Errors:
    """Compare first votes with what the recipe says; ``truth`` maps planted assertion ids."""
    known = [index for index, (key, _) in enumerate(ballots.seats) if key in truth]
    seats = [ballots.seats[index] for index in known]
    wrong = {
        judge: np.array([(verdicts[i] == Verdict.AGREE) != truth[ballots.seats[i][0]] for i in known], dtype=np.int64)
        for judge, verdicts in ballots.verdicts.items()
    }
    return Errors(seats, wrong)


def phi(one: Flags, two: Flags) -> float | None:
    """Correlation of two binary variables; None where one of them is constant."""
    if len(one) == 0 or one.min() == one.max() or two.min() == two.max():
        return None
    return round(float(np.corrcoef(one, two)[0, 1]), 4)


def error_correlations(errors: Errors) -> dict[str, float | None]:
    """Phi of the errors of each pair of judges."""
    pairs = itertools.combinations(errors.wrong.items(), 2)
    return {f"{one}/{two}": phi(wrong_one, wrong_two) for (one, wrong_one), (two, wrong_two) in pairs}


def round_correlations(errors: Errors) -> dict[str, float | None]:
    """Mean phi between the rounds of one judge: 1 would mean that further rounds tell nothing new."""
    turns = np.array([turn for _, turn in errors.seats], dtype=np.int64)
    found: dict[str, float | None] = {}
    for judge, wrong in errors.wrong.items():
        by_round = [wrong[turns == turn] for turn in np.unique(turns)]
        values = [phi(one, two) for one, two in itertools.combinations(by_round, 2)]
        known = [value for value in values if value is not None]
        found[judge] = round(float(np.mean(known)), 4) if known else None
    return found


def error_rates(errors: Errors) -> dict[str, float]:
    """Share of wrong votes per judge."""
    return {judge: round(float(wrong.mean()), 4) for judge, wrong in errors.wrong.items() if len(wrong)}


def planted_outcomes(reviewed: Sequence[Mapping[str, Any]], texts: Mapping[str, str]) -> dict[str, Any]:
    """How planted assertions fared.

    Args:
        reviewed: rows of REVIEWED.
        texts: assertion_id -> the text as planted.

    Returns:
        ``false_rejected``: share of planted falsehoods that were not kept in any wording; ``false_corrected``: kept
        after a revision. ``true_kept``: share of planted truths that were kept, revised or not;
        ``true_kept_verbatim``: unrevised.
    """
    planted = [row for row in reviewed if row["origin"] == Origin.PLANTED]
    true, false = ([row for row in planted if bool(row["planted_truth"]) is wanted] for wanted in (True, False))

    def verbatim(row: Mapping[str, Any]) -> bool:
        return row["text"] == texts[row["assertion_id"]]

    return {
        "true": len(true),
        "false": len(false),
        "true_kept": share(row["kept"] for row in true),
        "true_kept_verbatim": share(row["kept"] and verbatim(row) for row in true),
        "false_rejected": share(not row["kept"] for row in false),
        "false_corrected": share(row["kept"] and not verbatim(row) for row in false),
    }


def share(flags: Iterable[bool]) -> float | None:
    """Share of true values, None of none."""
    values = [bool(flag) for flag in flags]
    return round(sum(values) / len(values), 4) if values else None
