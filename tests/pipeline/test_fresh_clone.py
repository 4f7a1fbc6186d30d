"""What anybody gets who clones this repository: a shallow clone without tags, on a machine that knows nobody."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.fresh_lock import left_behind
from infra.git import Git
from tasks.shards import digest
from tasks.stage import STAGES

pytestmark = pytest.mark.slow

Vital = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine where neither git nor DVC nor Prefect was ever configured: an empty HOME."""
    home = tmp_path_factory.mktemp("home")
    left_out = ("GIT_", "XDG_", "DVC_", "PREFECT_", "VITAL_", "EMAIL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**kept, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "DVC_NO_ANALYTICS": "1"}


@pytest.fixture(scope="module")
def clone(checkout: Path, tmp_path_factory: pytest.TempPathFactory, nobody: dict[str, str]) -> Path:
    """A shallow clone of HEAD of this checkout after a plain ``dvc pull``."""
    if Git(checkout).try_run("rev-parse", "--verify", "--quiet", "HEAD") is None:
        pytest.skip("this checkout has no git history")
    if left_behind(checkout):
        pytest.skip("HEAD records a run whose bytes are in the local store: clones cannot pull them")
    root = tmp_path_factory.mktemp("clone") / "vital"
    command = ["git", "clone", "--quiet", "--depth", "1", "--no-tags", f"file://{checkout}", str(root)]
    subprocess.run(command, env=nobody, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "pull"], cwd=root, env=nobody, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def told(clone: Path, nobody: dict[str, str], vital: Vital) -> Vital:
    """``vital`` of the clone, on that machine."""

    def call(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return vital(*arguments, root=clone, **{**nobody, "PYTHONPATH": str(clone)})

    return call


def test_a_plain_pull_brings_the_pool_and_the_base_models(clone: Path):
    assert {path.suffix for path in (clone / "data" / "pool").rglob("*.*")} >= {".jpg", ".mp4"}
    manifest = json.loads((clone / "artifacts" / "base" / "manifest.json").read_text())
    assert {name.split("/")[0] for name in manifest["files"]} == set(manifest["decoders"])
    for name, expected in manifest["files"].items():
        assert digest((clone / "artifacts" / "base" / name).read_bytes()) == expected, name


def test_every_stage_waits_to_be_run(told: Vital):
    done = told("status")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert set(lines) == set(STAGES)
    assert all("stale" in line for line in lines.values())


def test_a_photo_of_the_pool_is_scored_by_the_shipped_weights(told: Vital, clone: Path):
    photo = min((clone / "data" / "pool").rglob("*.jpg"))
    done = told("score", "--json", photo)
    assert done.returncode == 0, done.stderr
    (record,) = (json.loads(line) for line in done.stdout.splitlines())
    assert len(record["scores"]) == 6
    assert 0 <= record["mu"] <= 1


def test_the_registry_can_be_read_without_tags(told: Vital):
    done = told("registry", "list", "--json")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), list)


def test_nothing_of_that_changes_a_tracked_file(clone: Path, nobody: dict[str, str], told: Vital):
    told("status")
    command = ["git", "status", "--porcelain"]
    assert subprocess.check_output(command, cwd=clone, env=nobody, text=True) == ""
