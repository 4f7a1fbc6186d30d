"""Groups of real processes: how they meet, and how they end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks import group
from tasks.errors import StageError
from tasks.group import Group, GroupFailedError, launch

MEETING = """
import json, sys
from pathlib import Path
from tasks import group
here, folder = group.current(), Path(sys.argv[1])
found = {"gathered": here.gather(here.rank * 10), "led": here.led(lambda: f"by {here.rank}")}
found["sent"] = here.sent(f"from {here.rank}", 1)
(folder / f"rank-{here.rank}.json").write_text(json.dumps(found))
group.leave()
"""
WAITING = """
import os, sys, time
from pathlib import Path
from tasks import group
(Path(sys.argv[1]) / f"pid-{group.current().rank}").write_text(str(os.getpid()))
time.sleep(600)
"""
FAILING = "import sys, time; from tasks import group; time.sleep(group.current().rank); sys.exit(3)"


@pytest.fixture(autouse=True)
def _checkout_first(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    group.current.cache_clear()
    yield
    group.current.cache_clear()


def _wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _waiting_group(folder: Path) -> list[str]:
    """Command of a launcher with two processes that wait, and write who they are to ``folder``."""
    (folder / "waiting.py").write_text(WAITING)
    code = "import sys; from pathlib import Path; from tasks.group import launch; "
    code += "launch(['waiting.py', sys.argv[1]], 2, Path(sys.argv[1]))"
    return [sys.executable, "-c", code, str(folder)]


def test_a_process_without_a_launcher_is_a_group_of_its_own():
    here = group.current()
    assert here == Group(0, 1, 0)
    assert here.leads
    assert here.gather("x") == ["x"]
    assert here.led(lambda: 3) == here.sent(3) == 3


def test_the_environment_of_a_launcher_tells_who_one_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(group, "_end_with_launcher", lambda: None)
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert group.current() == Group(5, 8, 1)
    assert not group.current().leads


def test_processes_meet_and_the_leader_works_for_all(tmp_path: Path, read_json: Callable):
    (tmp_path / "meeting.py").write_text(MEETING)
    launch(["meeting.py", str(tmp_path)], 2, tmp_path)
    leader, other = (read_json(tmp_path / f"rank-{rank}.json") for rank in range(2))
    assert leader == {"gathered": [0, 10], "led": "by 0", "sent": "from 1"}
    assert other == {"gathered": [0, 10], "led": "by 0", "sent": "from 1"}


def test_a_member_that_fails_ends_the_group_and_has_had_its_say():
    with pytest.raises(GroupFailedError):
        launch(["-c", FAILING], 2, Path.cwd())


def test_a_member_that_is_killed_ends_the_group_and_is_told_of(tmp_path: Path):
    with subprocess.Popen(_waiting_group(tmp_path), stderr=subprocess.PIPE, text=True) as launcher:
        _wait_for(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
        pids = [int(path.read_text()) for path in sorted(tmp_path.glob("pid-*"))]
        os.kill(pids[1], signal.SIGKILL)
        assert "process 1 of 2 was ended by SIGKILL" in launcher.communicate(timeout=120)[1]
    assert not any(map(_alive, pids))


def test_members_die_with_a_launcher_that_is_killed(tmp_path: Path):
    with subprocess.Popen(_waiting_group(tmp_path)) as launcher:
        _wait_for(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
        pids = [int(path.read_text()) for path in tmp_path.glob("pid-*")]
        assert all(map(_alive, pids))
        launcher.kill()
    _wait_for(lambda: not any(map(_alive, pids)), 10)


def test_a_launcher_that_is_asked_to_end_says_so(tmp_path: Path):
    with subprocess.Popen(_waiting_group(tmp_path), stderr=subprocess.PIPE, text=True) as launcher:
        _wait_for(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
        launcher.terminate()
        assert "ended by SIGTERM" in launcher.communicate(timeout=120)[1]
    assert issubclass(GroupFailedError, StageError)
