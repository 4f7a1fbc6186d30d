"""Every scorer VITAL knows by name: the built-in six, the paper's official six, and third-party ones by entry point."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.errors import ModelError
from models.scorers.built_in import BUILT_INS, Backend, built_in_version, load_built_in
from models.scorers.official import OFFICIAL, WeightFile, load_official, official_version, weight_files
from models.scorers.protocol import Scorer

ENTRY_POINTS: Final = "vital.scorers"
"""Group of entry points: each names a callable without arguments that returns a Scorer."""


@dataclass(frozen=True)
class ScorerRecord:
    """What is known about a scorer before it is loaded.

    Attributes:
        name: key in params and tables.
        origin: ``built-in`` or ``official``.
        modality: what the published model was made for.
        licence: licence of its weights.
        weights: files it needs, beyond those that ship with VITAL.
        loadable: False for records that this version only lists in plans.
    """

    name: str
    origin: str
    modality: str
    licence: str
    weights: tuple[WeightFile, ...]
    loadable: bool


def records() -> dict[str, ScorerRecord]:
    """All built-in and official scorers, name -> record."""
    found = {
        name: ScorerRecord(name, "built-in", "image and video", "Apache-2.0", (), loadable=True) for name in BUILT_INS
    }
    for name, model in OFFICIAL.items():
        found[name] = ScorerRecord(name, "official", model.modality, model.licence, weight_files(name), loadable=True)
    return found


def missing_weights(names: Sequence[str]) -> list[str]:
    """What these scorers lack on this machine, one line each: for plans and dry runs.

    Raises:
        ModelError: a name is unknown.
    """
    known, lines = records(), []
    for name in names:
        if name in _third_party():
            continue
        if name not in known:
            raise ModelError(_unknown(name))
        lines += [f"{name}: {file.instruction}" for file in known[name].weights if not file.path.exists()]
        if not known[name].loadable:
            lines.append(f"{name}: listed for the plan; this version of VITAL has no loader for it")
    return lines


def load_scorer(name: str, backend: Backend = "onnx", threads: int | None = None) -> Scorer:
    """Load any scorer by name.

    Args:
        name: built-in, official or third-party name.
        backend: runtime of the built-in scorers; others choose their own.
        threads: threads inside one forward pass of a built-in scorer.

    Raises:
        ModelError: the name is unknown, or its files are damaged.
        MissingWeightsError: a weight file is missing; the message says which, where it belongs and where from.
    """
    if name in BUILT_INS:
        return load_built_in(name, backend, threads=threads)
    if name in OFFICIAL:
        return load_official(name)
    entry_point = _third_party().get(name)
    if entry_point is None:
        raise ModelError(_unknown(name))
    scorer = entry_point.load()()
    if not isinstance(scorer, Scorer):
        msg = f"entry point {name!r} of group {ENTRY_POINTS} did not return a Scorer (see models/scorers/protocol.py)"
        raise ModelError(msg)
    return scorer


def scorer_version(name: str, folder: Path | None = None) -> str:
    """Version of a scorer, without loading weights where that is possible."""
    if name in BUILT_INS:
        return built_in_version(name, folder) if folder else built_in_version(name)
    if name in OFFICIAL:
        return official_version(name)
    return load_scorer(name).version


def _third_party() -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _unknown(name: str) -> str:
    loadable = [key for key, record in records().items() if record.loadable]
    return f"unknown scorer {name!r}; known are {', '.join([*loadable, *_third_party()])}"
