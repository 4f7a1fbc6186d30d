"""``vital lens``: when does a model make up its mind, and does it change it in the end?"""

from pathlib import Path

import click

from vital.recorded_options import report_options
from vital.subject_options import SubjectOptions, need_models, subject_options


@click.command(short_help="When does a model make up its mind? Every layer's probabilities at the level word.")
@click.argument("paths", nargs=-1)
@subject_options
@click.option("--examples", default=6, show_default=True, type=click.IntRange(min=0), help="Media that are shown.")
@report_options
def lens(  # noqa: PLR0913, PLR0917 - one argument per option
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
    """Read, for each of PATHS (photos, clips, folders), what every layer of a model would say as the level word.

    The hidden state of each layer goes through the model's own final norm and vocabulary head. Told are the levels'
    probabilities among each other, the most probable tokens, the layer from which on the verdict stays, how often it
    switches, and how many media switch in the last layers. Further models are paired with the first.

    \b
    vital lens --model MODEL photos/
    vital lens --model ONE --model OTHER --way one_answer photos/ --out FOLDER
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    need_models(asked, paths)
    from tasks.evaluation.lens import SCHEMA, lens_questions, measure
    from tasks.evaluation.lens_pages import markdown, write_pages
    from tasks.evaluation.recorded import Comparing
    from vital.live_asking import Instrument, use_instrument

    instrument = Instrument("lens", SCHEMA, lens_questions, measure, markdown, write_pages)
    comparing = Comparing(bootstrap, seed, examples=examples, max_reject_share=max_reject_share)
    use_instrument(instrument, asked, paths, comparing, out, as_json=as_json)
