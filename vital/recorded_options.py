"""What the commands on recorded answers share: their files, how they are compared, and where a report goes."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True)),
    click.option("--medium", default="image", show_default=True, help="Key that names the image."),
    click.option("--bootstrap", default=1000, show_default=True, type=click.IntRange(min=1), help="Replicates."),
    click.option("--seed", default=0, show_default=True, help="Of the replicates."),
    click.option(
        "--max-reject-share",
        default=0.05,
        show_default=True,
        type=click.FloatRange(0, 1),
        help="Fail if more of the records cannot be compared.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="Write the report there as JSON, Markdown and a page.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON instead of Markdown."),
)


def recorded_options(command: F) -> F:
    """Give a command FILES and the options that say how they are compared and where the report goes."""
    for option in reversed(_OPTIONS):
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
