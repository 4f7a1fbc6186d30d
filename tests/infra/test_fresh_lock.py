import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.errors import InfraError
from infra.fresh_lock import left_behind, write_fresh_lock
from infra.git import Git

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


def git(root: Path, *words: str) -> None:
    command = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org", *words]
    subprocess.run(command, cwd=root, capture_output=True, check=True)


@pytest.fixture
def committed(clone: Path) -> Path:
    """The project as a git repository whose commit holds the lock of a line that never ran."""
    git(clone, "init", "--quiet")
    (clone / ".gitignore").write_text("/.store/\n/one\n/two\n")
    write_fresh_lock(clone)
    git(clone, "add", "--all")
    git(clone, "add", "--force", ".store")
    git(clone, "commit", "--quiet", "--message", "The line")
    return clone


def test_a_lock_of_a_line_that_never_ran_leaves_nothing_behind(committed: Path):
    assert left_behind(committed) == []


def test_a_stage_that_the_lock_does_not_know_leaves_its_output_behind(committed: Path):
    pipeline = yaml.safe_load((committed / "dvc.yaml").read_text())
    pipeline["stages"]["three"] = {"cmd": "mkdir three", "outs": ["three"]}
    (committed / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    git(committed, "commit", "--quiet", "--message", "A third stage", "dvc.yaml")
    assert left_behind(committed) == ["three"]
    write_fresh_lock(committed)
    git(committed, "commit", "--quiet", "--message", "The lock knows it", "dvc.lock")
    assert left_behind(committed) == []


def test_a_committed_run_leaves_behind_what_lies_in_the_local_store(committed: Path):
    pipeline = yaml.safe_load((committed / "dvc.yaml").read_text())
    pipeline["stages"]["one"]["cmd"] += " && echo 5 > measured.json"
    pipeline["stages"]["one"]["metrics"] = [{"measured.json": {"cache": False}}]
    (committed / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    assert dvc(committed, "repro").returncode == 0
    assert dvc(committed, "push").returncode == 0
    git(committed, "add", "dvc.lock", "measured.json")
    git(committed, "commit", "--quiet", "--message", "A run")
    assert left_behind(committed) == ["one", "two"]
    git(committed, "add", "--force", ".store")
    git(committed, "commit", "--quiet", "--message", "Its bytes")
    assert left_behind(committed) == []
    git(committed, "rm", "--quiet", "--cached", ".store/files/md5/b0/26324c6904b2a9cb4b88d6d61c81d1")  # "1\n"
    git(committed, "commit", "--quiet", "--message", "A listing without its file")
    assert left_behind(committed) == ["one", "two"]


def test_a_chosen_store_is_taken_to_hold_what_was_pushed_to_it(committed: Path):
    assert dvc(committed, "repro").returncode == 0
    git(committed, "commit", "--quiet", "--message", "A run", "dvc.lock")
    assert left_behind(committed) == ["one", "two"]
    assert dvc(committed, "remote", "modify", "--local", "store", "url", "s3://bucket/prefix").returncode == 0
    assert left_behind(committed) == []


def test_without_a_commit_it_is_one_line(tmp_path: Path):
    with pytest.raises(InfraError, match=r"has no commit HEAD with a dvc\.lock"):
        left_behind(tmp_path)


def test_a_clone_can_pull_what_the_committed_lock_names(checkout: Path):
    found = Git(checkout).show("HEAD", "dvc.lock"), Git(checkout).show("HEAD", "dvc.yaml")
    if None in found:
        pytest.skip("this checkout has no git history")
    lock, pipeline = (yaml.safe_load(content)["stages"] for content in found if content is not None)
    assert set(lock) == set(pipeline), "dvc pull fails on an output without an entry: python -m infra.fresh_lock"
    if lost := left_behind(checkout):  # somebody's own run; .ci/run refuses it in a commit of the project
        pytest.skip(f"HEAD records a run whose bytes are in the local store: clones cannot pull {', '.join(lost)}")
