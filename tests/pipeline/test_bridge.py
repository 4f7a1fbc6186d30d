"""The bridge to DVC: which stages run, what is told about them, and what is left when a run dies."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

import flows.stages
from flows.stages import Line, Outcome, dvc_status, stage_environment, upstream_stages
from infra.process_group import ProcessGroup
from tasks.errors import StageError
from tasks.stage import STAGES

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that DVC was asked to reproduce."""
    names: list[str] = []

    class Counted(ProcessGroup):
        def __init__(self, command: list[str], cwd: Path, env: dict[str, str]) -> None:
            names.append(command[-1])
            super().__init__(command, cwd=cwd, env=env)

    monkeypatch.setattr(flows.stages, "ProcessGroup", Counted)
    return names


def run_line(root: Path, *targets: str) -> dict[str, Outcome]:
    @flow(name="try")
    def attempt() -> dict[str, Outcome]:
        line = Line(root, targets)
        for stage in STAGES:
            line.run(stage)
        return line.outcomes

    return attempt()


def artifact(key: str) -> str:
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/latest/filter", json={"artifacts": {"key": {"any_": [key]}}}).json()
    return found[0]["data"]


def test_only_stale_stages_and_those_they_renew_go_to_dvc(
    tiny_checkout: Path, asked: list[str], numbers: Callable[..., None]
):
    stages = ["collect", "distort", "score", "describe"]
    assert run_line(tiny_checkout, *stages) == dict.fromkeys(stages, Outcome.EXECUTED)
    asked.clear()
    assert run_line(tiny_checkout, *stages) == dict.fromkeys(stages, Outcome.UNCHANGED)
    assert asked == []
    numbers(tiny_checkout, score=2)
    assert run_line(tiny_checkout, *stages) == {
        "collect": Outcome.UNCHANGED,
        "distort": Outcome.UNCHANGED,
        "score": Outcome.EXECUTED,
        "describe": Outcome.EXECUTED,
    }
    assert asked == ["score", "describe"]


def test_a_stage_whose_output_stays_equal_renews_nothing(tiny_checkout: Path, asked: list[str]):
    run_line(tiny_checkout, "collect", "distort", "score")
    asked.clear()
    params = tiny_checkout / "params.yaml"
    params.write_text(params.read_text().replace("pool: data/pool", "pool: data/pool\n  remark: new"))
    outcomes = run_line(tiny_checkout, "collect", "distort", "score")
    assert list(outcomes.values()) == [Outcome.EXECUTED, Outcome.UNCHANGED, Outcome.UNCHANGED]
    assert asked == ["collect", "distort"]


def test_lost_outputs_come_back_from_the_cache(tiny_checkout: Path):
    run_line(tiny_checkout, "collect")
    (tiny_checkout / "dvc.lock").unlink()
    (tiny_checkout / "artifacts" / "collect" / "table").unlink()
    assert run_line(tiny_checkout, "collect") == {"collect": Outcome.RESTORED}
    assert (tiny_checkout / "artifacts" / "collect" / "table").read_text() == "1"


def test_a_failure_carries_the_stages_reason_into_error_and_artifact(tiny_checkout: Path, numbers: Callable[..., None]):
    numbers(tiny_checkout, distort=13)
    with pytest.raises(
        StageError, match=r"^distort failed: expect_in_equals_out_plus_rejects: 3 rows break it, ids a1"
    ):
        run_line(tiny_checkout, *STAGES)
    assert "ids a1, b2, c3" in artifact("stage-distort")
    assert not (tiny_checkout / "artifacts" / "score").exists()


def test_a_missing_input_is_told_in_dvcs_words(tiny_checkout: Path):
    (tiny_checkout / "data" / "pool" / "a.txt").unlink()
    (tiny_checkout / "data" / "pool").rmdir()
    with pytest.raises(StageError, match=r"collect failed: .*data/pool"):
        run_line(tiny_checkout, "collect")


def test_the_artifact_of_a_stage_holds_its_figures(tiny_checkout: Path):
    run_line(tiny_checkout, "collect")
    assert "| by_kind.image | 2 |" in artifact("stage-collect")


