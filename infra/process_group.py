"""Run a command as a process group of its own, which ends with whoever started it.

``dvc`` leaves its stage command running when it is killed, and a stage may have workers of its own. So the command runs
under a *leash*: a small process that leads the group, holds one end of a pipe, and ends the whole group as soon as the
other end closes. That end closes when we say so and also when this process is killed with SIGKILL.

Run as a script, this file is the leash (standard library only, no site packages: it starts in milliseconds).
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

GRACE_S: Final = 6.0
"""Seconds between asking a group to end (SIGTERM) and ending it (SIGKILL)."""

_READ_BYTES: Final = 65536


@dataclass(frozen=True)
class Output:
    """A piece of what the command wrote.

    Attributes:
        text: the text without its line end.
        transient: an update of a progress bar, which a later piece replaces; otherwise a finished line.
    """

    text: str
    transient: bool


class ProcessGroup:
    """A running command with its children; a context manager that leaves none of them behind.

    Args:
        command: program and arguments, never a shell line.
        cwd: working directory.
        env: the whole environment.
        log: file that takes what the command writes; None means that ``output`` yields it.

    Raises:
        OSError: the command cannot be started.
    """

    def __init__(self, command: Sequence[str], cwd: Path, env: Mapping[str, str], *, log: Path | None = None) -> None:
        with contextlib.nullcontext(subprocess.PIPE) if log is None else log.open("wb") as taken:
            self._leash = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, *command],
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=taken,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id of the leash, which is the id of the group."""
        return self._leash.pid

    @property
    def ended(self) -> bool:
        """Whether the command has ended."""
        return self._leash.poll() is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def output(self) -> Iterator[Output]:
        """Yield what the command and its children write (stdout and stderr as one stream) until they close it."""
        assert self._leash.stdout is not None
        descriptor, pending = self._leash.stdout.fileno(), ""
        while data := os.read(descriptor, _READ_BYTES):
            *lines, pending = (pending + data.decode(errors="replace")).split("\n")
            for line in lines:
                yield Output(_last_update(line), transient=False)
            if update := _last_update(pending):
                yield Output(update, transient=True)
        if update := _last_update(pending):
            yield Output(update, transient=False)

    def wait(self) -> int:
        """Wait for the command; returns its exit code (128 + signal if a signal ended it)."""
        return self._leash.wait()

    def end(self) -> None:
        """End the group if it still runs: the leash asks first, then kills; so do we if the leash itself is stuck."""
        assert self._leash.stdin is not None
        self._leash.stdin.close()
        try:
            self._leash.wait(GRACE_S + 5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._leash.pid, signal.SIGKILL)
            self._leash.wait()
        if self._leash.stdout is not None:
            self._leash.stdout.close()


def _last_update(line: str) -> str:
    """Text that a terminal would show after the carriage returns in ``line``."""
    return line.rstrip("\r").rpartition("\r")[2].rstrip()


def hold(command: Sequence[str]) -> int:
    """Be the leash: run ``command`` in this process's group until it ends or standard input closes.

    Returns:
        The command's exit code, 128 + signal if a signal ended it, 127 if it could not be started.
    """
    # A handler, not SIG_IGN: ignoring is inherited by the command, a handler is not.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        return 127
    threading.Thread(target=_end_when_released, daemon=True).start()
    code = child.wait()
    _end_others()
    return code if code >= 0 else 128 - code


def _end_when_released() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    _end_others()


def _end_others() -> None:
    """End every other member of this process's group: ask, wait for the grace period, then kill."""
    if not _others():
        return
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while _others() and time.monotonic() < deadline:
        time.sleep(0.05)
    while remaining := _others():
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _others() -> list[int]:
    """Process ids of the living members of this process's group besides itself."""
    group, members = os.getpgrp(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, member_group = entry.joinpath("stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it ended while we looked
            continue
        if int(member_group) == group and int(entry.name) != os.getpid() and state != "Z":
            members.append(int(entry.name))
    return members


if __name__ == "__main__":
    sys.exit(hold(sys.argv[1:]))
