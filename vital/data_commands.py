"""``vital data``: label lists, training samples and descriptions of other people, in and out."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    import pandas as pd

    from tasks.exchange.formats import Imported, Options, Survey

POLARITIES: Final = ("mos", "dmos", "negated_dmos")
"""As in ``tasks.human_scale.Polarity``; here too, since help must not wait for SciPy (a test compares them)."""
FORMATS: Final = ("original", "hugging_face", "authors", "q_instruct")
INSTRUCTIONS: Final = ("q_pathway", "aesmmit", "vqa2", "omnivqa", "q_bench")
"""Data sets of ``tasks.exchange.conversations`` and the benchmarks; here for the same reason, and compared likewise."""
_SPLITS: Final = ("train", "warm_up", "held_out")
_TOLD: Final = 5
"""Contradictions of a file that are printed one by one unless all are asked for."""


@click.group(short_help="Import and export other people's labels, training samples and descriptions.")
def data() -> None:
    """Other people's data, in and out.

    Knows lists with human scores (paths under image, video, video_path or img_path; scores under mos or gt_score or in
    the id), the VITAL authors' training JSON, Q-Bench-Video's questions, descriptions in the style of Q-Instruct, and
    data sets of the Hugging Face library on disk. A table that was imported and not changed is exported as the same
    bytes. What scores mean is known for the authors' 22 lists and declared for all others, never guessed.
    """


def _declaring(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say what a list of human scores means."""
    for option in (
        click.option(
            "--score-key", metavar="KEY", help="Where a list keeps the score (default: mos, gt_score, or id)."
        ),
        click.option("--media-key", metavar="KEY", help="Where a list keeps the path."),
        click.option(
            "--range", "ends", metavar="LOW HIGH", nargs=2, type=float, help="Ends of the scale of the scores."
        ),
        click.option(
            "--polarity",
            type=click.Choice(POLARITIES),
            help="More is better (mos), more is worse (dmos), or minus DMOS, never above 0 (negated_dmos).",
        ),
    ):
        command = option(command)
    return command


