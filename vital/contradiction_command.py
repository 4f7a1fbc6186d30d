"""``vital contradiction``: does a model mean what it says?"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vital.people_options import meaning_of, people_of, people_options
from vital.recorded_options import paths_argument, recorded_files, refuse_given, report_options, show_report
from vital.score_readout import score_options
from vital.subject_options import SubjectOptions, need_models, refuse_subject_options, subject_options

if TYPE_CHECKING:
    from tasks.evaluation.contradiction import Options
    from tasks.evaluation.people import People
    from tasks.evaluation.recorded import Comparing
    from tasks.evaluation.subjects.asking import Ask
    from tasks.evaluation.subjects.opening import Opened
    from tasks.evaluation.subjects.protocol import Shown
    from tasks.evaluation.subjects.scoring import ScoreReadout
    from vital.result_files import Record

_RECORDED_ONLY: Final = ("scale", "medium", "image_score", "text_score", "human", "image_text", "text_text")
_KEYS: Final = {
    "overall_score": "image_score",
    "reasoning_score": "text_score",
    "perception_text": "description",
    "reasoning_text": "description",
    "gt_score": "human",
}
"""Keys of recorded files -> of what a model is asked here; both scores stand with the words that the model found."""


@click.command(short_help="Does a model mean what it says? Scores with the image against scores of its words.")
@paths_argument
@subject_options
@click.option(
    "--readout",
    type=click.Choice(["expectation", "word", "number"]),
    help="How scores come about: expectation over the level words' probabilities (of a model that is asked, the usual "
    "one), the level word that was written, or a number that was written (of recorded scores, the usual one).",
)
@people_options
@report_options
@click.option("--scale", nargs=2, type=float, metavar="LOW HIGH", help="Recorded: the model's scale, such as 1 5.")
@click.option("--medium", default="image", show_default=True, help="Recorded: key that names the image.")
@click.option("--image-score", default="overall_score", show_default=True, help="Recorded: score with the image.")
@click.option("--text-score", default="reasoning_score", show_default=True, help="Recorded: score from the text alone.")
@click.option("--human", default="gt_score", show_default=True, help="Recorded: key of people's score.")
@click.option("--image-text", default="perception_text", show_default=True, help="Recorded: text with the image.")
@click.option("--text-text", default="reasoning_text", show_default=True, help="Recorded: text without the image.")
def contradiction(  # noqa: PLR0913, PLR0917 - one argument per option
    paths: tuple[str, ...],
    asked: SubjectOptions,
    readout: str | None,
    people: Path | None,
    people_id: str | None,
    mos: str,
    polarity: str | None,
    ends: tuple[float, float] | None,
    bootstrap: int,
    seed: int,
    max_reject_share: float,
    out: Path | None,
    scale: tuple[float, float] | None,
    medium: str,
    image_score: str,
    text_score: str,
    human: str,
    image_text: str,
    text_text: str,
    *,
    as_json: bool,
) -> None:
    """Compare scores with scores and words with verdicts: of models that are asked now, or recorded before.

    With --model, PATHS are photos, clips and folders. Each model describes each medium, scores it, and scores its own
    description without seeing the medium. What it said is written to the --out folder as it comes, where the same
    command goes on, and in the end as NAME.scores.json, which this command reads as recorded answers on --scale 0 1.

    Without --model, PATHS are files of recorded answers (JSON lists, one per model). Each record holds the score that a
    model gave with the image and the one it gave for its own text alone.

    How far the two lie apart, how often they are on another level, and how often the words of a text take the other
    side than its verdict, are signs that the model does not infer its score from what it says. Further models or files
    are paired with the first, image by image.

    \b
    vital contradiction --model vital-base#prod photos/ --people scores.csv --polarity mos --range 1 5 --out FOLDER
    vital contradiction before.json after.json --scale 1 5 --polarity dmos --range 0 1 --out FOLDER
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    meaning = meaning_of(polarity, ends)
    if asked.models:
        refuse_given(_RECORDED_ONLY, "is about recorded answers, and --model asks a model")
    else:
        refuse_subject_options((), "people", "people_id", "mos")
    if asked.models and asked.way == "two_stage":
        raise click.UsageError("--way two_stage scores the text alone: there would be no score with the image")
    from tasks.evaluation.contradiction import Keys, compare_recorded
    from tasks.evaluation.contradiction_pages import markdown, write_pages
    from tasks.evaluation.recorded import Comparing

    comparing = Comparing(bootstrap, seed, max_reject_share=max_reject_share)
    options = score_options(readout, scale, meaning, comparing, live=bool(asked.models))
    if asked.models:
        report = _ask(asked, paths, options, people_of(people, people_id, mos, meaning), out)
    else:
        keys = Keys(medium, image_score, text_score, human, image_text, text_text)
        report = compare_recorded(recorded_files(paths), keys, options)
    show_report(report, out, as_json=as_json, markdown=markdown, write=write_pages)


def _ask(
    asked: SubjectOptions, paths: Sequence[str], options: "Options", people: "People | None", out: Path | None
) -> dict[str, Any]:
    """The report on scores that models give now, read from the files that they are recorded in."""
    from tasks.evaluation.contradiction import Keys, compare_recorded
    from tasks.evaluation.people import rated
    from vital.live_asking import Asking, ask_models, write_recorded

    need_models(asked, paths)
    comparing = options.comparing
    settings = {"seed": comparing.seed, "readout": options.readout}
    asks = _scored(asked, comparing, "word" if options.readout == "word" else "expectation")
    models = ask_models(asked, paths, Asking("contradiction", asks, settings, comparing.max_reject_share), out)
    for model in models:
        scores = rated(people, [record["path"] for record in model.records]) if people else {}
        for record in model.records:
            record["human"] = scores[record["path"]].score if record["path"] in scores else None
    with tempfile.TemporaryDirectory() as aside:
        folder = out or Path(aside)
        files = [write_recorded(folder / f"{model.name}.scores.json", model, _KEYS) for model in models]
        report = compare_recorded(files, Keys(), options)
    for told, model in zip(report["files"], models, strict=True):
        told["rejected"] |= model.rejected
    return report


def _scored(
    asked: SubjectOptions, comparing: "Comparing", readout: "ScoreReadout"
) -> "Callable[[Opened], Ask[Record]]":
    """Asks for a description of a medium, a score of the medium, and a score of the description alone."""

    def of(opened: "Opened") -> "Ask[Record]":
        from tasks.evaluation.subjects.asking import drawing
        from tasks.evaluation.subjects.course import describe
        from tasks.evaluation.subjects.scoring import image_qualities, text_qualities

        def ask(media: "Sequence[Shown]") -> "list[Record]":
            subject, course, how = opened.subject, opened.course, drawing(asked.sampling, media, comparing.seed)
            told = describe(subject, course, media, how)
            seen = image_qualities(subject, course, media, told, how, readout)
            read = text_qualities(subject, course, media, told, how, readout)
            return [
                {"description": text, "image_score": image, "text_score": blind}
                for text, image, blind in zip(told, seen, read, strict=True)
            ]

        return ask

    return of
