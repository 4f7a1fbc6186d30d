"""What the instruments' commands share: recorded files, how answers are compared, and where a report goes."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_RECORDED = (
    click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True)),
    click.option("--medium", default="image", show_default=True, help="Key that names the image."),
)
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


def recorded_options(command: F) -> F:
    """Give a command FILES and the options that say how they are compared and where the report goes."""
    return _with(report_options(command), _RECORDED)


def report_options(command: F) -> F:
    """Give a command the options that say how answers are compared and where the report goes."""
    return _with(command, _REPORT)


def _with(command: F, options: Sequence[Callable[[F], F]]) -> F:
    for option in reversed(options):
        command = option(command)
    return command


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
