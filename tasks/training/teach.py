"""The teacher: a model that thinks aloud before it judges, trained by what its own answers have earned (GRPO).

After Q-Insight (arXiv 2503.22679), in the reading that docs/teacher.md states. From the pre-trained model: a short
cold start on example answers, since small models know no layout; then groups of answers are drawn to questions after
score, degradation and the better of two, and each is made more or less likely by how it fares within its group.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks import group
from tasks.instructions import ImportedSource
from tasks.prepared import Preparation
from tasks.records import REJECTS, Split
from tasks.shards import frame_of, write_json, write_table
from tasks.stage import Place
from tasks.training.engine import device_of, wanted_processes
from tasks.training.pretrain import require_gate
from tasks.training.session import lacking_gpus
from tasks.training.teach_trl import Lesson, TrlConfig, lacking_trl, readable, teach_by_trl
from tasks.training.teaching_course import (
    Matter,
    School,
    Teaching,
    reward_ends,
    shown_media,
    taught_tasks,
    teach_ourselves,
)
from tasks.training.teaching_tasks import STAGE, Gathered, TeachingTask, gather_tasks


@dataclass(frozen=True)
class Config(Teaching):
    """What is taught, of what, and by whom; its cold start, probe and parts are for the engine ``own``.

    Attributes:
        engine: ``own``, a quality LMM in one process, or ``trl``, any image-text checkpoint of transformers
            (``tasks.training.teach_trl``).
        splits: of the line's contents that are asked about; never the held-out ones; none for sources alone.
        sources: imported tables of media with their quality or degradation, see ``tasks.training.teaching_tasks``.
        max_reject_share: share of undecodable media above which the stage fails.
        trl: what the engine ``trl`` needs besides.
    """

    engine: Literal["own", "trl"]
    splits: tuple[Literal["train", "warm_up"], ...]
    sources: tuple[ImportedSource, ...]
    max_reject_share: float
    trl: TrlConfig

    def __post_init__(self) -> None:
        """Check ranges, also those of what is taught."""
        super().__post_init__()
        if not self.splits and not self.sources:
            raise ValueError("splits or sources must name something to ask about")
        if self.engine == "own" and self.training.engine != "single":
            raise ValueError("engine own is one process: training.engine must be single, or the engine trl")


@dataclass(frozen=True)
class Report:
    """Counts, the proof of freezing, and the ends of the curves.

    Attributes:
        tasks: questions that could be asked, per kind. examples: those with an example answer.
        rejected: media and questions that were not used, per reason.
        steps, trained_parameters, frozen_sha256: per part of the stage, ``cold_start`` and ``teacher``.
        loss_first, loss_last: of the cold start, first and last twentieth of its steps.
        first, last: figures of ``history.json`` (rewards, wasted groups, penalty ...) over the same ends of teaching.
        probe_before, probe_after: mean reward of one drawn answer to each of the same questions, all and per kind.
    """

    tasks: dict[str, int]
    examples: dict[str, int]
    media: int
    rejected: dict[str, int]
    steps: dict[str, int]
    trained_parameters: dict[str, int]
    frozen_sha256: dict[str, str]
    loss_first: dict[str, float]
    loss_last: dict[str, float]
    first: dict[str, float]
    last: dict[str, float]
    probe_before: dict[str, float]
    probe_after: dict[str, float]


def processes(config: Config) -> int:
    """Processes that the stage runs in."""
    return wanted_processes(config.training)


def missing(config: Config, root: Path) -> list[str]:
    """What this machine lacks for the stage, one line each."""
    del root
    return [*lacking_gpus(config.training), *(lacking_trl() if config.engine == "trl" else [])]


def run(config: Config, place: Place) -> Report:
    """Train the teacher.

    Outputs ``model/`` (a quality LMM; of the engine ``trl`` a folder of transformers), ``teacher.json`` (how it is
    asked), ``history.json``, ``examples.json`` (the loss curve of the cold start) and ``rejects.parquet``.

    Raises:
        GateError: the data set has not passed validation.
        StageError: there is nothing to ask, a split leaks, a frozen part moved, or a loss is not finite.
    """
    if config.splits:
        require_gate(place)
    gathered = gather_tasks(place, [Split(split) for split in config.splits], config.sources, config.shares)
    report = _by_trl(gathered, config, place) if config.engine == "trl" else _by_ourselves(gathered, config, place)
    if group.current().leads:
        write_json(place.out / "teacher.json", {"question": config.question, "tags": config.rewards.tags})
        write_table(place.out / "rejects.parquet", REJECTS, frame_of(REJECTS, gathered.rejects))
    return report


def _report(tasks: Sequence[TeachingTask], gathered: Gathered, **values: Any) -> Report:
    return Report(
        tasks=dict(sorted(Counter(one.kind for one in tasks).items())),
        examples=dict(sorted(Counter(one.kind for one in tasks if one.thought).items())),
        media=len({medium for one in tasks for medium in one.media}),
        rejected=dict(sorted(Counter(row["reason"] for row in gathered.rejects).items())),
        **values,
    )


def _by_trl(gathered: Gathered, config: Config, place: Place) -> Report:
    training, drawing = config.training, config.drawing
    tasks = readable(gathered, place, training.threads, config.max_reject_share)
    rounds = -(-training.steps // drawing.num_iterations)
    plan = config.plan(tasks, rounds, training.batch_examples // drawing.group)
    known = {task.task_id: task for task in tasks}
    lesson = Lesson(plan, known, drawing, config.rewards, config.objective, training, config.trl)
    rows = teach_by_trl(lesson, gathered, place)
    if group.current().leads:
        write_json(place.out / "history.json", rows)
    nothing: dict[str, Any] = {name: {} for name in ("loss_first", "loss_last", "probe_before", "probe_after")}
    proofs: dict[str, Any] = {"trained_parameters": {}, "frozen_sha256": {}, "steps": {"teacher": len(rows)}}
    return _report(tasks, gathered, **nothing, **proofs, **reward_ends(rows))


def _by_ourselves(gathered: Gathered, config: Config, place: Place) -> Report:
    school = School(STAGE, place.artifacts("pretrain") / "model", place.work, place.out, place.telemetry(STAGE))
    preparation = Preparation(STAGE, config.training.threads, config.max_reject_share, device_of(config.training))
    media = shown_media(place, gathered, school.model(cold=True), config, preparation)
    tasks = taught_tasks(gathered, media)
    return _report(tasks, gathered, **teach_ourselves(Matter(config, school, tasks, media)))
