"""``vital score``: the machine opinion of photos and clips."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vital.media_files import find_media, printable, tell_problem, with_progress
from vital.result_files import (
    LEVEL_COLUMNS,
    Collected,
    Record,
    Shape,
    left_of,
    open_output,
    result_options,
    run_name,
)

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
    help="Ask this scorer instead of the built-in six (repeat for more): built-in, official, third-party, or rali, the "
    "registry's student without a language model (rali:FOLDER or rali:NAME@VERSION names another).",
)
@result_options
@click.option(
    "--explain-cache",
    is_flag=True,
    help="Compute nothing: say what the stage score would take from the opinion store and what it would compute, of "
    "these files or, without any, of this checkout's pool.",
)
@click.pass_context
def score(  # noqa: PLR0913 - one argument per option
    ctx: click.Context,
    paths: tuple[str, ...],
    names: tuple[str, ...],
    out: Path | None,
    *,
    as_json: bool,
    as_csv: bool,
    retry_rejects: bool,
    explain_cache: bool,
) -> None:
    """Score photos and clips with six built-in no-reference scorers.

    Prints the six scores, their mean mu and deviation sigma, the level that mu lies in, and the probabilities of the
    five levels (PMOD, high to low). Scores are in [0, 1], higher is better. Folders are searched recursively.

    With --scorer the mean and deviation are those of the named scorers. Official ones need their weights: see `vital
    weights status`.

    This command computes every file and keeps nothing; opinions are kept by the stage score (`vital run`), with the
    scorers of params.yaml. --explain-cache looks into what it has kept.

    --out writes into a file as results come; the same command goes on where that file ends, and leaves out files whose
    size and time of change are the same. A file that was rejected for its content is left out too until it changes; one
    that was missing or could not be read is tried every time, and --retry-rejects tries all. Of several rows of a path
    the last one counts.

    The exit code is 1 if anything could not be scored.
    """
    if explain_cache:
        ctx.exit(_explain(paths, names, as_json=as_json))
    if not paths:
        raise click.MissingParameter(ctx=ctx, param=ctx.command.params[0])
    from models.errors import ModelError
    from tasks.annotation.opinions import score_path
    from tasks.errors import MediaError
    from vital.named_scorers import named_scorers

    scorers = named_scorers(list(dict.fromkeys(names)) or None)
    versions = [(scorer.name, scorer.version) for scorer in scorers]
    shape = Shape(("mu", "sigma", "level", *LEVEL_COLUMNS, *(name for name, _ in versions)), _row)
    kind = {"as_json": as_json, "as_csv": as_csv, "retry_rejects": retry_rejects}
    with open_output(out, shape, run_name("score", versions), **kind) as output:
        left, rejected = left_of(find_media(paths), output)
        for named, state in with_progress(left, "score", len(left)):
            try:
                if named.problem is not None:
                    raise named.problem
                output.result(state, _record(score_path(named.path, scorers)))
            except (MediaError, ModelError) as error:
                rejected = True
                output.problem(state, error)
    if isinstance(output, Collected) and output.records:
        _print_table(output.records)
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
    named_files = find_media(paths)
    for named in with_progress(named_files, "read", len(named_files)):
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


def _record(result: "ScoreResult") -> Record:
    return {
        "scores": dict(result.scores),
        "mu": result.mu,
        "sigma": result.sigma,
        "pmod": list(result.pmod),
        "level": result.level,
    }


def _row(record: Record) -> Record:
    return {**record, **record["scores"], **dict(zip(LEVEL_COLUMNS, record["pmod"], strict=True))}


def _print_table(records: "list[tuple[str, Record]]") -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from vital.tables import print_table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("path", overflow="fold", min_width=12)
    for name in ("mu", "sigma", "level", " ".join(LEVEL_COLUMNS), "scores"):
        table.add_column(name, no_wrap=name != "scores")
    for path, record in records:
        pmod = "  ".join(_two_digits(value) for value in record["pmod"])
        scores = " ".join(_two_digits(value) for value in record["scores"].values())
        numbers = f"{record['mu']:.3f}", f"{record['sigma']:.3f}"
        table.add_row(escape(printable(path)), *numbers, record["level"], pmod, scores)
    print_table(table)
    click.echo(f"scores: {', '.join(records[0][1]['scores'])}")


def _two_digits(value: float) -> str:
    """A number of [0, 1] in three characters."""
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else "1.0"
