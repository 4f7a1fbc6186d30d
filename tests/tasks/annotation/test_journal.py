import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.annotation.journal import Journal, append_line, read_lines
from tasks.errors import StageError


def test_many_threads_write_whole_lines(tmp_path: Path):
    journal = Journal(tmp_path / "j.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: journal.write([{"n": number, "text": "x" * 500}]), range(200)))
    assert sorted(entry["n"] for entry in journal.entries()) == list(range(200))
    journal.close()


def test_one_writer_at_a_time(tmp_path: Path):
    journal = Journal(tmp_path / "j.jsonl")
    with pytest.raises(StageError, match=r"another review is writing j\.jsonl"):
        Journal(tmp_path / "j.jsonl")
    journal.remove()
    Journal(tmp_path / "j.jsonl").remove()


def test_a_torn_last_line_is_absent(tmp_path: Path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(json.dumps({"n": 1}).encode() + b"\n" + b'{"n": 2, "te')
    journal = Journal(path)
    assert list(journal.entries()) == [{"n": 1}]
    journal.close()


def test_a_growing_file_survives_torn_lines(tmp_path: Path):
    path = tmp_path / "deep" / "file.jsonl"
    assert read_lines(path) == []
    append_line(path, {"n": 1})
    with path.open("ab") as file:
        file.write(b'{"n": 9')
    append_line(path, {"n": 2})
    assert read_lines(path) == [{"n": 1}, {"n": 2}]
