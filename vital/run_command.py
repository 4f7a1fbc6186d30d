"""``vital run``: the line, from a pool of media to a benchmarked, registered model; ``vital status``: what is stale."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from infra.params import merge, parse_settings
from infra.workspace import (
    CHECKOUT,
    WorkspaceSpec,
    absolute_pool,
    check_workspace,
    locate_workspace,
    prepare_workspace,
    read_spec,
    workspace_params,
)


@dataclass(frozen=True)
class RunOptions:
    """What ``vital run`` was asked for, beyond the workspace.

    Attributes:
        targets: stages to run; all if empty.
        promote: offer the candidates to the registry; None means: if the workspace is the checkout and ``register``
            is among the targets.
        record: compare with the last version of the data set, and record a new one.
        pull: take finished stages from the DVC remote.
    """

    targets: tuple[str, ...] = ()
    promote: bool | None = None
    record: bool = False
    pull: bool = False


def workspace_options(command: Any) -> Any:
    """The options that say which workspace is meant."""
    options = [
        click.option("--pool", metavar="FOLDER", help="Your own photos and clips (folder or s3://BUCKET/PREFIX)."),
        click.option("--profile", metavar="NAME", help="embedded (default), or a file of infra/profiles."),
        click.option(
            "--workspace", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder of the run."
        ),
        click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a parameter."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _known_stages(_ctx: click.Context, _option: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    from tasks.stage import STAGES

    if unknown := [name for name in names if name not in STAGES]:
        msg = f"unknown stage {unknown[0]!r}; the stages are {', '.join(STAGES)}"
        raise click.BadParameter(msg)
    return names


@click.command(short_help="Run the line: pool, opinions, review, training, benchmark, registry.")
@workspace_options
@click.option("--seeds", metavar="0,1,2", help="Run once per training seed, each in a workspace of its own.")
@click.option(
    "--stage",
    "targets",
    multiple=True,
    metavar="NAME",
    callback=_known_stages,
    help="Run this stage only (repeat for more).",
)
@click.option(
    "--promote/--no-promote",
    default=None,
    help="Offer the result to the registry (default: in the checkout, if the stage register is run).",
)
@click.option(
    "--reannotate",
    is_flag=True,
    help="Run collect to validate alone, compare opinions with the last version of the data set, and record a new one "
    "if the limits of params.yaml, section compare, hold.",
)
@click.option("--pull", is_flag=True, help="Take finished stages from the DVC remote instead of computing them.")
@click.option("--dry-run", is_flag=True, help="Print the plan and what is missing; run nothing.")
def run(  # noqa: PLR0913 - the options of one command
    pool: str | None,
    profile: str | None,
    workspace: Path | None,
    settings: tuple[str, ...],
    seeds: str | None,
    targets: tuple[str, ...],
    *,
    promote: bool | None,
    reannotate: bool,
    pull: bool,
    dry_run: bool,
) -> None:
    """Run the line: collect, distort, score, describe, review, assemble, validate, pretrain, warm_up, assistant, linear_probe, two_stage, teach, ract, explain, rali, predict, answer, reason, cross_swap, correlate, report, register.

    Without options it runs on the sample pool in the checkout. Another pool, profile or setting gets a workspace of its
    own below workspaces/, so that the sample run stays what it was. Only what is stale is executed; a killed run
    continues where it was.
    """  # noqa: E501 - click wraps the help text
    started = time.monotonic()
    spec = spec_of(pool, profile, workspace, settings)
    if reannotate:
        targets = _annotation(targets, seeds, promote=promote)
    options = RunOptions(targets, promote, record=reannotate, pull=pull)
    if dry_run:
        _print_plans(spec, workspace, seeds, options)
        return
    from flows.preflight import check_configs, check_needs, check_targets
    from flows.server import use_prefect_server
    from tasks.stage import STEPS
    from vital.seeds import parse_seeds, run_seeds

    numbers = None if seeds is None else parse_seeds(seeds)
    root = locate_workspace(spec, workspace)
    check_workspace(root, spec)
    if not targets:
        check_needs(spec.profile)
    check_configs(workspace_params(spec), [*check_targets(list(targets) or None), *(STEPS if reannotate else ())], root)
    if numbers is None:
        prepare_workspace(root, spec)
    show_lines()
    use_prefect_server(CHECKOUT)
    click.echo("vital: starting; what is up to date is not run again", err=True)
    if numbers is None:
        run_and_tell(root, options, started)
    else:
        run_seeds(spec, workspace, numbers, options)


def _annotation(targets: tuple[str, ...], seeds: str | None, *, promote: bool | None) -> tuple[str, ...]:
    """The stages of ``--reannotate``, which says by itself what is run and recorded."""
    from tasks.stage import ANNOTATION

    others = {"--stage": bool(targets), "--seeds": seeds is not None, "--promote": bool(promote)}
    if clash := [name for name, given in others.items() if given]:
        msg = f"--reannotate runs annotation alone and records a data set: leave {clash[0]} out"
        raise click.UsageError(msg)
    return ANNOTATION


def _print_plans(spec: WorkspaceSpec, workspace: Path | None, seeds: str | None, options: RunOptions) -> None:
    """The plan of a run, or of each seed's."""
    from vital.plan import print_plan
    from vital.seeds import parse_seeds, seeded_workspaces

    if seeds is None:
        print_plan(spec, locate_workspace(spec, workspace), options.targets, record=options.record)
        return
    for root, seeded in seeded_workspaces(spec, workspace, parse_seeds(seeds)):
        print_plan(seeded, root, options.targets)


@click.command(short_help="Say which stages are stale.")
@workspace_options
def status(pool: str | None, profile: str | None, workspace: Path | None, settings: tuple[str, ...]) -> None:
    """Say which stages of the checkout or of a workspace are stale, and why; nothing is run or written."""
    from vital.plan import print_status

    spec = spec_of(pool, profile, workspace, settings)
    print_status(locate_workspace(spec, workspace))


def spec_of(pool: str | None, profile: str | None, workspace: Path | None, settings: tuple[str, ...]) -> WorkspaceSpec:
    """What is asked for, on top of what the named workspace already is."""
    spec = read_spec(workspace) if workspace is not None else WorkspaceSpec()
    if profile is not None:
        spec = replace(spec, profile=profile)
    if pool is not None:
        spec = replace(spec, pool=absolute_pool(pool))
    return replace(spec, settings=merge(spec.settings, parse_settings(settings)))


def run_and_tell(root: Path, options: RunOptions, started: float) -> None:
    """Run the flow in this process, on a running Prefect server, and print the summary.

    Args:
        root: the workspace.
        options: what to run.
        started: ``time.monotonic()`` when the command was given.

    Raises:
        VitalError: a stage failed, a target is unknown, or the stages have run (and the summary tells of them) but the
            registry does not work.
        InfraError: the workspace does not work.
    """
    from flows.line import PromotionFailedError
    from vital.summary import print_summary

    try:
        outcomes = _run_line(root, options)
    except PromotionFailedError as error:
        print_summary(root, error.outcomes, time.monotonic() - started)
        raise
    print_summary(root, outcomes, time.monotonic() - started)


def _run_line(root: Path, options: RunOptions) -> dict[str, str]:
    from flows.line import vital

    spec = read_spec(root)
    return vital(
        profile=spec.profile,
        pool=spec.pool,
        workspace=root,
        targets=list(options.targets) or None,
        settings=dict(spec.settings),
        promote=options.promote,
        record=options.record,
        pull=options.pull,
    )


def show_lines() -> None:
    """Show the run's one line per stage on the terminal."""
    log = logging.getLogger("vital.line")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