@data.command()
@click.argument("paths", metavar="FILE|FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@_declaring
@click.option("--all", "everything", is_flag=True, help="Print every contradiction of a file, not the first few.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object per file.")
@click.pass_context
def inspect(ctx: click.Context, paths: tuple[Path, ...], **given: Any) -> None:
    """Say what files are: format, rows, scale, polarity and mean of scores, and what they contradict.

    A folder stands for the JSON files in it. Ends with code 1 if a file cannot be imported as it is.

    \b
    vital data inspect ../shared/data/labels/vital_series
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    options = _options(given)
    from tasks.exchange.formats import files_of, survey

    found = [survey(path, options) for path in files_of(paths)]
    if given["as_json"]:
        for one in found:
            click.echo(json.dumps(dataclasses.asdict(one), ensure_ascii=False))
    else:
        _print_surveys(found)
        for one in found:
            _tell_contradictions(one.file, one.contradictions, None if given["everything"] else _TOLD)
    for one in found:
        if one.problem:
            click.echo(f"vital: {one.problem}", err=True)
    ctx.exit(int(any(one.problem for one in found)))


@data.command("import")
@click.argument("source", metavar="FILE|FOLDER", type=click.Path(path_type=Path))
@_declaring
@click.option(
    "--instructions",
    type=click.Choice(INSTRUCTIONS),
    help="Conversations of this data set for the stage assistant, or questions of Q-Bench and Q-Bench-Video for the "
    "stage answer.",
)
@click.option("--degradations", is_flag=True, help="What was done to media, for the stage teach; CSV, TSV or JSON.")
@click.option("--class-key", metavar="COLUMN", help="Of --degradations: where their names stand.")
@click.option(
    "--class",
    "classes",
    metavar="NAME=CLASS",
    multiple=True,
    help="Of --degradations: what a name means: noise, compression, blur, darken, or null for nothing (repeat).",
)
@click.option("--level-key", metavar="COLUMN", help="Of --degradations: where their levels stand.")
@click.option(
    "--level",
    "levels",
    metavar="LEVEL=SEVERITY",
    multiple=True,
    help="Of --degradations: slight, moderate, obvious, serious or catastrophic (repeat).",
)
@click.option(
    "--root",
    metavar="FOLDER",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Of --instructions and --degradations: where the media lie; those that are not there are rejects.",
)
@click.option("--out", metavar="TABLE", required=True, type=click.Path(path_type=Path), help="A .parquet file.")
def import_(
    source: Path, out: Path, instructions: str | None, root: Path | None, *, degradations: bool, **given: Any
) -> None:
    """Read a file, or a data set of the Hugging Face library (save_to_disk), into a table.

    Human scores get the columns quality and quality_std on [0, 1], higher is better, which vital opinions reads.
    Instructions become conversations, degradations what the stage teach asks about; what cannot be used is told by
    reason and stands in TABLE.rejects.parquet.

    \b
    vital data import test_csiq_866.json --out csiq.parquet
    vital data import mine.json --polarity dmos --range 0 100 --out mine.parquet
    vital data import cleaned_labels.json --instructions q_pathway --root images --out q_pathway.parquet
    vital data import kadid.csv --degradations --media-key image --class-key type --class blur=blur --class none=null \\
        --level-key level --level 1=slight --level 2=moderate --root images --out degraded.parquet
    vital opinions report --opinions mine.jsonl --human mine.parquet --human-id path --mos quality \\
        --polarity mos --range 0 1
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    declared = {name: given.pop(name) for name in ("class_key", "classes", "level_key", "levels")}
    options = _options(given)
    _refuse(out.suffix != ".parquet", f"--out {out} is no .parquet file: tables are Parquet")
    if degradations:
        _refuse(instructions is not None, "--instructions and --degradations are two kinds of table")
        _refuse(bool(given["polarity"] or given["score_key"]), "degradations have no scores: leave their options away")
        return _import_degradations(source, {"media_key": given["media_key"], **declared}, root, out)
    _refuse(any(declared.values()), "--class, --level and their keys belong to --degradations")
    _refuse(root is not None and instructions is None, "--root belongs to --instructions and --degradations")
    if instructions is not None:
        _refuse(bool(given["polarity"] or given["ends"]), "instructions have no polarity: leave the declaration away")
        return _import_instructions(source, instructions, root, out)
    from tasks.exchange.formats import import_file, survey_of
    from tasks.records import REJECTS
    from tasks.shards import write_table

    found = import_file(source, options)
    write_table(out, found.table, found.frame)
    one = survey_of(source.name, found)
    meaning = f", {one.meaning.polarity} from {one.meaning.low:g} to {one.meaning.high:g}" if one.meaning else ""
    click.echo(f"{out}: {one.rows} rows of {one.kind}{meaning}{f' ({one.told})' if one.told else ''}")
    _tell_left_out(found)
    aside = _aside(out)
    aside.unlink(missing_ok=True)  # of an earlier import
    if len(found.rejects):
        write_table(aside, REJECTS, found.rejects)
        click.echo(f"{aside}: what cannot be used")
        _tell_rejects(found.rejects)
    return _tell_contradictions(source.name, one.contradictions, _TOLD)


def _import_instructions(source: Path, name: str, root: Path | None, out: Path) -> None:
    """Conversations or benchmark questions, and beside them what was rejected."""
    from tasks.exchange.benchmarks import Q_BENCH, import_benchmark
    from tasks.exchange.conversations import import_instructions
    from tasks.exchange.formats import records_of
    from tasks.records import INSTRUCTIONS as TABLE
    from tasks.records import REJECTS
    from tasks.shards import write_table

    records = records_of(source)
    found = import_benchmark(records, out.stem, root) if name == Q_BENCH else import_instructions(records, name, root)
    write_table(out, TABLE, found.frame)
    write_table(_aside(out), REJECTS, found.rejects)
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.frame["kind"].value_counts(sort=False).items())
    click.echo(f"{out}: {len(found.frame)} of {len(records)} conversations ({kinds})")
    for told, count in found.notes.items():
        click.echo(f"  {count} {told}")
    _tell_rejects(found.rejects)
    _tell_sha256(out)


