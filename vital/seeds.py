"""``vital run --seeds``: the same line once per training seed, and the spread of what was measured."""

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich import box
from rich.table import Table

from flows.story import figures
from infra.params import merge
from infra.workspace import WorkspaceSpec, locate_workspace, prepare_workspace
from tasks.errors import ConfigError
from vital.run_command import RunOptions, run_and_tell
from vital.tables import print_table

SEEDED: Final = ("pretrain", "warm_up", "assistant", "linear_probe", "two_stage", "teach", "ract", "rali")
"""Stages whose ``training.seed`` a seed of ``--seeds`` sets; annotation stays the same and comes from the run cache."""


def parse_seeds(text: str) -> list[int]:
    """Read ``0,1,2``.

    Raises:
        ConfigError: something in it is no whole number, or a seed repeats.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        msg = f"--seeds {text!r}: write whole numbers with commas between them, such as 0,1,2"
        raise ConfigError(msg) from error
    if len(set(seeds)) < len(seeds):
        msg = f"--seeds {text!r}: a seed repeats"
        raise ConfigError(msg)
    return seeds


def seeded_workspaces(spec: WorkspaceSpec, folder: Path | None, seeds: list[int]) -> list[tuple[Path, WorkspaceSpec]]:
    """Folder and spec of each seed's workspace; nothing is made."""
    base = locate_workspace(spec, folder)
    if spec.default and folder is None:
        base = base / "workspaces" / spec.profile
    settings = [{stage: {"training": {"seed": seed}} for stage in SEEDED} for seed in seeds]
    return [
        (base.with_name(f"{base.name}-seed{seed}"), replace(spec, settings=merge(spec.settings, changed)))
        for seed, changed in zip(seeds, settings, strict=True)
    ]


def run_seeds(spec: WorkspaceSpec, folder: Path | None, seeds: list[int], options: RunOptions) -> None:
    """Run every seed in a workspace of its own (``<workspace>-seed<k>``); print mean and deviation of each measure."""
    roots = []
    for place, seeded in seeded_workspaces(spec, folder, seeds):
        root = prepare_workspace(place, seeded)
        started = time.monotonic()
        run_and_tell(root, replace(options, promote=options.promote or False), started)
        roots.append(root)
    print_table(_spread(roots))


def _spread(roots: list[Path]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="correlate over seeds")
    for name in ("measure", *(root.name.rpartition("-")[2] for root in roots), "mean", "deviation"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    columns = [figures(root, "correlate") for root in roots]
    for measure in columns[0]:
        values = [column.get(measure, "") for column in columns]
        try:
            numbers = [float(value) for value in values]
        except ValueError:
            continue
        deviation = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
        table.add_row(measure, *values, f"{statistics.fmean(numbers):.4g}", f"{deviation:.2g}")
    return table
