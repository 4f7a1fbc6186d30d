import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import StageError
from tasks.records import REJECTS
from tasks.shards import (
    Placed,
    TableParts,
    atomic,
    digest,
    frame_of,
    read_placed,
    read_table,
    write_archive,
    write_json,
    write_table,
)


def rejects(*ids: str) -> pd.DataFrame:
    return frame_of(REJECTS, [{"stage": "collect", "id": i, "reason": "truncated", "detail": ""} for i in ids])


def test_equal_rows_in_any_order_are_equal_bytes(tmp_path: Path):
    write_table(tmp_path / "a.parquet", REJECTS, rejects("b", "a", "c"))
    write_table(tmp_path / "b.parquet", REJECTS, rejects("c", "b", "a"))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert read_table(tmp_path / "a.parquet", REJECTS)["id"].tolist() == ["a", "b", "c"]


def test_an_empty_table_keeps_its_columns(tmp_path: Path):
    write_table(tmp_path / "a.parquet", REJECTS, frame_of(REJECTS, []))
    assert read_table(tmp_path / "a.parquet", REJECTS).columns.tolist() == REJECTS.columns


def test_rows_that_break_the_schema_are_refused(tmp_path: Path):
    with pytest.raises(StageError, match="missing columns \\['reason'\\]"):
        write_table(tmp_path / "a.parquet", REJECTS, rejects("a").drop(columns="reason"))
    with pytest.raises(StageError, match=r"key .* repeats"):
        write_table(tmp_path / "a.parquet", REJECTS, rejects("a", "a"))
    assert list(tmp_path.iterdir()) == []


def test_reading_says_what_is_wrong(tmp_path: Path):
    with pytest.raises(StageError, match="is missing: run the stage"):
        read_table(tmp_path / "none.parquet", REJECTS)
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(StageError, match="not a readable Parquet"):
        read_table(tmp_path / "torn.parquet", REJECTS)
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(StageError, match="not a rejects table"):
        read_table(tmp_path / "other.parquet", REJECTS)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    write_json(tmp_path / "a.json", {"x": 1})

    def fail_half_way() -> None:
        with atomic(tmp_path / "a.json") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert (tmp_path / "a.json").read_text() == '{\n  "x": 1\n}\n'
    assert len(list(tmp_path.iterdir())) == 1


def test_a_killed_writer_leaves_no_readable_part(tmp_path: Path):
    script = (
        "import time; from pathlib import Path; from tasks.shards import atomic\n"
        f"with atomic(Path({str(tmp_path)!r}) / 'x.parquet') as file:\n"
        "    file.write(b'half'); file.flush(); print('writing', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.05)
    assert list(tmp_path.glob("*.parquet")) == []


def test_parts_are_kept_and_joined_in_key_order(tmp_path: Path):
    parts = TableParts(tmp_path, REJECTS)
    assert parts.read().empty
    parts.add("second", rejects("c", "d"))
    parts.add("first", rejects("a"))
    assert parts.has("first")
    assert not parts.has("third")
    assert parts.read()["id"].tolist() == ["a", "c", "d"]


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=8), st.binary(max_size=2000), min_size=1, max_size=6))
def test_every_medium_is_read_back_from_its_place(tmp_path_factory: pytest.TempPathFactory, items: dict[str, bytes]):
    folder = tmp_path_factory.mktemp("archive")
    places = write_archive(folder / "00000.tar", items.items())
    for name, data in items.items():
        assert read_placed(folder, places[name]) == data
    with tarfile.open(folder / "00000.tar") as archive:
        assert sorted(archive.getnames()) == sorted(items)


def test_archives_of_equal_content_are_equal_bytes(tmp_path: Path):
    for name in ("a.tar", "b.tar"):
        write_archive(tmp_path / name, [("x", b"1"), ("y", b"22")])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_short_or_missing_archive_is_an_error(tmp_path: Path):
    with pytest.raises(StageError, match="is missing"):
        read_placed(tmp_path, Placed("none.tar", 0, 1))
    (tmp_path / "short.tar").write_bytes(b"abc")
    with pytest.raises(StageError, match="shorter than its index"):
        read_placed(tmp_path, Placed("short.tar", 1, 10))


def test_digests_separate_their_parts():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len(digest(b"bytes")) == 32
