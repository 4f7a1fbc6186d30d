"""What DVC cannot hash in a pool neither stops it nor keeps it waiting, and `collect` is told when that changes."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.errors import InfraError
from infra.pool_view import LINK, link_pool, refresh_view, unhashable

LATIN = os.fsdecode(b"caf\xe9 [1].jpg")


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "caf\u00e9 [1].jpg", "sub/b *?.jpg", ".hidden.jpg", LATIN):
        (folder / name).write_text(name.encode("utf-8", "backslashreplace").decode())
    (folder / "sub" / "dead #1.jpg ").symlink_to("nowhere")
    (folder / "circle.jpg").symlink_to("circle.jpg")
    (folder / "sub" / "around").symlink_to(".")
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / ".pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket\n.jpg"))
    (folder / os.fsdecode(b"\xfc")).mkdir()
    (folder / os.fsdecode(b"\xfc") / "c.jpg").write_text("c")
    return folder


@pytest.fixture
def workspace(tmp_path: Path, pool: Path) -> Path:
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "data").symlink_to(tmp_path)
    stage = {"cmd": "mkdir -p artifacts/collect", "deps": [".pool", ".dvcignore"], "outs": ["artifacts/collect"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"collect": stage}}))
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=root, check=True)
    link_pool(root, pool)
    refresh_view(root)
    return root


def dvc(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


def seen(root: Path) -> dict[str, int | None]:
    """How many files DVC has hashed of each dependency of ``collect``."""
    dvc(root, "repro", "--quiet")
    made = yaml.safe_load((root / "dvc.lock").read_text())["stages"]["collect"]["deps"]
    return {entry["path"]: entry.get("nfiles") for entry in made}


def is_stale(root: Path) -> bool:
    refresh_view(root)
    return "collect" in json.loads(dvc(root, "status", "--json"))


def test_dvc_hashes_a_sound_pool_itself_but_for_hidden_files(tmp_path: Path, workspace: Path):
    sound = tmp_path / "sound"
    (sound / "sub").mkdir(parents=True)
    for name in ("a.jpg", "caf\u00e9 [1].jpg", "sub/b *?.jpg", ".hidden.jpg"):
        (sound / name).touch()
    (sound / "sub" / "c.jpg").symlink_to("../a.jpg")
    link_pool(workspace, sound)
    assert seen(workspace) == {".dvcignore": None, ".pool": 4}
    assert not is_stale(workspace)
    (sound / "a.jpg").write_text("other")
    assert "collect" in json.loads(dvc(workspace, "status", "--json"))


def test_dvc_neither_stops_nor_waits_at_what_it_cannot_hash(workspace: Path):
    assert seen(workspace) == {".dvcignore": None, ".pool": 0}
    assert not is_stale(workspace)


@pytest.mark.parametrize("steering", [".dvc/config", "sub/.dvcignore"])
def test_a_pool_that_steers_dvc_itself_is_looked_at_all_the_same(workspace: Path, tmp_path: Path, steering: str):
    project = tmp_path / "project"
    (project / steering).parent.mkdir(parents=True)
    (project / steering).write_text("*.jpg")
    (project / "a.jpg").touch()
    link_pool(workspace, project)
    assert seen(workspace) == {".dvcignore": None, ".pool": 0}
    (project / "new.jpg").touch()
    assert is_stale(workspace)


@pytest.mark.parametrize(
    "change",
    [
        lambda pool: (pool / "pipe.jpg").unlink(),
        lambda pool: (pool / "new.jpg").symlink_to("nowhere"),
        lambda pool: (pool / LATIN).write_text("other"),
        lambda pool: (pool / "caf\u00e9 [1].jpg").write_text("other"),
        lambda pool: (pool / os.fsdecode(b"\xfc") / "c.jpg").write_text("other"),
        lambda pool: (pool / os.fsdecode(b"\xfc") / "new.jpg").touch(),
        lambda pool: os.utime(pool / "a.jpg", (1, 1)),
    ],
    ids=["goes", "comes", "no text", "text", "below no text", "new below no text", "dated"],
)
def test_what_changes_makes_collect_stale(workspace: Path, pool: Path, change: object):
    dvc(workspace, "repro", "--quiet")
    assert callable(change)
    change(pool)
    assert is_stale(workspace)


def test_a_pool_becomes_sound_when_the_odd_ones_are_taken_out(workspace: Path, pool: Path):
    for name in unhashable(pool):
        path = pool / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    refresh_view(workspace)
    assert seen(workspace) == {".dvcignore": None, ".pool": 3}


def test_the_view_is_written_only_where_it_changes(workspace: Path):
    before = (workspace / ".dvcignore").stat().st_mtime_ns
    refresh_view(workspace)
    assert (workspace / ".dvcignore").stat().st_mtime_ns == before


def test_another_pool_takes_the_place_of_the_first_and_none_leaves_no_link(workspace: Path, tmp_path: Path):
    (tmp_path / "others").mkdir()
    link_pool(workspace, tmp_path / "others")
    assert (workspace / LINK).readlink() == tmp_path / "others"
    assert "#" not in (workspace / ".dvcignore").read_text()
    link_pool(workspace, None)
    assert not (workspace / LINK).is_symlink()
    assert "pool" not in (workspace / ".dvcignore").read_text()


def test_the_checkouts_own_pool_is_refused_in_one_line_before_dvc_waits(tmp_path: Path):
    (tmp_path / "data" / "pool").mkdir(parents=True)
    refresh_view(tmp_path)
    os.mkfifo(tmp_path / "data" / "pool" / "pipe.jpg")
    with pytest.raises(InfraError, match=r"holds 'pipe\.jpg', which DVC cannot track: take it out"):
        refresh_view(tmp_path)


def test_what_may_not_be_read_is_no_more_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "locked.jpg").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert unhashable(tmp_path) == ["locked.jpg"]
