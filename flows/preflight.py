"""What is settled before a run starts: its stages, whether it ends with a promotion, that every config can be built.

Imports neither Prefect nor a stage. Configs are built by a process of their own (``python -m flows.preflight``): stages
import torch, which a flow must not carry for as long as it lasts.
"""

import functools
import json
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from infra.errors import InfraError
from infra.needs import missing_keys, missing_needs
from infra.offer import read_lock
from infra.params import profile_needs
from infra.workspace import CHECKOUT
from tasks.errors import ConfigError
from tasks.stage import STAGES, stage_config

PROMOTED: Final = "register"
"""Stage that makes what a promotion offers."""


def check_targets(targets: Sequence[str] | None) -> list[str]:
    """The stages of a run; all of them if ``targets`` is None.

    Raises:
        ConfigError: one of them does not exist.
    """
    unknown = [name for name in targets or [] if name not in STAGES]
    if unknown:
        msg = f"unknown stage {unknown[0]!r}; the stages are {', '.join(STAGES)}"
        raise ConfigError(msg)
    return list(STAGES if targets is None else targets)


def promotes_by_default(root: Path, targets: Collection[str], checkout: Path = CHECKOUT) -> bool:
    """Whether a run that nobody has asked ends with a promotion: if it is the checkout's and makes candidates."""
    return root == checkout and PROMOTED in targets


def check_needs(profile: str) -> None:
    """Refuse a profile whose declared needs (GPUs, hub snapshots, keys) this machine does not have.

    Raises:
        ConfigError: something is missing; the message tells how to see all of it.
    """
    missing = missing_needs(profile_needs(CHECKOUT, profile), CHECKOUT)
    if missing:
        more = f", and {len(missing) - 1} more" if missing[1:] else ""
        msg = (
            f"this machine lacks what the profile {profile} needs ({missing[0]}{more}): "
            f"vital run --profile {profile} --dry-run lists everything"
        )
        raise ConfigError(msg)


def check_keys(params: Mapping[str, Any], stages: Collection[str]) -> None:
    """Refuse to start stages that ask endpoints whose keys are not set.

    Args:
        params: all sections of the run.
        stages: those that may run.

    Raises:
        ConfigError: a key is missing; the message names all of them.
    """
    missing = missing_keys({stage: params.get(stage) for stage in stages}, {})
    if missing:
        msg = f"nothing was run: {'; '.join(missing)}"
        raise ConfigError(msg)


def check_configs(params: Mapping[str, Any], targets: Collection[str], root: Path) -> None:
    """Build the config of every target whose section DVC has not seen it run with; that costs seconds, once.

    Args:
        params: all sections of the run.
        targets: stages that may run.
        root: the workspace; it need not exist.

    Raises:
        ConfigError: a section is missing or wrong; the message names section and key, of each wrong one.
    """
    ran = _ran_with(root)
    new = {name: params.get(name) for name in targets if name not in params or ran.get(name) != params[name]}
    check_sections([new] if new else [])


def check_sections(runs: Sequence[Mapping[str, Any]]) -> None:
    """Build the configs of the sections of several runs, in one process of its own.

    Args:
        runs: per run, stage -> its section.

    Raises:
        ConfigError: a section is missing or wrong; the message names section and key, of each wrong one.
    """
    if problem := _problem(json.dumps(runs, sort_keys=True)) if runs else "":
        raise ConfigError(problem)


def _ran_with(workspace: Path) -> dict[str, Any]:
    """Stage -> the section that it last ran with here."""
    try:
        stages = read_lock(workspace)
        return {name: stage.get("params", {}).get("params.yaml", {}).get(name) for name, stage in stages.items()}
    except (InfraError, AttributeError):
        return {}  # nothing is known then; DVC itself says what is wrong with the file


@functools.cache
def _problem(runs: str) -> str:
    """What a process of its own says against the sections of some runs (JSON); empty if nothing."""
    command = [sys.executable, "-m", "flows.preflight"]
    done = subprocess.run(command, cwd=CHECKOUT, input=runs, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2] or "the params cannot be checked"


def main() -> int:
    """Build the configs of the sections on standard input; the last line on stderr says what is wrong."""
    problems: list[str] = []
    for stage, values in (item for sections in json.load(sys.stdin) for item in sections.items()):
        try:
            stage_config(stage, {} if values is None else {stage: values})
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        sys.stderr.write(f"{'; '.join(problems)}\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
