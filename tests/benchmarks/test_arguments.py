"""Arguments of the benchmarks: every one has help, and tells a wrong value in one line."""

import argparse
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "arguments")
WRONG: dict[str, tuple[str, ...]] = {
    "annotation_loop": ("--pictures", "0"),
    "assess_speed": ("nowhere",),
    "distortion_signals": ("--types", "blurriness"),
    "drift_by_growth": ("--workspace", "nowhere"),
    "full_width": ("--decoder", "internvl3-3b"),
    "human_scores": (str(FOLDER),),
    "loss_head": ("--repeat", "none"),
    "plan_error": ("--weights", "int8"),
    "plan_zero_error": ("--processes", "-1"),
    "planted_truth": ("--workspace", str(FOLDER)),
    "reannotation_cost": ("--children", "-2"),
    "review_endpoint": ("--faults", "1.5"),
    "score_speed": ("--clip", "nowhere.mp4"),
    "sequence_padding": ("--root", str(FOLDER)),
    "student_cost": ("--root", str(FOLDER)),
    "training_set": ("--rows", "many"),
    "training_step": ("--frames", "-1"),
}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Function that imports a file of ``benchmarks`` as its own process would, in this one."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return run


def test_every_benchmark_is_tried():
    assert sorted(WRONG) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_help_is_there_and_a_wrong_value_is_one_line(
    name: str, load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module = load(name)
    for arguments, code in ((("--help",), 0), (WRONG[name], 2)):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        with pytest.raises(SystemExit) as caught:
            module.main()
        assert caught.value.code == code
    told = capsys.readouterr()
    assert told.out.startswith(f"usage: {name}.py")
    assert told.err.splitlines()[-1].startswith(f"{name}.py: error: argument ")


def test_a_script_finds_its_types_where_it_stands(tmp_path: Path):
    script = FOLDER / "distortion_signals.py"
    done = subprocess.run(
        [sys.executable, script, "--photos", tmp_path / "absent"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(FOLDER.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"argument --photos: there is no folder {tmp_path / 'absent'}")


def test_types_take_what_is_right_and_say_what_is_not(
    load: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import torch

    types = load("arguments")
    (tmp_path / "table.csv").write_text("")
    place = str(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    right: list[tuple[Callable[[str], Any], str, Any]] = [
        (types.positive, "3", 3), (types.natural, "0", 0), (types.positives, "1,4", [1, 4]), (types.fraction, "1", 1.0),
        (types.existing_file, f"{place}/table.csv", tmp_path / "table.csv"), (types.existing_folder, place, tmp_path),
        (types.folder_with("table.csv"), place, tmp_path), (types.present_device, "cpu", "cpu"),
    ]  # fmt: skip
    for kind, text, value in right:
        assert kind(text) == value
    wrong: list[tuple[Callable[[str], Any], str, str]] = [
        (types.positive, "0", "'0' is no whole number from 1 up"), (types.natural, "-1", "from 0 up"),
        (types.positive, "1.5", "'1.5' is no whole number"), (types.positives, "1,,4", "'' is no whole number"),
        (types.fraction, "1.01", "is no number in"), (types.fraction, "nan", "is no number in"),
        (types.fraction, "a", "is no number in"), (types.existing_file, place, "there is no file"),
        (types.existing_folder, f"{place}/x", "there is no folder"),
        (types.folder_with("a.csv"), place, "holds no a.csv"),
        (types.present_device, "cuda", "this machine shows no GPU"),
    ]  # fmt: skip
    for kind, text, told in wrong:
        with pytest.raises(argparse.ArgumentTypeError, match=told):
            kind(text)
