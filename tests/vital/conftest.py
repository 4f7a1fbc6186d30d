"""The command line as its users call it: a process of its own, which starts with the heavy libraries loaded."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import warm

Vital = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def vital(checkout: Path) -> Vital:
    """Function that runs ``vital`` of a checkout (this one unless another is named) and returns what it said."""

    def call(
        *arguments: object, root: Path = checkout, cwd: Path | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        env = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200", **environment}
        return warm.call("from vital.cli import main; main()", list(map(str, arguments)), env, cwd or root, timeout=300)

    return call
