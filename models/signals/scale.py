"""From measures to a common scale: the probability that a fault is present, per family of estimators.

Thresholds are logistic curves fitted by ``python -m tasks.annotation.fit_signals`` on children of training contents
whose fault is known from the recipe that made them; ``thresholds.json`` beside this module holds them and the
recipe's numbers. A probability of one half is the point where fault and no fault are equally likely.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.errors import ModelError
from models.signals.claims import ATTRIBUTE_OF, FAULTS, IMAGE_ATTRIBUTES, VIDEO_ATTRIBUTES, Attribute, Fault
from models.signals.evidence import Evidence, EvidenceConfig
from models.signals.families import spatial, spectral, statistical, structural

FAMILIES: Final[dict[str, Mapping[Attribute, Callable[[Evidence], float]]]] = {
    "spatial": spatial.ESTIMATORS,
    "spectral": spectral.ESTIMATORS,
    "structural": structural.ESTIMATORS,
    "statistical": statistical.ESTIMATORS,
}
"""Independent families: no estimator is in two of them, and each rests on a principle of its own."""

DESCRIBER_FAMILY: Final = "spatial"
JUDGE_FAMILIES: Final = ("spectral", "structural", "statistical")
THRESHOLDS_PATH: Final = Path(__file__).with_name("thresholds.json")

Measures = dict[Attribute, float]
Reading = dict[Fault, float]
"""Probability of each fault, [0, 1]."""


@dataclass(frozen=True)
class Curve:
    """``p = 1 / (1 + exp(-(measure - centre) * slope))``; a negative slope means that small measures are the fault."""

    centre: float
    slope: float

    def __call__(self, measure: float) -> float:
        """Probability of the fault, [0, 1]."""
        return float(0.5 * (1 + np.tanh((measure - self.centre) * self.slope / 2)))


@dataclass(frozen=True)
class Thresholds:
    """Fitted curves by family and fault, and the evidence they were fitted on.

    Attributes:
        curves: family -> fault -> curve.
        evidence: what one look consists of; curves hold for this alone.
        version: hash of all of it; part of the key of every measured answer.
    """

    curves: Mapping[str, Mapping[Fault, Curve]]
    evidence: EvidenceConfig
    version: str


def attributes_of(medium: str) -> tuple[Attribute, ...]:
    """The attributes that exist for a ``medium`` ("image" or "video")."""
    return VIDEO_ATTRIBUTES if medium == "video" else IMAGE_ATTRIBUTES


def measure(family: str, evidence: Evidence, attributes: tuple[Attribute, ...] | None = None) -> Measures:
    """Measure ``attributes`` (default: all that the medium has) with one family; units are each estimator's own.

    Raises:
        ModelError: an estimator gave no finite number.
    """
    found = {name: FAMILIES[family][name](evidence) for name in attributes or attributes_of(evidence.medium)}
    broken = [name for name, value in found.items() if not np.isfinite(value)]
    if broken:
        msg = f"family {family} cannot measure {broken[0]} of {evidence.key}"
        raise ModelError(msg)
    return found


def read(measures: Measures, family: str, thresholds: Thresholds) -> Reading:
    """Turn measures into fault probabilities."""
    curves = thresholds.curves[family]
    return {fault: curves[fault](value) for name, value in measures.items() for fault in FAULTS[name]}


def parse_thresholds(content: dict[str, Any], version: str) -> Thresholds:
    """Build thresholds from the content of ``thresholds.json``.

    Raises:
        ModelError: a family or fault is missing.
    """
    try:
        curves = {
            family: {fault: Curve(**content["curves"][family][fault]) for fault in ATTRIBUTE_OF} for family in FAMILIES
        }
        return Thresholds(curves, EvidenceConfig(**content["fit"]["evidence"]), version)
    except (KeyError, TypeError, ValueError) as error:
        msg = f"thresholds are incomplete ({error!r}): run python -m tasks.annotation.fit_signals"
        raise ModelError(msg) from error


@cache
def load_thresholds(path: Path = THRESHOLDS_PATH) -> Thresholds:
    """Load fitted thresholds.

    Raises:
        ModelError: the file is missing or broken.
    """
    try:
        data = path.read_bytes()
        content = json.loads(data)
    except (OSError, json.JSONDecodeError) as error:
        msg = f"{path.name} is missing or broken: run python -m tasks.annotation.fit_signals"
        raise ModelError(msg) from error
    return parse_thresholds(content, hashlib.sha256(data).hexdigest()[:12])
