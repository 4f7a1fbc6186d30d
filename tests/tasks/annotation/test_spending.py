from pathlib import Path

import pytest

from tasks.annotation.spending import Budget, BudgetReachedError, Spending, Spent, enter, spent


def test_money_is_set_aside_at_the_most_and_settled_at_what_it_was(tmp_path: Path):
    account = Spending(tmp_path, "a", Budget(max_cost=1.0))
    account.admit(0.9)
    with pytest.raises(BudgetReachedError, match="max_cost 1"):
        account.admit(0.2)
    account.settle(0.9, 0.1)
    account.admit(0.8)
    assert account.spent.calls == 2
    assert account.spent.cost == pytest.approx(0.9)


def test_calls_are_limited_and_earlier_runs_count(tmp_path: Path):
    enter(tmp_path, "a", "one", Spent(3, 0.5))
    enter(tmp_path, "b", "two", Spent(9, 9.0))
    account = Spending(tmp_path, "a", Budget(max_calls=4))
    account.admit(0.0)
    with pytest.raises(BudgetReachedError, match="max_calls 4"):
        account.admit(0.0)


def test_a_journal_that_is_entered_twice_counts_once_and_a_torn_line_spoils_itself_alone(tmp_path: Path):
    enter(tmp_path, "a", "one", Spent(3, 0.5))
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b'{"journal": "torn", "ca')
    enter(tmp_path, "a", "one", Spent(3, 0.5))
    enter(tmp_path, "a", "two", Spent(1, 0.25))
    assert spent(tmp_path, "a") == Spent(4, 0.75)


def test_negative_limits_are_refused():
    with pytest.raises(ValueError, match="negative"):
        Budget(max_cost=-1)
