"""The table at the end of ``vital run``: what was made, what was measured, what it cost."""

from collections.abc import Mapping
from pathlib import Path

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from flows.story import headlines, report_page, telemetry
from tasks.stage import STAGES
from vital.tables import print_table

_WORK_OUTCOMES = ("executed", "restored")


def print_summary(root: Path, outcomes: Mapping[str, str], seconds: float) -> None:
    """Print the table, the total time, the registry's answer and the path of the report.

    Args:
        root: the workspace.
        outcomes: stage -> what became of it in this run; ``promote`` -> the registry's answer.
        seconds: wall time of the whole run.
    """
    stages = [name for name in STAGES if name in outcomes]
    print_table(_table(root, outcomes, stages))
    worked = [name for name in stages if outcomes[name] in _WORK_OUTCOMES]
    peak = max((float(telemetry(root, name).get("peak_mb", 0)) for name in STAGES), default=0.0)
    done = f"{len(worked)} of {len(stages)} stages ran" if worked else "No stage was executed: everything is up to date"
    click.echo(f"{done}. Wall time {seconds:.0f} s; peak memory of the largest process {peak:.0f} MB.")
    if "record" in outcomes:
        click.echo(f"Data set: {outcomes['record']}")
    if "promote" in outcomes:
        click.echo(f"Registry: {outcomes['promote']}")
    page = report_page(root)
    if page.is_file():
        click.echo(f"Report: {page}")


def _table(root: Path, outcomes: Mapping[str, str], stages: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("computed in", justify="right", no_wrap=True)
    table.add_column("largest process", justify="right", no_wrap=True)
    table.add_column("made and measured", overflow="fold")
    for name in stages:
        cost = telemetry(root, name)
        told = headlines(root, name).items()
        measures = "  ".join(f"[dim]{escape(key)}[/dim] {escape(value)}" for key, value in told)
        took, peak = (f"{cost['wall_s']:.1f} s", f"{cost['peak_mb']:.0f} MB") if cost else ("", "")
        table.add_row(name, outcomes[name], took, peak, measures)
    return table
