"""The course of a run for people who watch it: TensorBoard event files and DVCLive tables, beside the results.

Nothing here is an output of a stage: the files hold times, which no two runs share. A run that continues after a kill
writes on from the step of its checkpoint; steps that it does again replace those that were lost.
"""

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tasks.training.trainer import Callback, StepRecord, Trainer

log = logging.getLogger(__name__)

_TABLES: Final = "dvclive"
_EVENTS: Final = "tensorboard"
_SUMMARY: Final = "metrics.json"


class Telemetry(Callback):
    """Log every step to ``folder/tensorboard`` and, where DVCLive is installed, to ``folder/dvclive``.

    Figures: the loss (all and per task), the rate and the gradient's norm below ``train/``; samples/s, tokens/s, MFU,
    share of the time that waits for data and peak memory below ``speed/``.

    Args:
        further: more figures of a step, by name; they go below ``train/``.
    """

    def __init__(self, folder: Path, further: Callable[[], Mapping[str, float]] = dict) -> None:
        self._folder, self._further = folder, further
        self._events: Any = None
        self._tables: Any = None

    def begin(self, trainer: Trainer[Any]) -> None:
        """Open the files: anew for a new run, behind the last step that counts for one that continues."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - only the leader of a run needs it

        if trainer.step == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
        elif trainer.step >= trainer.config.steps:
            return
        self._events = SummaryWriter(str(self._folder / _EVENTS), purge_step=trainer.step)
        self._tables = self._open_tables(trainer.step)

    def _open_tables(self, step: int) -> Any:
        try:
            from dvclive import Live  # type: ignore[import-not-found]  # noqa: PLC0415 - imports DVC
        except ImportError:
            log.info("DVCLive is not installed: the curves go to TensorBoard alone")
            return None
        for table in (self._folder / _TABLES).rglob("*.tsv"):
            _cut(table, step)
        (self._folder / _TABLES / _SUMMARY).unlink(missing_ok=True)  # of an earlier run; the end writes it anew
        folder, resume = str(self._folder / _TABLES), step > 0
        return Live(folder, resume=resume, report=None, save_dvc_exp=False, dvcyaml=None, monitor_system=False)

    def after_step(self, trainer: Trainer[Any], record: StepRecord) -> None:
        """Write the step's figures."""
        values = {"train/loss": record.loss, "train/learning_rate": record.learning_rate}
        values |= {"train/grad_norm": record.grad_norm}
        values |= {f"train/loss_{task}": loss for task, loss in record.task_losses.items()}
        values |= {f"train/{name}": value for name, value in self._further().items()}
        if trainer.cost is not None:
            values |= {f"speed/{name}": value for name, value in trainer.cost.figures().items()}
        for name, value in values.items():
            self._events.add_scalar(name, value, record.step)
        if self._tables is not None:
            self._tables.step = record.step
            for name, value in values.items():
                self._tables.log_metric(name, value)

    def end(self, trainer: Trainer[Any]) -> None:
        """Close the files."""
        del trainer
        if self._events is not None:
            self._events.close()
        if self._tables is not None:
            self._tables.end()


def _cut(table: Path, step: int) -> None:
    """Keep the rows of a table before ``step``; a kill may have left it without a header, or with half a row."""
    header, *rows = table.read_text().splitlines(keepends=True) or [""]
    if not header.endswith("\n"):
        table.unlink()
        return
    kept = [row for row in rows if row.endswith("\n") and int(row.partition("\t")[0]) < step]
    table.write_text("".join([header, *kept]))
