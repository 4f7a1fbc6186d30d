"""The model card of the built-in scorers: what they learnt from, how well, and where they fail."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from tasks.annotation.scorer_samples import PRISTINE
from tasks.annotation.scorer_set import Floats
from tasks.shards import atomic

CARD: Final = "MODEL_CARD.md"
_FEWEST: Final = 8
"""Samples of a kind that a correlation needs."""
_WEAK: Final = 0.5
"""The mean opinion's correlation with damage below which a kind is listed as a failure."""

_USE: Final = (
    "**Use.** Machine opinions of photographs and clips: ranking, filtering, annotation that is reviewed. Not for "
    "judging people, contents or taste, and not in place of viewers where a decision is costly."
)


@dataclass(frozen=True)
class HeldOut:
    """Samples of contents that no scorer has seen, and what is known of them.

    Attributes:
        target_N: the common full-reference target in [0, 1].
        kind_N: names of their distortions.
    """

    target_N: Floats
    kind_N: NDArray[np.str_]

    def figures(self, score_N: Floats) -> dict[str, Any]:
        """Agreement of calibrated scores with the target: over all, and by kind of distortion."""
        kinds = [str(kind) for kind in sorted(set(self.kind_N) - {PRISTINE})]
        rows = {kind: self.kind_N == kind for kind in kinds if (self.kind_N == kind).sum() >= _FEWEST}
        return {
            "samples": len(score_N),
            "srcc": srcc(score_N, self.target_N),
            "mean_absolute_error": round(float(np.abs(score_N - self.target_N).mean()), 4),
            "pristine_mean": round(float(score_N[self.kind_N == PRISTINE].mean()), 4),
            "samples_by_kind": {kind: int(of.sum()) for kind, of in rows.items()},
            "srcc_by_kind": {kind: srcc(score_N[of], self.target_N[of]) for kind, of in rows.items()},
        }


def srcc(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation, four decimals."""
    return round(float(np.corrcoef(rankdata(first), rankdata(second))[0, 1]), 4)


def write_card(folder: Path, cards: Mapping[str, Mapping[str, Any]], mean: Mapping[str, Any]) -> None:
    """Write ``MODEL_CARD.md`` beside the weights.

    Args:
        folder: of the weights.
        cards: scorer name -> the contents of its JSON card.
        mean: figures of the mean of all scorers on the same samples.
    """
    training = next(iter(cards.values()))["training"]
    columns = {**{name: card["figures"] for name, card in cards.items()}, "mean opinion": mean}
    weak = [kind for kind, value in mean["srcc_by_kind"].items() if 0.0 <= value < _WEAK]
    inverted = [kind for kind, value in mean["srcc_by_kind"].items() if value < 0.0]
    data = (
        f"**Training data.** {training['photographs'] - training['held_out']} pristine photographs "
        f"({', '.join(training['sources'])}), {training['samples']} stills and {training['clips']} clips rendered from "
        f"them with known distortions. {training['held_out']} further photographs are held out; all figures below are "
        f"of their {mean['samples']} stills. Targets are full-reference measures; no human score was read."
    )
    failures = (
        f"**Failure modes.** Below {_number(_WEAK)} for the mean opinion: {', '.join(weak) or 'none'}; the wrong way "
        f"round: {', '.join(inverted) or 'none'} (few stills of a kind: uncertain by some tenths). Without a "
        "reference a low key, haze, a blurred background, few colours or fine grain on purpose can look like faults; "
        "damage to a small part of the picture is hardly seen; more contrast or saturation than the original's may "
        "look better."
    )
    numbers = [_number(mean[key]) for key in ("srcc", "mean_absolute_error", "pristine_mean")]
    lines = [
        "# Model card: the built-in scorers",
        "Made by `python -m tasks.annotation.train_scorers`; every figure is computed by it.",
        data,
        _USE,
        _table(
            ["scorer", "version", "parameters", "SRCC", "mean absolute error", "mean of pristine", "SRCC on clips"],
            [*(_scorer_row(name, card) for name, card in cards.items()), ["mean opinion", "", "", *numbers, ""]],
        ),
        "SRCC with the common full-reference target within one kind of distortion (all strengths and contents):",
        _table(["distortion", "stills", *columns], [_kind_row(kind, columns, mean) for kind in mean["srcc_by_kind"]]),
        failures,
    ]
    with atomic(folder / CARD) as file:
        file.write(("\n\n".join(lines) + "\n").encode())


def _scorer_row(name: str, card: Mapping[str, Any]) -> list[str]:
    figures, clips = card["figures"], card["figures"].get("srcc_clips")
    numbers = [_number(figures[key]) for key in ("srcc", "mean_absolute_error", "pristine_mean")]
    parameters = f"{card['training']['parameters']:,}"
    return [name, card["version"], parameters, *numbers, "" if clips is None else _number(clips)]


def _kind_row(kind: str, columns: Mapping[str, Mapping[str, Any]], mean: Mapping[str, Any]) -> list[str]:
    return [
        kind,
        str(mean["samples_by_kind"][kind]),
        *(_number(figures["srcc_by_kind"][kind]) for figures in columns.values()),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def _number(value: float) -> str:
    """Two decimals are what so few samples can bear; no leading zero."""
    return f"{value:.2f}".replace("0.", ".", 1)
