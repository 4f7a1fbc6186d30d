import errno
import fcntl
import json
import os
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


def test_a_torn_line_in_the_middle_spoils_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": 2, "te')
    journal = Journal(path)
    journal.write([{"n": 3}])
    assert list(journal.entries()) == [{"n": 1}, {"n": 3}]
    assert "j.jsonl holds 1 torn lines" in caplog.text
    journal.clear()
    assert list(journal.entries()) == []
    journal.write([{"n": 4}])
    assert list(journal.entries()) == [{"n": 4}]
    journal.close()


def test_a_disk_that_was_full_for_one_write_spoils_that_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    journal = Journal(tmp_path / "j.jsonl")
    journal.write([{"n": 1}])
    whole = os.write

    def full(handle: int, data: bytes) -> int:
        if len(data) > 4:
            return whole(handle, data[:4])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            journal.write([{"n": 222}])
    journal.write([{"n": 3}])
    assert list(journal.entries()) == [{"n": 1}, {"n": 3}]
    journal.close()


def test_a_journal_that_its_owner_removes_while_another_opens_it_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "j.jsonl"
    owner = Journal(path)
    original, calls = fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not calls:
            calls.append(handle)
            owner.remove()  # between the other's open and its lock
        original(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    other = Journal(path)
    other.write([{"n": 1}])
    assert path.read_bytes() == b'{"n": 1}\n'
    other.close()


def test_a_growing_file_survives_torn_lines(tmp_path: Path):
    path = tmp_path / "deep" / "file.jsonl"
    assert read_lines(path) == []
    append_line(path, {"n": 1})
    with path.open("ab") as file:
        file.write(b'{"n": 9')
    append_line(path, {"n": 2})
    assert read_lines(path) == [{"n": 1}, {"n": 2}]
