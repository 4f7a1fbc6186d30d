"""``vital rali align``, ``build`` and ``fit``: a student from a folder of one's own, one step at a time."""

from pathlib import Path

import click

from vital.rali_options import declared, own, score_options, show, step_config, step_options, told


@click.command()
@step_options
@click.option(
    "--texts",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.jsonl",
    help="Objects with path, text and perhaps source, a line each; vital rali texts writes them.",
)
@click.option(
    "--leaks",
    type=click.Choice(["drop", "keep"]),
    default="drop",
    show_default=True,
    help="Sentences that give a verdict away: take them out, or count them alone.",
)
@click.option(
    "--reader",
    metavar="NAME|FOLDER",
    help="Model whose decoder reads the texts (rali.text.kind decoder): a folder or an entry of the registry; the "
    "promoted vital-base if left out.",
)
def align(  # noqa: PLR0913, PLR0917 - one argument per option
    photos: Path,
    work: Path,
    profile: str | None,
    settings: tuple[str, ...],
    texts: Path,
    leaks: str,
    reader: str | None,
    *,
    as_json: bool,
) -> None:
    """Step a: align an image tower to what is said about the media of the folder PHOTOS.

    A path in FILE.jsonl is relative to PHOTOS, or leads there from where you stand. What cannot be used is counted by
    reason, and listed in WORK/align_rejects.parquet.

    \b
    vital rali align photos/ --texts texts.jsonl --work work/
    vital rali align photos/ --texts texts.jsonl --work work/ --profile paper
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    from infra.registry import resolve_judge
    from tasks.training.own_lessons import read_texts
    from tasks.training.rali_folder import align_own
    from vital.quiet import quiet_libraries

    config, mine = step_config("align", work, profile, settings), own(photos, work)
    said = read_texts(texts, mine.media, "keep" if leaks == "keep" else "drop", config.align.texts_per_image)
    folder = None
    if config.text.kind == "decoder":
        folder = Path(reader) if reader and Path(reader).is_dir() else resolve_judge(reader)
    with quiet_libraries():
        show(align_own(mine, config, said, folder), as_json=as_json)


@click.command()
@step_options
@score_options
def build(  # noqa: PLR0913 - one argument per option
    photos: Path,
    work: Path,
    profile: str | None,
    settings: tuple[str, ...],
    scores: Path,
    ends: tuple[float, float] | None,
    *,
    lower_is_better: bool,
    as_json: bool,
) -> None:
    """Step b: build basis vectors with scores from the scored media of the folder PHOTOS.

    Rests on the alignment in WORK; --set rali.align.enabled=false begins with a tower that is not aligned.

    \b
    vital rali build photos/ --scores scores.csv --range 1 5 --work work/
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    from tasks.training.own_lessons import read_scores
    from tasks.training.rali_folder import build_own
    from vital.quiet import quiet_libraries

    config, mine = step_config("build", work, profile, settings), own(photos, work)
    meaning = declared(ends, lower_is_better=lower_is_better)
    with quiet_libraries():
        show(build_own(mine, config, read_scores(scores, mine.media, meaning), told(meaning)), as_json=as_json)


@click.command()
@step_options
@score_options
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="STUDENT",
    help="Folder of the student; another student there is replaced.",
)
def fit(  # noqa: PLR0913, PLR0917 - one argument per option
    photos: Path,
    work: Path,
    profile: str | None,
    settings: tuple[str, ...],
    scores: Path,
    ends: tuple[float, float] | None,
    out: Path,
    *,
    lower_is_better: bool,
    as_json: bool,
) -> None:
    """Step c: tune the basis in WORK to the scores of the media of the folder PHOTOS, and write the student.

    Figures before and after are of the media that it learns from: std_ratio is the standard deviation of its scores
    over that of the targets.

    \b
    vital rali fit photos/ --scores scores.csv --work work/ --out student/
    vital score --scorer rali:student photos/
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    from models.rali.runtime import is_student
    from tasks.training.own_lessons import read_scores
    from tasks.training.rali_folder import fit_own, needed
    from vital.quiet import quiet_libraries

    if out.exists() and any(out.iterdir()) and not is_student(out):
        msg = f"--out {out} holds something else than a student: name another folder"
        raise click.UsageError(msg)
    config, mine = step_config("fit", work, profile, settings), own(photos, work)
    meaning = declared(ends, needed(work, "build").told["meaning"], lower_is_better=lower_is_better)
    with quiet_libraries():
        show(fit_own(mine, config, read_scores(scores, mine.media, meaning), out), as_json=as_json)
