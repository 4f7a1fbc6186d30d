"""The one bridge to DVC: run one stage of a workspace as one Prefect task run.

DVC decides what is stale; Prefect decides when it runs, and shows it. ``dvc repro`` alone gives the same files.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

import yaml
from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from flows.story import StageStory, report_page
from infra.pool_view import refresh_view
from infra.process_group import ProcessGroup
from infra.travelling import InputState, TravellingInput, travelling_inputs
from infra.workspace import CHECKOUT, made_by
from tasks.errors import StageError
from tasks.stage import STAGES, read_params, resolved

log = logging.getLogger("vital.line")
"""One line per stage for whoever watches a terminal; the run's own log holds everything."""

_LOCK_SIGNS: Final = ("Unable to acquire lock", "is busy, it is being blocked by")
_LOCK_WAIT_S: Final = 15
_LOCK_TRIES: Final = 240


class Outcome(StrEnum):
    """What became of a stage in this run."""

    EXECUTED = "executed"
    RESTORED = "restored"
    UNCHANGED = "unchanged"


class WorkspaceLockedError(StageError):
    """Another process holds DVC's lock of this workspace; trying again later helps."""


@dataclass(frozen=True)
class StageCall:
    """One stage to run.

    Attributes:
        stage: its name.
        workspace: folder of the dvc.yaml.
        stale: whether it may have to run; if not, DVC is not asked at all.
        pull: take missing data and finished stages from the DVC remote where it has them.
    """

    stage: str
    workspace: Path
    stale: bool
    pull: bool = False


def dvc_status(workspace: Path) -> dict[str, list[Any]]:
    """What one ``dvc status`` says: stale stage -> DVC's reasons (texts, or kind of change -> file -> change).

    Raises:
        StageError: DVC cannot read the workspace; the message is DVC's.
        WorkspaceLockedError: another process is using it.
        InfraError: the checkout's pool holds what DVC cannot track.
    """
    refresh_view(workspace)
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, cwd=workspace, env=stage_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.splitlines()
        _raise_if_locked(workspace, lines)
        raise StageError(_dvc_error(lines) or " ".join(done.stderr.split()) or f"dvc status failed in {workspace}")
    return json.loads(done.stdout)


def upstream_stages(workspace: Path) -> dict[str, set[str]]:
    """For every stage of the workspace's dvc.yaml, the stages whose outputs it reads."""
    stages: dict[str, dict[str, Any]] = yaml.safe_load((workspace / "dvc.yaml").read_text())["stages"]
    named = any("${" in str(declared) for stage in stages.values() for declared in stage.get("deps", []))
    params = read_params(workspace) if named else {}
    makers = {out: name for name, stage in stages.items() for out in made_by(stage)}
    return {
        name: {
            maker
            for dependency in (resolved(declared, params) for declared in stage.get("deps", []))
            for out, maker in makers.items()
            if dependency == out or dependency.startswith(f"{out}/")
        }
        for name, stage in stages.items()
    }


def stage_environment() -> dict[str, str]:
    """Environment of DVC and its stages: this interpreter and this checkout's code first, nothing sent anywhere."""
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    code = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PATH": os.pathsep.join(paths),
        "PYTHONPATH": os.pathsep.join(code),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
    }


def _raise_if_locked(workspace: Path, lines: Sequence[str]) -> None:
    if any(sign in line for line in lines for sign in _LOCK_SIGNS):
        holders = sorted(set(re.findall(r"\(PID (\d+)\)", " ".join(lines))))
        by = f" (process {', '.join(holders)})" if holders else ""
        msg = f"another run{by} is using the workspace {workspace}: wait for it, or end it"
        raise WorkspaceLockedError(msg)


