import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import InfraError, MissingObjectError
from infra.object_store import FolderStore, ObjectStore, check_key, open_store
from infra.s3_store import S3Store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    name = request.getfixturevalue("bucket")
    return open_store(f"s3://{name}/some/prefix", request.getfixturevalue("s3_endpoint"))


def test_first_writer_wins_and_content_stays(store: ObjectStore):
    assert store.put_if_absent("opinions/ab.parquet", b"first")
    assert not store.put_if_absent("opinions/ab.parquet", b"second")
    assert store.get("opinions/ab.parquet") == b"first"
    assert store.exists("opinions/ab.parquet")
    assert not store.exists("opinions/ab")


def test_list_is_sorted_and_takes_a_plain_string_prefix(store: ObjectStore):
    keys = ["a/2", "a/10", "ab/1", "b"]
    for key in keys:
        store.put_if_absent(key, b"x")
    assert store.list("") == sorted(keys)
    assert store.list("a") == ["a/10", "a/2", "ab/1"]
    assert store.list("a/") == ["a/10", "a/2"]
    assert store.list("a/1") == ["a/10"]
    assert store.list("c/d") == []


def test_missing_object_is_named(store: ObjectStore, tmp_path: Path):
    with pytest.raises(MissingObjectError, match="no object 'nothing/here'"):
        store.get("nothing/here")
    with pytest.raises(MissingObjectError, match="no object 'nothing/here'"):
        store.fetch("nothing/here", tmp_path / "file")


def test_fetch_copies_an_object_to_a_file(store: ObjectStore, tmp_path: Path):
    data = os.urandom(9_000_000)  # above the size from which S3 downloads go in parts
    store.put_if_absent("large", data)
    store.fetch("large", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data


def test_a_range_of_an_object_is_read_whole_or_not_at_all(store: ObjectStore):
    store.put_if_absent("archive.tar", bytes(range(100)))
    assert store.get_range("archive.tar", 10, 5) == bytes([10, 11, 12, 13, 14])
    assert store.get_range("archive.tar", 99, 1) == bytes([99])
    for offset in (98, 100, 500):
        with pytest.raises(InfraError, match=r"archive\.tar in the store .* is shorter than its index says"):
            store.get_range("archive.tar", offset, 3)
    with pytest.raises(MissingObjectError, match="no object 'other'"):
        store.get_range("other", 0, 3)


@pytest.mark.parametrize("key", ["", "/a", "../a", "a/../b", "a//b", "./a", "a/", "a\\b", ".incoming/x", "a\0b", "."])
def test_keys_that_could_leave_the_store_are_refused(store: ObjectStore, key: str):
    for action in (store.get, store.exists, lambda bad: store.put_if_absent(bad, b"")):
        with pytest.raises(InfraError, match="is not an object key"):
            action(key)
    with pytest.raises(InfraError, match="is not a key prefix"):
        store.list("../")


@given(st.text(max_size=30))
def test_an_accepted_key_never_leaves_its_folder(key: str):
    try:
        check_key(key)
    except InfraError:
        return
    assert Path(os.path.normpath(Path("/store") / key)).is_relative_to("/store")
    assert Path(os.path.normpath(Path("/store") / key)) != Path("/store")


@pytest.mark.parametrize("url", ["", "s3://", "gs://bucket/x", "http://host/x"])
def test_urls_of_other_kinds_are_refused(url: str):
    with pytest.raises(InfraError, match=r"not a store|names no bucket"):
        open_store(url)


def test_s3_pages_are_put_together(bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("infra.s3_store._KEYS_PER_PAGE", 3)
    store = open_store(f"s3://{bucket}", s3_endpoint)
    keys = [f"k/{number:02}" for number in range(10)]
    for key in keys:
        store.put_if_absent(key, b"")
    assert store.list("k/") == keys


def test_s3_failures_say_what_to_mend(bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InfraError, match=r"there is no bucket 'absent' at http://127\.0\.0\.1"):
        open_store("s3://absent/x", s3_endpoint).check()
    monkeypatch.setattr("infra.s3_store._ATTEMPTS", 1)
    with pytest.raises(InfraError, match=r"http://127\.0\.0\.1:9 does not answer"):
        open_store(f"s3://{bucket}", "http://127.0.0.1:9").check()
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(InfraError, match="no S3 credentials: set AWS_ACCESS_KEY_ID"):
        open_store(f"s3://{bucket}", s3_endpoint).check()


def test_s3_endpoint_is_taken_from_the_environment(bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    store = open_store(f"s3://{bucket}/p")
    assert isinstance(store, S3Store)
    assert store.put_if_absent("a", b"1")
    assert store.get("a") == b"1"


def test_folder_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    store = open_store(str(tmp_path / "file" / "store"))
    with pytest.raises(InfraError, match="cannot be written"):
        store.check()
    with pytest.raises(InfraError, match="cannot write a to the store"):
        store.put_if_absent("a", b"")


def test_file_systems_without_hard_links_keep_the_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("infra.object_store.os.link", refuse)
    store = open_store(str(tmp_path))
    assert store.put_if_absent("a", b"first")
    monkeypatch.setattr(Path, "is_file", lambda _: False)  # the other writer comes between look and claim
    assert not store.put_if_absent("a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_leftovers_of_killed_writers_are_swept_after_a_day(tmp_path: Path):
    store = FolderStore(tmp_path)
    store.put_if_absent("a", b"")
    old, new = tmp_path / ".incoming" / "old", tmp_path / ".incoming" / "new"
    old.write_bytes(b"")
    new.write_bytes(b"")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    store.put_if_absent("b", b"")
    assert not old.exists()
    assert new.exists()
    assert store.list("") == ["a", "b"]


WRITER = """
import hashlib, os, sys
from infra.object_store import open_store
store, who = open_store(sys.argv[1]), sys.argv[2]
won, number = [], 0
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    body = (who * 50000).encode()
    if store.put_if_absent(f"keys/{number:05}", body + hashlib.sha256(body).hexdigest().encode()):
        won.append(number)
print(len(won), flush=True)
"""


def _writer(checkout: Path, store: Path, who: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(store), who, str(count)]
    process = subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_several_processes_exactly_one_stores_a_key(checkout: Path, tmp_path: Path):
    count = 60
    writers = [_writer(checkout, tmp_path / "store", who, count) for who in "abc"]
    for writer in writers:
        _go(writer)
    won = [int(writer.communicate()[0]) for writer in writers]
    assert sum(won) == count
    store = open_store(str(tmp_path / "store"))
    assert [len(set(store.get(key)[:50000])) for key in store.list("keys/")] == [1] * count


def test_sigkill_never_leaves_a_torn_object(checkout: Path, tmp_path: Path):
    torn, kept = [], 0
    for round_number in range(6):
        folder = tmp_path / f"store{round_number}"
        writer = _writer(checkout, folder, "abc", 100_000)
        _go(writer)
        while not any(folder.glob("keys/*")):
            time.sleep(0.002)
        time.sleep(0.01 + 0.013 * round_number)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        store = open_store(str(folder))
        for key in store.list("keys/"):
            body = store.get(key)
            kept += 1
            if hashlib.sha256(body[:-64]).hexdigest().encode() != body[-64:]:
                torn.append(key)
    assert kept > 6
    assert torn == []
