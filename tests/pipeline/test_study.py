"""A whole study on a tiny line: the queue, what a kill leaves, and what becomes of weights."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_study import STUDY, make_checkout, write_study

from flows.study import study
from infra.trials import studies_home
from tasks.errors import ConfigError, StageError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("study") / "checkout")


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "checkout", symlinks=True))


def results(root: Path) -> dict[str, dict[str, Any]]:
    return {p.stem: json.loads(p.read_text()) for p in (root / "metrics/studies/tiny").glob("*-seed*.json")}


def left(root: Path) -> list[str]:
    return sorted(path.name for path in studies_home(root).glob("tiny/*") if path.is_dir())


@pytest.mark.long
def test_a_study_is_a_queue_that_remembers_keeps_what_is_started_from_and_notices_changes(root: Path):
    assert study("tiny", limit=1, checkout=root) == {
        "full-seed0": "done", "level-seed0": "waiting", "zoo-seed0": "waiting", "full-seed1": "waiting",
        "level-seed1": "waiting", "zoo-seed1": "waiting",
    }  # fmt: skip
    assert left(root) == ["full-seed0"], "zoo starts from its weights"
    assert study("tiny", only=["level", "zoo"], seeds=[0], checkout=root) == {
        "full-seed0": "unchanged", "level-seed0": "done", "zoo-seed0": "done",
    }  # fmt: skip
    assert left(root) == []
    found = results(root)
    assert set(found) == {"full-seed0", "level-seed0", "zoo-seed0"}
    assert set(found["full-seed0"]["models"]) == {"vital-base-small"}
    assert set(found["zoo-seed0"]["models"]) == {"vital-zero-large", "vital-warm-up-large", "base-warm-up-large"}
    assert found["full-seed0"]["steps"] == {"pretrain": 3}
    assert found["full-seed0"]["frozen_sha256"] == found["level-seed0"]["frozen_sha256"]
    assert found["full-seed0"]["models"] != found["level-seed0"]["models"]
    assert found["zoo-seed0"]["sizes"]["warm_up_examples"] in range(6, 11)  # 8 in their shares, rounded per task
    media = json.loads((root / f"metrics/studies/tiny/media-{found['full-seed0']['media']}.json").read_text())
    assert media["id"] == sorted(media["id"])
    told = found["zoo-seed0"]["models"]["vital-zero-large"]
    assert told["readout"] == "expectation"
    assert len(told["scores"].split()) == len(media["id"]) == 11
    # another study takes over what was trained with the same numbers, and trains nothing
    write_study(root, STUDY | {"seeds": [0], "variants": {"full": STUDY["variants"]["level"]}}, "other")
    assert study("other", checkout=root) == {"full-seed0": "done"}
    adopted = json.loads((root / "metrics/studies/other/full-seed0.json").read_text())
    assert adopted["trained_as"] == "tiny/level-seed0"
    assert adopted["models"] == found["level-seed0"]["models"]
    assert not list(studies_home(root).glob("other/full-seed0"))
    # a changed variant is run again, and what it starts from first, whose weights are gone
    changed = json.loads(json.dumps(STUDY))
    changed["variants"]["zoo"]["settings"]["warm_up"]["max_examples"] = 7
    write_study(root, changed)
    again = study("tiny", seeds=[0], checkout=root)
    assert again == {"full-seed0": "done", "level-seed0": "unchanged", "zoo-seed0": "done"}
    assert results(root)["full-seed0"]["models"] == found["full-seed0"]["models"], "the same seed, the same scores"


def test_a_variant_that_cannot_be_built_stops_the_study_before_anything_trains(root: Path):
    broken = json.loads(json.dumps(STUDY))
    broken["variants"]["level"]["settings"]["pretrain"]["losses"]["target"] = "levels"
    write_study(root, broken)
    with pytest.raises(ConfigError, match=r"pretrain\.losses\.target"):
        study("tiny", checkout=root)
    assert left(root) == []


def test_a_trial_that_fails_says_why_and_costs_nothing_that_was_finished(root: Path):
    study("tiny", limit=1, checkout=root)
    (root / "artifacts/validate/results.json").write_text('{"success": false}')
    with pytest.raises(StageError, match="pretrain failed: the data set did not pass validation"):
        study("tiny", checkout=root)
    assert set(results(root)) == {"full-seed0"}


def _start(root: Path, prefect_url: str) -> "subprocess.Popen[bytes]":
    script = f"from pathlib import Path; from flows.study import study; study('tiny', checkout=Path({str(root)!r}))"
    checkout = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PREFECT_API_URL": prefect_url, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL)


def _wait(condition: Callable[[], Any], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.long
def test_a_killed_study_goes_on_at_its_checkpoint_to_the_result_of_one_that_was_not(
    root: Path, tmp_path: Path, prefect_url: str
):
    one = json.loads(json.dumps(STUDY)) | {"seeds": [0], "variants": {"full": {}}}
    one["settings"]["pretrain"]["training"]["steps"] = 40
    write_study(root, one)
    whole = Path(shutil.copytree(root, tmp_path / "whole", symlinks=True))
    killed = _start(root, prefect_url)
    work = studies_home(root) / "tiny" / "full-seed0" / ".work" / "pretrain"
    _wait(lambda: list(work.glob("*/checkpoint.safetensors")), killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not results(root)
    time.sleep(8.0)  # the leash ends the stage that was running
    assert list(work.glob("*/checkpoint.safetensors"))
    assert study("tiny", checkout=root) == {"full-seed0": "done"}
    assert study("tiny", checkout=whole) == {"full-seed0": "done"}
    ours, theirs = results(root)["full-seed0"], results(whole)["full-seed0"]
    timed = {"seconds", "commit"}
    assert {k: v for k, v in ours.items() if k not in timed} == {k: v for k, v in theirs.items() if k not in timed}
