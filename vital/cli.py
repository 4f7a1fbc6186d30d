"""The command ``vital``. Subcommands are imported when they are called, so that scoring a photo starts fast."""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from infra.errors import InfraError
from models.errors import ModelError
from tasks.errors import VitalError

COMMANDS: Final = {
    "score": "vital.score_command:score",
    "assess": "vital.assess_command:assess",
    "opinions": "vital.opinions_commands:opinions",
    "data": "vital.data_commands:data",
    "review": "vital.review_commands:review",
    "contradiction": "vital.contradiction_command:contradiction",
    "instability": "vital.instability_command:instability",
    "readout": "vital.readout_command:readout",
    "ground": "vital.ground_command:ground",
    "lens": "vital.lens_command:lens",
    "attention": "vital.attention_command:attention",
    "run": "vital.run_command:run",
    "status": "vital.run_command:status",
    "plan": "vital.plan_command:plan",
    "registry": "vital.registry_commands:registry",
    "store": "vital.store_commands:store",
    "weights": "vital.weights_commands:weights",
    "rali": "vital.rali_commands:rali",
    "study": "vital.study_commands:study",
}
"""Subcommand -> where it is defined, in the order of the help page."""

_OF_A_CHECKOUT: Final = ("run", "status", "plan", "registry", "store", "opinions", "review", "study")
"""Subcommands that read and change the checkout that this installation belongs to."""

_OF_A_WORKSPACE: Final = (("run",), ("status",), ("review", "plan"), ("review", "show"), ("opinions", "drift"))
"""Subcommands that act on the checkout's own run, unless an option names another."""

_ANOTHER: Final = ("--workspace", "--pool", "--profile", "--set", "--seeds")
"""Options that name another."""

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells have it."""


class LazyGroup(click.Group):
    """A group that imports a subcommand when somebody names it (or asks for the list with help texts)."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a subcommand."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand of a command line, and refuse it where it would act on somebody else's checkout."""
        name, command, rest = super().resolve_command(ctx, args)
        elsewhere = any(part in ("-h", "--help") or part.split("=")[0] == "--repo" for part in rest)
        if name in _OF_A_CHECKOUT and not elsewhere:
            _stand_in_own_checkout(name)
            _tell_which(name, rest)
        return name, command, rest


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="vital")
def cli() -> None:
    """VITAL, a foundry for visual-quality models.

    Scores photos and clips, trains quality models on a pool of media, benchmarks them, and keeps them in a registry.
    """


def _stand_in_own_checkout(what: str) -> None:
    """Refuse to act on one checkout for somebody who stands in another.

    Raises:
        InfraError: the working directory lies in another checkout of this project.
    """
    from infra.workspace import CHECKOUT, checkout_around

    here = checkout_around(Path.cwd())
    if here not in (None, CHECKOUT):
        msg = (
            f"this vital belongs to the checkout {CHECKOUT}, and you stand in {here}: "
            f"install there (make install) and say {here}/.venv/bin/vital {what}, or leave that folder"
        )
        raise InfraError(msg)


def _tell_which(name: str, rest: Sequence[str]) -> None:
    """Say so where the checkout is meant by somebody who stands in one of its workspaces."""
    from infra.workspace import CHECKOUT, workspace_around

    said = (name, *rest)
    of_a_run = any(said[: len(words)] == words for words in _OF_A_WORKSPACE)
    if not of_a_run or any(part.split("=")[0] in _ANOTHER for part in rest):
        return
    here = workspace_around(Path.cwd())
    if here is not None:
        told = (
            f"acting on the checkout {CHECKOUT}, not on the workspace that you stand in: --workspace {here} means that"
        )
        click.echo(f"vital: {told}", err=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every expected failure is one line on stderr and a non-zero exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal's encoding has not
    try:
        code = cli.main(args=arguments, prog_name="vital", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        code = error.exit_code
    except click.ClickException as error:
        code = _fail(error.format_message(), error.exit_code)
    except (VitalError, ModelError, InfraError) as error:
        code = _fail(str(error), 1)
    except (click.Abort, KeyboardInterrupt):
        code = _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        code = _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    click.echo(f"vital: {' '.join(message.split())}", err=True)
    return code
