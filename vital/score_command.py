"""``vital score``: the machine opinion of photos and clips."""

import json
from typing import TYPE_CHECKING

import click

from vital.media_files import find_media, printable, tell_problem, with_progress

if TYPE_CHECKING:
    from tasks.annotation.cache_plan import CachePlan
    from tasks.annotation.opinions import ScoreResult


@click.command(short_help="Score photos and clips with six built-in scorers.")
@click.argument("paths", nargs=-1, metavar="PHOTO_OR_CLIP_OR_FOLDER...")
@click.option(
    "--scorer",
    "names",
    multiple=True,
    metavar="NAME",
    help="Ask this scorer instead of the built-in six (repeat for more): built-in, official or third-party.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of a table.")
@click.option(
    "--explain-cache",
    is_flag=True,
    help="Compute nothing: say what the stage score would take from the opinion store and what it would compute, of "
    "these files or, without any, of this checkout's pool.",
)
@click.pass_context
def score(
    ctx: click.Context, paths: tuple[str, ...], names: tuple[str, ...], *, as_json: bool, explain_cache: bool
) -> None:
    """Score photos and clips with six built-in no-reference scorers.

    Prints the six scores, their mean mu and deviation sigma, the level that mu lies in, and the probabilities of the
    five levels (PMOD, high to low). Scores are in [0, 1], higher is better. Folders are searched recursively.

    With --scorer the mean and deviation are those of the named scorers. Official ones need their weights: see `vital
    weights status`.

    This command computes every file and keeps nothing; opinions are kept by the stage score (`vital run`), with the
    scorers of params.yaml. --explain-cache looks into what it has kept.

    The exit code is 1 if anything could not be scored.
    """
    if explain_cache:
        ctx.exit(_explain(paths, names, as_json=as_json))
    if not paths:
        raise click.MissingParameter(ctx=ctx, param=ctx.command.params[0])
    from models.errors import ModelError
    from tasks.annotation.opinions import load_scorers, score_path
    from tasks.errors import MediaError

    scorers, scored, rejected = load_scorers(list(dict.fromkeys(names)) or None), [], False
    for named in with_progress(find_media(paths), "score"):
        try:
            if named.problem is not None:
                raise named.problem
            result = score_path(named.path, scorers)
        except (MediaError, ModelError) as error:
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


def _explain(paths: tuple[str, ...], names: tuple[str, ...], *, as_json: bool) -> int:
    """Print what the stage would compute; returns the exit code."""
    import dataclasses

    from infra.workspace import CHECKOUT
    from tasks.annotation.cache_plan import cache_plans, contents_of_files, contents_of_pool
    from tasks.errors import MediaError
    from tasks.media import read_file
    from tasks.memo import open_memo
    from tasks.stage import Place, read_params, stage_config

    config = stage_config("score", read_params(CHECKOUT)).panel
    if names:
        config = dataclasses.replace(config, scorers=tuple(dict.fromkeys(names)))
    found, rejected = [], False
    for named in with_progress(find_media(paths), "read"):
        try:
            if named.problem is not None:
                raise named.problem
            found.append(contents_of_files([read_file(named.path)]))
        except MediaError as error:
            rejected = True
            tell_problem(named.path, error, as_json=as_json)
    if not paths:
        found.append(contents_of_pool(Place(CHECKOUT, CHECKOUT / ".work", CHECKOUT / ".work")))
    if found:
        contents = {kind: frozenset[str]().union(*(part[kind] for part in found)) for kind in found[0]}
        _print_plans(cache_plans(config, contents, open_memo(CHECKOUT)), as_json=as_json)
    return int(rejected)


def _print_plans(plans: "list[CachePlan]", *, as_json: bool) -> None:
    import dataclasses

    from rich import box
    from rich.table import Table

    from vital.tables import print_table

    if as_json:
        for plan in plans:
            click.echo(json.dumps(dataclasses.asdict(plan)))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("scorer", "media", "cached", "to compute", "why", "version"):
        table.add_column(name, justify="right" if name in ("cached", "to compute") else "left", overflow="fold")
    for plan in plans:
        counts = f"{plan.cached}", f"{plan.to_compute}"
        table.add_row(plan.scorer, plan.modality.value, *counts, plan.why, plan.version)
    print_table(table)


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
        table.add_row(
            escape(printable(str(result.path))), f"{result.mu:.3f}", f"{result.sigma:.3f}", result.level, pmod, scores
        )
    print_table(table)
    click.echo(f"scores: {', '.join(results[0].scores)}")


def _two_digits(value: float) -> str:
    """A number of [0, 1] in three characters."""
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else "1.0"
