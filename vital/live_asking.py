"""Models that are asked about media, one after the other; what they say is on disk before the next batch is asked.

With ``--out`` the records of each model stay there as ``MODEL.COMMAND.jsonl``, and the same command goes on where they
end.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vital.media_files import Named, find_media, tell_problem, with_progress
from vital.recorded_options import show_report
from vital.result_files import FileState, Record, ResultFile, Shape, left_of, run_name
from vital.subject_options import SubjectOptions

if TYPE_CHECKING:
    from models.sampling import Sampling
    from tasks.evaluation.recorded import Comparing
    from tasks.evaluation.subjects.asking import Ask, Rejected
    from tasks.evaluation.subjects.course import Course
    from tasks.evaluation.subjects.opening import Opened
    from tasks.evaluation.subjects.protocol import Subject

_SHAPE = Shape((), lambda record: record)


@dataclass(frozen=True)
class Told:
    """What one model said about all media.

    Attributes:
        name: of the model, unlike those of the others. course: by which it was asked.
        records: of media that were not rejected, in their order; each has its ``path`` besides what was asked.
        rejected: how many media were, for each reason.
    """

    name: str
    course: "Course"
    records: list[dict[str, Any]]
    rejected: dict[str, int]


@dataclass(frozen=True)
class Asking:
    """What is asked of every model.

    Attributes:
        command: that asks. ask: makes what is asked of a model; its records hold plain values.
        settings: all that decides a record besides the model, its course and the sampling, such as the seed.
        max_reject_share: of media, beyond which the command fails.
    """

    command: str
    ask: "Callable[[Opened], Ask[Record]]"
    settings: Mapping[str, Any]
    max_reject_share: float


@dataclass(frozen=True)
class Instrument:
    """What reads models that are asked, and tells of it.

    Attributes:
        command: its name. schema: of its records.
        questions: of a subject, its course, the sampling and the seed: what is asked about some media.
        measure: of what was said, the sampling and how it is compared: the report.
        markdown, write: the report for people.
    """

    command: str
    schema: int
    questions: "Callable[[Subject, Course, Sampling, int], Ask[Record]]"
    measure: "Callable[[Sequence[Told], Sampling, Comparing], dict[str, Any]]"
    markdown: Callable[[Mapping[str, Any]], str]
    write: Callable[[Path, Mapping[str, Any]], list[Path]]


def use_instrument(
    instrument: Instrument,
    asked: SubjectOptions,
    names: Sequence[str],
    comparing: "Comparing",
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Ask all models about all media, and show what the instrument makes of it; see :func:`ask_models`."""
    asking = Asking(
        instrument.command,
        lambda opened: instrument.questions(opened.subject, opened.course, asked.sampling, comparing.seed),
        {"seed": comparing.seed, "schema": instrument.schema},
        comparing.max_reject_share,
    )
    told = ask_models(asked, names, asking, out)
    report = instrument.measure(told, asked.sampling, comparing)
    show_report(report, out, as_json=as_json, markdown=instrument.markdown, write=instrument.write)


def ask_models(asked: SubjectOptions, names: Sequence[str], asking: Asking, out: Path | None) -> list[Told]:
    """Ask all models about all media.

    Args:
        names: photos, clips and folders. out: folder that keeps records; None keeps none.

    Raises:
        VitalError, ModelError, InfraError: a model cannot be read or asked, or too many media are rejected.
    """
    from tasks.shards import write_json

    media = find_media(names)
    with _folder(out) as folder:
        titles: list[str] = []
        told = [_ask_model(asked, number, media, asking, folder, titles) for number in range(len(asked.models))]
        write_json(folder / f"{asking.command}_asked.json", {one.name: _asked(one, asked, asking) for one in told})
        return told


def _asked(told: Told, asked: SubjectOptions, asking: Asking) -> dict[str, Any]:
    """All that was decided about how one model was asked."""
    return {"course": asdict(told.course), "sampling": asdict(asked.sampling), **asking.settings}


def write_recorded(path: Path, told: Told, keys: Mapping[str, str]) -> Path:
    """Write what a model said as a file of recorded answers: a list with a record per medium, whole or absent.

    Args:
        keys: of recorded files -> of records.
    """
    from tasks.shards import write_json

    records = [
        {"image": record["path"], **{name: record[key] for name, key in keys.items()}} for record in told.records
    ]
    write_json(path, records)
    return path


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        yield out
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _ask_model(
    asked: SubjectOptions, number: int, media: Sequence[Named], asking: Asking, folder: Path, titles: list[str]
) -> Told:
    """Ask one model what was not asked before; its title joins ``titles``."""
    from tasks.evaluation.subjects.asking import check_rejects
    from vital.quiet import quiet_libraries

    with quiet_libraries():
        opened = asked.open(number)
        title = model_title(opened.subject.name, titles)
        titles.append(title)
        run = run_name(
            asking.command, opened.identity, asdict(opened.course), asdict(asked.sampling), dict(asking.settings)
        )
        path = folder / f"{title}.{asking.command}.jsonl"
        with ResultFile(path, _SHAPE, run) as file:
            left, _ = left_of(media, file)
            _ask_left(opened, left, asking, asked.batch, file)
        states = [FileState.of(named.path) for named in media]
        records, rejected = _split(file.lines(states))
    check_rejects(rejected, len(set(states)), asking.max_reject_share)
    return Told(title, opened.course, records, rejected)


def model_title(name: str, taken: Sequence[str]) -> str:
    """A name that is a file's too, and nobody else's."""
    plain = re.sub(r"[^\w.@#-]+", "_", name).strip("._") or "model"
    number, title = 1, plain
    while title in taken:
        number += 1
        title = f"{plain}-{number}"
    return title


def _ask_left(
    opened: "Opened", left: Sequence[tuple[Named, FileState]], asking: Asking, batch: int, file: ResultFile
) -> None:
    from tasks.evaluation.subjects.asking import Rejected

    outcomes = _outcomes(opened, [named for named, _ in left], asking, batch)
    for (named, state), outcome in zip(left, with_progress(outcomes, asking.command, len(left)), strict=True):
        if isinstance(outcome, Rejected):
            file.problem(state, outcome.error)
            tell_problem(named.path, outcome.error, as_json=False)
        else:
            file.result(state, outcome)


def _outcomes(opened: "Opened", left: Sequence[Named], asking: Asking, batch: int) -> "Iterator[Record | Rejected]":
    """One outcome for each name, in order; what names no file never reaches the model."""
    from tasks.evaluation.subjects.asking import Rejected, ask_each

    paths = (named.path for named in left if named.problem is None)
    found = ask_each(opened.subject, paths, asking.ask(opened), batch)
    for named in left:
        yield next(found) if named.problem is None else Rejected(named.path, named.problem)


def _split(lines: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    from tasks.evaluation.subjects.asking import counted

    rejected = counted(str(line["reason"]) for line in lines if line.get("error"))
    return [line for line in lines if not line.get("error")], rejected
