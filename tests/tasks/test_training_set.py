import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tasks.errors import StageError
from tasks.pool import load_candidates
from tasks.records import EXAMPLES, Split, Task
from tasks.shards import frame_of, read_table
from tasks.stage import Place
from tasks.training_set import FOLDER, TrainingSet, write_training_set

Change = Callable[[pd.DataFrame, pd.DataFrame], None]


@pytest.fixture(scope="module")
def tables(_line: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    examples = read_table(_line / "artifacts" / "assemble" / "examples.parquet", EXAMPLES)
    return examples, load_candidates(Place(_line, _line, _line))


@pytest.fixture(scope="module")
def folder(_line: Path) -> Path:
    return _line / "artifacts" / "assemble" / FOLDER


@pytest.fixture(scope="module")
def found(folder: Path) -> TrainingSet:
    return TrainingSet(folder)


def test_every_example_is_there_as_the_table_says_it(tables: tuple, found: TrainingSet):
    examples, _ = tables
    assert len(found) == len(examples)
    seen = 0
    for split in Split:
        for task in Task:
            rows = found.rows(split, task)
            want = examples[(examples["split"] == split) & (examples["task"] == task)].sort_values("example_id")
            assert [found.example(row).example_id for row in rows] == want["example_id"].tolist()
            for row, record in zip(rows, want.to_dict("records"), strict=True):
                one = found.example(row)
                assert one.ids == tuple(record["ids"])
                assert one.answers == tuple(record["answers"])
                assert [list(target) for target in one.targets_S5] == [list(target) for target in record["targets"]]
                expected = record["preference"]
                assert one.preference == expected or (np.isnan(one.preference) and pd.isna(expected))
                seen += 1
    assert seen == len(examples)


def test_media_are_found_by_id_with_their_rows(tables: tuple, found: TrainingSet):
    _, candidates = tables
    by_id = candidates.set_index("id")
    for split in Split:
        ids = [found.media.id(row) for row in found.media.rows(split)]
        assert ids == sorted(ids)
        for number, medium in zip(found.media.rows(split), ids, strict=True):
            assert found.media.find(medium, split) == number
            row, want = found.media.row(number), by_id.loc[medium]
            for name in ("content_id", "modality", "width", "frames", "fps", "stage", "shard", "offset", "length"):
                assert getattr(row, name) == want[name], name
            assert want["split"] == split
        with pytest.raises(StageError, match="medium nothing is not among the media of split"):
            found.media.find("nothing", split)
    frame = found.media.frame(np.array([2, 0]))
    assert frame["id"].tolist() == [found.media.id(2), found.media.id(0)]


def test_the_numbers_of_media_of_chosen_examples(found: TrainingSet):
    rows = found.rows(Split.TRAIN, Task.PAIR)
    chosen = np.array(rows)[[4, 1, 1]]
    for wanted in (rows, chosen):
        starts, codes = found.ragged(wanted)
        parts = [codes[start:end].tolist() for start, end in itertools.pairwise(starts)]
        assert parts == [found.media_of(row).tolist() for row in wanted]


def test_equal_tables_in_another_order_give_equal_bytes(tables: tuple, tmp_path: Path):
    examples, candidates = tables
    write_training_set(tmp_path / "a", EXAMPLES.to_arrow(examples), candidates)
    shuffled = EXAMPLES.to_arrow(examples).take(np.random.default_rng(0).permutation(len(examples)))
    write_training_set(tmp_path / "b", shuffled, candidates.sample(frac=1, random_state=1))
    for name in ("examples.arrow", "media.arrow"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not list(tmp_path.rglob("*.tmp"))


def test_nothing_is_copied_when_it_is_opened(folder: Path):
    before = pa.total_allocated_bytes()
    found = TrainingSet(folder)
    codes = found.ragged(found.rows(Split.TRAIN, Task.SINGLE)).codes
    assert not codes.flags.writeable  # pages of the file
    assert pa.total_allocated_bytes() - before < 4096


def _put(frame: pd.DataFrame, place: int, column: str, value: object) -> None:
    values = list(frame[column])
    values[place] = value
    frame[column] = values


def _content_in_two_splits(_: pd.DataFrame, candidates: pd.DataFrame) -> None:
    child = np.flatnonzero(candidates["parent_id"].notna() & (candidates["split"] == "train"))[0]
    _put(candidates, child, "split", "held_out")


def _medium_of_another_split(examples: pd.DataFrame, _: pd.DataFrame) -> None:
    theirs = examples[examples["split"] == "held_out"]["ids"].iloc[0]
    _put(examples, np.flatnonzero(examples["split"] == "train")[0], "ids", theirs)


def _unknown_medium(examples: pd.DataFrame, _: pd.DataFrame) -> None:
    _put(examples, 0, "ids", ["nobody"])


def _unknown_task(examples: pd.DataFrame, _: pd.DataFrame) -> None:
    _put(examples, 0, "task", "guessing")


def _four_levels(examples: pd.DataFrame, _: pd.DataFrame) -> None:
    _put(examples, np.flatnonzero(examples["task"] == "single")[0], "targets", [[0.25] * 4])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_content_in_two_splits, "content .* is in two splits"),
        (_medium_of_another_split, "example .* shows a medium that is of another split"),
        (_unknown_medium, "example .* shows a medium that is unknown"),
        (_unknown_task, "knows the tasks single, pair"),
        (_four_levels, "not five level probabilities"),
    ],
)
def test_a_set_that_would_mislead_is_not_written(tables: tuple, tmp_path: Path, change: Change, told: str):
    examples, candidates = (table.copy(deep=True) for table in tables)
    change(examples, candidates)
    with pytest.raises(StageError, match=told):
        write_training_set(tmp_path, EXAMPLES.to_arrow(examples), candidates)
    assert not list(tmp_path.iterdir())


