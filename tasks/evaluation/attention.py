"""Where models that are asked look when they say the level word: at the medium, their description or the question.

Each medium is read at the token that predicts the level word; see ``models.instruments.attention_share`` for the
mathematics. A record holds one medium's attention as plain values, so that records on disk make the same report.

Shape legend: ``N`` media, ``L`` layers, ``H`` heads, ``G`` groups, ``K`` tokens of the medium.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from models.instruments.attention_share import GROUPS, TOP_SHARE, AttentionShare
from models.instruments.placement import View
from models.instruments.replicates import Replicates
from models.sampling import Sampling
from tasks.evaluation.recorded import DIGITS, Comparing, rounded
from tasks.evaluation.subjects.asking import Ask
from tasks.evaluation.subjects.course import Course
from tasks.evaluation.subjects.protocol import Floats, Shown, Subject
from tasks.evaluation.told import Describing, Told, about, differences, means, replicates_of, verdict_questions
from tasks.media import decode_image, read_file

SCHEMA: Final = 1
WHOLE: Final = ("entropy", "effective_tokens")
"""Figures of one medium's attention, whose means are told."""
OF_GROUPS: Final = ("mass", "per_token", "concentration", "effective", "effective_share", "tokens")
"""Figures of each group of tokens, likewise."""


@runtime_checkable
class Placing(Protocol):
    """A subject that knows where in a picture its tokens lie."""

    def token_views(self, height: int, width: int) -> list[View] | None:
        """Views of a picture in the order of their tokens; None if its tokens lie nowhere in particular."""
        ...


def attention_questions(subject: Subject, course: Course, sampling: Sampling, seed: int) -> Ask[dict[str, Any]]:
    """What is asked about some media, with a record for each; asking raises as ``told.verdict_questions`` does."""

    def ask(media: Sequence[Shown]) -> list[dict[str, Any]]:
        asked = verdict_questions(course, media, Describing(subject, sampling, seed), subject.attention)
        shares = subject.attention(asked)
        return [
            {"description": one.description, **_record(share), **_places(subject, one.medium, share)}
            for one, share in zip(asked, shares, strict=True)
        ]

    return ask


def _record(share: AttentionShare) -> dict[str, Any]:
    return {
        **rounded({"entropy": float(share.entropy_LH.mean()), "effective_tokens": share.effective_tokens}),
        **{name: _plain(values_G) for name, values_G in _of_groups(share).items()},
        "mass_LHG": _plain(share.shares_LHG),
        "entropy_LH": _plain(share.entropy_LH),
        "concentration_LG": _plain(_mean_of_heads(share.top_LHG)),
    }


def _of_groups(share: AttentionShare) -> dict[str, Floats]:
    """Each of ``OF_GROUPS``, ``[G]``; NaN where a group has no tokens or no mass."""
    tokens_G = share.tokens_G.astype(np.float64)
    return {
        "mass": share.whole,
        "per_token": share.evenness,
        "concentration": share.concentration,
        "effective": share.effective_within,
        "effective_share": share.effective_within / np.where(tokens_G > 0, tokens_G, np.nan),
        "tokens": tokens_G,
    }


def _mean_of_heads(values_LHG: Floats) -> Floats:
    defined = np.isfinite(values_LHG)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values_LHG, 0.0).sum(axis=1) / defined.sum(axis=1)


def _plain(values: Floats) -> Any:
    """Nested lists with rounded numbers, None for those that are not defined."""
    if values.ndim > 1:
        return [_plain(row) for row in values]
    return [round(float(value), DIGITS) if np.isfinite(value) else None for value in values]


def _places(subject: Subject, medium: Shown | None, share: AttentionShare) -> dict[str, Any]:
    """Attention of the picture's tokens, view by view, where it is known where they lie."""
    if medium is None or medium.is_video or not isinstance(subject, Placing):
        return {"views": None}
    height, width = decode_image(read_file(medium.path)).shape[:2]
    views, weights_K = subject.token_views(height, width), share.tokens_of("image")
    if views is None or sum(len(view.boxes_K4) for view in views) != len(weights_K):
        return {"views": None}
    parts = np.split(weights_K, np.cumsum([len(view.boxes_K4) for view in views])[:-1])
    return {
        "views": [
            {"name": view.name, "boxes": _plain(view.boxes_K4), "weights": _plain(part_K)}
            for view, part_K in zip(views, parts, strict=True)
        ]
    }


