import pandas as pd

from tasks.targets import bounded

ROWS = pd.DataFrame({"id": [f"m{number:02}" for number in range(30)], "target": range(30)})


def test_a_bound_takes_rows_by_a_hash_and_a_smaller_one_lies_within_a_larger():
    few, more = bounded(ROWS, 5, "probe"), bounded(ROWS, 12, "probe")
    assert (len(few), len(more)) == (5, 12)
    assert set(few["id"]) < set(more["id"])
    assert list(more["id"]) == sorted(more["id"])
    assert set(few["id"]) != set(ROWS["id"][:5])
    assert set(bounded(ROWS[::-1], 5, "probe")["id"]) == set(few["id"])
    assert set(bounded(ROWS, 5, "other")["id"]) != set(few["id"])
    assert few["id"].tolist() == [f"m{number:02}" for number in few["target"]]


def test_no_bound_and_one_that_is_not_reached_keep_all():
    assert bounded(ROWS, None, "probe") is ROWS
    assert bounded(ROWS, 30, "probe") is ROWS
