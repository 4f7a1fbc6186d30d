"""Event files and tables, read back by the tools that people read them with."""

import dataclasses
import json
from pathlib import Path

import pytest
import uneven
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tasks.training.callbacks import Checkpoint
from tasks.training.telemetry import Telemetry
from tasks.training.trainer import Callback, StepRecord, Trainer

FIGURES = {"samples_per_s", "tokens_per_s", "mfu", "data_wait_share", "peak_memory_gb"}


class StopError(Exception):
    pass


class StopAfter(Callback):
    def __init__(self, step: int) -> None:
        self._step = step

    def after_step(self, trainer: Trainer, record: StepRecord) -> None:
        del trainer
        if record.step == self._step:
            raise StopError


def _fit(folder: Path, *, stop: int | None = None) -> list[StepRecord]:
    config = dataclasses.replace(uneven.CONFIG, checkpoint_every=2)
    callbacks: list[Callback] = [Checkpoint(folder / "checkpoint.safetensors", 2), Telemetry(folder / "live")]
    if stop is not None:
        callbacks.append(StopAfter(stop))
    return Trainer(uneven.Squares(), uneven.Steps(config), config, callbacks).fit()


def _killed_and_continued(folder: Path) -> list[StepRecord]:
    with pytest.raises(StopError):
        _fit(folder, stop=4)  # the checkpoint is of step 3, so step 4 is done again
    return _fit(folder)


def test_tensorboard_shows_every_step_once_though_the_run_was_killed(tmp_path: Path):
    history = _killed_and_continued(tmp_path)
    events = EventAccumulator(str(tmp_path / "live" / "tensorboard")).Reload()
    shown = events.Scalars("train/loss")
    assert [event.step for event in shown] == [record.step for record in history]
    assert [event.value for event in shown] == pytest.approx([record.loss for record in history])
    tags = set(events.Tags()["scalars"])
    assert {"train/loss_moves", "train/loss_stays", "train/learning_rate", "train/grad_norm"} <= tags
    assert {f"speed/{name}" for name in FIGURES} <= tags
    assert events.Scalars("speed/mfu")[0].value > 0
    _fit(tmp_path)  # finished: nothing is written
    assert len(EventAccumulator(str(tmp_path / "live" / "tensorboard")).Reload().Scalars("train/loss")) == len(shown)


def test_dvclive_tables_hold_every_step_once_though_the_run_was_killed(tmp_path: Path):
    pytest.importorskip("dvclive", reason="DVCLive is not installed")
    history = _killed_and_continued(tmp_path)
    tables = tmp_path / "live" / "dvclive" / "plots" / "metrics"
    rows = [line.split("\t") for line in (tables / "train" / "loss.tsv").read_text().splitlines()]
    assert rows[0] == ["step", "loss"]
    assert [int(step) for step, _ in rows[1:]] == [record.step for record in history]
    assert [float(loss) for _, loss in rows[1:]] == pytest.approx([record.loss for record in history])
    assert {path.stem for path in (tables / "speed").glob("*.tsv")} == FIGURES


def test_tables_that_a_kill_has_torn_do_not_stop_the_run_that_continues(tmp_path: Path):
    pytest.importorskip("dvclive", reason="DVCLive is not installed")
    with pytest.raises(StopError):
        _fit(tmp_path, stop=4)
    dvclive = tmp_path / "live" / "dvclive"
    tables = dvclive / "plots" / "metrics" / "train"
    (dvclive / "metrics.json").write_text('{"step": ')
    (tables / "grad_norm.tsv").write_text("")  # opened, and not yet written
    whole = (tables / "loss.tsv").read_text()
    (tables / "loss.tsv").write_text(whole[:-3])
    history = _fit(tmp_path)
    rows = [line.split("\t") for line in (tables / "loss.tsv").read_text().splitlines()]
    assert [int(step) for step, _ in rows[1:]] == [record.step for record in history]
    assert (tables / "grad_norm.tsv").read_text().splitlines()[0] == "step\tgrad_norm"
    assert json.loads((dvclive / "metrics.json").read_text())["step"] == history[-1].step


def test_without_dvclive_a_run_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setitem(__import__("sys").modules, "dvclive", None)
    with caplog.at_level("INFO"):
        _fit(tmp_path)
    assert "DVCLive is not installed" in caplog.text
    assert list((tmp_path / "live").iterdir()) == [tmp_path / "live" / "tensorboard"]


def test_a_new_run_starts_new_files(tmp_path: Path):
    _fit(tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink()
    _fit(tmp_path)
    assert len(list((tmp_path / "live" / "tensorboard").iterdir())) == 1
