"""What the instruments' commands share: recorded files, how answers are compared, and where a report goes."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_REPORT = (
    click.option("--bootstrap", default=1000, show_default=True, type=click.IntRange(min=1), help="Replicates."),
    click.option("--seed", default=0, show_default=True, help="Of the replicates, and of answers that are drawn."),
    click.option(
        "--max-reject-share",
        default=0.05,
        show_default=True,
        type=click.FloatRange(0, 1),
        help="Fail if more of the media or records cannot be used.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="Write the report there as JSON, Markdown and a page, beside what models said.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON instead of Markdown."),
)


def report_options(command: F) -> F:
    """Give a command the options that say how answers are compared and where the report goes."""
    for option in reversed(_REPORT):
        command = option(command)
    return command


def paths_argument(command: F) -> F:
    """Give a command PATHS: media where a model is asked, files of recorded answers where none is."""
    return click.argument("paths", nargs=-1, required=True)(command)


def recorded_files(paths: Sequence[str]) -> list[Path]:
    """Check that paths are files.

    Raises:
        click.UsageError: one is not.
    """
    for path in paths:
        if not Path(path).is_file():
            msg = f"{path} is no file of recorded answers; to ask a model about photos, name it with --model"
            raise click.UsageError(msg)
    return [Path(path) for path in paths]


def refuse_given(names: Iterable[str], why: str) -> None:
    """Refuse options that were given and that would be left aside.

    Args:
        names: of parameters of the running command. why: what follows the option's name.

    Raises:
        click.UsageError: one was given.
    """
    context = click.get_current_context()
    options = {parameter.name: parameter for parameter in context.command.params}
    for name in names:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            msg = f"{options[name].opts[0]} {why}"
            raise click.UsageError(msg)


def show_report(
    report: Mapping[str, Any],
    out: Path | None,
    *,
    as_json: bool,
    markdown: Callable[[Mapping[str, Any]], str],
    write: Callable[[Path, Mapping[str, Any]], list[Path]],
) -> None:
    """Print a report, or write it where ``--out`` says, or both."""
    if out is not None:
        click.echo(f"written: {', '.join(map(str, write(out, report)))}", err=True)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    elif out is None:
        click.echo(markdown(report), nl=False)
