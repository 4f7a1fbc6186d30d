"""``vital opinions``: what the scorers' opinions are worth."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vital.drift_command import drift

if TYPE_CHECKING:
    from tasks.evaluation.human_scores import Human
    from tasks.evaluation.opinion_tables import Columns

SIGMAS: Final = ("population", "sos", "shrunk", "noise_weighted", "predictive", "variance_function")
"""As in ``models.opinion_spread.SPREADS``; here too, since help must not wait for SciPy (a test holds them equal)."""
_REPLICATES: Final = 1000


@click.group(short_help="Look into what the scorers say: agreement, outliers, what sigma means.")
def opinions() -> None:
    """Opinions are the scores that several scorers gave to the same samples."""


opinions.add_command(drift)


@opinions.command()
@click.option(
    "--opinions",
    "source",
    metavar="FILE|WORKSPACE",
    type=click.Path(path_type=Path),
    help="Opinions of the score stage (default: this checkout's), a .csv, .tsv or .parquet file with a column per "
    "scorer, or the output of vital score --json (.jsonl).",
)
@click.option("--scorers", metavar="NAME,..", help="Columns of scores; FIRST:LAST is all from one to another.")
@click.option(
    "--scale",
    type=click.Choice(["unit", "rank"]),
    default="unit",
    show_default=True,
    help="Scores are calibrated to [0, 1], or are compared as percentile ranks within each scorer.",
)
@click.option("--lower-is-better", metavar="NAME,..", help="Scorers for which less is better.")
@click.option("--id", "key", metavar="COLUMN", help="Column that names the samples (default: id, path or name).")
@click.option(
    "--content",
    metavar="COLUMN[:REGEX]",
    help="Samples with the same value (or group 1 of the pattern) show one content.",
)
@click.option("--distortion", metavar="COLUMN[:REGEX]", help="Type of distortion, or another group to tell apart.")
@click.option(
    "--human",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Table with human scores (default: the table of the opinions, if --mos is given).",
)
@click.option("--human-id", metavar="COLUMN", help="Column of that table that names the samples.")
@click.option("--mos", metavar="COLUMN", help="Column of mean human scores; --human alone means mos.")
@click.option("--polarity", type=click.Choice(["mos", "dmos"]), help="Whether more is better (mos) or worse (dmos).")
@click.option("--range", "ends", metavar="LOW HIGH", nargs=2, type=float, help="Ends of the scale of human scores.")
@click.option("--sd", metavar="COLUMN", help="Column of standard deviations of human scores.")
@click.option("--sd-range", metavar="LOW HIGH", nargs=2, type=float, help="Ends of their scale, if it is another.")
@click.option(
    "--sigma",
    type=click.Choice(SIGMAS),
    default="population",
    show_default=True,
    help="What sigma the report is about; all of them are compared in any case.",
)
@click.option(
    "--bootstrap",
    metavar="N",
    type=click.IntRange(1),
    default=_REPLICATES,
    show_default=True,
    help="Replicates of the intervals.",
)
@click.option(
    "--out",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write opinions.json, opinions.md and opinions.html there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of Markdown.")
def report(**given: Any) -> None:
    """Report how scorers agree with each other and with people, and whether sigma means anything.

    Shows every scorer's distribution and calibration, who is an outlier and by which rule, what mu loses without a
    scorer, and agreement by distortion. With human scores: SRCC of mu with them, and of sigma with their standard
    deviations, with bootstrap intervals by content. Polarity and range of human scores are declared, never guessed.

    \b
    vital opinions report --out report-on-opinions
    vital opinions report --opinions labels.csv --scorers first_model:last_model --scale rank \\
        --mos MOS --polarity mos --range 0 100 --sd SD --sd-range 1 5
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    _check(given)
    from infra.workspace import CHECKOUT
    from tasks.evaluation.human_scores import gather
    from tasks.evaluation.opinion_pages import markdown, write_pages
    from tasks.evaluation.opinion_study import Options, study
    from tasks.stage import read_params, stage_config

    if given["out"] is not None:
        given["out"].mkdir(parents=True, exist_ok=True)  # a folder that cannot be written is told before the work
    sampling = stage_config("correlate", read_params(CHECKOUT)).sampling
    options = Options(given["sigma"], dataclasses.replace(sampling, n_bootstrap=given["bootstrap"]), given["scale"])
    found = study(gather(given["source"] or CHECKOUT, _columns(given), _human(given)), options)
    if found["human"] is not None and found["human"]["warning"]:
        click.echo(f"vital: {found['human']['warning']}", err=True)
    if given["out"] is not None:
        paths = write_pages(given["out"], found)
        click.echo(f"written: {', '.join(map(str, paths))}", err=True)
    if given["as_json"]:
        click.echo(json.dumps(found, ensure_ascii=False))
    elif given["out"] is None:
        click.echo(markdown(found), nl=False)


def _check(given: dict[str, Any]) -> None:
    """Options that make sense together, told before anything is loaded."""
    human = [f"--{name}" for name in ("human", "mos", "sd") if given[name] is not None]
    missing = [flag for flag, name in (("--polarity", "polarity"), ("--range", "ends")) if not given[name]]
    if human and missing:
        msg = f"{human[0]} needs {' and '.join(missing)}: what human scores mean is declared, never guessed"
        raise click.UsageError(msg)
    idle = (
        ["--polarity"] * bool(given["polarity"])
        + ["--range"] * bool(given["ends"])
        + ["--sd-range"] * bool(given["sd_range"])
    )
    if idle and not human:
        msg = f"{idle[0]} is about human scores, and none are named: use --human or --mos"
        raise click.UsageError(msg)
    if given["sd_range"] and given["sd"] is None:
        raise click.UsageError("--sd-range is about standard deviations, and no column is named: use --sd")


def _columns(given: dict[str, Any]) -> "Columns":
    from tasks.evaluation.opinion_tables import Columns, Scale

    lower = tuple(name.strip() for name in (given["lower_is_better"] or "").split(",") if name.strip())
    return Columns(given["key"], given["scorers"], lower, given["content"], given["distortion"], Scale(given["scale"]))


def _human(given: dict[str, Any]) -> "Human | None":
    from tasks.evaluation.human_scores import Human, Polarity

    if not given["ends"]:
        return None
    return Human(
        mos=given["mos"] or "mos",
        low=given["ends"][0],
        high=given["ends"][1],
        polarity=Polarity(given["polarity"]),
        path=given["human"],
        id=given["human_id"],
        sd=given["sd"],
        sd_range=given["sd_range"] or None,
    )
