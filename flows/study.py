"""The flow ``study``: the trials of a study one after the other, each trained and measured in a workspace of its own.

A trial whose result is there and is not stale is passed over; one that another study has trained with the same numbers
takes that result over, unless its weights are wanted. A run that was killed, at whatever moment, is continued
by the next: stages go on at their checkpoints, and results appear whole.
"""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.preflight import check_sections
from flows.stages import run_command
from infra.study_files import TRAINING, Study, Trial, read_study
from infra.trials import (
    Conditions,
    adopt_result,
    conditions,
    drop_shared,
    drop_workspace,
    find_twin,
    has_other_code,
    has_weights,
    idle_start,
    prepare_trial,
    read_result,
    sole_run,
    staleness,
    write_result,
)
from infra.workspace import CHECKOUT
from tasks.errors import StageError
from tasks.targets import held_out_targets

log = logging.getLogger("vital.line")


@dataclass(frozen=True)
class Due:
    """A trial of the queue.

    Attributes:
        reason: why it runs; empty if its result stands.
    """

    trial: Trial
    reason: str


def queue(
    chosen: Study, trials: Sequence[Trial], checkout: Path, now: Conditions | None, *, new_code: bool = False
) -> list[Due]:
    """Which of the trials have to run, and why; in the order in which they run.

    Args:
        now: None leaves the inputs out.
        new_code: run trials anew that other code has made.
    """
    reasons: dict[str, str] = {}
    for trial in trials:
        result = read_result(trial, checkout)
        reason = "no result" if result is None else staleness(result, chosen, trial, checkout, now)
        if result is not None and not reason and new_code and has_other_code(result, now):
            reason = "code changed"
        reasons[trial.name] = reason
    for trial in trials:  # weights to start from are gone once nobody waited for them
        start = chosen.start_of(trial)
        waited = start is not None and reasons[trial.name] and not reasons.get(start.name)
        if start and waited and not has_weights(chosen, start, checkout, now):
            reasons[start.name] = f"{trial.name} starts from it"
    return [Due(trial, reasons[trial.name]) for trial in trials]


@flow(name="study", persist_result=False)
def study(
    name: str,
    only: list[str] | None = None,
    seeds: list[int] | None = None,
    limit: int | None = None,
    checkout: Path = CHECKOUT,
    *,
    new_code: bool = False,
) -> dict[str, str]:
    """Run the trials of a study that have no result, or a stale one.

    Args:
        name: of a file in ``infra/studies``.
        only: variants to run; all if None. seeds: of the study's; all if None.
        limit: at most so many trials; None runs all that are due.
        checkout: whose line the trials build on.
        new_code: run trials anew whose results other code has made.

    Returns:
        For each trial of the queue, what became of it: done, unchanged or waiting.

    Raises:
        InfraError: the study file is wrong, or the checkout holds no finished line.
        ConfigError: settings of a variant are wrong; nothing was run.
        StageError: a trial failed; what was finished before stays.
    """
    chosen = read_study(checkout, name)
    wanted = {trial.name for trial in chosen.trials(only or (), seeds or ())}
    _check_settings(chosen, checkout)
    with sole_run(name, checkout):
        now = conditions(checkout, held_out_targets)
        told = queue(chosen, chosen.trials(), checkout, now, new_code=new_code)
        due = [one.trial for one in told if one.reason]
        turns = [trial for trial in due if trial.name in wanted][:limit]
        _sweep(chosen.trials(), due, checkout)
        outcomes = {
            one.trial.name: "waiting" if one.reason else "unchanged" for one in told if one.trial.name in wanted
        }
        for number, trial in enumerate(turns, 1):
            log.info("%s %s: trial %d of %d", name, trial.name, number, len(turns))
            due.remove(trial)
            twin = find_twin(chosen, trial, checkout, now) if idle_start(trial, due) else None
            if twin is None:
                run_trial(chosen, trial, checkout, now)
            else:
                log.info("%s %s: %s has the same", name, trial.name, adopt_result(twin, chosen, trial, checkout))
            outcomes[trial.name] = "done"
            _sweep(chosen.trials(), due, checkout)
        if not due:
            drop_shared(name, checkout)
    return outcomes


def _check_settings(chosen: Study, checkout: Path) -> None:
    """Build the configs of all variants before the first trial trains."""
    firsts = {trial.variant.name: trial for trial in chosen.trials()}.values()
    params = [chosen.params_of(trial, checkout) for trial in firsts]
    check_sections([{stage: sections[stage] for stage in (*TRAINING, "reason")} for sections in params])


def _sweep(trials: Sequence[Trial], unfinished: Sequence[Trial], checkout: Path) -> None:
    """Remove the workspaces of finished trials that no unfinished one starts from."""
    for trial in trials:
        if trial not in unfinished and idle_start(trial, unfinished):
            drop_workspace(trial, checkout)


@task(name="trial", task_run_name="{trial.name}", tags=["study"], cache_policy=NO_CACHE, persist_result=False)
def run_trial(chosen: Study, trial: Trial, checkout: Path, now: Conditions) -> Path:
    """Train and measure one trial, and write its result.

    Returns:
        The result's path.

    Raises:
        StageError: a stage or the measuring step failed; the message ends with its own reason.
    """
    root = prepare_trial(chosen, trial, checkout, now)
    commands = [(stage, ["-m", "tasks", stage]) for stage in trial.variant.stages]
    seconds: dict[str, float] = {}
    for step, arguments in [*commands, ("measure", ["-m", "tasks.evaluation.trial"])]:
        started = time.monotonic()
        code, lines = run_command(f"{trial.name} {step}", [sys.executable, *arguments], root)
        seconds[step] = time.monotonic() - started
        if code != 0:
            said = [line.partition("failed: ")[2] for line in lines if f"{step} failed: " in line]
            msg = (
                f"study {trial.study}, trial {trial.name}: {step} failed: {(said or lines or ['no reason given'])[-1]}"
            )
            raise StageError(msg)
    path = write_result(chosen, trial, checkout, now, seconds)
    get_run_logger().info("%s", path)
    log.info("%s %s: %s", trial.study, trial.name, ", ".join(f"{step} {took:.0f} s" for step, took in seconds.items()))
    return path
