"""``vital instability``: how often does a model change its mind?"""

from pathlib import Path

import click

from vital.recorded_options import recorded_options, show_report


@click.command(short_help="How often does a model change its mind when it is asked the same again?")
@recorded_options
@click.option("--readout", type=click.Choice(["word", "number"]), required=True, help="What is read out of an answer.")
@click.option(
    "--levels", default="high,good,fair,poor,low", show_default=True, help="Words of a readout of words, best first."
)
@click.option("--scale", nargs=2, type=float, metavar="LOW HIGH", help="Scale of a readout of numbers, such as 1 5.")
@click.option(
    "--sampling",
    multiple=True,
    metavar="NAME=VALUE",
    help="How the answers were drawn, such as temperature=1 (repeat for more); printed with every figure.",
)
@click.option("--answers", default="answers", show_default=True, help="Key of the list of answers.")
@click.option("--content", help="Key that names what is shown: versions of one photograph are then drawn together.")
def instability(  # noqa: PLR0913, PLR0917 - one argument per option
    files: tuple[Path, ...],
    readout: str,
    levels: str,
    scale: tuple[float, float] | None,
    sampling: tuple[str, ...],
    medium: str,
    answers: str,
    content: str | None,
    bootstrap: int,
    seed: int,
    max_reject_share: float,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Count, in FILES of repeated answers (JSON lists, one per model), how often answers to one question differ.

    Each record names an image and holds the list of what a model answered when it was asked the same again and again.
    Three estimators are told by name, with failed answers as a class of their own and left out; further files are
    paired with the first, image by image.

    \b
    vital instability answers.json --readout word --sampling temperature=1 --sampling top_p=1
    vital instability one.json other.json --readout number --scale 1 5 --out FOLDER
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    if (readout == "number") != (scale is not None):
        raise click.UsageError("--readout number needs --scale, and --readout word has none")
    if strange := [told for told in sampling if "=" not in told]:
        msg = f"--sampling takes NAME=VALUE, not {strange[0]!r}"
        raise click.UsageError(msg)
    from models.instruments.readout import NumberReadout, WordReadout
    from tasks.evaluation.instability import Keys, Options, measure_recorded
    from tasks.evaluation.instability_pages import markdown, write_pages
    from tasks.evaluation.recorded import Comparing

    reader = NumberReadout(*scale) if scale else WordReadout(tuple(word.strip() for word in levels.split(",")))
    told = dict(one.split("=", 1) for one in sampling)
    options = Options(reader, told, Comparing(bootstrap, seed, max_reject_share=max_reject_share))
    report = measure_recorded(files, Keys(medium, answers, content), options)
    show_report(report, out, as_json=as_json, markdown=markdown, write=write_pages)
