"""The command line as its users call it: a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Vital = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def vital(checkout: Path) -> Vital:
    """Function that runs ``vital`` of a checkout (this one unless another is named) and returns what it said."""

    def call(
        *arguments: object, root: Path = checkout, cwd: Path | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", "from vital.cli import main; main()", *map(str, arguments)]
        env = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200", **environment}
        return subprocess.run(
            command, cwd=cwd or root, env=env, capture_output=True, text=True, check=False, timeout=300
        )

    return call
