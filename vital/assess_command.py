"""``vital assess``: the judgement of photos and clips by a trained model."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from vital.media_files import Named, find_media, printable, with_progress
from vital.result_files import (
    LEVEL_COLUMNS,
    Collected,
    FileState,
    Output,
    Record,
    Shape,
    left_of,
    open_output,
    result_options,
    run_name,
)

if TYPE_CHECKING:
    from tasks.devices import AskedDevice, PrecisionName
    from tasks.evaluation.assess import Assessment, Judge, Rejected, Wanted

_TEXTS: Final = ("distortion", "description", "answer")


@click.command(short_help="Assess photos and clips with a trained model of the registry.")
@click.argument("paths", nargs=-1, required=True, metavar="PHOTO_OR_CLIP_OR_FOLDER...")
@click.option("--model", metavar="NAME[@VERSION|#STAGE]", help="Model of the registry (default: vital-base#prod).")
@click.option(
    "--ask", "question", metavar="QUESTION", help="Ask this about each; a model that learnt to: vital-assistant."
)
@click.option("--no-text", is_flag=True, help="Leave out distortion and description: much faster.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Media that the model sees together."
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the model computes; auto is the GPU if there is one.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="Of weights and products. Default: float32 on the CPU; bfloat16 on a GPU: half the memory, and scores near "
    "those of float32, not equal to them.",
)
@result_options
@click.pass_context
def assess(  # noqa: PLR0913 - one argument per option
    ctx: click.Context,
    paths: tuple[str, ...],
    model: str | None,
    question: str | None,
    *,
    batch: int,
    device: "AskedDevice",
    precision: "PrecisionName | None",
    out: Path | None,
    no_text: bool,
    as_json: bool,
    as_csv: bool,
    retry_rejects: bool,
) -> None:
    """Assess photos and clips with a trained model of the registry.

    Prints the quality in [0, 1] (higher is better), the probabilities of the five levels (high to low), the level, the
    distortion that the model sees, and a description. Without --model the promoted vital-base judges; `vital run`
    makes one. Models of the embedded profile tell distortion and description badly: take their score and level alone.
    A probe (vital-probe) has no words. With --ask the model also answers a question, for example

    \b
    vital assess photo.jpg --model vital-assistant#prod --ask "Is the image blurry?
    A. Yes
    B. No"

    --out writes into a file as results come; the same command goes on where that file ends, and leaves out files whose
    size and time of change are the same. A file that was rejected for its content is left out too until it changes; one
    that was missing or could not be read is tried every time, and --retry-rejects tries all. Of several rows of a path
    the last one counts.

    The exit code is 1 if anything could not be assessed.
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    from infra.registry import resolve_judge

    folder = resolve_judge(model)  # before the seconds that torch takes: a wrong name is told at once
    from tasks.devices import computing

    where = computing(device, precision)
    shape = Shape(("score", "level", *LEVEL_COLUMNS, *_TEXTS), _row)
    lowered = [where.precision] if where.precision != "float32" else []
    run = run_name("assess", folder.name, question, no_text, *lowered)
    kind = {"as_json": as_json, "as_csv": as_csv, "retry_rejects": retry_rejects}
    with open_output(out, shape, run, **kind) as output:
        left, rejected = left_of(find_media(paths), output)
        if left:
            from tasks.evaluation.assess import Wanted, load_judge
            from vital.quiet import quiet_libraries

            with quiet_libraries():
                judge = load_judge(folder, where)
                rejected |= _assess_all(judge, left, Wanted(question, not no_text, batch), output)
    if isinstance(output, Collected) and output.records:
        _print_table(output.records)
    ctx.exit(int(rejected))


def _assess_all(judge: "Judge", left: "Sequence[tuple[Named, FileState]]", wanted: "Wanted", output: Output) -> bool:
    """Assess everything; results go out as they come. Says whether anything was rejected."""
    from tasks.evaluation.assess import Rejected

    rejected = False
    outcomes = _outcomes([named for named, _ in left], judge, wanted)
    for (_, state), outcome in zip(left, with_progress(outcomes, "assess", len(left)), strict=True):
        if isinstance(outcome, Rejected):
            rejected = True
            output.problem(state, outcome.error)
        else:
            output.result(state, _record(outcome))
    return rejected


def _outcomes(left: Sequence[Named], judge: "Judge", wanted: "Wanted") -> "Iterator[Assessment | Rejected]":
    """One outcome for each name, in order; what names no file never reaches the model."""
    from tasks.evaluation.assess import Rejected, assess_many

    assessed = assess_many((named.path for named in left if named.problem is None), judge, wanted)
    for named in left:
        yield next(assessed) if named.problem is None else Rejected(named.path, named.problem)


def _record(result: "Assessment") -> Record:
    values = dataclasses.asdict(result)
    del values["path"]
    return values


def _row(record: Record) -> Record:
    return {**record, **dict(zip(LEVEL_COLUMNS, record["level_probs"], strict=True))}


def _print_table(records: Sequence[tuple[str, Record]]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from vital.tables import print_table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    texts = [name for name in _TEXTS if any(record[name] is not None for _, record in records)]
    for name in itertools.chain(("path", "score", "level", " ".join(LEVEL_COLUMNS)), texts):
        table.add_column(name, overflow="fold")
    for path, record in records:
        levels = " ".join(f"{value:.2f}" for value in record["level_probs"])
        told = [escape(str(record[name] or "")) for name in texts]
        table.add_row(escape(printable(path)), f"{record['score']:.3f}", record["level"], levels, *told)
    print_table(table)
