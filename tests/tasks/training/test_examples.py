from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.errors import StageError
from tasks.records import EXAMPLES, Split, Task
from tasks.shards import read_table
from tasks.training.examples import MappedExamples, by_task, media_numbers, open_examples
from tasks.training_set import FOLDER

SHARES = {"pair": 0.25, "single": 0.5, "distortion": 0.0}


@pytest.fixture
def folder(_line: Path) -> Path:
    return _line / "artifacts" / "assemble" / FOLDER


@pytest.fixture
def found(folder: Path) -> MappedExamples:
    return open_examples(folder, Split.WARM_UP, SHARES)


@pytest.fixture
def table(_line: Path) -> pd.DataFrame:
    rows = read_table(_line / "artifacts" / "assemble" / "examples.parquet", EXAMPLES)
    return rows[(rows["split"] == "warm_up") & rows["task"].isin(["single", "pair"])].sort_values("example_id")


def test_the_sequence_holds_the_split_and_the_tasks_with_a_share(found: MappedExamples, table: pd.DataFrame):
    assert len(found) == len(table)
    assert found.counts == table["task"].value_counts().to_dict()
    expected = [*table[table["task"] == "single"]["example_id"], *table[table["task"] == "pair"]["example_id"]]
    assert [example.example_id for example in found] == expected
    assert {example.split for example in found} == {Split.WARM_UP}
    assert found[-1].example_id == expected[-1]
    assert [example.example_id for example in found[2:5]] == expected[2:5]
    with pytest.raises(IndexError):
        found[len(found)]


def test_an_example_is_its_row(found: MappedExamples, table: pd.DataFrame):
    record = table[table["task"] == "pair"].iloc[3]
    pair = found.of(Task.PAIR)[3]
    assert pair.example_id == record["example_id"]
    assert pair.task is Task.PAIR
    assert pair.ids == tuple(record["ids"])
    assert pair.answers == tuple(record["answers"])
    assert np.array_equal(pair.targets_S5, np.stack(record["targets"]))
    assert pair.preference == record["preference"]
    single = found.of(Task.SINGLE)[0]
    assert np.isnan(single.preference)
    assert single.targets_S5.shape == (1, 5)


def test_groups_follow_the_shares_and_their_media_have_common_numbers(found: MappedExamples):
    groups = by_task(found, SHARES)
    assert list(groups) == [Task.PAIR, Task.SINGLE]
    listed = by_task(list(found), SHARES)
    for task, members in listed.items():
        assert [example.example_id for example in members] == [example.example_id for example in groups[task]]
    for numbers in (media_numbers(groups), media_numbers(listed)):
        name_of: dict[int, str] = {}
        for task, (starts, codes) in numbers.items():
            for place, example in enumerate(groups[task]):
                mine = codes[starts[place] : starts[place + 1]].tolist()
                assert [name_of.setdefault(code, name) for code, name in zip(mine, example.ids, strict=True)] == [
                    *example.ids
                ]
        assert len(set(name_of.values())) == len(name_of)


def test_media_of_several_tasks_stand_in_the_order_of_the_examples(found: MappedExamples):
    starts, codes = found.media()
    shown = found.frame().set_index(found.shown)["id"]
    for number, example in enumerate(found):
        assert [shown[code] for code in codes[starts[number] : starts[number + 1]]] == list(example.ids)
    assert sorted({medium for example in found for medium in example.ids}) == shown.tolist()


def test_examples_of_broken_media_are_left_out_and_no_others(found: MappedExamples):
    broken = frozenset({found[0].ids[0], found.of(Task.PAIR)[5].ids[1]})
    left = found.without(broken)
    expected = [example.example_id for example in found if broken.isdisjoint(example.ids)]
    assert [example.example_id for example in left] == expected
    assert 0 < len(expected) < len(found)
    assert left.without(broken).counts == left.counts
    assert found.without(frozenset()) is found
    assert not broken & set(left.frame()["id"])


def test_the_row_of_a_medium_says_where_its_bytes_lie(found: MappedExamples):
    example = found[0]
    assert found.medium(example.ids[0]).id == example.ids[0]
    with pytest.raises(StageError, match="not among the media of split warm_up"):
        found.medium("nobody")


def test_a_task_with_a_share_and_without_examples_is_an_error(folder: Path, found: MappedExamples):
    with pytest.raises(StageError, match="split train has no example of task 'guessing'"):
        open_examples(folder, Split.TRAIN, {"single": 0.5, "guessing": 0.5})
    with pytest.raises(StageError, match="task 'distortion' has a share and no example is left"):
        by_task(found, {"single": 0.5, "distortion": 0.5})
    with pytest.raises(StageError, match="task 'distortion' has a share and no example is left"):
        by_task(list(found), {"single": 0.5, "distortion": 0.5})
