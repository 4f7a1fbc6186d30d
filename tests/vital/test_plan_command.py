"""``vital plan`` as its users call it: tables, JSON, and one line for what is wrong."""

import json
from pathlib import Path

import pytest

from tests.vital import conftest
from vital.cli import main

vital = conftest.vital


def say(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Call the command in this process; its answer, exit code first."""
    with pytest.raises(SystemExit) as caught:
        main(["plan", *arguments])
    told = capsys.readouterr()
    return int(str(caught.value.code or 0)), told.out, told.err


def test_the_papers_run_is_planned_in_a_process_without_weights_gpu_or_network(vital: conftest.Vital):
    done = vital("plan", "--profile", "paper", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stderr) == (0, "")
    for title in ("Parameters", "FLOPs of an average example", "Memory of one device", "Time and cost"):
        assert title in done.stdout
    assert "Profile paper on 8 x h200. Assumed: an MFU of 0.35 (--mfu), 3.00 dollars" in done.stdout
    assert "The paper's pre-training took 1,920 GPU-hours: 0.663 samples a second and GPU" in done.stdout
    assert "does not fit" not in done.stdout


def test_json_has_the_figures_and_the_sums(capsys: pytest.CaptureFixture[str], checkout: Path):
    code, out, _ = say(["--json", "--mfu", "0.5"], capsys)
    assert code == 0
    plan = json.loads(out)
    told = json.loads((checkout / "metrics" / "pretrain.json").read_text())
    pretrain = plan["stages"][0]
    assert (plan["profile"], plan["mfu"], plan["published"]) == ("embedded", 0.5, None)
    assert (pretrain["trained"], pretrain["frozen"]) == (told["trained_parameters"], told["frozen_parameters"])
    memory = pretrain["memory"]
    held = sum(memory[name] for name in ("weights", "gradients", "optimizer", "buffers", "activations"))
    assert pretrain["peak"] == pytest.approx(held)


def test_assumptions_and_parameters_can_be_replaced(capsys: pytest.CaptureFixture[str]):
    plain = json.loads(say(["--json"], capsys)[1])["stages"][0]
    more = ["--set", "pretrain.training.steps=480", "--assume", "workloads.tiny.samples_per_medium=1.0"]
    other = json.loads(say(["--json", *more], capsys)[1])["stages"][0]
    assert other["examples"] == 2 * plain["examples"]
    assert other["flops"] > 1.2 * plain["flops"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--profile", "huge"], "unknown profile 'huge'; the profiles are embedded, "),
        (["--gpu", "abacus"], "unknown device 'abacus'; the devices are h200, "),
        (["--gpus", "0"], "0 is not in the range x>=1"),
        (["--mfu", "2"], "2.0 is not in the range 0<x<=1"),
        (["--weights", "int8"], "'int8' is not one of 'float32'"),
        (["--assume", "reserve"], "setting 'reserve' is not of the form section.key=value"),
        (["--assume", "workloads.tiny.colour=red"], "unknown key 'colour'"),
        (["--set", "pretrain.stepz=3"], "unknown key; the keys of pretrain are"),
    ],
)
def test_a_wrong_input_is_one_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]):
    code, out, err = say(arguments, capsys)
    assert code != 0
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("vital: ")
    assert told in line


def test_help_says_what_is_assumed(capsys: pytest.CaptureFixture[str]):
    code, out, _ = say(["--help"], capsys)
    assert code == 0
    for option in ("--profile", "--gpus", "--mfu", "--price", "--json", "infra/planning.yaml"):
        assert option in out
