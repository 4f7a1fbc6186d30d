"""``vital attention``: where does a model look when it says the level word?"""

from pathlib import Path

import click

from vital.recorded_options import report_options
from vital.subject_options import SubjectOptions, need_models, subject_options


@click.command(short_help="Where does a model look when it says the level word: medium, description, question?")
@click.argument("paths", nargs=-1)
@subject_options
@click.option("--examples", default=6, show_default=True, type=click.IntRange(min=0), help="Media that are shown.")
@report_options
def attention(  # noqa: PLR0913, PLR0917 - one argument per option
    paths: tuple[str, ...],
    asked: SubjectOptions,
    examples: int,
    bootstrap: int,
    seed: int,
    max_reject_share: float,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Sum, for each of PATHS (photos, clips, folders), a model's attention at the level word over groups of tokens.

    Told are the mass on the medium, on the model's own description, on the question and on the rest, by layer and head
    and overall; the same per token, so that many tokens do not win by their number; and how narrowly a group is looked
    at. Further models are paired with the first.

    \b
    vital attention --model MODEL photos/
    vital attention --model ONE --model OTHER --way one_answer photos/ --out FOLDER
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    need_models(asked, paths)
    from tasks.evaluation.attention import SCHEMA, attention_questions, measure
    from tasks.evaluation.attention_pages import markdown, write_pages
    from tasks.evaluation.recorded import Comparing
    from vital.live_asking import Instrument, use_instrument

    instrument = Instrument("attention", SCHEMA, attention_questions, measure, markdown, write_pages)
    comparing = Comparing(bootstrap, seed, examples=examples, max_reject_share=max_reject_share)
    use_instrument(instrument, asked, paths, comparing, out, as_json=as_json)
