"""``vital rali texts``: reasoning texts about a folder's media from any model, as a file that a student learns from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vital.media_files import with_progress
from vital.rali_options import own_media
from vital.subject_options import SubjectOptions, need_models, subject_options

if TYPE_CHECKING:
    from tasks.evaluation.said_texts import TextPlan
    from tasks.own_media import OwnMedia
    from tasks.text_sieve import TextSieve
    from vital.text_file import Line


@dataclass(frozen=True)
class _Asking:
    """What is asked of every model about which media, and where it goes."""

    media: "OwnMedia"
    plan: "TextPlan"
    out: Path


@click.command()
@click.argument("photos", metavar="PHOTOS", type=click.Path(exists=True, file_okay=False, path_type=Path))
@subject_options
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.jsonl",
    help="A line for each text, as texts come; an existing file is continued.",
)
@click.option(
    "--texts-per-medium",
    "per_medium",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Each has a seed of its own; more than one needs a --temperature.",
)
@click.option("--seed", default=0, show_default=True, help="Of answers that are drawn.")
@click.option(
    "--leaks",
    type=click.Choice(["drop", "keep"]),
    default="drop",
    show_default=True,
    help="Sentences that give a verdict away: take them out, or count them alone.",
)
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Whose texts they are; once for each model.")
@click.option(
    "--table",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.parquet",
    help="Write the same texts as an instruction table, which explain.sources imports with PHOTOS as its root.",
)
@click.option(
    "--max-reject-share",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Fail if more of the media have no text of a model.",
)
def texts(  # noqa: PLR0913, PLR0917 - one argument per option
    photos: Path,
    asked: SubjectOptions,
    out: Path,
    per_medium: int,
    seed: int,
    leaks: str,
    sources: tuple[str, ...],
    table: Path | None,
    max_reject_share: float,
) -> None:
    """Ask models to describe the quality of the photos and clips in the folder PHOTOS, and keep what they say.

    Each line holds path (below PHOTOS), text, source, seed, sampling and dropped: the number of sentences that gave a
    verdict away. What has no text stands with its reason in FILE.rejects.jsonl. A command that was killed goes on where
    it was; nothing that is on disk is asked again.

    \b
    vital rali texts photos/ --model vital-base --out texts.jsonl
    vital rali texts photos/ --model https://HOST/v1 --endpoint-model NAME --temperature 1 --texts-per-medium 3 \\
        --out texts.jsonl --table texts.parquet
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    need_models(asked, [str(photos)])
    if out.suffix != ".jsonl" or (table is not None and table.suffix != ".parquet"):
        raise click.UsageError("--out is a .jsonl file, --table a .parquet file")
    if sources and len(set(sources)) != len(asked.models):
        raise click.UsageError("--source names each model once, in their order and each by another name")
    from tasks.evaluation.said_texts import TextPlan
    from vital.quiet import quiet_libraries
    from vital.text_file import lines_of

    plan = TextPlan(per_medium, asked.sampling, seed, "keep" if leaks == "keep" else "drop")
    asking, titles = _Asking(own_media(photos), plan, out), list[str]()
    with quiet_libraries():
        for number in range(len(asked.models)):
            _ask(asked, number, asking, titles, sources[number] if sources else None)
    told = [line for line in lines_of(out) if line["path"] in set(asking.media.names)]
    if table is not None:
        _write_table(told, photos, table)
    for title in titles:
        _check(title, told, asking, max_reject_share)


def _ask(asked: SubjectOptions, number: int, asking: _Asking, titles: list[str], source: str | None) -> None:
    """Ask one model what was not asked before; its name joins ``titles``."""
    from tasks.evaluation.said_texts import Teller
    from vital.live_asking import model_title
    from vital.result_files import run_name
    from vital.text_file import TextFile

    opened, plan = asked.open(number), asking.plan
    titles.append(source or model_title(opened.subject.name, titles))
    names = {asking.media.root / name: name for name in asking.media.names}
    run = run_name("texts", opened.identity, asdict(opened.course), asdict(plan.sampling), plan.seed, plan.leaks)
    with TextFile(asking.out, names, run, titles[-1], plan.sampling) as file:
        left = [path for path in names if not all(file.known(path, turn) for turn in range(plan.per_medium))]
        teller = Teller(opened, plan, names, file)
        for _ in with_progress(teller.tell(left, asked.batch), f"texts of {titles[-1]}", len(left)):
            pass
    _tell(titles[-1], len(left), teller.sieve)


def _tell(title: str, asked: int, sieve: "TextSieve") -> None:
    found = ", ".join(f"{kind} {count}" for kind, count in sorted(sieve.leaks.items())) or "none"
    click.echo(
        f"vital: {title}: {asked} media asked about; leaks: {found}; {sieve.sentences} sentences dropped", err=True
    )


def _check(title: str, told: "Sequence[Line]", asking: _Asking, limit: float) -> None:
    """Count a model's texts and the reasons of media that have none.

    Raises:
        StageError: too many media have none.
    """
    from tasks.evaluation.subjects.asking import check_rejects
    from vital.text_file import lines_of, rejects_path

    mine = [line for line in told if line["source"] == title]
    spoken = {line["path"] for line in mine}
    reasons: dict[str, str] = {}
    rejects = [line for line in lines_of(rejects_path(asking.out)) if line["source"] == title]
    for line in rejects:
        if line["path"] not in spoken and line["path"] in set(asking.media.names):
            reasons[line["path"]] = line["reason"]
    counts = Counter(reasons.values())
    lost = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items())) or "none"
    click.echo(f"{asking.out}: {len(mine)} texts of {title} about {len(spoken)} media; without a text: {lost}")
    check_rejects(counts, len(asking.media.names), limit)


def _write_table(told: "Sequence[Line]", photos: Path, table: Path) -> None:
    """The texts as instructions, and beside them what cannot be one."""
    from tasks.exchange.texts import texts_table
    from tasks.records import INSTRUCTIONS, REJECTS
    from tasks.shards import write_table

    found = texts_table(told, photos)
    write_table(table, INSTRUCTIONS, found.frame)
    rejects = found.rejects.drop_duplicates(list(REJECTS.key))
    write_table(table.with_suffix(".rejects.parquet"), REJECTS, rejects)
    counts = ", ".join(f"{reason} {count}" for reason, count in sorted(found.rejects["reason"].value_counts().items()))
    click.echo(f"{table}: {len(found.frame)} instructions{f'; rejected: {counts}' if counts else ''}")
