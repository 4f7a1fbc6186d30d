"""``vital rali``: the student without a language model, from a folder of one's own; its parts' worth, its cost."""

import json
from pathlib import Path
from typing import Any

import click

from infra.workspace import CHECKOUT
from vital import rali_steps, rali_texts
from vital.rali_ablation import USUAL, USUAL_UNSEEN, ablation, wished, write_ablation


@click.group(short_help="The student without a language model: its steps on your own folder, its ablation, its cost.")
def rali() -> None:
    """The student without a language model (RALI).

    The stages `explain` and `rali` make it of the line's pool (`vital run`); `texts`, `align`, `build` and `fit` make
    one of your own folder. `vital score --scorer rali` asks it.
    """


for _step in (rali_texts.texts, rali_steps.align, rali_steps.build, rali_steps.fit):
    rali.add_command(_step)


@rali.command()
@click.option(
    "--case", "cases", multiple=True, metavar="CASE", help="Make this case (repeat for more); all if left out."
)
@click.option("--seeds", default="0,1,2", show_default=True, metavar="0,1,2", help="Seeds of towers and order.")
@click.option(
    "--unseen",
    multiple=True,
    metavar="TYPE",
    help="Leave media of this distortion out of all that is learnt, and tell them apart (repeat for more; "
    f"{USUAL} stands for {', '.join(USUAL_UNSEEN)}).",
)
@click.option(
    "--human",
    "people",
    multiple=True,
    metavar="TABLE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Measure on these media too, by what people say of them: a list that vital data import has read (repeat).",
)
@click.option(
    "--root",
    "roots",
    multiple=True,
    metavar="FOLDER",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where the media of --human lie, one for each.",
)
@click.option(
    "--content", metavar="REGEX", help="Of --human: its first group names what a path shows; versions go together."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write cases.json and cases.md here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, not a table.")
def ablate(
    cases: tuple[str, ...], seeds: str, unseen: tuple[str, ...], out: Path | None, *, as_json: bool, **people: Any
) -> None:
    """Make the student in the six ways of RALI's ablation, and with opinions alone, once per seed.

    Builds on the checkout's artifacts and on the section rali of its params.yaml; scores held-out media and compares
    with machine opinion. With --unseen or --human the teacher is measured on the same media. A run that was killed
    goes on at the first case that is not finished.

    \b
    vital rali ablate --unseen usual
    vital rali ablate --human csiq.parquet --root photos --content '([^/]*)[.]'
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    told, table = ablation(CHECKOUT, wished(cases, seeds, unseen, **people))
    if out is not None:
        write_ablation(out, told, table)
    click.echo(json.dumps(told, indent=2) if as_json else table, nl=as_json)


@rali.command()
@click.argument("paths", nargs=-1, required=True, metavar="PHOTO_OR_FOLDER...")
@click.option(
    "--student", metavar="WHERE", help="Registry spec or folder; the registry's newest vital-rali if left out."
)
@click.option("--teacher", metavar="WHERE", help="Registry spec or folder; the promoted vital-base if left out.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, not a table.")
def bench(paths: tuple[str, ...], student: str | None, teacher: str | None, *, threads: int, as_json: bool) -> None:
    """Time student and teacher on the same photos, one at a time, in one run; videos are left out."""
    from infra.registry import resolve, resolve_judge
    from tasks.errors import MediaError
    from tasks.evaluation import student_cost
    from tasks.media import decode_image, is_video, read_file
    from vital.media_files import find_media, tell_problem

    pictures = []
    for named in find_media(paths):
        try:
            if named.problem is not None:
                raise named.problem
            data = read_file(named.path)
            if not is_video(data):
                pictures.append(decode_image(data))
        except MediaError as error:
            tell_problem(named.path, error, as_json=as_json)
    if not pictures:
        raise click.UsageError("there is no photo to time")
    own = Path(student) if student and Path(student).is_dir() else resolve(student or "vital-rali")
    other = Path(teacher) if teacher and Path(teacher).is_dir() else resolve_judge(teacher)
    table = student_cost.measure(own, other, pictures, threads)
    told = json.dumps(student_cost.as_json(table), indent=2) + "\n" if as_json else student_cost.markdown(table)
    click.echo(told, nl=False)