def _import_degradations(source: Path, told: dict[str, Any], root: Path | None, out: Path) -> None:
    """What was done to media, and beside it what was rejected."""
    for name in ("media_key", "class_key", "level_key", "classes"):
        option = "--class" if name == "classes" else f"--{name.replace('_', '-')}"
        _refuse(not told[name], f"--degradations needs {option}: what a table means is declared, never guessed")
    from tasks.exchange.degradations import Declared, import_degradations
    from tasks.exchange.tables import DEGRADATIONS
    from tasks.records import REJECTS
    from tasks.shards import write_table

    keys = {name: told[name] for name in ("media_key", "class_key", "level_key")}
    declared = Declared(**keys, classes=_pairs(told["classes"], "--class"), levels=_pairs(told["levels"], "--level"))
    found = import_degradations(source, declared, root)
    write_table(out, DEGRADATIONS, found.frame)
    write_table(_aside(out), REJECTS, found.rejects)
    counts = found.frame["distortion_class"].fillna("null").value_counts().sort_index()
    told_counts = ", ".join(f"{count} {name}" for name, count in counts.items())
    click.echo(f"{out}: {len(found.frame)} of {len(found.frame) + len(found.rejects)} records ({told_counts})")
    _tell_rejects(found.rejects)
    _tell_sha256(out)


def _pairs(told: Sequence[str], option: str) -> dict[str, str]:
    """What is declared as NAME=MEANING."""
    pairs = [one.rpartition("=") for one in told]
    for one, (_, mark, meaning) in zip(told, pairs, strict=True):
        _refuse(not mark or not meaning, f"{option} {one!r} is not NAME=MEANING")
    found = {name: meaning for name, _, meaning in pairs}
    _refuse(len(found) < len(pairs), f"{option} declares a name twice")
    return found


def _tell_sha256(table: Path) -> None:
    """What params may declare of a table."""
    with table.open("rb") as file:
        click.echo(f"  sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}")


@data.command()
@click.argument("source", metavar="TABLE|WORKSPACE", type=click.Path(path_type=Path))
@click.option(
    "--as",
    "kind",
    type=click.Choice(FORMATS),
    default="original",
    show_default=True,
    help="The format a table came from; a data set folder of the Hugging Face library; or of a workspace's training "
    "examples also the VITAL authors' JSON and Q-Instruct's.",
)
@click.option("--split", type=click.Choice(_SPLITS), help="Of --as q_instruct (default: train).")
@click.option(
    "--out",
    metavar="FILE|FOLDER",
    required=True,
    type=click.Path(path_type=Path),
    help="A file, or for data sets a folder.",
)
def export(source: Path, kind: str, split: str | None, out: Path) -> None:
    """Write an imported table, or the training examples of a workspace, for other people.

    \b
    vital data export csiq.parquet --out csiq.json
    vital data export csiq.parquet --as hugging_face --out csiq
    vital data export . --as q_instruct --out descriptions.json
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    _refuse(out.exists() and out.is_dir() and any(out.iterdir()), f"--out {out} is a folder with files: name a new one")
    _refuse(split is not None and kind != "q_instruct", "--split belongs to --as q_instruct")
    if source.is_dir():
        _refuse(kind == "original", "a workspace needs --as authors, q_instruct or hugging_face")
        return _export_workspace(source, kind, split or _SPLITS[0], out)
    _refuse(
        kind in ("authors", "q_instruct"), f"--as {kind} is made of a workspace; a table has original, hugging_face"
    )
    from tasks.exchange.export import export_text
    from tasks.exchange.formats import Options, import_file
    from tasks.exchange.hub import write_hub
    from tasks.shards import atomic

    _refuse(source.suffix != ".parquet", f"{source} is no .parquet table: make one by vital data import")
    found = import_file(source, Options())
    if kind == "hugging_face":
        write_hub(out, found.table, found.frame)
        return click.echo(f"{out}: {len(found.frame)} rows")
    text, changed = export_text(found.table, found.frame)
    with atomic(out) as file:
        file.write(text.encode())
    click.echo(f"{out}: {len(found.frame)} records, {changed} of them changed since the import")
    if missing := _not_in(source, found.frame):
        click.echo(
            f"left out: {missing} records of the imported file (rejected by the import, or taken out of the table)"
        )
    return None


def _aside(table: Path) -> Path:
    """Where the rejects of a table's import stand."""
    return table.with_suffix(".rejects.parquet")


def _not_in(table: Path, frame: "pd.DataFrame") -> int:
    """Records of the imported file that a table lacks; rows that were taken out of its end are not known of."""
    from tasks.records import REJECTS
    from tasks.shards import read_table

    rejected = read_table(_aside(table), REJECTS)["id"] if _aside(table).is_file() else ()
    return len({*rejected, *map(str, range(frame["row"].to_numpy().max()))} - {*map(str, frame["row"])})


