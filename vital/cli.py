"""The command ``vital``. Subcommands are imported when they are called, so that scoring a photo starts fast."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from infra.errors import InfraError
from models.errors import ModelError
from tasks.errors import VitalError

COMMANDS: Final = {
    "score": "vital.score_command:score",
    "assess": "vital.assess_command:assess",
    "opinions": "vital.opinions_commands:opinions",
    "run": "vital.run_command:run",
    "status": "vital.run_command:status",
    "registry": "vital.registry_commands:registry",
    "store": "vital.store_commands:store",
}
"""Subcommand -> where it is defined, in the order of the help page."""

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


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="vital")
def cli() -> None:
    """VITAL, a foundry for visual-quality models.

    Scores photos and clips, trains quality models on a pool of media, benchmarks them, and keeps them in a registry.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every expected failure is one line on stderr and a non-zero exit code."""
    try:
        code = cli.main(args=arguments, prog_name="vital", standalone_mode=False)
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
