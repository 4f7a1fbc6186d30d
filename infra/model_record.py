"""What the registry knows about one model: the candidate that ``register`` wrote, and the record of its promotion."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from infra.errors import RegistryError

CANDIDATES_FILE: Final = "artifacts/register/candidates.json"
"""Where the stage ``register`` leaves its candidates."""

DATA_SET: Final = "data_set"
"""Kind of entry that is no model: a version of the data set (infra/data_set.py)."""

ENCODER: Final = "encoder"
"""Kind of candidate that is no whole model: it has no decoder, so it cannot assess."""

STUDENT: Final = "student"
"""Kind of candidate that scores without levels and words."""

_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """One file of a model: path relative to the model's folder, size in bytes, hashes."""

    path: str
    size: int
    sha256: str
    md5: str


@dataclass(frozen=True)
class Check:
    """One sentence of a gate: a measure, what it must reach or must not exceed, and what it is.

    A bound that is None is no bound. ``value`` is None if the measure does not exist, in which case the check does not
    hold.
    """

    measure: str
    at_least: float | None
    value: float | None
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the measure is within its bounds."""
        if self.value is None:
            return False
        reached = self.at_least is None or self.value >= self.at_least
        return reached and (self.at_most is None or self.value <= self.at_most)

    def __str__(self) -> str:
        found = "missing" if self.value is None else f"{self.value:.4f}"
        bounds = ((">=", self.at_least), ("<=", self.at_most))
        told = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
        return f"{self.measure} {told} (found {found})"


@dataclass(frozen=True)
class Candidate:
    """A model that a run of the line offers to the registry.

    Attributes:
        name: name in the registry.
        kind: ``pretrained``, ``encoder``, ``zero``, ``warm_up``, ``assistant`` or ``probe``; or
            ``data_set``.
        path: the model's folder, relative to the workspace.
        files: every file of that folder, sorted by path.
        metrics: measure -> value on held-out contents.
        gate: the declared quality gate, check by check.
        params: sections of the params file that made it.
        made_from: path of an input -> SHA-256 of its content; of a data set: output of the line -> DVC's hash of it.
        parents: models it was made from.
        card: model card, Markdown.
    """

    name: str
    kind: str
    path: str
    files: tuple[ModelFile, ...]
    metrics: Mapping[str, float | None]
    gate: tuple[Check, ...]
    params: Mapping[str, Any]
    made_from: Mapping[str, str]
    parents: tuple[str, ...]
    card: str

    @property
    def content(self) -> str:
        """SHA-256 of the model: equal for equal files under equal names, wherever they lie."""
        return content_hash(self.files)

    @property
    def holds(self) -> bool:
        """Whether every check of the gate holds."""
        return all(check.holds for check in self.gate)

    def to_json(self) -> dict[str, Any]:
        """As it is written to disk."""
        return {**dataclasses.asdict(self), "content": self.content, "gate_holds": self.holds}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Candidate":
        """Read what :meth:`to_json` wrote; additional keys are ignored."""
        known = {name: values[name] for name in cls.__dataclass_fields__}
        known |= {
            "files": tuple(ModelFile(**file) for file in values["files"]),
            "gate": tuple(Check(**check) for check in values["gate"]),
            "parents": tuple(values["parents"]),
        }
        return cls(**known)


@dataclass(frozen=True)
class Record:
    """A promoted candidate with its lineage: ``registry/<name>.json`` in the registry's commit.

    Attributes:
        candidate: what was promoted.
        out: the output of the DVC line that holds the model, and its hash.
        store: where the bytes were pushed, if others can reach that: URL and endpoint.
        code: commit of the checkout, and tracked files that differed from it.
    """

    candidate: Candidate
    out: Mapping[str, str]
    store: Mapping[str, str | None] | None
    code: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it is written to the commit."""
        return {**self.candidate.to_json(), "out": self.out, "store": self.store, "code": self.code}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Record":
        """Read what :meth:`to_json` wrote."""
        return cls(Candidate.from_json(values), values["out"], values["store"], values["code"])


def hash_folder(folder: Path) -> tuple[ModelFile, ...]:
    """Hash every file below ``folder``, sorted by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(hash_file(path, path.relative_to(folder).as_posix()) for path in paths)


def content_hash(files: Iterable[ModelFile]) -> str:
    """Return the SHA-256 of a set of named files."""
    lines = sorted(f"{file.sha256}  {file.path}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_candidates(workspace: Path) -> dict[str, Candidate]:
    """Read what the stage ``register`` offers.

    Raises:
        RegistryError: it has not run, or its file is of another version.
    """
    path = workspace / CANDIDATES_FILE
    try:
        values = json.loads(path.read_text())["candidates"]
        return {name: Candidate.from_json(candidate) for name, candidate in values.items()}
    except FileNotFoundError as error:
        msg = f"{path} is missing: run the line first (vital run, or dvc repro register)"
        raise RegistryError(msg) from error
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise RegistryError(msg) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path} is not a list of candidates ({error}): run dvc repro --force register"
        raise RegistryError(msg) from error


def hash_file(path: Path, name: str) -> ModelFile:
    """Hash one file, in pieces, under the name it has in its model."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return ModelFile(name, size, sha256.hexdigest(), md5.hexdigest())
