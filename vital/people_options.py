"""Options about people's scores of what models are asked about."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from tasks.evaluation.people import People
    from tasks.human_scale import Meaning

F = TypeVar("F", bound=Callable[..., Any])

_MEANING = (
    click.option(
        "--polarity",
        type=click.Choice(["mos", "dmos", "negated_dmos"]),
        help="Which way people's scores run; without it they are left out, since it is never guessed.",
    ),
    click.option("--range", "ends", nargs=2, type=float, metavar="LOW HIGH", help="Scale of people's scores."),
)
_TABLE = (
    click.option(
        "--people",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        metavar="FILE",
        help="Table of people's scores of the media that a model is asked about (.csv, .tsv, .parquet, .jsonl).",
    ),
    click.option("--people-id", metavar="COLUMN", help="Column that names the media (default: id, path or name)."),
    click.option("--mos", default="mos", show_default=True, metavar="COLUMN", help="Column of people's mean scores."),
)


def people_options(command: F) -> F:
    """Give a command the options that name a table of people's scores and say what they mean."""
    for option in reversed((*_TABLE, *_MEANING)):
        command = option(command)
    return command


def meaning_of(polarity: str | None, ends: tuple[float, float] | None) -> "Meaning | None":
    """What people's scores mean, if that is declared.

    Raises:
        click.UsageError: half of it is. StageError: it makes no sense.
    """
    if (polarity is None) != (ends is None):
        raise click.UsageError("--polarity and --range belong together: both, or neither to leave people out")
    from tasks.human_scale import Meaning, Polarity

    return Meaning(Polarity(polarity), *ends) if polarity and ends else None


def people_of(
    people: Path | None, people_id: str | None, mos: str, meaning: "Meaning | None", content: str | None = None
) -> "People | None":
    """The table of people's scores, if there is one.

    Raises:
        click.UsageError: there is one, and nothing says what its numbers mean; or the other way round.
    """
    if (people is None) != (meaning is None):
        raise click.UsageError("--people goes with --polarity and --range: what its numbers mean is never guessed")
    if people is None or meaning is None:
        return None
    from tasks.evaluation.people import People

    return People(people, meaning, people_id, mos, content)
