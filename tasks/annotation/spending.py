"""What paid calls have cost, and the budget that they may cost: hard limits that hold across kills and restarts.

Money is counted before it is spent: a call is admitted at the most that it may cost, and settled at what it did cost. A
call that was in flight at a kill stays counted at its admission, because it may have been paid.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

from tasks.annotation.journal import append_line, read_lines
from tasks.errors import StageError


class BudgetReachedError(StageError):
    """The next call could exceed the budget; nothing was sent."""


@dataclass(frozen=True)
class Budget:
    """Limits of one account; None for no limit.

    Attributes:
        max_cost: in the currency of the prices.
        max_calls: judgements that are asked, repeats after a kill or a broken answer included.
    """

    max_cost: float | None = None
    max_calls: int | None = None

    def __post_init__(self) -> None:
        if min(self.max_cost or 0, self.max_calls or 0) < 0:
            raise ValueError("max_cost and max_calls must not be negative")


@dataclass(frozen=True)
class Spent:
    """Totals of an account."""

    calls: int
    cost: float


class Spending:
    """An account that threads spend from.

    Args:
        folder: where accounts are kept, one file each.
        account: its name; what is asked for the same purpose has the same account, killed or not.
        budget: its limits.
    """

    def __init__(self, folder: Path, account: str, budget: Budget) -> None:
        self._budget, self._lock = budget, threading.Lock()
        earlier = spent(folder, account)
        self._calls, self._cost = earlier.calls, earlier.cost

    def admit(self, price: float) -> None:
        """Set aside the most that a call may cost.

        Raises:
            BudgetReachedError: that would exceed the budget.
        """
        with self._lock:
            calls, cost = self._calls + 1, self._cost + price
            limits = self._budget
            if limits.max_calls is not None and calls > limits.max_calls:
                raise BudgetReachedError(self._told(f"max_calls {limits.max_calls}"))
            if limits.max_cost is not None and cost > limits.max_cost + 1e-9:
                raise BudgetReachedError(self._told(f"max_cost {limits.max_cost:g}"))
            self._calls, self._cost = calls, cost

    def settle(self, admitted: float, cost: float) -> None:
        """Put what a call did cost in the place of what was set aside for it."""
        with self._lock:
            self._cost += cost - admitted

    def release(self, admitted: float) -> None:
        """Give back what was set aside for a call that has certainly cost nothing."""
        with self._lock:
            self._calls -= 1
            self._cost -= admitted

    @property
    def spent(self) -> Spent:
        """Totals, earlier runs included."""
        with self._lock:
            return Spent(self._calls, self._cost)

    def _told(self, limit: str) -> str:
        return (
            f"the budget is reached ({limit}): {self._calls} calls, {self._cost:.4f} spent or set aside; all "
            "answers are kept: raise endpoints.budget and run again to go on"
        )


def spent(folder: Path, account: str) -> Spent:
    """Totals of an account; a journal that was entered twice, because a kill came between, counts once."""
    entries = {entry["journal"]: entry for entry in read_lines(_file(folder, account)) if "journal" in entry}
    return Spent(sum(entry["calls"] for entry in entries.values()), sum(entry["cost"] for entry in entries.values()))


def enter(folder: Path, account: str, journal: str, totals: Spent) -> None:
    """Enter what a finished or abandoned journal has spent."""
    append_line(_file(folder, account), {"journal": journal, "calls": totals.calls, "cost": totals.cost})


def _file(folder: Path, account: str) -> Path:
    return folder / f"{account}.jsonl"
