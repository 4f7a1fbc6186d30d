"""A workspace runs the checkout's code on something else, and leaves the checkout as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from infra.errors import InfraError
from infra.workspace import WorkspaceSpec, absolute_pool, locate_workspace, prepare_workspace, read_spec

PIPELINE = {
    "stages": {
        "collect": {
            "cmd": 'PATH="$PWD/.venv/bin:$PATH" python -m tasks collect',
            "deps": ["data/pool", "tasks/collect.py"],
            "params": ["collect"],
            "outs": ["artifacts/collect"],
            "metrics": [{"metrics/collect.json": {"cache": False}}],
        },
        "pretrain": {
            "cmd": "python -m tasks pretrain",
            "deps": ["artifacts/collect", "artifacts/collect/rows", "metrics/collect.json", "artifacts/base", "models"],
            "outs": [{"artifacts/pretrain": {"persist": True}}],
        },
    }
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    root = tmp_path / "a checkout"
    (root / "infra" / "profiles").mkdir(parents=True)
    (root / "data" / "pool").mkdir(parents=True)
    for file in ("models/a.py", "models/__pycache__/a.pyc", "models/weights/a.bin"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    (root / "params.yaml").write_text("collect: {pool: data/pool, endpoint: null, n: 1}\npretrain: {steps: 9}\n")
    (root / "infra" / "profiles" / "long.yaml").write_text("pretrain: {steps: 99}\n")
    (root / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    remote = store\n['remote \"store\"']\n    url = ../.store\n")
    (root / ".dvc" / "config.local").write_text(
        "['remote \"store\"']\n    url = s3://bucket/x\n    endpointurl = http://127.0.0.1:1\n"
    )
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    return folder


def test_a_pool_gets_a_workspace_with_the_checkouts_code_and_its_own_data(small: Path, photos: Path):
    spec = WorkspaceSpec(pool=absolute_pool(str(photos)))
    root = prepare_workspace(locate_workspace(spec, None, small), spec, small)
    assert root.parent == small / "workspaces"
    assert root.name.startswith("my-photos-")
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    assert (root / ".pool").readlink() == photos
    assert stages["collect"]["deps"] == [".pool", ".dvcignore", str(small / "tasks/collect.py")]
    assert stages["collect"]["cmd"] == f'PATH="{small}/.venv/bin:$PATH" python -m tasks collect'
    assert stages["pretrain"]["deps"] == [
        "artifacts/collect",
        "artifacts/collect/rows",
        "metrics/collect.json",
        str(small / "artifacts/base"),
        str(small / "models/a.py"),
        str(small / "models/weights/a.bin"),
    ]
    assert yaml.safe_load((root / "params.yaml").read_text())["collect"] == {
        "pool": str(photos),
        "endpoint": None,
        "n": 1,
    }
    assert (root / "artifacts" / "base").readlink() == small / "artifacts" / "base"


def test_a_workspace_shares_cache_and_remotes(small: Path):
    root = prepare_workspace(small / "workspaces" / "w", WorkspaceSpec(profile="long"), small)

    def dvc(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert dvc("cache", "dir") == str(small / ".dvc" / "cache")
    assert dvc("remote", "list").split() == ["store", "s3://bucket/x", "(default)"]
    assert json.loads(dvc("status", "--json")).keys() == {"collect", "pretrain"}


def test_a_profile_workspace_reads_the_checkouts_pool(small: Path):
    spec = WorkspaceSpec(profile="long")
    root = prepare_workspace(locate_workspace(spec, None, small), spec, small)
    assert root == small / "workspaces" / "long"
    assert yaml.safe_load((root / "params.yaml").read_text())["pretrain"] == {"steps": 99}
    assert yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["collect"]["deps"][0] == ".pool"
    assert (root / ".pool").readlink() == small / "data" / "pool"
    assert (root / "data" / "pool").samefile(small / "data" / "pool")


def test_the_default_spec_is_the_checkout_untouched(small: Path):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert prepare_workspace(locate_workspace(WorkspaceSpec(), None, small), WorkspaceSpec(), small) == small
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_preparing_again_changes_no_file(small: Path, photos: Path):
    spec = WorkspaceSpec(pool=str(photos), settings={"pretrain": {"steps": 3}})
    root = prepare_workspace(small / "w", spec, small)
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert read_spec(root) == spec
    prepare_workspace(root, spec, small)
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def test_different_specs_have_different_folders(photos: Path):
    specs = [
        WorkspaceSpec(),
        WorkspaceSpec(profile="long"),
        WorkspaceSpec(pool=str(photos)),
        WorkspaceSpec(pool="s3://bucket/photos"),
        WorkspaceSpec(profile="long", pool=str(photos)),
        WorkspaceSpec(settings={"pretrain": {"steps": 3}}),
        WorkspaceSpec(settings={"pretrain": {"steps": 4}}),
    ]
    assert len({locate_workspace(spec) for spec in specs}) == len(specs)


def test_an_s3_pool_is_a_dependency_whose_changes_dvc_sees(small: Path, monkeypatch: pytest.MonkeyPatch):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    endpoint = f"http://{host}:{port}"
    s3 = boto3.client("s3", endpoint_url=endpoint)
    s3.create_bucket(Bucket="media")
    s3.put_object(Bucket="media", Key="photos/a.jpg", Body=b"1")
    try:
        spec = WorkspaceSpec(pool=absolute_pool("s3://media/photos"), settings={"collect": {"endpoint": endpoint}})
        root = prepare_workspace(small / "w", spec, small)
        pipeline = yaml.safe_load((root / "dvc.yaml").read_text())
        assert pipeline["stages"]["collect"]["deps"][0] == "remote://pool/"
        pipeline["stages"] = {"collect": {"cmd": "mkdir -p artifacts/collect", "deps": ["remote://pool/"]}}
        (root / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
        dvc = [sys.executable, "-m", "dvc"]
        subprocess.run([*dvc, "repro", "--quiet"], cwd=root, check=True)
        assert json.loads(subprocess.check_output([*dvc, "status", "--json"], cwd=root)) == {}
        s3.put_object(Bucket="media", Key="photos/b.jpg", Body=b"2")
        assert "collect" in json.loads(subprocess.check_output([*dvc, "status", "--json"], cwd=root))
    finally:
        server.stop()


def test_the_checkout_runs_nothing_but_its_own(small: Path):
    with pytest.raises(InfraError, match="name another --workspace"):
        prepare_workspace(small, WorkspaceSpec(profile="long"), small)


def test_a_folder_with_other_things_in_it_is_refused(small: Path, photos: Path):
    with pytest.raises(InfraError, match="is no workspace"):
        prepare_workspace(photos, WorkspaceSpec(profile="long"), small)
    assert [path.name for path in photos.iterdir()] == ["a.jpg"]


def test_a_folder_that_cannot_be_written_is_one_line(small: Path):
    (small / "file").write_text("")
    with pytest.raises(InfraError, match="cannot write the workspace"):
        prepare_workspace(small / "file" / "w", WorkspaceSpec(profile="long"), small)


@pytest.mark.parametrize(("name", "told"), [("nowhere", "there is no pool"), ("empty", "is empty")])
def test_a_pool_that_is_none_is_one_line(name: str, told: str, tmp_path: Path):
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    with pytest.raises(InfraError, match=told):
        absolute_pool(str(tmp_path / name))


def test_a_relative_pool_becomes_absolute(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(photos.parent)
    assert absolute_pool(photos.name) == str(photos)
    assert os.path.isabs(absolute_pool(photos.name))  # noqa: PTH117 - a text, not a path
