"""Leases: one holder at a time, renewed while it lives, run out when it was killed."""

import threading
import time
from pathlib import Path

import pytest

from infra.object_store import FolderStore
from tasks.annotation.leases import lease


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def test_another_workspace_waits_until_the_holder_is_done(store: FolderStore, tmp_path: Path):
    told: list[str] = []

    def second() -> None:
        with lease(store, "part", tmp_path / "two", 30.0):
            told.append("two")

    with lease(store, "part", tmp_path / "one", 30.0):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.5)
        told.append("one")
    other.join(timeout=20)
    assert told == ["one", "two"]


def test_other_parts_are_free(store: FolderStore, tmp_path: Path):
    with lease(store, "part", tmp_path / "one", 30.0), lease(store, "other", tmp_path / "two", 30.0):
        pass


def test_a_lease_is_renewed_while_its_holder_lives(store: FolderStore, tmp_path: Path):
    entered = threading.Event()

    def second() -> None:
        with lease(store, "part", tmp_path / "two", 2.0):
            entered.set()

    with lease(store, "part", tmp_path / "one", 2.0):
        other = threading.Thread(target=second)
        other.start()
        assert not entered.wait(5.0)  # more than twice as long as one object holds
    other.join(timeout=20)
    assert entered.is_set()


def test_a_killed_holders_lease_runs_out_for_others_and_is_its_own_again_at_once(store: FolderStore, tmp_path: Path):
    killed = lease(store, "part", tmp_path / "one", 60.0)
    killed.__enter__()
    started = time.monotonic()
    with lease(store, "part", tmp_path / "one", 1.0):  # the same workspace started again
        assert time.monotonic() - started < 30
    store.put_if_absent("leases/gone/00000000.json", b'{"holder": "elsewhere", "until": %f}' % (time.time() + 1.0))
    started = time.monotonic()
    with lease(store, "gone", tmp_path / "one", 1.0):
        assert 0.5 < time.monotonic() - started < 40