def test_inputs_follow_their_dvc_files_and_a_users_change_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def dvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=tmp_path, check=True, capture_output=True)

    def photos() -> dict[str, str]:
        return {path.name: path.read_text() for path in (tmp_path / "data" / "pool").iterdir()}

    fetch = flow(lambda: flows.stages.fetch_inputs(tmp_path), name="fetch")
    caplog.set_level("INFO", logger="vital.line")
    dvc("init", "--no-scm", "--quiet")
    dvc("remote", "add", "--default", "seed", str(tmp_path / "seed"))
    (tmp_path / "artifacts" / "base").mkdir(parents=True)  # without a recipe: nothing says what it should be
    (tmp_path / "data" / "pool").mkdir(parents=True)
    named = []
    for content in ("old", "new"):
        (tmp_path / "data" / "pool" / "a.jpg").unlink(missing_ok=True)
        (tmp_path / "data" / "pool" / "a.jpg").write_text(content)
        dvc("add", "--quiet", "data")
        dvc("push", "--quiet")
        named.append((tmp_path / "data.dvc").read_text())
    assert fetch() == []

    (tmp_path / "data.dvc").write_text(named[0])  # as git does
    assert fetch() == ["data"]
    assert photos() == {"a.jpg": "old"}
    assert "data was what an earlier data.dvc named" in caplog.text

    (tmp_path / "data" / "pool" / "mine.jpg").write_text("mine")
    (tmp_path / "data.dvc").write_text(named[1])
    assert fetch() == []
    assert photos() == {"a.jpg": "old", "mine.jpg": "mine"}
    assert "data is not what data.dvc names, and is used as it is: dvc checkout --force data.dvc" in caplog.text

    shutil.rmtree(tmp_path / "data")
    assert fetch() == ["data"]
    assert photos() == {"a.jpg": "new"}


def test_the_report_can_be_found_without_following_a_link(tiny_checkout: Path):
    page = tiny_checkout / "artifacts" / "report" / "report.html"
    script = tiny_checkout / "tasks" / "tiny.py"
    script.write_text(f"{script.read_text()}out.joinpath('report.html').write_text('<html>')\n")
    pipeline = tiny_checkout / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace("- artifacts/correlate\n    - tasks", "- data\n    - tasks"))
    assert run_line(tiny_checkout, "report") == {"report": Outcome.EXECUTED}
    assert f"`{page}`" in artifact("stage-report")
    assert str(page) in artifact("report")


def test_a_broken_pipeline_file_is_one_line(tiny_checkout: Path):
    (tiny_checkout / "dvc.yaml").write_text("stages: [")
    with pytest.raises(StageError, match=r"dvc\.yaml.* invalid") as caught:
        dvc_status(tiny_checkout)
    assert "\n" not in str(caught.value)


def test_upstream_follows_outputs_into_their_folders(tmp_path: Path):
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        "  a: {cmd: x, outs: [artifacts/a]}\n"
        "  b: {cmd: x, deps: [artifacts/a/table], outs: [{artifacts/ab: {cache: false}}]}\n"
        "  c: {cmd: x, deps: [artifacts/ab, data], metrics: [{metrics/c.json: {cache: false}}]}\n"
        "  d: {cmd: x, deps: [metrics/c.json]}\n"
    )
    assert upstream_stages(tmp_path) == {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"c"}}


def test_a_busy_workspace_is_tried_again(
    tiny_checkout: Path, numbers: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    numbers(tiny_checkout, collect=99)
    dvc = [sys.executable, "-m", "dvc", "repro", "--single-item", "collect"]
    with ProcessGroup(dvc, cwd=tiny_checkout, env=stage_environment()) as other:
        wait_for(tiny_checkout / "pid")
        impatient = flows.stages.find_stale.with_options(retries=1, retry_delay_seconds=0.2)
        monkeypatch.setattr(flows.stages, "find_stale", impatient)
        with pytest.raises(flows.stages.WorkspaceLockedError, match=r"another run \(process \d+\) is using"):
            run_line(tiny_checkout, "collect")
        numbers(tiny_checkout, collect=1)
        patient = impatient.with_options(retries=20, retry_delay_seconds=0.5)
        monkeypatch.setattr(flows.stages, "find_stale", patient)
        threading.Timer(2, other.end).start()
        assert run_line(tiny_checkout, "collect") == {"collect": Outcome.EXECUTED}


def wait_for(path: Path, seconds: float = 60.0) -> int:
    deadline = time.monotonic() + seconds
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)
    return int(path.read_text())


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_dies_takes_its_stage_along_and_the_next_one_works(
    blow: int, tiny_checkout: Path, numbers: Callable[..., None], prefect_url: str
):
    numbers(tiny_checkout, collect=99)
    script = "from flows.stages import *; from prefect import flow; from pathlib import Path\n"
    script += "flow(lambda: Line(Path.cwd(), ['collect']).run('collect'), name='dies')()"
    environment = {**os.environ, "PYTHONPATH": str(tiny_checkout), "PREFECT_API_URL": prefect_url}
    dying = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tiny_checkout,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stage = wait_for(tiny_checkout / "pid", 120)
    dying.send_signal(blow)
    dying.wait(60)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{stage}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{stage}").exists()
    numbers(tiny_checkout, collect=1)
    assert run_line(tiny_checkout, "collect") == {"collect": Outcome.EXECUTED}
