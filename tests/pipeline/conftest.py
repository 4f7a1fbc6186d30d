"""A checkout with the real code and a tiny line, so that flows can be run in seconds."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from infra.process_group import ProcessGroup
from tasks.stage import STAGES, STEPS

Vital = Callable[..., "subprocess.CompletedProcess[str]"]

SCRIPT = '''"""A stage in miniature: reads its number, writes a file and a metric, or complains as the real ones do."""
import json, os, pathlib, sys, time, yaml

name = sys.argv[1]
number = yaml.safe_load(open("params.yaml"))[name]["number"]
print("working on", number, flush=True)
sys.stderr.write(f"\\r{name} 50%\\r{name} 100%\\n")
if number == 13:
    sys.exit(f"{name} failed: expect_in_equals_out_plus_rejects: 3 rows break it, ids a1, b2, c3")
if number == 99:
    pathlib.Path("pid").write_text(str(os.getpid()))
    time.sleep(60)
out = pathlib.Path("artifacts", name)
out.mkdir(parents=True)
out.joinpath("table").write_text(str(number))
pathlib.Path("metrics").mkdir(exist_ok=True)
pathlib.Path("metrics", f"{name}.json").write_text(json.dumps({"rows": number, "by_kind": {"image": 2}}))
'''


CONFIG = '''"""What a tiny stage's section may say; its work is done by tasks/tiny.py."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    seed: int


@dataclass(frozen=True)
class Config:
    number: int
    pool: str | None = None
    training: Training | None = None
'''


def tiny_pipeline() -> dict:
    """Every stage of the line, each reading the one before it."""
    before, stages = ["data/pool"], {}
    for name in STAGES:
        stages[name] = {
            "cmd": f'PATH="$PWD/.venv/bin:$PATH" python -m tasks.tiny {name}',
            "deps": [*before, "tasks/tiny.py"],
            "params": [name],
            "outs": [f"artifacts/{name}"],
            "metrics": [{f"metrics/{name}.json": {"cache": False}}],
        }
        before = [f"artifacts/{name}"]
    return {"stages": stages}


@pytest.fixture(scope="session")
def make_tiny_checkout(checkout: Path) -> Callable[[Path], Path]:
    """Function that makes, in a folder, a copy of the code with a line of tiny stages, without git and base recipe."""

    def make(folder: Path) -> Path:
        root = folder / "checkout"
        left_out = shutil.ignore_patterns("__pycache__", "seed", "base", "*.safetensors", "*.onnx")
        for package in ("vital", "flows", "tasks", "models", "infra"):
            shutil.copytree(checkout / package, root / package, ignore=left_out)
        shutil.copy(checkout / "prefect.yaml", root)
        (root / "artifacts" / "base").mkdir(parents=True)
        (root / "data" / "pool").mkdir(parents=True)
        (root / "data" / "pool" / "a.txt").write_text("a medium")
        (root / "tasks" / "tiny.py").write_text(SCRIPT)
        for module in (*STAGES.values(), *STEPS.values()):
            (root / module.replace(".", "/")).with_suffix(".py").write_text(CONFIG)
        (root / "dvc.yaml").write_text(yaml.safe_dump(tiny_pipeline(), sort_keys=False))
        params: dict[str, dict] = {name: {"number": 1} for name in (*STAGES, *STEPS)}
        params["collect"]["pool"] = "data/pool"
        (root / "params.yaml").write_text(yaml.safe_dump(params))
        subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=root, check=True)
        return root

    return make


@pytest.fixture
def tiny_checkout(make_tiny_checkout: Callable[[Path], Path], tmp_path: Path) -> Path:
    """A tiny checkout for one test."""
    return make_tiny_checkout(tmp_path)


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real Prefect server that the tests of this process share."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with ProcessGroup(command, cwd=home, env=environment, log=home / "server.log"):
        url, deadline = f"http://127.0.0.1:{port}/api", time.monotonic() + 120
        while not answers(url):
            assert time.monotonic() < deadline, (home / "server.log").read_text()
            time.sleep(0.2)
        yield url


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def prefect_server(prefect_url: str) -> Iterator[None]:
    """The shared server, for flows that run in the test's own process."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_url}):
        yield


def set_numbers(root: Path, **numbers: int) -> None:
    """Change the params of stages of the tiny line."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    for stage, number in numbers.items():
        params[stage]["number"] = number
    (root / "params.yaml").write_text(yaml.safe_dump(params))


@pytest.fixture
def numbers() -> Callable[..., None]:
    """The function that changes params of the tiny line."""
    return set_numbers


@pytest.fixture(scope="session")
def vital(checkout: Path) -> Vital:
    """Function that runs ``vital`` of a checkout (this one unless another is named) and returns what it said."""

    def call(
        *arguments: object, root: Path = checkout, timeout: float = 300, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", "from vital.cli import main; main()", *map(str, arguments)]
        env = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200", **environment}
        return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False, timeout=timeout)

    return call
