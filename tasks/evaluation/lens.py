"""The logit lens on models that are asked: when does a model make up its mind, and does it change it in the end?

Each medium is read where the level word is predicted, at every layer of the decoder; see ``models.instruments.lens``
for the mathematics. A record holds one medium's reading as plain values, so that records on disk make the same report.

Shape legend: ``N`` media, ``L`` layers, ``C`` levels, ``K`` top tokens.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from models.instruments.lens import LATE_SHARE, TOP, Reading, effective_candidates
from models.instruments.replicates import Replicates
from models.sampling import Sampling
from tasks.evaluation.recorded import DIGITS, Comparing
from tasks.evaluation.subjects.asking import Ask
from tasks.evaluation.subjects.course import Course
from tasks.evaluation.subjects.protocol import Asked, Floats, Layers, Shown, Subject
from tasks.evaluation.told import Describing, Told, about, differences, means, replicates_of, verdict_questions

SCHEMA: Final = 1
FIGURES: Final = ("late_switch", "switches", "commit_depth", "commit_layer", "margin", "distinct_top")
"""Figures of one medium, whose means are told."""
PAIRED: Final = ("late_switch", "switches", "commit_depth")
"""Figures that mean the same in decoders of any depth."""


def lens_questions(subject: Subject, course: Course, sampling: Sampling, seed: int) -> Ask[dict[str, Any]]:
    """What is asked about some media, with a record for each; asking raises as ``told.verdict_questions`` does."""

    def read(asked: Sequence[Asked]) -> list[Layers]:
        return subject.layers(asked, course.words, TOP)

    def ask(media: Sequence[Shown]) -> list[dict[str, Any]]:
        asked = verdict_questions(course, media, Describing(subject, sampling, seed), read)
        return [
            {"description": one.description, **_record(found)} for one, found in zip(asked, read(asked), strict=True)
        ]

    return ask


def _record(layers: Layers) -> dict[str, Any]:
    reading = layers.reading
    return {
        "levels": reading.level_LC.round(DIGITS).tolist(),
        "other": reading.other_L.round(DIGITS).tolist(),
        "top_ids": reading.top_ids_LK.tolist(),
        "top_probs": reading.top_probs_LK.round(DIGITS).tolist(),
        "top_words": [list(row) for row in layers.top_words_LK],
        "late_switch": reading.switches_late,
        "switches": reading.switches,
        "commit_depth": round(reading.commit_layer / len(reading.level_LC), DIGITS),
        "commit_layer": reading.commit_layer,
        "margin": round(reading.margin, DIGITS),
        "distinct_top": reading.distinct_top,
    }


def measure(told: Sequence[Told], sampling: Sampling, comparing: Comparing) -> dict[str, Any]:
    """Report on models, each further one paired with the first.

    Returns:
        Plain values: equal records give equal bytes.
    """
    figures = [{name: np.array([float(r[name]) for r in one.records]) for name in FIGURES} for one in told]
    paired = [{name: values[name] for name in PAIRED} for values in figures]
    return {
        "schema": SCHEMA,
        "readout": {"name": "level_lens", "top": TOP, "late_share": LATE_SHARE},
        "sampling": {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": comparing.seed},
        "bootstrap": comparing.told(),
        "models": [_measured(one, values, comparing) for one, values in zip(told, figures, strict=True)],
        "differences": differences(told, paired, comparing),
    }


def _measured(told: Told, figures: Mapping[str, Floats], comparing: Comparing) -> dict[str, Any]:
    replicates = replicates_of(told, comparing)
    words, by_layer = told.course.words, _by_layer(told, replicates)
    return {
        **about(told),
        "layers": len(by_layer),
        "late_layers": max(1, math.ceil(LATE_SHARE * len(by_layer) - 1e-9)),
        "figures": means(figures, replicates),
        "by_layer": by_layer,
        "read": [_figures(record, words) for record in told.records],
        "examples": [_example(record, words) for record in _latest(told.records)[: comparing.examples]],
    }


def _by_layer(told: Told, replicates: Replicates) -> list[dict[str, Any]]:
    readings = [_reading(record) for record in told.records]
    level_NLC = np.stack([one.level_LC for one in readings])
    other_NL = np.stack([one.other_L for one in readings])
    return [
        {
            "layer": layer + 1,
            "levels": means(dict(zip(told.course.words, level_NLC[:, layer].T, strict=True)), replicates),
            **means({"other": other_NL[:, layer]}, replicates),
            "effective_candidates": round(effective_candidates(readings, layer + 1), DIGITS),
            "most_probable": _most_probable(told.records, layer),
        }
        for layer in range(level_NLC.shape[1])
    ]


def _reading(record: Mapping[str, Any]) -> Reading:
    return Reading(
        np.array(record["levels"], np.float64),
        np.array(record["other"], np.float64),
        np.array(record["top_ids"], np.int64),
        np.array(record["top_probs"], np.float64),
    )


def _most_probable(records: Sequence[Mapping[str, Any]], layer: int) -> list[dict[str, Any]]:
    """Tokens that are the most probable ones at a layer, with the share of media at which each is; the first few."""
    texts = {record["top_ids"][layer][0]: record["top_words"][layer][0] for record in records}
    counts = Counter(record["top_ids"][layer][0] for record in records)
    ranked = sorted(counts, key=lambda token: (-counts[token], token))[:TOP]
    return [{"token": texts[token], "share": round(counts[token] / len(records), DIGITS)} for token in ranked]


def _figures(record: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    level = words[int(np.argmax(record["levels"][-1]))]
    return {"medium": record["path"], "level": level, **{name: record[name] for name in FIGURES}}


def _latest(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Media whose level word is settled latest first; then those that switch most, and the least sure ones."""
    return sorted(records, key=lambda r: (-r["commit_layer"], -r["switches"], r["margin"], r["path"]))


def _example(record: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    rows = zip(record["levels"], record["other"], record["top_words"], record["top_probs"], strict=True)
    return {
        **_figures(record, words),
        "description": record["description"],
        "layers": [
            {"levels": levels, "other": other, "top": [list(pair) for pair in zip(texts, probs, strict=True)]}
            for levels, other, texts, probs in rows
        ],
    }
