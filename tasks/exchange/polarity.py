"""A declared polarity is held against what else a list with human scores says about quality."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from models.correlation import srcc
from tasks.errors import StageError
from tasks.exchange.tables import finite_number
from tasks.human_scale import Meaning, Polarity

_WORDS: Final = (
    {"excellent": 5, "good": 4, "fair": 3, "poor": 2, "bad": 1},
    {"high": 5, "good": 4, "fair": 3, "poor": 2, "low": 1},
)
_NORMED: Final = ("gt_score_norm", "mos_norm")
_WITNESS: Final = 0.3
"""Rank correlation from which a second statement of a list about quality counts as one."""
_FEWEST: Final = 5


def check_meaning(meaning: Meaning, scores: Sequence[float], values: Sequence[Mapping[str, Any]], name: str) -> None:
    """Refuse a declaration that the list contradicts.

    Args:
        meaning: as declared. scores: of the list. values: its records. name: of the list.

    Raises:
        StageError: scores lie outside the scale, their sign does not fit the polarity, or what else the list says
            about quality (level words, levels, normalised scores) runs the other way.
    """
    low, high = min(scores), max(scores)
    if high <= 0 and low < 0 and meaning.polarity is not Polarity.NEGATED_DMOS:
        msg = (
            f"{name}: every score is 0 or below ({low:g} to {high:g}), as in negated DMOS, and {meaning.polarity} was "
            "declared: say --polarity negated_dmos, or give the numbers their own sign"
        )
        raise StageError(msg)
    if low < meaning.low or high > meaning.high:
        msg = f"{name}: scores run from {low:g} to {high:g}, outside the declared scale {meaning.low:g} to "
        msg += f"{meaning.high:g}"
        raise StageError(msg)
    sign = -1 if meaning.polarity is Polarity.DMOS else 1
    against = [f"{said} ({rho:+.2f})" for said, rho in witnesses(scores, values).items() if sign * rho <= -_WITNESS]
    if against:
        msg = (
            f"{name}: declared as {meaning.polarity}, but {', '.join(against)} in the same file runs the other way "
            "(rank correlation with the scores): the polarity is wrong or the file is"
        )
        raise StageError(msg)


def witnesses(scores: Sequence[float], values: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What else a list says about quality, higher is better -> its rank correlation with the scores."""
    told = {"the level words": [_level_word(value) for value in values]}
    told |= {name: [finite_number(value.get(name)) for value in values] for name in ("level", *_NORMED)}
    found = {}
    for said, numbers in told.items():
        pairs = [(score, number) for score, number in zip(scores, numbers, strict=True) if number is not None]
        rho = srcc([score for score, _ in pairs], [number for _, number in pairs]) if len(pairs) >= _FEWEST else None
        if rho is not None:
            found[said] = rho
    return found


def _level_word(value: Mapping[str, Any]) -> float | None:
    turns = value.get("conversations")
    if not isinstance(turns, list) or not turns or not isinstance(turns[-1], dict):
        return None
    last = str(turns[-1].get("value", "")).rstrip(" .").rpartition(" ")[2].lower()
    return next((float(words[last]) for words in _WORDS if last in words), None)
