"""``vital run``, ``vital status`` and the Python face, as processes of their own, on a line of tiny stages."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from tasks.stage import STAGES
from vital.seeds import SEEDED

pytestmark = pytest.mark.slow

Vital = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def served_vital(vital: Vital, prefect_url: str) -> Vital:
    """``vital`` with a Prefect server that is there already."""
    return partial(vital, PREFECT_API_URL=prefect_url)


def outcomes(output: str) -> dict[str, str]:
    """Stage -> outcome, as the run's lines tell it."""
    return dict(re.findall(r"^(\w+) +(executed|restored|unchanged|failed) +[\d.]+ s", output, re.MULTILINE))


def snapshot(root: Path) -> dict[str, bytes]:
    """What a run on something else must leave alone."""
    files = [root / "dvc.lock", root / "dvc.yaml", root / "params.yaml", *(root / "metrics").iterdir()]
    files += [path for path in (root / "artifacts").rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_a_second_run_executes_nothing_and_says_so(tiny_checkout: Path, vital: Vital):
    first = vital("run", "--no-promote", root=tiny_checkout, HOME=str(tiny_checkout / "empty"))
    assert first.returncode == 0, first.stderr
    assert outcomes(first.stderr) == dict.fromkeys(STAGES, "executed")
    assert f"{len(STAGES)} of {len(STAGES)} stages ran" in first.stdout
    second = vital("run", "--no-promote", root=tiny_checkout)
    assert second.returncode == 0, second.stderr
    assert outcomes(second.stderr) == dict.fromkeys(STAGES, "unchanged")
    assert "No stage was executed" in second.stdout
    assert not (tiny_checkout / "empty" / ".prefect").exists()


def test_a_pool_of_ones_own_runs_in_a_workspace_and_leaves_the_sample_run_alone(
    tiny_checkout: Path, served_vital: Vital, tmp_path: Path
):
    vital = served_vital
    assert vital("run", "--no-promote", "--stage", "collect", root=tiny_checkout).returncode == 0
    before, photos = snapshot(tiny_checkout), tmp_path / "photos"
    photos.mkdir()
    (photos / "b.txt").write_text("another medium")
    (photos / "dead.jpg").symlink_to("nowhere")
    os.mkfifo(photos / "pipe.jpg")
    arguments = ("run", "--pool", photos, "--stage", "collect", "--stage", "distort", "--set", "distort.number=5")
    done = vital(*arguments, root=tiny_checkout)
    assert done.returncode == 0, done.stderr
    (workspace,) = (tiny_checkout / "workspaces").iterdir()
    assert outcomes(done.stderr) == {"collect": "executed", "distort": "executed"}
    assert json.loads((workspace / "metrics" / "distort.json").read_text())["rows"] == 5
    assert snapshot(tiny_checkout) == before
    assert outcomes(vital(*arguments, root=tiny_checkout).stderr) == {"collect": "unchanged", "distort": "unchanged"}


@pytest.mark.long
def test_seeds_share_what_does_not_depend_on_them(tiny_checkout: Path, served_vital: Vital):
    params = yaml.safe_load((tiny_checkout / "params.yaml").read_text())
    for stage in SEEDED:
        params[stage]["training"] = {"seed": 0}
    (tiny_checkout / "params.yaml").write_text(yaml.safe_dump(params))
    done = served_vital("run", "--seeds", "1,2", root=tiny_checkout)
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^(\w+) +(executed|restored)", done.stderr, re.MULTILINE)
    assert told[: len(STAGES)] == [(stage, "executed") for stage in STAGES]
    assert told[len(STAGES) :] == [(stage, "executed" if stage in SEEDED else "restored") for stage in STAGES]
    assert {path.name for path in (tiny_checkout / "workspaces").iterdir()} == {"embedded-seed1", "embedded-seed2"}
    assert "correlate over seeds" in done.stdout


def test_a_failed_stage_is_one_line_and_a_non_zero_exit(
    tiny_checkout: Path, served_vital: Vital, numbers: Callable[..., None]
):
    numbers(tiny_checkout, distort=13)
    done = served_vital("run", "--no-promote", root=tiny_checkout)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last == "vital: distort failed: expect_in_equals_out_plus_rejects: 3 rows break it, ids a1, b2, c3"


def test_some_stages_of_the_checkout_are_run_without_a_promotion(tiny_checkout: Path, served_vital: Vital):
    done = served_vital("run", "--stage", "collect", root=tiny_checkout)
    assert done.returncode == 0, done.stderr
    assert "Registry" not in done.stdout


def test_a_promotion_that_fails_is_told_after_the_summary(tiny_checkout: Path, served_vital: Vital):
    done = served_vital("run", "--stage", "collect", "--promote", root=tiny_checkout)
    assert done.returncode == 1
    assert "1 of 1 stages ran" in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("vital: ")
    assert last.endswith("candidates.json is missing: run the line first (vital run, or dvc repro register)")


def test_a_wrong_nested_setting_is_told_before_anything_is_made(tiny_checkout: Path, vital: Vital):
    params = yaml.safe_load((tiny_checkout / "params.yaml").read_text())
    params["pretrain"]["training"] = {"seed": 0}
    (tiny_checkout / "params.yaml").write_text(yaml.safe_dump(params))
    done = vital("run", "--set", "pretrain.training.stepz=3", "--set", "score.number=x", root=tiny_checkout)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "params section 'pretrain.training': unknown key 'stepz'; known keys are seed" in line
    assert "params key score.number: expected int, found 'x'" in line
    assert not (tiny_checkout / "workspaces").exists()
    assert not (tiny_checkout / ".vital" / "prefect" / "server.log").exists()


def test_ctrl_c_ends_the_stage_and_leaves_one_line(tiny_checkout: Path, numbers: Callable[..., None]):
    numbers(tiny_checkout, collect=99)
    running = subprocess.Popen(
        [sys.executable, "-c", "from vital.cli import main; main()", "run", "--no-promote"],
        cwd=tiny_checkout,
        env={**os.environ, "PYTHONPATH": str(tiny_checkout)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pid = tiny_checkout / "pid"
    deadline = time.monotonic() + 120
    while not (pid.is_file() and pid.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert told.strip().splitlines()[-1] == "vital: interrupted"
    assert "Traceback" not in told
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid.read_text()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_status_says_what_is_stale_and_what_follows(tiny_checkout: Path, vital: Vital, numbers: Callable[..., None]):
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=tiny_checkout, check=True)
    numbers(tiny_checkout, predict=4)
    lines = vital("status", root=tiny_checkout).stdout.splitlines()
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    assert told["warm_up"] == "up to date"
    assert told["predict"].startswith("stale: params.yaml")
    assert told["answer"] == "stale: after predict"
    assert told["correlate"] == "stale: after cross_swap"
    assert told["register"] == "stale: after report"
