"""``vital score``: the machine opinion of photos and clips."""

import json
from typing import TYPE_CHECKING

import click

from vital.media_files import find_media, tell_problem, with_progress

if TYPE_CHECKING:
    from tasks.annotation.opinions import ScoreResult


@click.command(short_help="Score photos and clips with six built-in scorers.")
@click.argument("paths", nargs=-1, required=True, metavar="PHOTO_OR_CLIP_OR_FOLDER...")
@click.option(
    "--scorer",
    "names",
    multiple=True,
    metavar="NAME",
    help="Ask this scorer instead of the built-in six (repeat for more): built-in, official or third-party.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of a table.")
@click.pass_context
def score(ctx: click.Context, paths: tuple[str, ...], names: tuple[str, ...], *, as_json: bool) -> None:
    """Score photos and clips with six built-in no-reference scorers.

    Prints the six scores, their mean mu and deviation sigma, the level that mu lies in, and the probabilities of the
    five levels (PMOD, high to low). Scores are in [0, 1], higher is better. Folders are searched recursively.

    With --scorer the mean and deviation are those of the named scorers. Official ones need their weights: see `vital
    weights status`.

    The exit code is 1 if anything could not be scored.
    """
    from tasks.annotation.opinions import load_scorers, score_path
    from tasks.errors import MediaError

    scorers, scored, rejected = load_scorers(list(dict.fromkeys(names)) or None), [], False
    for named in with_progress(find_media(paths), "score"):
        try:
            if named.problem is not None:
                raise named.problem
            result = score_path(named.path, scorers)
        except MediaError as error:
            rejected = True
            tell_problem(named.path, error, as_json=as_json)
            continue
        if as_json:
            click.echo(json.dumps(_record(result)))
        else:
            scored.append(result)
    if scored:
        _print_table(scored)
    ctx.exit(int(rejected))


def _record(result: "ScoreResult") -> dict[str, object]:
    return {
        "path": str(result.path),
        "scores": dict(result.scores),
        "mu": result.mu,
        "sigma": result.sigma,
        "pmod": list(result.pmod),
        "level": result.level,
    }


def _print_table(results: "list[ScoreResult]") -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from vital.tables import print_table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("path", overflow="fold", min_width=12)
    for name in ("mu", "sigma", "level", "high good fair poor low", "scores"):
        table.add_column(name, no_wrap=name != "scores")
    for result in results:
        pmod = "  ".join(_two_digits(value) for value in result.pmod)
        scores = " ".join(_two_digits(value) for value in result.scores.values())
        table.add_row(escape(str(result.path)), f"{result.mu:.3f}", f"{result.sigma:.3f}", result.level, pmod, scores)
    print_table(table)
    click.echo(f"scores: {', '.join(results[0].scores)}")


def _two_digits(value: float) -> str:
    """A number of [0, 1] in three characters."""
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else "1.0"
