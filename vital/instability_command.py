"""``vital instability``: how often does a model change its mind?"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vital.recorded_options import paths_argument, recorded_files, refuse_given, report_options, show_report
from vital.subject_options import SubjectOptions, need_models, refuse_subject_options, subject_options

if TYPE_CHECKING:
    from tasks.evaluation.instability import Options
    from tasks.evaluation.recorded import Comparing
    from tasks.evaluation.subjects.asking import Ask
    from tasks.evaluation.subjects.opening import Opened
    from tasks.evaluation.subjects.protocol import Shown
    from vital.result_files import Record

_RECORDED_ONLY: Final = ("sampling", "medium", "answers", "content")


@click.command(short_help="How often does a model change its mind when it is asked the same again?")
@paths_argument
@subject_options
@click.option("--repeats", type=click.IntRange(min=2), default=5, show_default=True, help="Answers to each question.")
@click.option(
    "--readout",
    type=click.Choice(["word", "number"]),
    help="What is read out of an answer; of a model that is asked, word.",
)
@click.option("--scale", nargs=2, type=float, metavar="LOW HIGH", help="Scale of a readout of numbers, such as 1 5.")
@report_options
@click.option(
    "--sampling",
    multiple=True,
    metavar="NAME=VALUE",
    help="How recorded answers were drawn, such as temperature=1 (repeat for more); printed with every figure.",
)
@click.option("--medium", default="image", show_default=True, help="Recorded: key that names the image.")
@click.option("--answers", default="answers", show_default=True, help="Recorded: key of the list of answers.")
@click.option(
    "--content", help="Recorded: key that names what is shown, so that versions of one photograph are drawn together."
)
def instability(  # noqa: PLR0913, PLR0917 - one argument per option
    paths: tuple[str, ...],
    asked: SubjectOptions,
    repeats: int,
    readout: str | None,
    scale: tuple[float, float] | None,
    bootstrap: int,
    seed: int,
    max_reject_share: float,
    out: Path | None,
    sampling: tuple[str, ...],
    medium: str,
    answers: str,
    content: str | None,
    *,
    as_json: bool,
) -> None:
    """Count how often answers to one question differ: of models that are asked now, or of answers recorded before.

    With --model, PATHS are photos, clips and folders: each model is asked --repeats times about each, with the random
    numbers of --seed. What it said is written to the --out folder as it comes, where the same command goes on, and in
    the end as NAME.answers.json, which this command reads as recorded answers.

    Without --model, PATHS are files of repeated answers (JSON lists, one per model). Each record names an image and
    holds the list of what a model answered when it was asked the same again and again.

    Three estimators are told by name, with failed answers as a class of their own and left out; further models or files
    are paired with the first, image by image.

    \b
    vital instability --model vital-base#prod photos/ --temperature 1 --repeats 5 --out FOLDER
    vital instability answers.json --readout word --sampling temperature=1 --sampling top_p=1
    vital instability one.json other.json --readout number --scale 1 5 --out FOLDER
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    readout = readout or ("word" if asked.models else None)
    if readout is None:
        raise click.UsageError("--readout is needed: word or number")
    if (readout == "number") != (scale is not None):
        raise click.UsageError("--readout number needs --scale, and --readout word has none")
    if strange := [told for told in sampling if "=" not in told]:
        msg = f"--sampling takes NAME=VALUE, not {strange[0]!r}"
        raise click.UsageError(msg)
    if asked.models:
        refuse_given(_RECORDED_ONLY, "is about recorded answers, and --model asks a model")
    else:
        refuse_subject_options(("levels",), "repeats")
    from tasks.evaluation.instability import Keys, measure_recorded
    from tasks.evaluation.instability_pages import markdown, write_pages
    from tasks.evaluation.recorded import Comparing

    comparing = Comparing(bootstrap, seed, max_reject_share=max_reject_share)
    if asked.models:
        report = _ask(asked, paths, repeats, scale, comparing, out)
    else:
        told = dict(one.split("=", 1) for one in sampling)
        keys = Keys(medium, answers, content)
        report = measure_recorded(recorded_files(paths), keys, _options(asked.words, scale, told, comparing))
    show_report(report, out, as_json=as_json, markdown=markdown, write=write_pages)


def _options(
    words: Sequence[str] | None,
    scale: tuple[float, float] | None,
    told: Mapping[str, str],
    comparing: "Comparing",
) -> "Options":
    from models.instruments.readout import NumberReadout, WordReadout
    from models.levels import LEVELS
    from tasks.evaluation.instability import Options

    return Options(NumberReadout(*scale) if scale else WordReadout(tuple(words or LEVELS)), told, comparing)


def _ask(
    asked: SubjectOptions,
    paths: Sequence[str],
    repeats: int,
    scale: tuple[float, float] | None,
    comparing: "Comparing",
    out: Path | None,
) -> dict[str, Any]:
    """The report on answers that are drawn now, read from the files that they are recorded in."""
    from tasks.evaluation.instability import Keys, measure_recorded
    from vital.live_asking import Asking, ask_models, write_recorded

    need_models(asked, paths)
    settings = {"seed": comparing.seed, "repeats": repeats}
    asking = Asking("instability", _repeated(asked, comparing.seed, repeats), settings, comparing.max_reject_share)
    models = ask_models(asked, paths, asking, out)
    words = asked.words or models[0].course.words
    options = _options(words, scale, told_sampling(asked, settings), comparing)
    with tempfile.TemporaryDirectory() as aside:
        folder, keys = out or Path(aside), {"answers": "answers"}
        files = [write_recorded(folder / f"{model.name}.answers.json", model, keys) for model in models]
        report = measure_recorded(files, Keys(), options)
    for told, model in zip(report["files"], models, strict=True):
        told["left_out"] |= model.rejected
    return report


def told_sampling(asked: SubjectOptions, settings: Mapping[str, int]) -> dict[str, str]:
    """Everything that decides which answers are drawn, as reports print it."""
    numbers = {"temperature": asked.temperature, "top_p": asked.top_p, **settings}
    return {name: f"{value:g}" for name, value in numbers.items()}


def _repeated(asked: SubjectOptions, seed: int, repeats: int) -> "Callable[[Opened], Ask[Record]]":
    """Asks for all answers about a medium; each has random numbers of its own."""

    def of(opened: "Opened") -> "Ask[Record]":
        from tasks.evaluation.subjects.asking import drawing
        from tasks.evaluation.subjects.course import say

        def ask(media: "Sequence[Shown]") -> "list[Record]":
            rounds = [
                say(opened.subject, opened.course, media, drawing(asked.sampling, media, seed, repeat))
                for repeat in range(repeats)
            ]
            return [
                {
                    "answers": [one.verdict for one in said],
                    "descriptions": [one.description for one in said if one.description],
                }
                for said in zip(*rounds, strict=True)
            ]

        return ask

    return of