def measure(told: Sequence[Told], sampling: Sampling, comparing: Comparing) -> dict[str, Any]:
    """Report on models, each further one paired with the first.

    Returns:
        Plain values: equal records give equal bytes.
    """
    figures = [_figures(one) for one in told]
    return {
        "schema": SCHEMA,
        "readout": {"name": "level_attention", "groups": list(GROUPS), "top_share": TOP_SHARE},
        "sampling": {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": comparing.seed},
        "bootstrap": comparing.told(),
        "models": [_measured(one, values, comparing) for one, values in zip(told, figures, strict=True)],
        "differences": [
            {**one, "figures": None if one["figures"] is None else _by_group(one["figures"])}
            for one in differences(told, figures, comparing)
        ],
    }


def _figures(told: Told) -> dict[str, Floats]:
    """Each figure ``[N]``; those of groups are named ``figure.group``."""
    figures = {name: np.array([record[name] for record in told.records], np.float64) for name in WHOLE}
    for name in OF_GROUPS:
        values_NG = np.array([record[name] for record in told.records], np.float64)
        figures |= {f"{name}.{group}": values_NG[:, number] for number, group in enumerate(GROUPS)}
    return figures


def _by_group(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures by name, and those of each group under its name."""
    groups = {group: {name: figures[f"{name}.{group}"] for name in OF_GROUPS} for group in GROUPS}
    return {**{name: figures[name] for name in WHOLE}, "groups": groups}


def _measured(told: Told, figures: Mapping[str, Floats], comparing: Comparing) -> dict[str, Any]:
    replicates = replicates_of(told, comparing)
    mass_NLHG = np.array([record["mass_LHG"] for record in told.records], np.float64)
    entropy_NLH = np.array([record["entropy_LH"] for record in told.records], np.float64)
    top_NLG = np.array([record["concentration_LG"] for record in told.records], np.float64)
    return {
        **about(told),
        "layers": entropy_NLH.shape[1],
        "heads": entropy_NLH.shape[2],
        "figures": _by_group(means(figures, replicates)),
        "by_layer": [
            {
                "layer": layer + 1,
                **_mass(mass_NLHG[:, layer].mean(axis=1), entropy_NLH[:, layer].mean(axis=1), replicates),
                "concentration": means(_named(top_NLG[:, layer]), replicates),
            }
            for layer in range(entropy_NLH.shape[1])
        ],
        "by_head": [
            {
                "layer": layer + 1,
                "head": head + 1,
                **_mass(mass_NLHG[:, layer, head], entropy_NLH[:, layer, head], replicates),
            }
            for layer, head in np.ndindex(*entropy_NLH.shape[1:])
        ],
        "read": [_read(record) for record in told.records],
        "examples": [
            {**_read(record), "description": record["description"], "views": record["views"]}
            for record in _most_concentrated(told.records)[: comparing.examples]
        ],
    }


def _mass(mass_NG: Floats, entropy_N: Floats, replicates: Replicates) -> dict[str, Any]:
    """Of one layer or head: the mass on each group, and how many tokens share the attention."""
    told = means({"effective_tokens": np.exp(entropy_N)}, replicates)
    return {"mass": means(_named(mass_NG), replicates), **told}


def _named(values_NG: Floats) -> dict[str, Floats]:
    return dict(zip(GROUPS, values_NG.T, strict=True))


def _read(record: Mapping[str, Any]) -> dict[str, Any]:
    groups = {group: {name: record[name][n] for name in OF_GROUPS} for n, group in enumerate(GROUPS)}
    return {"medium": record["path"], **{name: record[name] for name in WHOLE}, "groups": groups}


def _most_concentrated(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Media at whose fewest tokens is looked most first; those without a picture's tokens last."""
    image = GROUPS.index("image")
    return sorted(records, key=lambda r: (-(r["concentration"][image] or 0.0), r["path"]))
