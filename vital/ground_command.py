"""``vital ground``: does a quality follow from what a model says it sees?"""

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
    from tasks.evaluation.grounding import Fitting
    from tasks.evaluation.people import People
    from tasks.evaluation.subjects.asking import Ask
    from tasks.evaluation.subjects.opening import Opened
    from tasks.evaluation.subjects.protocol import Shown
    from tasks.evaluation.subjects.scoring import ScoreReadout
    from vital.result_files import Record

_RECORDED_ONLY: Final = ("scale", "medium", "image_score", "human", "image_text")
_KEYS: Final = {"overall_score": "image_score", "perception_text": "description", "gt_score": "human"}
"""Keys of recorded files -> of what a model is asked here."""


@click.command(short_help="Does a quality follow from what a model says it sees? Regression on its claims.")
@paths_argument
@subject_options
@click.option(
    "--readout",
    type=click.Choice(["expectation", "word", "number"]),
    help="How scores come about, as in `vital contradiction`.",
)
@people_options
@click.option(
    "--content",
    metavar="COLUMN[:REGEX]",
    help="What is shown: a column of --people, or a key of recorded answers (group 1 of the pattern). A content is in "
    "one fold; default: every medium is one.",
)
@click.option("--folds", type=click.IntRange(min=2), default=5, show_default=True, help="Of contents.")
@click.option(
    "--permutations", type=click.IntRange(min=1), default=200, show_default=True, help="Of scores, for the p value."
)
@report_options
@click.option("--scale", nargs=2, type=float, metavar="LOW HIGH", help="Recorded: the model's scale, such as 1 5.")
@click.option("--medium", default="image", show_default=True, help="Recorded: key that names the image.")
@click.option("--image-score", default="overall_score", show_default=True, help="Recorded: the model's score.")
@click.option("--human", default="gt_score", show_default=True, help="Recorded: key of people's score.")
@click.option("--image-text", default="perception_text", show_default=True, help="Recorded: the model's text.")
def ground(  # noqa: PLR0913, PLR0917 - one argument per option
    paths: tuple[str, ...],
    asked: SubjectOptions,
    readout: str | None,
    people: Path | None,
    people_id: str | None,
    mos: str,
    polarity: str | None,
    ends: tuple[float, float] | None,
    content: str | None,
    folds: int,
    permutations: int,
    bootstrap: int,
    seed: int,
    max_reject_share: float,
    out: Path | None,
    scale: tuple[float, float] | None,
    medium: str,
    image_score: str,
    human: str,
    image_text: str,
    *,
    as_json: bool,
) -> None:
    """Regress qualities on what models claim in their texts: of models that are asked now, or recorded before.

    Each text is read for claims about attributes (sharpness, noise, exposure ...), fine 1 and faulty -1. Ridge and
    ordinal regression say how far the model's own score follows from them, and people's score beside it, on contents
    that the regression has not seen; permutations say how often chance does as well.

    With --model, PATHS are photos, clips and folders: each model describes and scores each. Without, PATHS are files of
    recorded answers, as `vital contradiction` reads them.

    \b
    vital ground --model vital-base#prod photos/ --people scores.csv --polarity mos --range 1 5 --out FOLDER
    vital ground answers.json --scale 1 5 --polarity dmos --range 0 1 --out FOLDER
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    meaning = meaning_of(polarity, ends)
    if asked.models:
        refuse_given(_RECORDED_ONLY, "is about recorded answers, and --model asks a model")
    else:
        refuse_subject_options((), "people", "people_id", "mos")
    from tasks.evaluation.contradiction import Keys
    from tasks.evaluation.grounding import Fitting, contents_of, ground_recorded
    from tasks.evaluation.grounding_pages import markdown, write_pages
    from tasks.evaluation.recorded import Comparing

    comparing, fitting = (
        Comparing(bootstrap, seed, max_reject_share=max_reject_share),
        Fitting(folds, permutations, seed),
    )
    options = score_options(readout, scale, meaning, comparing, live=bool(asked.models))
    if asked.models:
        report = _ask(asked, paths, options, fitting, people_of(people, people_id, mos, meaning, content), out)
    else:
        keys = Keys(medium, image_score, image_score, human, image_text, None)
        files = recorded_files(paths)
        contents = contents_of(files, medium, content) if content else {}
        report = ground_recorded(files, keys, options, fitting, contents)
    show_report(report, out, as_json=as_json, markdown=markdown, write=write_pages)


def _ask(
    asked: SubjectOptions,
    paths: Sequence[str],
    options: "Options",
    fitting: "Fitting",
    people: "People | None",
    out: Path | None,
) -> dict[str, Any]:
    """The report on what models say now, read from the files that it is recorded in."""
    from tasks.evaluation.contradiction import Keys
    from tasks.evaluation.grounding import ground_recorded
    from tasks.evaluation.people import rated
    from vital.live_asking import Asking, ask_models, write_recorded

    need_models(asked, paths)
    seed = options.comparing.seed
    asks = _scored(asked, seed, "word" if options.readout == "word" else "expectation")
    settings = {"seed": seed, "readout": options.readout}
    models = ask_models(asked, paths, Asking("ground", asks, settings, options.comparing.max_reject_share), out)
    media = {record["path"] for model in models for record in model.records}
    scores = rated(people, sorted(media)) if people else {}
    for record in (record for model in models for record in model.records):
        record["human"] = scores[record["path"]].score if record["path"] in scores else None
    contents = {medium: one.content for medium, one in scores.items()}
    with tempfile.TemporaryDirectory() as aside:
        folder = out or Path(aside)
        files = [write_recorded(folder / f"{model.name}.claims.json", model, _KEYS) for model in models]
        report = ground_recorded(files, Keys(text_text=None), options, fitting, contents)
    for told, model in zip(report["files"], models, strict=True):
        told["rejected"] |= model.rejected
    return report


def _scored(asked: SubjectOptions, seed: int, readout: "ScoreReadout") -> "Callable[[Opened], Ask[Record]]":
    """Asks for a description of a medium and a score of it."""

    def of(opened: "Opened") -> "Ask[Record]":
        from tasks.evaluation.subjects.asking import drawing
        from tasks.evaluation.subjects.course import describe
        from tasks.evaluation.subjects.scoring import image_qualities

        def ask(media: "Sequence[Shown]") -> "list[Record]":
            how = drawing(asked.sampling, media, seed)
            told = describe(opened.subject, opened.course, media, how)
            seen = image_qualities(opened.subject, opened.course, media, told, how, readout)
            pairs = zip(told, seen, strict=True)
            return [{"description": text, "image_score": quality} for text, quality in pairs]

        return ask

    return of
