"""Subjects by the name that a person gives them, each with the course of questions that is its own."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.registry import resolve_judge
from models.probe_head import is_probe
from models.quality_lmm import QualityLMM
from models.two_stage import TwoStageLMM
from tasks.devices import ON_CPU, Computing
from tasks.errors import StageError
from tasks.evaluation.subjects.course import Course, without_opening
from tasks.evaluation.subjects.courses import chat_course, remembered_course, two_stage_course
from tasks.evaluation.subjects.line import LineSubject, TwoStageSubject
from tasks.evaluation.subjects.protocol import Subject

if TYPE_CHECKING:
    from tasks.evaluation.subjects.endpoint import Where

FRAMES: Final = 8
"""Frames of a clip that a checkpoint or an endpoint is shown, unless somebody says otherwise."""
_LINE_FILE: Final = "quality_lmm.json"
_TWO_STAGE_FILE: Final = "two_stage.json"


@dataclass(frozen=True)
class Opened:
    """A subject, and how it is asked unless somebody says otherwise.

    Attributes:
        identity: changes whenever the same question could be answered differently because the subject is another.
    """

    subject: Subject
    course: Course
    identity: str


def open_subject(reference: str | None, computing: Computing = ON_CPU, frames: int = FRAMES) -> Opened:
    """Open a subject on this machine; an endpoint is opened by :func:`open_endpoint`.

    Args:
        reference: a folder with a quality LMM or a checkpoint of transformers, or a model of the registry; None is the
            promoted one.
        frames: of a clip, for checkpoints; a quality LMM has frames of its own.

    Raises:
        StageError: there is a folder, but it is no subject. RegistryError: there is no such model.
    """
    if reference is not None and Path(reference).is_dir():
        return _open_folder(Path(reference), Path(reference).resolve().name, computing, frames)
    return _open_folder(resolve_judge(reference), reference or "promoted", computing, frames)


def is_address(reference: str) -> bool:
    """Whether a reference is an endpoint's address."""
    return reference.startswith(("http://", "https://"))


def open_endpoint(where: "Where") -> Opened:
    """Open an endpoint; its answers are free, since they cannot be made to begin in a given way.

    Raises:
        StageError: the address is none. InfraError: there is no key where one is named.
    """
    from tasks.evaluation.subjects.endpoint import EndpointSubject  # noqa: PLC0415 - others need no client

    identity = json.dumps([where.base_url, where.model, where.frames, where.max_side, where.max_bytes])
    return Opened(EndpointSubject(where), without_opening(chat_course()), identity)


def _open_folder(folder: Path, name: str, computing: Computing, frames: int) -> Opened:
    if (folder / _LINE_FILE).is_file():
        model = QualityLMM.from_pretrained(folder, computing.dtype).to(computing.device)
        return Opened(LineSubject(name, model), remembered_course(folder, model), _identity(folder, computing, 0))
    if (folder / _TWO_STAGE_FILE).is_file():
        both = TwoStageLMM.from_pretrained(folder, computing.dtype).to(computing.device)
        return Opened(TwoStageSubject(name, both), two_stage_course(both.describer), _identity(folder, computing, 0))
    if is_probe(folder):
        msg = f"{name} is a probe and has no words: instruments need a whole model"
        raise StageError(msg)
    if (folder / "config.json").is_file():
        from tasks.evaluation.subjects.checkpoint import load_checkpoint  # noqa: PLC0415 - a model of the line needs none

        return Opened(
            load_checkpoint(folder, name, computing, frames), chat_course(), _identity(folder, computing, frames)
        )
    msg = f"{folder} holds neither {_LINE_FILE} nor config.json: it is no model of this project and no checkpoint"
    raise StageError(msg)


def _identity(folder: Path, computing: Computing, frames: int) -> str:
    """Of a folder: its files with their sizes and times, how exactly it computes, and how much it sees of a clip."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    told = [
        (str(path.relative_to(folder)), found.st_size, found.st_mtime_ns) for path in files if (found := path.stat())
    ]
    return hashlib.sha256(json.dumps([told, computing.precision, frames]).encode()).hexdigest()
