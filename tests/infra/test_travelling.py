"""Inputs that travel with the repository, compared with what the DVC files name."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra import travelling
from infra.errors import InfraError
from infra.travelling import InputState, travelling_inputs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data" / "pool").mkdir(parents=True)
    (tmp_path / "data" / "pool" / "a.jpg").write_text("a")
    (tmp_path / "artifacts" / "base").mkdir(parents=True)
    (tmp_path / "artifacts" / "base" / "weights").write_text("w")
    (tmp_path / "infra" / "base").mkdir(parents=True)
    stage = {"wdir": "../..", "cmd": "true", "outs": [{"artifacts/base": {"persist": True}}]}
    (tmp_path / "infra" / "base" / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"base": stage}}))
    for command in (["init", "--no-scm"], ["add", "data"], ["commit", "--force", "infra/base/dvc.yaml"]):
        subprocess.run([sys.executable, "-m", "dvc", *command, "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def states(root: Path) -> list[InputState]:
    return [thing.state for thing in travelling_inputs(root)]


def test_states(root: Path):
    assert states(root) == [InputState.CURRENT, InputState.CURRENT]
    (root / "artifacts" / "base" / "weights").unlink()
    assert states(root) == [InputState.CURRENT, InputState.ABSENT]
    (root / "artifacts" / "base" / "weights").write_text("mine")
    (root / "data" / "pool" / "b.jpg").write_text("b")
    assert states(root) == [InputState.CHANGED, InputState.CHANGED]
    before = (root / "data.dvc").read_text()
    subprocess.run([sys.executable, "-m", "dvc", "add", "data", "--quiet"], cwd=root, check=True)
    assert states(root)[0] is InputState.CURRENT
    (root / "data.dvc").write_text(before)
    assert states(root)[0] is InputState.OLD
    (root / "data.dvc").unlink()
    assert states(root)[0] is InputState.CURRENT, "nothing says what it should be"


def test_a_dvc_file_that_says_nothing_is_one_line(root: Path):
    (root / "data.dvc").write_text("outs: 3")
    with pytest.raises(InfraError, match="cannot compare") as caught:
        travelling_inputs(root)
    assert "\n" not in str(caught.value)


def test_the_checkouts_own_dvc_files_name_both_folders(checkout: Path):
    for path, _, names, _ in travelling._INPUTS:
        assert (travelling._wanted(checkout / names, path) or "").endswith(".dir")
