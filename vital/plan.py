"""``vital run --dry-run`` and ``vital status``: what would run, why, and what this machine lacks for it."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from infra.needs import missing_keys, missing_needs
from infra.params import Params, profile_needs
from infra.workspace import CHECKOUT, WorkspaceSpec, workspace_params
from tasks.errors import ConfigError
from tasks.stage import STAGES, STEPS, build_config, load_stage
from vital.tables import print_table

_REASONS_TOLD: Final = 3


@dataclass(frozen=True)
class StagePlan:
    """What is planned for one stage.

    Attributes:
        stage: its name.
        reason: why it would run; empty if it would not.
        problem: what is wrong with its params; empty if nothing is.
        missing: what this machine lacks for it, one line each.
        calls: what it would ask of endpoints and pay, one line each.
    """

    stage: str
    reason: str
    problem: str
    missing: tuple[str, ...]
    calls: tuple[str, ...] = ()


def print_plan(spec: WorkspaceSpec, root: Path, targets: Collection[str] = (), *, record: bool = False) -> None:
    """Print the plan for a workspace that may not exist yet; nothing is written.

    Args:
        spec: what the workspace runs. root: its folder. targets: stages that are run; all if empty.
        record: whether the steps of a re-annotation follow.

    Raises:
        InfraError: the profile, a section or a key is unknown.
        ConfigError: a stage's params are wrong; all of them are printed before.
    """
    params = workspace_params(spec)
    reasons = stale_reasons(root) if (root / "dvc.yaml").is_file() else dict.fromkeys(STAGES, "new workspace")
    inputs = root if root.is_dir() else CHECKOUT  # a workspace sees the checkout's inputs once it is made
    plans = [
        _plan(stage, params, reasons.get(stage, ""), (inputs, root))
        for stage in STAGES
        if not targets or stage in targets
    ]
    plans += [_plan(step, params, "after validate", (inputs, root)) for step in STEPS if record]
    click.echo(f"profile {spec.profile}, pool {params['collect']['pool']}, workspace {root}")
    print_table(_table(plans))
    missing = [f"{plan.stage}: {line}" for plan in plans for line in plan.missing]
    needs = {} if targets else profile_needs(CHECKOUT, spec.profile)  # it does not say which stage needs what
    missing += missing_needs(needs, CHECKOUT) + missing_keys(_of(plans, params), needs)
    click.echo("Missing on this machine:" if missing else "Nothing is missing on this machine.")
    for line in missing:
        click.echo(f"  {line}")
    for line in [f"{plan.stage}: {line}" for plan in plans for line in plan.calls]:
        click.echo(line)
    problems = [plan.problem for plan in plans if plan.problem]
    if problems:
        raise ConfigError("; ".join(problems))


def print_status(root: Path) -> None:
    """Print which stages of a workspace are stale and why."""
    reasons = stale_reasons(root)
    for stage in STAGES:
        click.echo(f"{stage:<10} {'stale: ' + reasons[stage] if stage in reasons else 'up to date'}")


def stale_reasons(root: Path) -> dict[str, str]:
    """For every stage that would run, why: DVC's reasons, or the stale stage that it reads from.

    Raises:
        ConfigError: there is no workspace.
        StageError: DVC cannot read it.
    """
    from flows.server import keep_prefect_in

    if not (root / "dvc.yaml").is_file():
        msg = f"{root} holds no run yet: vital run with the same options makes one"
        raise ConfigError(msg)
    keep_prefect_in(CHECKOUT)
    from flows.stages import dvc_status, upstream_stages

    told, upstream = dvc_status(root), upstream_stages(root)
    reasons: dict[str, str] = {}
    for stage in STAGES:
        if stage in told:
            reasons[stage] = _reason(told[stage])
        elif behind := sorted(upstream.get(stage, set()) & set(reasons)):
            reasons[stage] = f"after {', '.join(behind)}"
    return reasons


def _reason(changes: list[Any]) -> str:
    """DVC's list of changes (texts, or mappings of kind to files) in one line."""
    told = []
    for change in changes:
        if isinstance(change, str):
            told.append(change)
        else:
            told += [f"{name} {what}" for files in change.values() for name, what in _flat(files)]
    more = f", and {len(told) - _REASONS_TOLD} more" if len(told) > _REASONS_TOLD else ""
    return ", ".join(told[:_REASONS_TOLD]) + more


def _flat(files: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, what if isinstance(what, str) else json.dumps(what)) for name, what in files.items()]


def _plan(stage: str, params: Params, reason: str, places: tuple[Path, Path]) -> StagePlan:
    root, workspace = places
    if stage not in params:
        return StagePlan(stage, reason, f"params.yaml has no section {stage!r}", ())
    module = load_stage(stage)
    try:
        config = build_config(module.Config, stage, params[stage])
    except ConfigError as error:
        return StagePlan(stage, reason, str(error), ())
    missing = getattr(module, "missing", None)
    foresee = getattr(module, "foresee", None)
    lacks = tuple(missing(config, root)) if missing else ()
    return StagePlan(stage, reason, "", lacks, tuple(foresee(config, workspace)) if foresee else ())


def _of(plans: list[StagePlan], params: Params) -> Params:
    """Sections of the planned stages that would run."""
    return {plan.stage: params[plan.stage] for plan in plans if plan.reason and plan.stage in params}


def _table(plans: list[StagePlan]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("plan", no_wrap=True)
    table.add_column("why", overflow="fold")
    for plan in plans:
        state = "[red]wrong params[/red]" if plan.problem else ("run" if plan.reason else "up to date")
        table.add_row(plan.stage, state, escape(plan.problem or plan.reason))
    return table
