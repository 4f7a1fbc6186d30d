"""Shards of the answer store: a part reads the shards that lie across it, earliest commit first."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.object_store import FolderStore
from tasks.annotation.answer_shards import put_rows, read_rows
from tasks.annotation.calls import CALLS
from tasks.errors import StageError
from tasks.records import RowSchema

ROWS = RowSchema("rows", pa.schema([("content", pa.string()), ("n", pa.int64())]), ("content", "n"))


class Counted(FolderStore):
    """A folder that counts what is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read: list[str] = []

    def get(self, key: str) -> bytes:
        self.read.append(key)
        return super().get(key)


def sha(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 60), max_size=40), st.sets(st.integers(0, 60), max_size=10), st.integers(1, 9))
def test_what_was_put_is_read_by_content(
    tmp_path_factory: pytest.TempPathFactory, put: list[int], asked: set[int], size: int
):
    store = FolderStore(tmp_path_factory.mktemp("store"))
    for start in range(0, len(put), size):
        chunk = sorted({(sha(number), number) for number in put[start : start + size]})
        put_rows(store, "rows", ROWS, ({"content": content, "n": n} for content, n in chunk), start)
    found = {row["n"] for row in read_rows(store, "rows", ROWS.schema, {sha(number) for number in asked})}
    assert found == set(put) & asked
    assert {row["n"] for row in read_rows(store, "rows", ROWS.schema, None)} == set(put)


def test_a_part_reads_its_own_shards_and_the_earliest_first(tmp_path: Path):
    store = Counted(tmp_path)
    contents = sorted(map(sha, range(4000)))
    for start in range(0, 4000, 40):
        rows = [{"content": content, "n": start} for content in contents[start : start + 40]]
        put_rows(store, "rows", ROWS, rows, 1000 + start)
    part = contents[2000:2040]
    put_rows(store, "rows", ROWS, [{"content": part[0], "n": -1}], 1)
    rows = list(read_rows(store, "rows", ROWS.schema, set(part)))
    assert len(rows) == 41
    assert rows[0]["n"] == -1
    assert len(store.read) <= 4


def test_shards_of_earlier_versions_are_read_and_come_first(tmp_path: Path):
    store = FolderStore(tmp_path)
    put_rows(store, "rows", ROWS, [{"content": sha(1), "n": 1}], 5)
    (new,) = (tmp_path / "rows").rglob("*.parquet")
    put_rows(store, "old", ROWS, [{"content": sha(1), "n": 2}, {"content": sha(2), "n": 3}], 5)
    for path in (tmp_path / "old").rglob("*.parquet"):
        folder = new.parents[1] / path.parent.name
        folder.mkdir(exist_ok=True)
        path.rename(folder / f"{path.stem.split('-')[-1]}.parquet")
    assert [row["n"] for row in read_rows(store, "rows", ROWS.schema, {sha(1)})] == [2, 1]


def test_what_is_no_shard_is_named(tmp_path: Path):
    store = FolderStore(tmp_path)
    store.put_if_absent(f"calls/{sha(1)[0]}/{'0' * 32}.parquet", b"no parquet")
    with pytest.raises(StageError, match="is not a shard of calls"):
        list(read_rows(store, "calls", CALLS.schema, {sha(1)}))
