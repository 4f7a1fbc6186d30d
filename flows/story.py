"""What a run tells people: the figures of a stage, its line on the terminal, and its page in the UI."""

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HEADLINES: Final[dict[str, tuple[str, ...]]] = {
    "collect": ("candidates", "rejects", "ignored"),
    "distort": ("children", "cells_covered", "cells", "rejects"),
    "score": ("opinions", "rejects", "mu_mean", "sigma_mean", "severity_srcc_mean"),
    "describe": ("describer_assertions", "planted_true", "planted_false"),
    "review": ("kept", "rejected", "planted.false_rejected", "planted.true_kept"),
    "assemble": ("examples", "description_tokens"),
    "validate": ("expectations", "failed_errors", "failed_warnings"),
    "pretrain": ("steps", "contents", "loss_first.all", "loss_last.all"),
    "warm_up": ("contents", "examples"),
    "assistant": ("conversations", "turns", "loss_first.all", "loss_last.all"),
    "linear_probe": ("media", "contents", "loss_first.model.all", "loss_last.model.all"),
    "teach": ("tasks", "first.reward", "last.reward", "last.wasted"),
    "ract": ("media", "labels", "reader", "loss_first", "loss_last"),
    "two_stage": ("lessons", "loss_last.describer.all", "loss_last.reasoner.all", "swapped"),
    "explain": ("media", "texts", "explained"),
    "rali": ("media", "explained", "align.recall_at_1", "after.std_ratio", "after.srcc", "parameters.ratio"),
    "predict": ("held_out_media", "held_out_contents", "rejected"),
    "answer": ("questions", "gain", "gain_over_blind"),
    "reason": (
        *("media", "figures.one_stage.unstable_pairwise", "figures.two_stage.unstable_pairwise"),
        *("figures.one_stage.srcc_expectation", "figures.two_stage.srcc_expectation"),
    ),
    "cross_swap": ("media", "data_sets", "apart", "unread"),
    "correlate": ("srcc", "srcc_low", "srcc_high", "gain", "warm_up_srcc", "zero_srcc", "probe_srcc"),
    "report": ("models", "pictures"),
    "register": ("candidates", "gate_holds"),
}
"""What is told of a stage in a line: names of figures, or beginnings of dotted names; all of them are in its page."""
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_DIGEST_SHOWN: Final = 12


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file, empty if there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def figures(workspace: Path, stage: str) -> dict[str, str]:
    """A stage's counts and measures (``metrics/<stage>.json``) as dotted names and short texts."""
    return dict(_flat(read_json(workspace / "metrics" / f"{stage}.json"), ""))


def headlines(workspace: Path, stage: str) -> dict[str, str]:
    """The few figures of a stage that a person looks at first; the first four where nobody has chosen."""
    told = figures(workspace, stage)
    chosen = {
        name: value
        for wanted in HEADLINES.get(stage, ())
        for name, value in told.items()
        if name == wanted or (name.startswith(f"{wanted}.") and name.count(".") == 1)
    }
    return chosen or dict(itertools.islice(told.items(), 4))


def report_page(workspace: Path) -> Path:
    """Absolute path of the page that the stage ``report`` makes."""
    return workspace.resolve() / "artifacts" / "report" / "report.html"


def telemetry(workspace: Path, stage: str) -> dict[str, Any]:
    """What the stage's last computation in this workspace cost; empty if it was restored.

    Wall and CPU time (s) of all its processes, and the peak memory (MB) of the largest of them.
    """
    return read_json(workspace / ".work" / "telemetry" / f"{stage}.json")


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        rows += _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, _short(value))]
    return rows


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_short(item) for item in value)
    text = str(value)
    return text[:_DIGEST_SHOWN] if _DIGEST.fullmatch(text) else text


@dataclass(frozen=True)
class StageStory:
    """What became of one stage in one run.

    Attributes:
        stage: its name.
        workspace: where its metrics and telemetry lie.
        outcome: executed, restored, unchanged or failed.
        seconds: wall time in this run.
        reason: why it failed, else None.
    """

    stage: str
    workspace: Path
    outcome: str
    seconds: float
    reason: str | None = None

    def line(self) -> str:
        """One line for a terminal or a log."""
        measures = headlines(self.workspace, self.stage)
        told = self.reason or "   ".join(f"{name} {value}" for name, value in measures.items())
        return f"{self.stage:<12} {self.outcome:<9} {self.seconds:7.1f} s   {told}".rstrip()

    def page(self) -> str:
        """Markdown page for the run's artifacts."""
        lines = [f"# {self.stage}: {self.outcome}", "", f"{self.seconds:.1f} s in this run."]
        if self.reason:
            return "\n".join([*lines, "", f"**Why:** {self.reason}", ""])
        if cost := telemetry(self.workspace, self.stage):
            told = ", ".join(f"{name} {value}" for name, value in cost.items())
            lines += ["", f"When it was last computed here: {told}."]
        if measures := figures(self.workspace, self.stage):
            lines += ["", "| measure | value |", "|---|---|"]
            lines += [f"| {name} | {value.replace('|', '/')} |" for name, value in measures.items()]
        if self.stage == "report":
            lines += ["", f"The page: `{report_page(self.workspace)}`"]
        return "\n".join([*lines, ""])
