"""A command's whole group ends with whoever started it, however that one ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.process_group import Output, ProcessGroup

NEST = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
STARTER = """
import os, sys
from pathlib import Path
from infra.process_group import ProcessGroup
running = ProcessGroup([sys.executable, "-u", "-c", sys.argv[1]], Path.cwd(), os.environ)
for piece in running.output():
    print(piece.text, flush=True)
"""


def group(script: str, cwd: Path) -> ProcessGroup:
    return ProcessGroup([sys.executable, "-u", "-c", script], cwd=cwd, env=os.environ)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_lines_are_told_from_updates_of_a_progress_bar(tmp_path: Path):
    script = (
        "import sys, time\n"
        "print('first')\n"
        "for i in range(3):\n    sys.stderr.write(f'\\rbar {i}'); sys.stderr.flush(); time.sleep(.1)\n"
        "sys.stderr.write('\\n')\nprint('last', end='')"
    )
    with group(script, tmp_path) as running:
        pieces = list(running.output())
        assert running.wait() == 0
    assert [piece.text for piece in pieces if not piece.transient] == ["first", "bar 2", "last"]
    assert Output("bar 0", transient=True) in pieces


@pytest.mark.parametrize(("script", "code"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_exit_code_is_the_commands(script: str, code: int, tmp_path: Path):
    with group(script, tmp_path) as running:
        assert running.wait() == code


def test_a_command_that_does_not_exist_is_one_line_and_127(tmp_path: Path):
    with ProcessGroup(["no-such-program"], cwd=tmp_path, env=os.environ) as running:
        assert [piece.text for piece in running.output()] == ["cannot start no-such-program: No such file or directory"]
        assert running.wait() == 127


def test_leaving_the_context_ends_grandchildren(tmp_path: Path):
    with group(NEST, tmp_path) as running:
        grandchild = int(next(running.output()).text)
        assert alive(grandchild)
    assert wait_until_gone(grandchild, 1.0)


def test_grandchildren_end_when_the_starter_is_killed():
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, NEST], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert starter.stdout is not None
    grandchild = int(starter.stdout.readline())
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    assert wait_until_gone(grandchild)


def test_a_process_left_behind_in_the_group_does_not_outlive_the_command(tmp_path: Path):
    script = (
        "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    )
    with group(script, tmp_path) as running:
        left = int(next(running.output()).text)
        assert running.wait() == 0
        assert not alive(left)


def test_a_command_that_ignores_sigterm_is_killed(tmp_path: Path):
    script = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid()); time.sleep(60)"
    )
    with group(script, tmp_path) as running:
        stubborn = int(next(running.output()).text)
    assert wait_until_gone(stubborn, 1.0)
