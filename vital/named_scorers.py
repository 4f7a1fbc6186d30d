"""Scorers by the names that people give them: those of the catalogue, and students of the registry or of a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from models.scorers import Scorer

RALI: Final = "rali"
_MODEL: Final = "vital-rali"


def named_scorers(names: "Sequence[str] | None") -> "list[Scorer]":
    """Load scorers; without names the six built-in ones.

    Args:
        names: of the catalogue; ``rali`` is the registry's newest ``vital-rali``, ``rali:WHERE`` the student WHERE: a
            folder, or ``NAME@VERSION`` or ``NAME#STAGE`` of the registry.

    Raises:
        ModelError: an unknown name or none, or damaged or missing files.
        RegistryError: the registry has no such student; the message lists what there is.
    """
    from tasks.annotation.opinions import load_scorers

    names = [names] if isinstance(names, str) else names
    if not names:
        return load_scorers(names)
    return [_student(name) if _is_student(name) else load_scorers([name])[0] for name in names]


def _is_student(name: str) -> bool:
    return name.partition(":")[0] == RALI


def _student(name: str) -> "Scorer":
    from infra.registry import resolve
    from models.errors import ModelError
    from models.rali.runtime import RaliScorer, is_student

    where = name.partition(":")[2] or _MODEL
    folder = Path(where) if Path(where).is_dir() else resolve(where)
    if not is_student(folder):
        msg = f"{where} is no student (it has no rali.json): name {_MODEL}, or a folder such as artifacts/rali/student"
        raise ModelError(msg)
    return RaliScorer(folder)
