"""A training stage that SIGKILL ends, beside one that nothing disturbs: both publish the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Course:
    """What is run and killed.

    Attributes:
        params: the stage's section. deps: artifacts that it reads.
        checkpoint: where the one that the kill waits for lies, below the work folder.
        file: something that the finished stage has published.
    """

    stage: str
    params: dict[str, Any]
    deps: Sequence[str]
    checkpoint: str
    file: str


def start(root: Path, stage: str) -> "subprocess.Popen[bytes]":
    """Start a stage of the workspace in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    with (root / "said.txt").open("ab") as said:
        return subprocess.Popen([sys.executable, "-m", "tasks", stage], cwd=root, env=environment, stderr=said)


def _assert_ends_well(root: Path, stage: str) -> None:
    assert start(root, stage).wait(timeout=300) == 0, (root / "said.txt").read_text()[-3000:]


def assert_kill_changes_no_byte(line: Path, whole: Path, course: Course) -> None:
    """Kill the stage in ``line`` at its first checkpoint, let it go on, and compare it with one in ``whole``."""
    (line / "params.yaml").write_text(yaml.safe_dump(json.loads(json.dumps({course.stage: course.params}))))
    deps = [f"artifacts/{name}" for name in course.deps]
    (line / "dvc.yaml").write_text(yaml.safe_dump({"stages": {course.stage: {"cmd": "", "deps": deps}}}))
    shutil.copytree(line, whole)
    process = start(line, course.stage)
    deadline = time.monotonic() + 120
    while not list(line.glob(f".work/{course.stage}/*/{course.checkpoint}")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (line / "artifacts" / course.stage).exists()
    _assert_ends_well(line, course.stage)
    _assert_ends_well(whole, course.stage)
    published = whole / "artifacts" / course.stage
    files = sorted(path.relative_to(whole) for path in published.rglob("*") if path.is_file())
    assert Path("artifacts", course.stage, course.file) in files
    for file in [*files, Path("metrics", f"{course.stage}.json")]:
        assert (line / file).read_bytes() == (whole / file).read_bytes(), file
