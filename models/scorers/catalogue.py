"""Every scorer VITAL knows by name: the built-in six, the paper's official six, and third-party ones by entry point."""

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from models.errors import ModelError
from models.scorers.built_in import BUILT_INS, Backend, built_in_version, load_built_in
from models.scorers.official import (
    OFFICIAL,
    WeightFile,
    load_official,
    official_sampling,
    official_version,
    weight_files,
)
from models.scorers.protocol import Excerpt, Sampling, Scorer

ENTRY_POINTS: Final = "vital.scorers"
"""Group of entry points: each names a callable without arguments that returns a Scorer."""

Maker = Callable[[], Scorer]
"""Returns a scorer, ready to score; a class without arguments to its constructor is one."""
_Made = TypeVar("_Made", bound=Maker)

_registered: dict[str, Maker] = {}


@dataclass(frozen=True)
class ScorerRecord:
    """What is known about a scorer before it is loaded.

    Attributes:
        name: key in params and tables.
        origin: ``built-in`` or ``official``.
        modality: what the published model was made for.
        licence: licence of its weights.
        weights: files it needs, beyond those that ship with VITAL.
    """

    name: str
    origin: str
    modality: str
    licence: str
    weights: tuple[WeightFile, ...]


def register_scorer(make: _Made) -> _Made:
    """Make a scorer known in this process under its attribute ``name``; works as a decorator of a class, too.

    Stages run in processes of their own: a scorer for ``score.scorers`` in params.yaml comes by entry point.

    Raises:
        ModelError: it has no name, or the name is taken.
    """
    name = getattr(make, "name", None)
    if not isinstance(name, str) or not name:
        raise ModelError("a scorer is registered by a class or callable whose attribute `name` is a text")
    if name in BUILT_INS or name in OFFICIAL:
        msg = f"{name!r} is the name of a scorer that VITAL brings along: choose another"
        raise ModelError(msg)
    _registered[name] = make
    return make


def records() -> dict[str, ScorerRecord]:
    """All built-in and official scorers, name -> record."""
    found = {name: ScorerRecord(name, "built-in", "image and video", "Apache-2.0", ()) for name in BUILT_INS}
    for name, model in OFFICIAL.items():
        found[name] = ScorerRecord(name, "official", model.modality, model.licence, weight_files(name))
    return found


def missing_weights(names: Sequence[str]) -> list[str]:
    """What these scorers lack on this machine, one line each: for plans and dry runs.

    Raises:
        ModelError: a name is unknown.
    """
    known, lines = records(), []
    for name in names:
        if name in known:
            lines += [f"{name}: {file.instruction}" for file in known[name].weights if not file.path.exists()]
        elif name not in _third_party():
            raise ModelError(_unknown(name))
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
    make = _third_party().get(name)
    if make is None:
        raise ModelError(_unknown(name))
    try:
        scorer = make()
    except ModelError:
        raise
    except Exception as error:  # anybody's code
        msg = f"the third-party scorer {name!r} does not load ({type(error).__name__}: {error})"
        raise ModelError(msg) from error
    if not isinstance(scorer, Scorer):
        msg = (
            f"{name!r} (registered, or of entry points {ENTRY_POINTS}) is not a Scorer, which has "
            "name, version, sampling, raw and score: see models/scorers/protocol.py"
        )
        raise ModelError(msg)
    return scorer


def scorer_version(name: str, folder: Path | None = None) -> str:
    """Version of a scorer, without loading weights where that is possible."""
    if name in BUILT_INS:
        return built_in_version(name, folder) if folder else built_in_version(name)
    if name in OFFICIAL:
        return official_version(name)
    return load_scorer(name).version


def scorer_sampling(name: str) -> Sampling | Excerpt:
    """What a scorer sees of a medium, without loading weights where that is possible.

    Raises:
        ModelError: the name is unknown.
    """
    if name in BUILT_INS:
        return BUILT_INS[name].sampling
    return official_sampling(name) if name in OFFICIAL else load_scorer(name).sampling


def _third_party() -> dict[str, Callable[[], object]]:
    """Makers of third-party scorers; what this process has registered comes before entry points."""
    found: dict[str, Callable[[], object]] = {
        entry.name: lambda entry=entry: entry.load()() for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)
    }
    return found | _registered


def _unknown(name: str) -> str:
    return f"unknown scorer {name!r}; known are {', '.join([*records(), *_third_party()])}"