def _is_locked(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    if isinstance(error, WorkspaceLockedError):
        log.warning("%s; trying again", error)
        return True
    return False


_waits_for_lock: Final[dict[str, Any]] = {
    "retries": _LOCK_TRIES,
    "retry_delay_seconds": _LOCK_WAIT_S,
    "retry_condition_fn": _is_locked,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


@task(name="find stale stages", task_run_name="find stale stages", tags=["dvc"], **_waits_for_lock)
def find_stale(workspace: Path) -> set[str]:
    """Names of the stages that DVC would not skip; see ``dvc_status`` for errors."""
    return set(dvc_status(workspace))


@task(name="fetch inputs", task_run_name="fetch inputs", tags=["dvc"], **_waits_for_lock)
def fetch_inputs(checkout: Path = CHECKOUT) -> list[str]:
    """Bring what travels with the repository (sample pool, base models) to what its DVC files name.

    What is absent, or is what an earlier DVC file named, is pulled. What somebody has changed is kept and told.

    Returns:
        The paths that were fetched.

    Raises:
        StageError: the seed remote does not have them; the message is DVC's.
    """
    fetched: list[str] = []
    for thing in travelling_inputs(checkout):
        if thing.state is InputState.CHANGED:
            told = (
                f"{thing.path} is not what {thing.file} names, and is used as it is: "
                f"dvc checkout --force {thing.file} takes the change back, {thing.record} records it"
            )
            log.warning("%s", told)
            get_run_logger().warning("%s", told)
        elif thing.state is not InputState.CURRENT:
            _pull(thing, checkout)
            fetched.append(thing.path)
    return fetched


def _pull(thing: TravellingInput, checkout: Path) -> None:
    command = [sys.executable, "-m", "dvc", "pull", thing.file]
    done = subprocess.run(command, cwd=checkout, env=stage_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.splitlines()
        _raise_if_locked(checkout, lines)
        msg = f"cannot fetch {thing.path}: {_dvc_error(lines) or 'dvc pull failed'}"
        raise StageError(msg)
    if thing.state is InputState.OLD:
        log.info("%s was what an earlier %s named; now it is up to date", thing.path, thing.file)


@task(name="stage", task_run_name="{call.stage}", tags=["dvc"], **_waits_for_lock)
def run_stage(call: StageCall) -> Outcome:
    """Run one stage through DVC and leave an artifact that tells what it made.

    Raises:
        StageError: the stage failed; the message ends with the stage's own reason.
        WorkspaceLockedError: another process is using the workspace, even after all retries.
    """
    started = time.monotonic()

    def story(outcome: str, reason: str | None = None) -> StageStory:
        return StageStory(call.stage, call.workspace, outcome, time.monotonic() - started, reason)

    try:
        outcome = _reproduce(call) if call.stale else Outcome.UNCHANGED
    except WorkspaceLockedError:
        raise
    except StageError as error:
        _tell(call, story("failed", str(error)))
        raise
    _tell(call, story(outcome))
    return outcome


def run_command(label: str, command: Sequence[str], workspace: Path) -> tuple[int, list[str]]:
    """Run a command in a workspace, its output streamed to the task run's log; it ends with us, however we end.

    Args:
        label: before its latest output on the terminal.

    Returns:
        Exit code, and the lines that it wrote.
    """
    logger, lines = get_run_logger(), []
    with ProcessGroup(command, cwd=workspace, env=stage_environment()) as running, _Terminal(label) as screen:
        for piece in running.output():
            screen.show(piece.text)
            if not piece.transient and piece.text:
                lines.append(piece.text)
                logger.info("%s", piece.text)
        return running.wait(), lines


def _reproduce(call: StageCall) -> Outcome:
    """``dvc repro`` of one stage alone."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", call.stage, *(["--pull"] if call.pull else [])]
    code, lines = run_command(call.stage, command, call.workspace)
    if code != 0:
        reason = _reason(call.stage, lines)
        if any(sign in line for line in lines for sign in _LOCK_SIGNS):
            msg = f"{call.stage} has to wait: {reason}"
            raise WorkspaceLockedError(msg)
        msg = f"{call.stage} failed: {reason}"
        raise StageError(msg)
    return _outcome(call.stage, lines)


def _outcome(stage: str, lines: Sequence[str]) -> Outcome:
    if any(line.startswith(f"Running stage '{stage}'") for line in lines):
        return Outcome.EXECUTED
    return Outcome.RESTORED if any("is cached - skipping run" in line for line in lines) else Outcome.UNCHANGED


def _reason(stage: str, lines: Sequence[str]) -> str:
    """The stage's own last line of complaint: what ``python -m tasks`` says, else its last line, else DVC's."""
    own = [line for line in lines if f"{stage} failed: " in line]
    if own:
        return own[-1].partition(f"{stage} failed: ")[2]
    ran = [number for number, line in enumerate(lines) if line.startswith(f"Running stage '{stage}'")]
    said = [line for line in lines[ran[-1] + 2 :] if not line.startswith("ERROR: ")] if ran else []
    return said[-1] if said else _dvc_error(lines) or "dvc gave no reason"


def _dvc_error(lines: Sequence[str]) -> str:
    """DVC's own error, which it may go on explaining in the lines after it."""
    for number, line in enumerate(lines):
        if line.startswith("ERROR: "):
            more = [text for text in lines[number + 1 :] if text and "dvc.org" not in text]
            return " ".join(" ".join([line.removeprefix("ERROR: "), *more]).split())
    return ""


def _tell(call: StageCall, story: StageStory) -> None:
    """One line for people, one artifact for the UI; after ``report`` also the link to the page."""
    log.info("%s", story.line())
    get_run_logger().info("%s", story.line())
    key = f"stage-{call.stage.replace('_', '-')}"
    create_markdown_artifact(story.page(), key=key, description=f"{call.stage}: {story.outcome}")
    page = report_page(call.workspace)
    if call.stage == "report" and page.is_file():
        # browsers do not follow a link from http to a file, so the path is there to be copied, too
        create_link_artifact(page.as_uri(), link_text=str(page), key="report", description=f"`{page}`")


class Line:
    """One pass over the stages of a workspace, in the order in which they are called.

    Only stages that DVC calls stale, and those that read what this pass has made anew, go to DVC at all.

    Args:
        workspace: folder of the dvc.yaml.
        targets: the stages this pass is about; others are passed over.
        pull: see ``StageCall``.
    """

    def __init__(self, workspace: Path, targets: Collection[str], *, pull: bool = False) -> None:
        self._workspace, self._targets, self._pull = workspace, targets, pull
        self._stale, self._upstream = find_stale(workspace), upstream_stages(workspace)
        self.outcomes: dict[str, Outcome] = {}

    def due(self) -> list[str]:
        """Targets that may run: what DVC calls stale, and what reads from such a target."""
        found: list[str] = []
        for stage in STAGES:
            if stage in self._targets and (stage in self._stale or self._upstream[stage] & set(found)):
                found.append(stage)
        return found

    def run(self, *stages: str) -> None:
        """Run those of some stages that are targets, one after the other; see ``run_stage`` for errors."""
        for stage in stages:
            if stage in self._targets:
                self._run(stage)

    def _run(self, stage: str) -> None:
        renewed = {name for name, outcome in self.outcomes.items() if outcome is not Outcome.UNCHANGED}
        stale = stage in self._stale or bool(renewed & self._upstream[stage])
        self.outcomes[stage] = run_stage(StageCall(stage, self._workspace, stale, self._pull))


class _Terminal:
    """Shows a stage's latest output in place, if a person is watching."""

    def __init__(self, stage: str) -> None:
        self._stage, self._watched = stage, sys.stderr.isatty()

    def __enter__(self) -> Self:
        self.show("...")
        return self

    def __exit__(self, *_: object) -> None:
        if self._watched:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def show(self, text: str) -> None:
        """Replace what is shown."""
        if self._watched and text:
            line = f"{self._stage}  {text.removeprefix(f'{self._stage}: ')}"
            sys.stderr.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()
