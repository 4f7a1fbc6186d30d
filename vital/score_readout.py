"""How the scores of contradiction and grounding come about: of models that are asked now, or recorded before."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tasks.evaluation.contradiction import Options
    from tasks.evaluation.recorded import Comparing
    from tasks.human_scale import Meaning


def score_options(
    readout: str | None,
    scale: tuple[float, float] | None,
    meaning: "Meaning | None",
    comparing: "Comparing",
    *,
    live: bool,
) -> "Options":
    """What scores mean.

    Args:
        readout: as it was named; None is expectation of a model that is asked, and number of recorded scores.
        scale: of recorded scores; a model that is asked scores on [0, 1].

    Raises:
        click.UsageError: a model that is asked is to state numbers, or recorded scores have no scale.
    """
    from tasks.evaluation.contradiction import READOUT, Options

    if live:
        if readout == "number":
            raise click.UsageError("a model that is asked is read by --readout expectation or word")
        return Options(0, 1, meaning, comparing, readout or "expectation")
    if scale is None:
        raise click.UsageError("recorded scores need --scale LOW HIGH")
    return Options(*scale, meaning, comparing, readout or READOUT)
