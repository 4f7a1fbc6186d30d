"""The Prefect server of a run that is started directly: one of its own, for as long as the run lasts.

Not Prefect's own ephemeral server: that one shares our process group, so Ctrl-C ends it before the run could report
to it, and it outlives us if we are killed. Whoever has a server says so with PREFECT_API_URL, and that one is used.
This module is imported before Prefect is.
"""

import atexit
import importlib
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from infra.errors import InfraError
from infra.process_group import ProcessGroup

STARTUP_S: Final = 120
"""Seconds that a server may take to answer; on cold bytecode and a busy machine it needs many."""

_SETTINGS: Final = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_CLI_PROMPT": "false",
}


def keep_prefect_in(checkout: Path) -> Path:
    """Let Prefect keep its files in ``.vital/prefect`` of the checkout, quietly, unless the environment says otherwise.

    Returns:
        The folder.

    Raises:
        InfraError: it cannot be written.
    """
    home = Path(os.environ.setdefault("PREFECT_HOME", str(checkout / ".vital" / "prefect")))
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot write {home}, where Prefect keeps its database: {error.strerror}"
        raise InfraError(msg) from error
    return home


def use_prefect_server(checkout: Path) -> None:
    """Have a Prefect server until this process ends: that of PREFECT_API_URL, else one of our own.

    The database of our own lies in the checkout: past runs can be looked at with
    ``PREFECT_HOME=.vital/prefect prefect server start``. Nothing is read from or written to the home directory.

    Raises:
        InfraError: the folder cannot be written, or the server does not answer.
    """
    home = keep_prefect_in(checkout)
    if url := os.environ.get("PREFECT_API_URL"):
        if not _answers(url):
            msg = f"no answer from the Prefect server at PREFECT_API_URL={url}: start it, or unset the variable"
            raise InfraError(msg)
        return
    port, log = _free_port(), home / "server.log"
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-ui", "--no-scheduler", "--no-late-runs"]
    command = [sys.executable, "-m", "prefect", "server", "start", *options]
    server = ProcessGroup(command, cwd=checkout, env=os.environ, log=log)
    # What is registered before Prefect is imported runs after Prefect has sent its last logs and events.
    atexit.register(server.end)
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    importlib.import_module("flows.line")  # takes seconds, and so does the server
    _wait(os.environ["PREFECT_API_URL"], server, log)


def _wait(url: str, server: ProcessGroup, log: Path) -> None:
    deadline = time.monotonic() + STARTUP_S
    while not _answers(url):
        if server.ended or time.monotonic() > deadline:
            said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            msg = f"Prefect's server did not start; {log} ends with: {said[-1].strip() if said else 'nothing'}"
            raise InfraError(msg)
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10) as reply:  # noqa: S310 - http, or what the user has set
            return reply.status == 200
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
