"""``vital readout``: what does one answer say, read in several ways?"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vital.people_options import meaning_of, people_of, people_options
from vital.recorded_options import paths_argument, report_options, show_report
from vital.subject_options import SubjectOptions, need_models, subject_options

if TYPE_CHECKING:
    from models.instruments.readout import NumberReadout
    from tasks.evaluation.people import People
    from tasks.evaluation.readouts import Model
    from tasks.evaluation.recorded import Comparing
    from tasks.evaluation.subjects.asking import Ask
    from tasks.evaluation.subjects.opening import Opened
    from tasks.evaluation.subjects.protocol import Shown
    from vital.live_asking import Told
    from vital.result_files import Record


@click.command(short_help="What does one answer say? Its level word, its expectation and its number, side by side.")
@paths_argument
@subject_options
@click.option(
    "--readout",
    "readouts",
    type=click.Choice(["word", "expectation", "number"]),
    multiple=True,
    help="Readouts, all of one generation (repeat for more; default: word and expectation, and number with --scale).",
)
@click.option("--scale", nargs=2, type=float, metavar="LOW HIGH", help="Scale of numbers that answers state.")
@people_options
@click.option(
    "--content",
    metavar="COLUMN[:REGEX]",
    help="Column of --people that names what is shown: versions of one photograph are then drawn together.",
)
@report_options
def readout(  # noqa: PLR0913, PLR0917 - one argument per option
    paths: tuple[str, ...],
    asked: SubjectOptions,
    readouts: tuple[str, ...],
    scale: tuple[float, float] | None,
    people: Path | None,
    people_id: str | None,
    mos: str,
    polarity: str | None,
    ends: tuple[float, float] | None,
    content: str | None,
    bootstrap: int,
    seed: int,
    max_reject_share: float,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Ask models about PATHS (photos, clips, folders), and read each answer in several ways.

    word is the level word that was written, expectation the mean over the probabilities of all level words at its
    place, number a score that was written. Every row says which; with --people it also says how well that readout
    agrees with people: PLCC raw and after the logistic fit, SRCC, KRCC and RMSE.

    \b
    vital readout --model vital-base#prod photos/ --people scores.csv --polarity mos --range 1 5 --out FOLDER
    vital readout --model FOLDER photos/ --readout number --scale 1 5 --opening '' --judge 'Rate it from 1 to 5.'
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    need_models(asked, paths)
    names = readouts or ("word", "expectation", *(("number",) if scale else ()))
    if ("number" in names) != (scale is not None):
        raise click.UsageError("--readout number needs --scale, and --scale is for it alone")
    table = people_of(people, people_id, mos, meaning_of(polarity, ends), content)
    from models.instruments.readout import NumberReadout
    from tasks.evaluation.readouts import measure
    from tasks.evaluation.readouts_pages import markdown, write_pages
    from tasks.evaluation.recorded import Comparing
    from vital.live_asking import Asking, ask_models

    comparing = Comparing(bootstrap, seed, max_reject_share=max_reject_share)
    settings = {"seed": seed, "expectation": "expectation" in names}
    asking = Asking("readout", _said(asked, comparing, settings), settings, max_reject_share)
    told = ask_models(asked, paths, asking, out)
    number = NumberReadout(*scale) if scale else None
    models = [_model(one, names, number, table, f"{_conditions(asked, one)}, seed {seed}.") for one in told]
    report = measure(models, names, comparing)
    show_report(report, out, as_json=as_json, markdown=markdown, write=write_pages)


def _said(
    asked: SubjectOptions, comparing: "Comparing", settings: Mapping[str, Any]
) -> "Callable[[Opened], Ask[Record]]":
    """Asks for one verdict about a medium, and what it expects there."""

    def of(opened: "Opened") -> "Ask[Record]":
        from tasks.evaluation.subjects.asking import drawing
        from tasks.evaluation.subjects.course import say
        from tasks.evaluation.subjects.scoring import check_place, expectations

        if settings["expectation"]:
            check_place(opened.course)

        def ask(media: "Sequence[Shown]") -> "list[Record]":
            subject, course = opened.subject, opened.course
            said = say(subject, course, media, drawing(asked.sampling, media, comparing.seed))
            pairs = zip(media, said, strict=True)
            questions = [course.verdict_of(medium, one.description) for medium, one in pairs]
            wanted = questions if settings["expectation"] else []
            found = expectations(subject, wanted, course.words) or [None] * len(said)
            return [
                {"verdict": one.verdict, "description": one.description, "expectation": value}
                for one, value in zip(said, found, strict=True)
            ]

        return ask

    return of


def _model(
    told: "Told", names: Sequence[str], number: "NumberReadout | None", people: "People | None", conditions: str
) -> "Model":
    """Records of one model with all that is read out of them."""
    from tasks.evaluation.people import rated
    from tasks.evaluation.readouts import Model, Read
    from tasks.evaluation.subjects.scoring import word_quality

    ratings = rated(people, [record["path"] for record in told.records]) if people else {}
    reads = []
    for record in told.records:
        verdict, rating = record["verdict"], ratings.get(record["path"])
        found = {
            "word": word_quality(verdict, told.course.words),
            "expectation": record["expectation"],
            "number": number.quality(verdict) if number else None,
        }
        human = people.meaning.quality(rating.score) if people and rating else None
        content = rating.content if rating else record["path"]
        reads.append(Read(record["path"], verdict, {name: found[name] for name in names}, human, content))
    return Model(told.name, reads, told.rejected, conditions)


def _conditions(asked: SubjectOptions, told: "Told") -> str:
    """How one model was asked."""
    course = told.course
    opened = f"opening {course.opening!r}" if course.opening else "free answers"
    levels = ", ".join(course.words)
    return f"{course.way}, {opened}, levels {levels}, temperature {asked.temperature:g}, top_p {asked.top_p:g}"
