"""The deployments: their names, and a real server with a real worker that runs them."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from flows.line import vital
from flows.preflight import promotes_by_default
from infra.process_group import ProcessGroup
from infra.study_files import read_study
from tasks.stage import ANNOTATION, STAGES

PREFECT = str(Path(sys.executable).with_name("prefect"))


@pytest.fixture(scope="module")
def declared(checkout: Path) -> dict:
    return {each["name"]: each for each in yaml.safe_load((checkout / "prefect.yaml").read_text())["deployments"]}


def test_full_names_are_vital_full_reannotate_and_benchmark(declared: dict, checkout: Path):
    declared = dict(declared)
    studies = declared.pop("ablations")
    assert studies["entrypoint"] == "flows/study.py:study"
    assert read_study(checkout, studies["parameters"]["name"]).trials()
    assert '@flow(name="study"' in (checkout / "flows/study.py").read_text()
    flows = {each["entrypoint"] for each in declared.values()}
    assert flows == {"flows/line.py:vital"}
    name = re.search(r'@flow\(name="(\w+)"', (checkout / "flows/line.py").read_text())
    assert name is not None
    assert {f"{name[1]}/{deployment}" for deployment in declared} == {
        "vital/full",
        "vital/reannotate",
        "vital/benchmark",
    }


def test_reannotation_is_scheduled_and_ends_with_gate_and_record(declared: dict):
    schedules = declared["reannotate"]["schedules"]
    assert [len(schedule["cron"].split()) for schedule in schedules] == [5]
    targets = declared["reannotate"]["parameters"]["targets"]
    assert targets == list(ANNOTATION)
    assert {name: each["parameters"].get("record", False) for name, each in declared.items()} == {
        "full": False, "reannotate": True, "benchmark": False, "ablations": False,
    }  # fmt: skip


def test_what_is_promoted_by_default_is_the_checkouts_full_run(declared: dict, tmp_path: Path):
    assert "promote" not in declared["full"]["parameters"]
    assert vital.fn.__kwdefaults__["promote"] is None
    checkout = tmp_path / "checkout"
    assert promotes_by_default(checkout, list(STAGES), checkout)
    assert not promotes_by_default(checkout, ["collect", "pretrain"], checkout)
    assert not promotes_by_default(tmp_path / "checkout" / "workspaces" / "photos", list(STAGES), checkout)


def test_targets_are_stages_in_the_lines_order(declared: dict):
    for name in ("reannotate", "benchmark"):
        targets = declared[name]["parameters"]["targets"]
        assert targets == [stage for stage in STAGES if stage in targets]


def test_all_run_in_a_process_pool_and_send_heartbeats(declared: dict):
    for deployment in declared.values():
        assert deployment["work_pool"]["name"] == "vital"
        assert int(deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) >= 30


@pytest.fixture(scope="module")
def served(make_tiny_checkout: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkout that all tests of the server share."""
    return make_tiny_checkout(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(served: Path, prefect_url: str) -> Iterator[dict[str, str]]:
    """Environment of a server that has a worker and all deployments of the tiny checkout."""
    environment = {
        **os.environ,
        "PREFECT_HOME": str(served / ".prefect"),
        "PREFECT_API_URL": prefect_url,
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    for arguments in (["work-pool", "create", "vital", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
        subprocess.run([PREFECT, *arguments], cwd=served, env=environment, check=True, capture_output=True)
    worker = [PREFECT, "worker", "start", "--pool", "vital"]
    with ProcessGroup(worker, cwd=served, env=environment, log=served / "worker.log"):
        yield environment


def run_deployment(name: str, root: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [PREFECT, "deployment", "run", name, "--watch", "--param", "promote=false"]
    return subprocess.run(command, cwd=root, env=environment, check=False, capture_output=True, text=True, timeout=240)


def ask(environment: dict[str, str], what: str, **body: object) -> list[dict]:
    return httpx.post(f"{environment['PREFECT_API_URL']}/{what}/filter", json=body, timeout=30).json()


def ask_events(environment: dict[str, str], wanted: dict) -> list[dict]:
    url = f"{environment['PREFECT_API_URL']}/events/filter"
    return httpx.post(url, json={"filter": wanted}, timeout=30).json()["events"]


def of_deployment(name: str) -> dict[str, dict]:
    return {"deployments": {"name": {"any_": [name]}}}


@pytest.mark.slow
def test_a_worker_runs_the_line(served: Path, server: dict[str, str]):
    deployments = {each["name"]: each for each in ask(server, "deployments")}
    assert set(deployments) == {"full", "reannotate", "benchmark", "ablations"}
    assert deployments["reannotate"]["schedules"][0]["schedule"]["cron"] == "0 3 * * *"
    done = run_deployment("vital/full", served, server)
    assert done.returncode == 0, done.stdout + done.stderr
    tasks = {each["name"]: each["state_name"] for each in ask(server, "task_runs", **of_deployment("full"))}
    assert tasks == dict.fromkeys(["fetch inputs", "find stale stages", *STAGES], "Completed")
    artifacts = {each["key"] for each in ask(server, "artifacts", **of_deployment("full"))}
    assert {f"stage-{name.replace('_', '-')}" for name in STAGES} <= artifacts


@pytest.mark.slow
def test_a_gate_that_does_not_hold_fails_the_run_and_says_why(
    served: Path, server: dict[str, str], numbers: Callable[..., None]
):
    numbers(served, validate=13)
    failed = run_deployment("vital/reannotate", served, server)
    assert failed.returncode == 1, failed.stdout
    states = {"flow_runs": {"state": {"type": {"any_": ["FAILED"]}}}}
    (run,) = ask(server, "flow_runs", **states, **of_deployment("reannotate"))
    assert "expect_in_equals_out_plus_rejects: 3 rows break it, ids a1, b2, c3" in run["state"]["message"]
    logged = [each["message"] for each in ask(server, "logs", logs={"flow_run_id": {"any_": [run["id"]]}})]
    assert any("ids a1, b2, c3" in message for message in logged)
    artifacts = ask(server, "artifacts", flow_runs={"id": {"any_": [run["id"]]}})
    assert any("ids a1, b2, c3" in each["data"] for each in artifacts if each["key"] == "stage-validate")
    wanted = {
        "event": {"name": ["vital.reannotation.failed"]},
        "any_resource": {"id": [f"prefect.flow-run.{run['id']}"]},
    }
    deadline = time.monotonic() + 30
    while not (told := ask_events(server, wanted)):
        assert time.monotonic() < deadline, "the failure was not told as an event"
        time.sleep(1)
    assert "ids a1, b2, c3" in told[0]["payload"]["reason"]


@pytest.mark.slow
def test_silent_runs_are_marked_as_crashed_by_one_automation(served: Path, server: dict[str, str]):
    command = [sys.executable, "-m", "flows.crashed_runs", "--silence", "70"]
    for told in ("created", "is there already"):
        done = subprocess.run(command, cwd=served, env=server, check=True, capture_output=True, text=True)
        assert told in done.stderr
    automations = ask(server, "automations")
    assert [each["name"] for each in automations] == ["mark silent vital runs as crashed"]
    assert automations[0]["trigger"]["within"] == 70