def _export_workspace(root: Path, kind: str, split: str, out: Path) -> None:
    """Training examples: two formats are made by ``assemble``, one is made here."""
    from tasks.annotation.exports import instructions
    from tasks.exchange.hub import new_folder
    from tasks.exchange.json_text import joined, rendered
    from tasks.pool import load_candidates
    from tasks.records import EXAMPLES, Split
    from tasks.shards import atomic, read_table
    from tasks.stage import Place

    made = root / "artifacts" / "assemble"
    examples = read_table(made / "examples.parquet", EXAMPLES)
    if kind == "hugging_face":
        with new_folder(out) as fresh:
            shutil.copytree(made / "hf", fresh, dirs_exist_ok=True)
        return click.echo(f"{out}: {len(examples)} examples")
    if kind == "authors":
        with (made / "authors.json").open("rb") as groups, atomic(out) as file:
            shutil.copyfileobj(groups, file)
        return click.echo(f"{out}: the groups of the train split; paths are members of artifacts/*/media/*.tar")
    media = {row["id"]: row for row in load_candidates(Place(root, root, root)).to_dict("records")}
    records = instructions(EXAMPLES.to_arrow(examples).to_pylist(), media, Split(split))
    _refuse(not records, f"the split {split} has no descriptions")
    with atomic(out) as file:
        file.write(joined(rendered(records)).encode())
    return click.echo(f"{out}: {len(records)} descriptions; paths are members of artifacts/*/media/*.tar")


def _options(given: dict[str, Any]) -> "Options":
    """Options that make sense together, told before anything is loaded."""
    if bool(given["polarity"]) != bool(given["ends"]):
        idle, missing = ("--polarity", "--range") if given["polarity"] else ("--range", "--polarity")
        msg = f"{idle} needs {missing}: what scores mean is declared as a whole, never guessed"
        raise click.UsageError(msg)
    from tasks.exchange.formats import Options
    from tasks.human_scale import Meaning, Polarity

    meaning = Meaning(Polarity(given["polarity"]), *given["ends"]) if given["polarity"] else None
    return Options(meaning, given["media_key"], given["score_key"])


def _refuse(wrong: bool, message: str) -> None:  # noqa: FBT001 - a condition
    if wrong:
        raise click.UsageError(message)


def _tell_rejects(rejects: "pd.DataFrame") -> None:
    for reason, count in sorted(rejects["reason"].value_counts().items()):
        click.echo(f"  rejected {count}: {reason}")


def _tell_left_out(found: "Imported") -> None:
    if found.left_out:
        click.echo(f"left out: {', '.join(found.left_out)} (no column of {found.table.name})")


def _tell_contradictions(name: str, told: Sequence[str], limit: int | None) -> None:
    if not told:
        return
    click.echo(f"{name}: {len(told)} contradictions")
    for line in told[:limit]:
        click.echo(f"  {line}")
    if limit is not None and len(told) > limit:
        click.echo(f"  and {len(told) - limit} more (vital data inspect --all)")


def _print_surveys(found: "list[Survey]") -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from vital.tables import print_table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold", min_width=12)
    for name in ("what", "keys", "known as", "polarity", "scale", "min", "max", "mean", "rows"):
        table.add_column(
            name, no_wrap=name != "known as", justify="right" if name in ("min", "max", "mean", "rows") else "left"
        )
    table.add_column("to know", overflow="fold")
    for one in found:
        meaning = one.meaning
        scale = (str(meaning.polarity), f"{meaning.low:g} to {meaning.high:g}") if meaning else ("", "")
        numbers = ["" if value is None else f"{value + 0.0:.4g}" for value in (one.low, one.high)]
        mean = "" if one.mean is None else f"{one.mean:.4f}"
        keys = f"{one.media}, {one.scores}" if one.media else ""
        told = "[red]cannot be imported[/red]" if one.problem else escape(one.told)
        rows = str(one.rows) if one.kind else ""
        table.add_row(escape(one.file), one.kind, keys, escape(one.known), *scale, *numbers, mean, rows, told)
    print_table(table)
    known = [one for one in found if one.known]
    if known:
        click.echo(f"{len(known)} of the authors' 22 lists, {sum(one.rows for one in known)} media")
