"""``vital/reannotate`` on a real server: a version after success; the last version and an event after failure."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml

from tasks.stage import ANNOTATION
from tests.tasks.evaluation.versioned_plant import VersionedPlant, build, pipeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Vital = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def plant(
    make_tiny_checkout: Callable[[Path], Path], checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> VersionedPlant:
    """The code, under git, with a line whose annotation is made by rule."""
    folder = tmp_path_factory.mktemp("reannotated")
    code = make_tiny_checkout(folder)
    plant = build(folder / "plant", checkout)
    for name in ("vital", "flows", "tasks", "models", "infra", "prefect.yaml", "data"):
        shutil.move(code / name, plant.root / name)
    for name in ("compare", "report"):  # the tiny checkout has stubs in the place of both
        shutil.copy(checkout / f"tasks/evaluation/{name}.py", plant.root / "tasks/evaluation")
    (plant.root / "artifacts" / "base").mkdir(parents=True)
    params = yaml.safe_load((plant.root / "params.yaml").read_text())
    params["collect"]["pool"] = "data/pool"
    (plant.root / "params.yaml").write_text(yaml.safe_dump(params))
    stages = pipeline(checkout)
    stages["artifacts"] = {"vital-data": {"path": "dataset", "type": "dataset"}}
    (plant.root / "dvc.yaml").write_text(yaml.safe_dump(stages, sort_keys=False))
    plant.git("add", "--all")
    plant.git("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "commit", "--quiet", "--message", "The code")
    return plant


@pytest.fixture(scope="module")
def served(vital: Vital, plant: VersionedPlant, prefect_url: str) -> Vital:
    """``vital`` of the plant, with a server that is there already."""
    return partial(vital, root=plant.root, PREFECT_API_URL=prefect_url)


def events(url: str, name: str, plant: VersionedPlant, at_least: int = 1) -> list[dict]:
    """What the server has been told of this plant (others use it, too); events travel after the run has ended."""
    body = {"filter": {"event": {"name": [name]}}}
    deadline = time.monotonic() + 30
    while True:
        told = httpx.post(f"{url}/events/filter", json=body, timeout=30).json()["events"]
        found = [event for event in told if event["resource"]["checkout"] == str(plant.root)]
        if len(found) >= at_least or time.monotonic() > deadline:
            return found
        time.sleep(1)


def versions_are_recorded_compared_and_refused(served: Vital, plant: VersionedPlant, prefect_url: str) -> None:
    main, files = plant.git("rev-parse", "main"), plant.git("ls-files")
    first = served("run", "--reannotate")
    assert first.returncode == 0, first.stderr
    assert "7 of 7 stages ran" in first.stdout
    assert "Data set: vital-data@v0.0.1 is prod: new version, recorded on branch registry/vital-data" in first.stdout
    (told,) = events(prefect_url, "vital.reannotation.recorded", plant)
    assert told["resource"]["prefect.resource.id"] == "vital.data-set.vital-data"

    plant.write(photos=202, off=("noisy", "2", 0.004))
    second = served("run", "--reannotate")
    assert "Data set: vital-data@v0.0.2 is prod: new version" in second.stdout, second.stderr
    shown = served("opinions", "drift", "--json")
    drift = json.loads(shown.stdout)["drift"]
    rescored = {row["name"]: row["rescored"] for row in drift["scorers"]}
    assert rescored == {"sharp": 0, "noisy": 200, "whole": 0}
    assert {row["name"]: row["shared_shift"] for row in drift["scorers"]} == pytest.approx(
        {"sharp": 0.0, "noisy": 0.004, "whole": 0.0}, abs=1e-6
    )

    plant.write(off=("noisy", "3", 0.2))
    refs = plant.git("for-each-ref")
    failed = served("run", "--reannotate")
    assert failed.returncode == 1
    assert "opinions have drifted from vital-data@v0.0.2 beyond the limits" in failed.stderr
    assert plant.git("for-each-ref") == refs
    (event,) = events(prefect_url, "vital.reannotation.failed", plant)
    assert event["payload"]["last"] == "vital-data@v0.0.2"
    assert "mu_shift <= 0.02" in event["payload"]["reason"]
    assert event["resource"]["prefect.resource.name"] == "vital-data"
    assert any(each["prefect.resource.role"] == "flow-run" for each in event["related"])
    assert "DOES NOT HOLD: mu_shift" in served("opinions", "drift").stdout

    assert plant.git("rev-parse", "main", "HEAD").split() == [main, main]
    assert plant.git("branch", "--show-current") == "main"
    assert plant.git("ls-files") == files
    assert set(plant.git("status", "--porcelain").split()) <= {"M", "recipe.json", "??", "dvc.lock", "metrics/"}


def the_registry_shows_and_gives_the_data_set(served: Vital, tmp_path: Path) -> None:
    shown = served("registry", "show", "vital-data@v0.0.1")
    assert shown.returncode == 0, shown.stderr
    assert "vital-data@v0.0.1  (data_set)" in shown.stdout
    assert "| review | no_consensus | 3 |" in shown.stdout
    assert served("registry", "get", "vital-data", "--out", tmp_path / "out").returncode == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(ANNOTATION)
    recorded = served("opinions", "drift", "vital-data@v0.0.2", "--out", tmp_path / "pages")
    assert recorded.returncode == 0, recorded.stderr
    assert {path.name for path in (tmp_path / "pages").iterdir()} == {"drift.json", "drift.md", "drift.html"}


def a_gate_of_validate_that_fails_is_an_event_too(served: Vital, plant: VersionedPlant, prefect_url: str) -> None:
    plant.write(invalid=True)
    failed = served("run", "--reannotate")
    assert failed.returncode == 1
    told = events(prefect_url, "vital.reannotation.failed", plant, at_least=2)  # the first one was about drift
    reasons = [event["payload"]["reason"] for event in told]
    assert any("ids a1, b2, c3" in reason for reason in reasons)


def the_parameters_of_the_deployment_record(plant: VersionedPlant, prefect_url: str) -> None:
    """What the schedule starts: the deployment's parameters alone ask for the record."""
    plant.write(invalid=False, off=("noisy", "2", 0.004), photos=201)
    environment = {"PREFECT_API_URL": prefect_url, "PREFECT_HOME": str(plant.root / ".vital" / "prefect")}
    declared = yaml.safe_load((plant.root / "prefect.yaml").read_text())["deployments"]
    (parameters,) = [each["parameters"] for each in declared if each["name"] == "reannotate"]
    script = "import json, sys\nfrom flows.line import vital\nprint(json.dumps(vital(**json.loads(sys.argv[1]))))"
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(parameters)],
        cwd=plant.root,
        env={**os.environ, **environment, "PYTHONPATH": str(plant.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "vital-data@v0.0.3 is prod: new version" in json.loads(done.stdout.splitlines()[-1])["record"]


def test_a_data_set_is_recorded_refused_shown_and_scheduled(
    served: Vital, plant: VersionedPlant, prefect_url: str, tmp_path: Path
) -> None:
    """One story: each part finds the versions that those before it have made."""
    versions_are_recorded_compared_and_refused(served, plant, prefect_url)
    the_registry_shows_and_gives_the_data_set(served, tmp_path)
    a_gate_of_validate_that_fails_is_an_event_too(served, plant, prefect_url)
    the_parameters_of_the_deployment_record(plant, prefect_url)


@pytest.mark.parametrize("option", [("--stage", "score"), ("--seeds", "0,1"), ("--promote",)])
def test_options_that_contradict_it_are_refused(option: tuple[str, ...], served: Vital):
    done = served("run", "--reannotate", *option)
    assert done.returncode == 2
    assert f"leave {option[0]} out" in done.stderr
