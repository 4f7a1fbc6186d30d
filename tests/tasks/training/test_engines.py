"""The training stages in real processes over gloo: the curve of one process, also across kills, and frozen bits."""

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
import torch
import yaml
from safetensors.torch import load_file

from models.quality_lmm import QualityLMM

CHECKOUT = Path(__file__).resolve().parents[3]
TOLERANCE = 1e-3
"""Relative, of losses: float32 sums in another order, through ten steps of AdamW at a high rate."""
DEPS = {
    "pretrain": ("collect", "distort", "assemble", "validate", "base"),
    "warm_up": ("collect", "distort", "assemble", "base", "pretrain"),
    "assistant": ("collect", "distort", "review", "assemble", "validate", "pretrain"),
    "two_stage": ("collect", "distort", "review", "assemble", "validate", "pretrain"),
}
SHORT = {
    "threads": 1, "steps": 10, "batch_examples": 6, "micro_batches": 4, "learning_rate": 1e-3, "checkpoint_every": 1,
    "peak_flops": 1e9,
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "pretrain": {"decoder": "small"},
    "warm_up": {"decoders": ["large"], "control": False},
    "assistant": {"frozen": ["image_encoder"]},
    "two_stage": {"reasoner": "shared", "reasoner_steps": 6, "reasoner_learning_rate": 1e-3},
}
MODELS = {
    "warm_up": ("warm_up/large/warm", ["warm_up/large/warm"]),
    "assistant": ("assistant/model", ["assistant"]),
    "two_stage": ("two_stage/describer", [f"two_stage/{name}" for name in ("describer", "reasoner", "one_stage")]),
}
"""Stage -> the model that is compared, and where the curves are."""


def _set_up(root: Path, stage: str, **changes: Any) -> None:
    """Write params and pipeline of a workspace for one stage: the checkout's, with few and small steps."""
    values = yaml.safe_load((CHECKOUT / "params.yaml").read_text())[stage] | CHANGES[stage] | {"max_reject_share": 0.1}
    values["training"] |= SHORT | changes
    (root / "params.yaml").write_text(yaml.safe_dump({stage: values}))
    deps = [f"artifacts/{name}" for name in DEPS[stage]]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {stage: {"cmd": "", "deps": deps}}}))


def _start(root: Path, stage: str, *launcher: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, "-m", *launcher, "tasks", stage]
    with (root / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log, start_new_session=True)


def _torchrun(root: Path, stage: str, processes: int) -> subprocess.Popen[bytes]:
    launcher = ("torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m")
    return _start(root, stage, *launcher)


def _finish(process: subprocess.Popen[bytes], root: Path) -> None:
    assert process.wait(timeout=600) == 0, (root / "log").read_text()[-2000:]


def _curve(root: Path, file: str) -> list[dict[str, Any]]:
    return json.loads((root / "artifacts" / file).read_text())


def _assert_same_curve(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert [row["step"] for row in one] == [row["step"] for row in other]
    for a, b in zip(one, other, strict=True):
        assert a["examples"] == b["examples"]
        assert a["loss"] == pytest.approx(b["loss"], rel=TOLERANCE)
        assert a["learning_rate"] == b["learning_rate"]


def _kill_in_training(process: subprocess.Popen[bytes], root: Path, steps: int) -> None:
    """SIGKILL the launcher and its processes once so many steps are kept."""
    deadline = time.monotonic() + 600
    while not any(len(load_file(path)["history.step"]) >= steps for path in _checkpoints(root)):
        assert process.poll() is None, (root / "log").read_text()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _checkpoints(root: Path) -> list[Path]:
    return list(root.glob(".work/pretrain/*/checkpoint.safetensors"))


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_two_processes_are_killed_and_others_go_on_to_the_curve_of_one(line: Path, tmp_path: Path):
    alone = Path(shutil.copytree(line, tmp_path / "alone"))
    _set_up(alone, "pretrain")
    _finish(_start(alone, "pretrain"), alone)
    _set_up(line, "pretrain", engine="zero2", processes=2)
    _kill_in_training(_torchrun(line, "pretrain", 2), line, 3)
    assert not (line / "artifacts" / "pretrain").exists()
    _set_up(line, "pretrain", engine="zero3", processes=3)
    _kill_in_training(_start(line, "pretrain"), line, 6)  # which starts the others itself
    _set_up(line, "pretrain", engine="single")
    _finish(_start(line, "pretrain"), line)
    _assert_same_curve(_curve(alone, "pretrain/history.json"), _curve(line, "pretrain/history.json"))
    assert "continuing after step" in (line / "log").read_text()
    frozen = [json.loads((root / "metrics" / "pretrain.json").read_text())["frozen_sha256"] for root in (alone, line)]
    assert frozen[0] == frozen[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage", ["warm_up", *(pytest.param(stage, marks=pytest.mark.long) for stage in ("assistant", "two_stage"))]
)
def test_a_trained_decoder_and_head_learn_under_zero_as_in_one_process(
    stage: str, line: Path, tmp_path: Path, write_pretrained: Callable[[Path], None]
):
    write_pretrained(line)
    alone = Path(shutil.copytree(line, tmp_path / "alone"))
    _set_up(alone, stage)
    _finish(_start(alone, stage), alone)
    _set_up(line, stage, engine="zero3", processes=2)
    _finish(_torchrun(line, stage, 2), line)
    model, curves = MODELS[stage]
    for curve in curves:
        _assert_same_curve(_curve(alone, f"{curve}/history.json"), _curve(line, f"{curve}/history.json"))
    one, two = (QualityLMM.from_pretrained(root / "artifacts" / model) for root in (alone, line))
    frozen = ("image_encoder",) if stage == "assistant" else ("image_encoder", "motion_extractor")
    for part in ("image_encoder", "motion_extractor", "projector", "motion_projector", "language_model"):
        ours, theirs = getattr(one, part).state_dict(), getattr(two, part).state_dict()
        for name, value in ours.items():
            assert torch.allclose(value, theirs[name], atol=0 if part in frozen else 2e-3), f"{part}.{name}"