def test_a_leak_in_a_written_set_is_found(tables: tuple, tmp_path: Path):
    examples, candidates = (table.copy(deep=True) for table in tables)
    write_training_set(tmp_path / "good", EXAMPLES.to_arrow(examples), candidates)
    TrainingSet(tmp_path / "good").check_split(Split.TRAIN)
    parts = {"train": "held_out", "held_out": "train"}
    swapped = candidates.assign(split=[parts.get(split, split) for split in candidates["split"]])
    moved = examples.assign(split=[parts.get(split, split) for split in examples["split"]])
    write_training_set(tmp_path / "other", EXAMPLES.to_arrow(moved), swapped)
    (tmp_path / "good" / "media.arrow").write_bytes((tmp_path / "other" / "media.arrow").read_bytes())
    with pytest.raises(StageError, match=r"example [0-9a-f]{32} of split train shows media of another split"):
        TrainingSet(tmp_path / "good").check_split(Split.TRAIN)


@pytest.mark.parametrize("name", ["examples.arrow", "media.arrow"])
def test_files_that_are_not_a_set_are_refused(tables: tuple, tmp_path: Path, name: str):
    examples, candidates = tables
    write_training_set(tmp_path, EXAMPLES.to_arrow(examples), candidates)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(StageError, match=f"{name} is not a whole training set: .*run dvc repro assemble"):
        TrainingSet(tmp_path)
    batch = pa.record_batch({"x": [1]})
    with pa.ipc.new_file(tmp_path / name, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(StageError, match="written by another version"):
        TrainingSet(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(StageError, match=f"{name} is missing: run dvc repro assemble"):
        TrainingSet(tmp_path)


def test_files_of_two_sets_are_refused(tables: tuple, tmp_path: Path):
    examples, candidates = tables
    write_training_set(tmp_path / "a", EXAMPLES.to_arrow(examples), candidates)
    write_training_set(tmp_path / "b", EXAMPLES.to_arrow(examples[examples["split"] == "train"]), candidates)
    (tmp_path / "a" / "media.arrow").write_bytes((tmp_path / "b" / "media.arrow").read_bytes())
    with pytest.raises(StageError, match="are not of one set"):
        TrainingSet(tmp_path / "a")


def test_a_set_without_examples_is_empty(tables: tuple, tmp_path: Path):
    write_training_set(tmp_path, EXAMPLES.to_arrow(frame_of(EXAMPLES, [])), tables[1])
    empty = TrainingSet(tmp_path)
    assert len(empty) == len(empty.media) == 0
    assert list(empty.rows(Split.TRAIN, Task.SINGLE)) == []
    empty.check_split(Split.TRAIN)
