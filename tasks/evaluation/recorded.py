"""Answers that models gave elsewhere, recorded as JSON lists: how they are read, and how figures are told."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from models.instruments.replicates import Share
from tasks.errors import StageError

DIGITS: Final = 6
"""Decimals of figures in a report."""


def read_records(path: Path, wanted: str) -> list[Any]:
    """Records of a JSON list; whether each is one is the caller's to see.

    Args:
        wanted: what each record must hold, for people.

    Raises:
        StageError: the file cannot be read, or is no list, or an empty one.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} cannot be read as JSON: {error}"
        raise StageError(msg) from error
    if not isinstance(records, list) or not records:
        msg = f"{path} is no list of records: each must hold {wanted}"
        raise StageError(msg)
    return records


def check_left_out(path: Path, reasons: Mapping[str, int], records: int, limit: float) -> None:
    """Refuse a file of which too much was left out.

    Args:
        reasons: how many records were left out for each. limit: share of the records.

    Raises:
        StageError: none is left, or more than the limit were left out.
    """
    lost = sum(reasons.values())
    if lost == records or lost > limit * records:
        told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        msg = f"{path}: {lost} of {records} records cannot be compared ({told})"
        raise StageError(msg)


def told_shares(shares: Mapping[str, Share]) -> dict[str, Any]:
    """Shares by name as a report holds them."""
    return {name: rounded(vars(share)) for name, share in shares.items()}


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with their floats rounded."""
    return {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in values.items()}
