from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.errors import StageError
from tasks.records import EXAMPLES, Split, Task
from tasks.shards import read_table
from tasks.training.examples import MappedExamples, by_task, media_numbers, of_contents, open_examples
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


@pytest.fixture
def train(folder: Path) -> MappedExamples:
    return open_examples(folder, Split.TRAIN, SHARES)


def test_a_part_of_the_contents_lies_within_every_larger_part(train: MappedExamples):
    # four photographs and one clip: the quarter is one of each kind, the half two photographs, and so on
    sizes, before = [], frozenset[str]()
    for share in (0.25, 0.5, 0.75, 1.0):
        part = of_contents(train, share)
        ids, media = frozenset(example.example_id for example in part), part.frame()
        assert before < ids
        assert set(media["modality"]) == {"image", "video"}
        shown = set(media["id"])
        assert all(shown.issuperset(example.ids) for example in part)
        assert {e.example_id for e in train if shown.issuperset(e.ids)} == ids, "nothing else is left out"
        sizes.append(len(set(media["content_id"])))
        before = ids
    assert sizes == [2, 3, 4, 5]
    assert of_contents(train, 1.0) is train


def test_the_part_does_not_depend_on_what_else_is_trained(folder: Path, train: MappedExamples):
    singles = open_examples(folder, Split.TRAIN, {"single": 1.0})
    assert set(of_contents(singles, 0.5).frame()["id"]) == set(of_contents(train, 0.5).frame()["id"])


def test_a_part_that_leaves_a_task_without_an_example_is_an_error(folder: Path):
    across = open_examples(folder, Split.WARM_UP, {"pair": 1.0})
    assert of_contents(_only_across(across), 1.0).counts[Task.PAIR] == 1
    with pytest.raises(StageError, match=r"examples_share 0\.1 leaves no example of task 'pair'"):
        of_contents(_only_across(across), 0.1)


def _only_across(examples: MappedExamples) -> MappedExamples:
    """Pairs of two contents alone: of each content one medium is left."""
    media = examples.frame()
    first = media.groupby("content_id")["id"].min()
    return examples.of(Task.PAIR).without(frozenset(set(media["id"]) - set(first)))
