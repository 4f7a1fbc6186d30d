"""``vital contradiction``: does a model mean what it says?"""

from pathlib import Path

import click

from vital.recorded_options import recorded_options, show_report


@click.command(short_help="Does a model mean what it says? Scores with the image against scores of its words.")
@recorded_options
@click.option("--scale", nargs=2, type=float, required=True, metavar="LOW HIGH", help="The model's scale, such as 1 5.")
@click.option(
    "--polarity",
    type=click.Choice(["mos", "dmos", "negated_dmos"]),
    help="Which way people's scores run; without it they are left out, since it is never guessed.",
)
@click.option("--range", "ends", nargs=2, type=float, metavar="LOW HIGH", help="Scale of people's scores.")
@click.option("--image-score", default="overall_score", show_default=True, help="Key of the score with the image.")
@click.option(
    "--text-score", default="reasoning_score", show_default=True, help="Key of the score from the text alone."
)
@click.option("--human", default="gt_score", show_default=True, help="Key of people's score.")
@click.option("--image-text", default="perception_text", show_default=True, help="Key of what it wrote with the image.")
@click.option(
    "--text-text", default="reasoning_text", show_default=True, help="Key of what it wrote without the image."
)
def contradiction(  # noqa: PLR0913, PLR0917 - one argument per option
    files: tuple[Path, ...],
    scale: tuple[float, float],
    polarity: str | None,
    ends: tuple[float, float] | None,
    image_score: str,
    text_score: str,
    human: str,
    image_text: str,
    text_text: str,
    medium: str,
    bootstrap: int,
    seed: int,
    max_reject_share: float,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Compare, in FILES of recorded answers (JSON lists, one per model), scores with scores and words with verdicts.

    Each record holds the score that a model gave with the image and the one it gave for its own text alone. How far
    the two lie apart, how often they are on another level, and how often the words of a text take the other side than
    its verdict, are signs that the model does not infer its score from what it says. Further files are paired with the
    first, image by image.

    \b
    vital contradiction answers.json --scale 1 5
    vital contradiction before.json after.json --scale 1 5 --polarity dmos --range 0 1 --out FOLDER
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    if (polarity is None) != (ends is None):
        raise click.UsageError("--polarity and --range belong together: both, or neither to leave people out")
    from tasks.evaluation.contradiction import Keys, Options, compare_recorded
    from tasks.evaluation.contradiction_pages import markdown, write_pages
    from tasks.evaluation.recorded import Comparing
    from tasks.human_scale import Meaning, Polarity

    meaning = Meaning(Polarity(polarity), *ends) if polarity and ends else None
    options = Options(*scale, meaning, Comparing(bootstrap, seed, max_reject_share=max_reject_share))
    keys = Keys(medium, image_score, text_score, human, image_text, text_text)
    report = compare_recorded(files, keys, options)
    show_report(report, out, as_json=as_json, markdown=markdown, write=write_pages)
