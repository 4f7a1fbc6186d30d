"""``vital assess``: the judgement of photos and clips by a trained model."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vital.media_files import find_media, printable, tell_problem, with_progress

if TYPE_CHECKING:
    from tasks.evaluation.assess import Assessment


@click.command(short_help="Assess photos and clips with a trained model of the registry.")
@click.argument("paths", nargs=-1, required=True, metavar="PHOTO_OR_CLIP_OR_FOLDER...")
@click.option("--model", metavar="NAME[@VERSION|#STAGE]", help="Model of the registry (default: vital-base#prod).")
@click.option(
    "--ask", "question", metavar="QUESTION", help="Ask this about each; a model that learnt to: vital-assistant."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of a table.")
@click.pass_context
def assess(
    ctx: click.Context, paths: tuple[str, ...], model: str | None, question: str | None, *, as_json: bool
) -> None:
    """Assess photos and clips with a trained model of the registry.

    Prints the quality in [0, 1] (higher is better), the probabilities of the five levels (high to low), the level, the
    distortion that the model sees, and a description. Without --model the promoted vital-base judges; `vital run`
    makes one. Models of the embedded profile tell distortion and description badly: take their score and level alone.
    With --ask the model also answers a question, for example

    \b
    vital assess photo.jpg --model vital-assistant#prod --ask "Is the image blurry?
    A. Yes
    B. No"

    The exit code is 1 if anything could not be assessed.
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    from infra.registry import resolve_judge

    folder = resolve_judge(model)  # before the seconds that torch takes: a wrong name is told at once
    from vital.quiet import quiet_libraries

    with quiet_libraries():
        assessed, rejected = _assess_all(folder, paths, question, as_json=as_json)
    if assessed:
        _print_table(assessed, asked=question is not None)
    ctx.exit(int(rejected))


def _assess_all(
    folder: Path, paths: tuple[str, ...], question: str | None, *, as_json: bool
) -> "tuple[list[Assessment], bool]":
    """Assess everything; results go out at once as JSON, or come back. Also says whether anything was rejected."""
    from models.quality_lmm import QualityLMM
    from tasks.errors import MediaError
    from tasks.evaluation.assess import assess_path

    judge, assessed, rejected = QualityLMM.from_pretrained(folder), [], False
    for named in with_progress(find_media(paths), "assess"):
        try:
            if named.problem is not None:
                raise named.problem
            result = assess_path(named.path, judge, question)
        except MediaError as error:
            rejected = True
            tell_problem(named.path, error, as_json=as_json)
            continue
        if as_json:
            click.echo(json.dumps({**dataclasses.asdict(result), "path": str(named.path)}))
        else:
            assessed.append(result)
    return assessed, rejected


def _print_table(results: "list[Assessment]", *, asked: bool) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from vital.tables import print_table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = ("path", "score", "level", "high good fair poor low", "distortion", "description")
    for name in (*names, "answer") if asked else names:
        table.add_column(name, overflow="fold")
    for result in results:
        levels = " ".join(f"{value:.2f}" for value in result.level_probs)
        texts = [escape(result.distortion), escape(result.description)]
        texts += [escape(result.answer or "")] if asked else []
        table.add_row(escape(printable(str(result.path))), f"{result.score:.3f}", result.level, levels, *texts)
    print_table(table)
