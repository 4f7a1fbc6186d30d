"""The teacher: a model that thinks aloud before it judges, trained by what its own answers have earned (GRPO).

After Q-Insight (arXiv 2503.22679), in the reading that docs/teacher.md states. From the pre-trained model: a short
cold start on example answers, since small models know no layout; then groups of answers are drawn to questions after
score, degradation and the better of two, and each is made more or less likely by how it fares within its group.
"""

import copy
import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from models.drawn_answers import Policy
from models.grpo import GrpoRule
from models.quality_lmm import QualityLMM
from models.rewards import KINDS, Kind, RewardRule
from models.teaching import AskStyle
from models.vocabulary_head import HeadKind
from tasks import group
from tasks.errors import StageError
from tasks.instructions import ImportedSource, Instruction, read_any_media
from tasks.prepared import CachedFeatures, Preparation, PreparedMedia, Views, encode_media, prepare_media
from tasks.records import REJECTS, Split
from tasks.shards import digest, frame_of, write_json, write_table
from tasks.stage import Place
from tasks.training.callbacks import Checkpoint, Progress, Speed
from tasks.training.engine import device_of, wanted_processes
from tasks.training.freezing import Part, frozen_stays, parts_of, train_only
from tasks.training.pretrain import require_gate
from tasks.training.rollouts import Course, Drawing, PlannedMixture, Rollouts, mean_reward, plan_tasks
from tasks.training.session import Course as Run
from tasks.training.session import callbacks, curve_ends, lacking_gpus
from tasks.training.teach_trl import Lesson, TrlConfig, lacking_trl, readable, teach_by_trl
from tasks.training.teaching_objective import ExampleObjective, Measures, TeachingObjective
from tasks.training.teaching_tasks import STAGE, Gathered, TeachingTask, gather_tasks, usable
from tasks.training.telemetry import Telemetry
from tasks.training.trainer import StepRecord, Trainer, TrainingConfig, history_rows

log = logging.getLogger(__name__)

_ENCODER: Final = frozenset({"image_encoder", "motion_extractor"})
_EDGE: Final = 20
"""The ends of a curve are its first and last twentieth."""


@dataclass(frozen=True)
class ColdStart:
    """Examples of answers that the policy learns first.

    Attributes:
        steps: 0 leaves it out. batch_examples, learning_rate: of this part; all else as in ``training``.
    """

    steps: int
    batch_examples: int
    learning_rate: float

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.steps < 0 or self.batch_examples < 1 or self.learning_rate <= 0.0:
            raise ValueError("steps must not be negative, batch_examples and learning_rate must be positive")


