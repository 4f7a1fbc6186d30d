"""``vital rali``: the student without a language model, from a folder of one's own; its parts' worth, its cost."""

import json
from pathlib import Path

import click

from infra.workspace import CHECKOUT
from vital import rali_steps, rali_texts


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
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write cases.json and cases.md here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, not a table.")
def ablate(cases: tuple[str, ...], seeds: str, out: Path | None, *, as_json: bool) -> None:
    """Make the student in the six ways of RALI's ablation, and with opinions alone, once per seed.

    Builds on the checkout's artifacts and on the section rali of its params.yaml; scores held-out media and compares
    with machine opinion. A run that was killed goes on at the first case that is not finished.
    """
    from tasks.evaluation import student_cases
    from tasks.evaluation.agreements import Sampling
    from tasks.shards import digest
    from tasks.stage import Place, build_config, read_params, stage_config
    from tasks.training.rali_cases import CASES, run_cases
    from vital.seeds import parse_seeds

    if unknown := [case for case in cases if case not in CASES]:
        msg = f"unknown case {unknown[0]!r}; the cases are {', '.join(CASES)}"
        raise click.UsageError(msg)
    chosen, drawn = list(cases) or list(CASES), parse_seeds(seeds)
    params = read_params(CHECKOUT)
    config = stage_config("rali", params)
    sampling = build_config(Sampling, "correlate.sampling", params["correlate"]["sampling"])
    work = CHECKOUT / ".work" / "rali_cases" / digest(_inputs(CHECKOUT))
    predictions = run_cases(config, Place(CHECKOUT, work, work / "out"), chosen, drawn)
    rows = student_cases.case_rows(predictions, chosen, drawn, sampling)
    told = json.dumps(student_cases.as_json(rows, drawn), indent=2) + "\n"
    table = student_cases.markdown(rows, drawn)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "cases.json").write_text(told)
        (out / "cases.md").write_text(table)
    click.echo(told if as_json else table, nl=False)


def _inputs(root: Path) -> dict[str, str]:
    """What the cases are made of, so that other artifacts have another work folder."""
    from infra.dvc_tree import folder_listing, listing_hash

    names = ("collect", "distort", "score", "pretrain", "explain")
    return {name: listing_hash(folder_listing(root / "artifacts" / name)) for name in names}


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
