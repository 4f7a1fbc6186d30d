import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.infra import conftest as infra_fixtures
from tests.infra.conftest import Plant
from tests.vital.conftest import Vital
from vital.cli import main

plant_template = infra_fixtures.plant_template
plant = infra_fixtures.plant


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(plant: Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``vital`` as if its code lay in the plant."""
    monkeypatch.setattr("infra.workspace.CHECKOUT", plant.root)
    monkeypatch.chdir(plant.root)

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(int(exit_info.value.code or 0), said.out, said.err)

    return call


def test_a_model_is_promoted_listed_shown_and_fetched(run: Run, plant: Plant, tmp_path: Path):
    promoted = run("registry", "promote", "vital-base")
    assert (promoted.code, promoted.err) == (0, "")
    assert "vital-base@v0.0.1 is prod: new version, recorded on branch registry/vital-base" in promoted.out
    assert "vital-base@v0.0.1" in run("registry", "list").out
    shown = run("registry", "show", "vital-base#prod")
    assert "A model for tests." in shown.out
    assert plant.candidate().content in shown.out
    made = plant.candidate()
    assert all(path in shown.out and content[:12] in shown.out for path, content in made.made_from.items())
    assert all(f"  {section}:" in shown.out for section in made.params)
    fetched = run("registry", "get", "vital-base", "--out", tmp_path / "out")
    assert (fetched.code, fetched.out) == (0, f"vital-base@v0.0.1 is in {tmp_path / 'out'}\n")
    assert (tmp_path / "out" / "weights.bin").stat().st_size == 5000
    again = run("registry", "promote", "vital-base")
    assert "already: same bytes, nothing to do" in again.out


def test_json_is_one_document(run: Run, plant: Plant, tmp_path: Path):
    assert json.loads(run("registry", "list", "--json").out) == []
    promoted = json.loads(run("registry", "promote", "vital-base", "--stage", "canary", "--json").out)
    assert promoted == {
        "name": "vital-base",
        "version": "v0.0.1",
        "stage": "canary",
        "new_version": True,
        "new_stage": True,
        "pushed": False,
    }
    (model,) = json.loads(run("registry", "list", "--json").out)
    assert model["name"] == "vital-base"
    assert model["stages"] == {"canary": "v0.0.1"}
    assert model["versions"][0]["commit"] == plant.git("rev-parse", "registry/vital-base")
    shown = json.loads(run("registry", "show", "vital-base", "--json").out)
    assert shown["metrics"] == {"srcc": 0.62, "gain": 0.07}
    assert shown["version"] == "v0.0.1"
    fetched = json.loads(run("registry", "get", "vital-base#canary", "--out", tmp_path / "out", "--json").out)
    assert fetched["path"] == str(tmp_path / "out")
    assert fetched["content"] == plant.candidate().content


def test_wrong_inputs_get_one_line_and_a_failing_exit_code(run: Run, plant: Plant, tmp_path: Path):
    plant.offer(plant.candidate(srcc=0.1))
    for arguments, answer in {
        ("show", "vital-base"): "no model 'vital-base' in the registry",
        ("get", "vital-base#prod", "--out", tmp_path / "out"): "no model 'vital-base' in the registry",
        ("get", "..", "--out", tmp_path / "out"): "write NAME, NAME@VERSION or NAME#STAGE",
        ("list", "--repo", "/nowhere"): "neither a folder, nor the URL of a git repository",
        ("promote", "vital-base"): "srcc >= 0.55 (found 0.1000)",
        ("promote", "nosuch"): "no candidate 'nosuch'; the line offers vital-base",
    }.items():
        said = run("registry", *arguments)
        assert said.code == 1, arguments
        assert said.out == ""
        assert answer in said.err
        assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_lookups_go_into_another_clone(run: Run, plant: Plant, vital: Vital, tmp_path: Path):
    run("registry", "promote", "vital-base")
    cache = {"VITAL_CACHE": str(tmp_path / "cache")}
    listed = vital("registry", "list", "--repo", plant.root, "--json", **cache)
    assert [model["name"] for model in json.loads(listed.stdout)] == ["vital-base"]
    fetched = vital("registry", "get", "vital-base", "--out", tmp_path / "out", "--repo", plant.root, **cache)
    assert fetched.returncode == 0, fetched.stderr
    assert (tmp_path / "out" / "weights.bin").stat().st_size == 5000


@pytest.mark.parametrize("command", ["list", "show", "get", "promote"])
def test_every_command_has_help(run: Run, command: str):
    said = run("registry", command, "--help")
    assert said.code == 0
    assert "Usage: vital registry" in said.out