@dataclass(frozen=True)
class Config:
    """What is taught, by which rewards.

    Attributes:
        engine: ``own``, a quality LMM in one process, or ``trl``, any image-text checkpoint of transformers
            (``tasks.training.teach_trl``).
        splits: of the line's contents that are asked about; never the held-out ones; none for sources alone.
        sources: imported tables of media with their quality or degradation, see ``tasks.training.teaching_tasks``.
        shares: of the questions, per kind.
        max_reject_share: share of undecodable media above which the stage fails.
        trained: parts that learn; with a part of the encoder among them media are kept as pixels, else as features.
        question: how is asked, see ``models.teaching``.
        head: as in tasks.training.objective.
        cold_start: of the engine ``own``.
        drawing: how answers are drawn. rewards: what they earn. objective: what is made of it.
        probe_tasks: questions of each kind that are asked once before and once after.
        training: the loop; ``batch_examples`` counts answers, so a step asks ``batch_examples / drawing.group``
            questions.
        trl: what the engine ``trl`` needs besides.
    """

    engine: Literal["own", "trl"]
    splits: tuple[Literal["train", "warm_up"], ...]
    sources: tuple[ImportedSource, ...]
    shares: dict[str, float]
    max_reject_share: float
    trained: tuple[Part, ...]
    question: AskStyle
    head: HeadKind
    cold_start: ColdStart
    drawing: Drawing
    rewards: RewardRule
    objective: GrpoRule
    probe_tasks: int
    training: TrainingConfig
    trl: TrlConfig

    def __post_init__(self) -> None:
        """Check ranges."""
        if not self.trained or len(set(self.trained)) < len(self.trained):
            raise ValueError("trained must name the parts that learn, each once, and one at least")
        if not self.splits and not self.sources:
            raise ValueError("splits or sources must name something to ask about")
        if not set(self.shares) <= set(KINDS) or not any(self.shares.values()):
            msg = f"shares must name some of {', '.join(KINDS)}, one of them with a positive share"
            raise ValueError(msg)
        if self.training.batch_examples % self.drawing.group:
            raise ValueError("training.batch_examples counts answers: it must be a multiple of drawing.group")
        if self.training.checkpoint_every % self.drawing.num_iterations:
            raise ValueError("training.checkpoint_every must be a multiple of drawing.num_iterations")
        if self.engine == "own" and self.training.engine != "single":
            raise ValueError("engine own is one process: training.engine must be single, or the engine trl")
        if self.probe_tasks < 0:
            raise ValueError("probe_tasks must not be negative")

    @property
    def example_training(self) -> TrainingConfig:
        """The loop of the cold start."""
        return dataclasses.replace(self.training, **dataclasses.asdict(self.cold_start))


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
    plan = _plan(config, tasks, rounds, training.batch_examples // drawing.group)
    known = {task.task_id: task for task in tasks}
    lesson = Lesson(plan, known, drawing, config.rewards, config.objective, training, config.trl)
    rows = teach_by_trl(lesson, gathered, place)
    if group.current().leads:
        write_json(place.out / "history.json", rows)
    nothing: dict[str, Any] = {name: {} for name in ("loss_first", "loss_last", "probe_before", "probe_after")}
    proofs: dict[str, Any] = {"trained_parameters": {}, "frozen_sha256": {}, "steps": {"teacher": len(rows)}}
    return _report(tasks, gathered, **nothing, **proofs, **_ends(rows))


def _plan(config: Config, tasks: Sequence[TeachingTask], steps: int, size: int) -> list[list[Instruction]]:
    """What each of some steps asks, of the kinds that there are."""
    kinds: dict[str, Kind] = {task.task_id: task.kind for task in tasks}
    shares = {kind: share for kind, share in config.shares.items() if kind in kinds.values() and share > 0.0}
    asked = [task.instruction(config.question, config.rewards.tags) for task in tasks]
    return plan_tasks(asked, kinds, shares, steps, size, config.training.seed)


# ---------------------------------------------------------------------- our own engine


def _by_ourselves(gathered: Gathered, config: Config, place: Place) -> Report:
    media = _media(gathered, config, place)
    tasks = usable(gathered, media.broken)
    gathered.rejects += media.rejects.to_dict("records")
    if not tasks:
        raise StageError("no question is left to ask: see the rejects of teach in the log")
    matter = _Matter(config, place, tasks, media)
    cold = _cold_start(matter)
    taught = _taught(matter)
    ends = ("loss_first", "loss_last")
    parts = {"cold_start": cold, "teacher": taught} if cold else {"teacher": taught}
    proofs = ("steps", "trained_parameters", "frozen_sha256")
    return _report(
        tasks,
        gathered,
        **{name: {part: values[name] for part, values in parts.items()} for name in proofs},
        **{name: cold.get(name, {}) for name in ends},
        **{name: taught[name] for name in ("first", "last", "probe_before", "probe_after")},
    )


def _media(gathered: Gathered, config: Config, place: Place) -> CachedFeatures | PreparedMedia:
    """What the questions show: as features of a frozen encoder, or as pixels where it learns."""
    wanted = {medium for task in gathered.tasks for medium in task.media}
    shown = pd.DataFrame(gathered.frame[[medium in wanted for medium in gathered.frame["id"]]])
    training, model, read = config.training, _start(config, place, cold=True), partial(read_any_media, place)
    preparation = Preparation(STAGE, training.threads, config.max_reject_share, device_of(training))
    if _ENCODER & set(config.trained):
        return prepare_media(place.work / "media", shown, read, Views(model.spec, 1, training.seed), preparation)
    return encode_media(place.work / "features", shown, read, {STAGE: model}, preparation)[STAGE]


@dataclass(frozen=True)
class _Matter:
    """What is taught from what."""

    config: Config
    place: Place
    tasks: Sequence[TeachingTask]
    media: CachedFeatures | PreparedMedia

    def course(self, plan: list[list[Instruction]]) -> Course:
        """The questions of a plan."""
        return Course({task.task_id: task for task in self.tasks}, self.media, plan)

    def probe(self) -> Course:
        """Some questions of each kind, by hash, one kind behind the other."""
        config, plan = self.config, []
        for kind in KINDS:
            mine = sorted((one for one in self.tasks if one.kind == kind), key=lambda one: digest(one.task_id))
            chosen = mine[: config.probe_tasks]
            plan.append([task.instruction(config.question, config.rewards.tags) for task in chosen])
        return self.course([part for part in plan if part])


def _start(config: Config, place: Place, *, cold: bool) -> QualityLMM:
    """What a part of the stage starts from; ``cold`` is the first of them."""
    first = cold or config.cold_start.steps == 0
    return QualityLMM.from_pretrained(
        place.artifacts("pretrain") / "model" if first else place.work / "cold_start" / "model"
    )


def _train_parts(model: QualityLMM, config: Config) -> None:
    train_only(model, [module for part in config.trained for module in parts_of(model)[part]])


def _cold_start(matter: _Matter) -> dict[str, Any]:
    """Learn example answers, or take back what a run before the kill has finished; empty if there is none.

    Raises:
        StageError: no question has an example answer.
    """
    config, place = matter.config, matter.place
    if config.cold_start.steps == 0:
        return {}
    told = [task for task in matter.tasks if task.thought]
    if not told:
        raise StageError(
            "no question has a reviewed description for an example answer: set teach.cold_start.steps to 0"
        )
    training, model = config.example_training, _start(config, place, cold=True)
    plan = _plan(config, told, training.steps, training.batch_examples)
    _train_parts(model, config)

    def train(work: Path) -> list[StepRecord]:
        course = Run(f"{STAGE} examples", work, place.telemetry(STAGE) / "examples")
        batches = PlannedMixture(plan, matter.media, training)
        return Trainer(ExampleObjective(model, config.head), batches, training, callbacks(training, course)).fit()

    def finish(history: Sequence[StepRecord]) -> dict[str, Any]:
        model.save_pretrained(place.work / "cold_start" / "model")
        write_json(place.out / "examples.json", history_rows(history))
        first, last = curve_ends(history)
        return {"loss_first": first, "loss_last": last}

    return _finished(place.work / "cold_start", model, config, train, finish)


def _taught(matter: _Matter) -> dict[str, Any]:
    """Learn from drawn answers, or take back what a run before the kill has finished."""
    config, place, training = matter.config, matter.place, matter.config.training
    model = _start(config, place, cold=False)
    model.to(device_of(training))
    _train_parts(model, config)
    policy = Policy.of(model, config.head, config.drawing.temperature)
    reference = _reference(policy, config) if config.objective.beta > 0.0 else None
    questions = training.batch_examples // config.drawing.group
    rounds = -(-training.steps // config.drawing.num_iterations)
    course, probe = matter.course(_plan(config, matter.tasks, rounds, questions)), matter.probe()
    rollouts = Rollouts(policy, reference, course, (config.rewards, config.objective, config.drawing), training)
    objective = TeachingObjective(policy, config.objective)
    ask = partial(mean_reward, policy, probe, (config.rewards, config.drawing), training)
    measures = Measures(
        place.work / "teacher" / "measures.jsonl", lambda: rollouts.measures | objective.take_measures()
    )
    asked: dict[str, Any] = {}

    def train(work: Path) -> list[StepRecord]:
        asked["probe_before"] = ask()
        around = [
            measures,
            Checkpoint(work / "checkpoint.safetensors", training.checkpoint_every),
            Progress(STAGE),
            Speed(work / "speed.json"),
            Telemetry(place.telemetry(STAGE) / "teacher", lambda: measures.last),
        ]
        history = Trainer(objective, rollouts, training, around).fit()
        if all(measures.row(record.step)["wasted"] == 1.0 for record in history):
            log.warning("no group held answers of unequal rewards, so nothing was taught: lengthen teach.cold_start")
        return history

    def finish(history: Sequence[StepRecord]) -> dict[str, Any]:
        model.save_pretrained(place.out / "model")
        rows = [row | measures.row(int(row["step"] or 0)) for row in history_rows(history)]
        write_json(place.out / "history.json", rows)
        return _ends(rows) | asked | {"probe_after": ask()}

    return _finished(place.work / "teacher", model, config, train, finish)


def _reference(policy: Policy, config: Config) -> Policy:
    """The policy as it starts; what is frozen is shared, what learns is copied."""
    model = policy.model
    frozen = [part for name, parts in parts_of(model).items() if name not in config.trained for part in parts]
    shared: list[object] = [model.tokenizer, *(module for part in frozen for module in part.modules())]
    twin = copy.deepcopy(model, {id(one): one for one in shared})
    return Policy.of(twin.requires_grad_(False), config.head, policy.temperature)


def _finished(
    work: Path,
    model: QualityLMM,
    config: Config,
    train: Callable[[Path], list[StepRecord]],
    finish: Callable[[Sequence[StepRecord]], dict[str, Any]],
) -> dict[str, Any]:
    """Train a part of the stage and write down that it has finished, or read that it had."""
    done = work / "done.json"
    if done.is_file():
        return json.loads(done.read_text())
    model.to(device_of(config.training))
    with frozen_stays(model, config.training.frozen_precision) as proof:
        history = train(work)
    values = {"steps": len(history), "trained_parameters": proof.trained, "frozen_sha256": proof.frozen_sha256}
    values |= finish(history)
    write_json(done, values)
    return values


def _ends(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means of the figures over the first and the last twentieth of the steps."""
    width = max(1, len(rows) // _EDGE)
    plain = {field.name for field in dataclasses.fields(StepRecord)}
    names = sorted({name for row in rows for name in row if name not in plain and not name.startswith("loss_")})
    ends = {"first": rows[:width], "last": rows[-width:]}
    return {
        end: {
            name: round(float(np.mean([row[name] for row in some if name in row])), 6)
            for name in names
            if any(name in row for row in some)
        }
        for end, some in ends.items()
    }
