import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.fresh_lock import fresh_lock, write_fresh_lock

PIPELINE = {
    "stages": {
        "one": {"cmd": "mkdir one && echo 1 > one/x", "outs": ["one"]},
        "two": {"cmd": "mkdir two && cp one/x two/x", "deps": ["one"], "outs": ["two"]},
    }
}


def dvc(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dvc", *words]
    environment = {**os.environ, "HOME": str(root), "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A DVC project whose line has never run and whose default remote is an empty folder."""
    assert dvc(tmp_path, "init", "--no-scm", "--quiet").returncode == 0
    assert dvc(tmp_path, "remote", "add", "--default", "store", ".store").returncode == 0
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    return tmp_path


def test_plain_pull_of_a_line_that_never_ran_succeeds(clone: Path):
    assert dvc(clone, "pull").returncode != 0, "DVC needs no placeholder any more: drop infra/fresh_lock.py"
    write_fresh_lock(clone)
    done = dvc(clone, "pull")
    assert done.returncode == 0, done.stderr
    assert list((clone / "one").iterdir()) == []


def test_after_the_pull_every_stage_is_stale_and_runs(clone: Path):
    write_fresh_lock(clone)
    dvc(clone, "pull")
    stale = dvc(clone, "status", "--json").stdout
    assert '"one"' in stale
    assert '"two"' in stale
    assert dvc(clone, "repro").returncode == 0
    assert (clone / "two/x").read_text() == "1\n"
    assert "up to date" in dvc(clone, "status").stdout


def test_the_committed_lock_names_no_bytes_that_do_not_travel(checkout: Path):
    shown = subprocess.run(["git", "show", "HEAD:dvc.lock"], cwd=checkout, capture_output=True, text=True, check=False)
    if shown.returncode != 0:
        pytest.skip("this checkout has no git history")
    pipeline = yaml.safe_load((checkout / "dvc.yaml").read_text())
    assert yaml.safe_load(shown.stdout) == fresh_lock(pipeline)
    subprocess.run(
        ["git", "ls-files", "--error-unmatch", ".store/files/md5/d7/51713988987e9331980363e24189ce.dir"],
        cwd=checkout,
        capture_output=True,
        check=True,
    )
