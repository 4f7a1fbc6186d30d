"""How one process teaches a policy: example answers first, then groups of drawn answers (GRPO).

A short cold start comes first, since small models know no layout; then groups of answers are drawn to questions, and
each is made more or less likely by how it fares within its group. Each part is written down when it has finished, so a
killed stage goes on behind it, or at the part's last checkpoint.
"""

import copy
import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from models.drawn_answers import Policy
from models.grpo import GrpoRule
from models.quality_lmm import QualityLMM
from models.rewards import KINDS, Kind, RewardRule
from models.teaching import AskStyle
from models.vocabulary_head import HeadKind
from tasks.errors import StageError
from tasks.instructions import Instruction, read_any_media
from tasks.prepared import CachedFeatures, Preparation, PreparedMedia, Views, encode_media, prepare_media
from tasks.shards import digest, write_json
from tasks.stage import Place
from tasks.training.callbacks import Checkpoint, Progress, Speed
from tasks.training.engine import device_of
from tasks.training.freezing import Part, frozen_stays, parts_of, train_only
from tasks.training.rollouts import Course, Drawing, PlannedMixture, Rollouts, mean_reward, plan_tasks
from tasks.training.session import Course as Run
from tasks.training.session import callbacks, curve_ends
from tasks.training.teaching_objective import ExampleObjective, Measures, TeachingObjective
from tasks.training.teaching_tasks import Gathered, TeachingTask, usable
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
class Teaching:
    """What is taught, by which rewards.

    Attributes:
        shares: of the questions, per kind.
        trained: parts that learn; with a part of the encoder among them media are kept as pixels, else as features.
        question: how is asked, see ``models.teaching``.
        head: as in tasks.training.objective.
        cold_start: what comes first.
        drawing: how answers are drawn. rewards: what they earn. objective: what is made of it.
        probe_tasks: questions of each kind that are asked once before and once after.
        training: the loop; ``batch_examples`` counts answers, so a step asks ``batch_examples / drawing.group``
            questions.
    """

    shares: dict[str, float]
    trained: tuple[Part, ...]
    question: AskStyle
    head: HeadKind
    cold_start: ColdStart
    drawing: Drawing
    rewards: RewardRule
    objective: GrpoRule
    probe_tasks: int
    training: TrainingConfig

    def __post_init__(self) -> None:
        """Check ranges."""
        if not self.trained or len(set(self.trained)) < len(self.trained):
            raise ValueError("trained must name the parts that learn, each once, and one at least")
        if not set(self.shares) <= set(KINDS) or not any(self.shares.values()):
            msg = f"shares must name some of {', '.join(KINDS)}, one of them with a positive share"
            raise ValueError(msg)
        if self.training.batch_examples % self.drawing.group:
            raise ValueError("training.batch_examples counts answers: it must be a multiple of drawing.group")
        if self.training.checkpoint_every % self.drawing.num_iterations:
            raise ValueError("training.checkpoint_every must be a multiple of drawing.num_iterations")
        if self.probe_tasks < 0:
            raise ValueError("probe_tasks must not be negative")

    @property
    def example_training(self) -> TrainingConfig:
        """The loop of the cold start."""
        return dataclasses.replace(self.training, **dataclasses.asdict(self.cold_start))

    def plan(self, tasks: Sequence[TeachingTask], steps: int, size: int) -> list[list[Instruction]]:
        """What each of some steps asks, of the kinds that there are."""
        kinds: dict[str, Kind] = {task.task_id: task.kind for task in tasks}
        shares = {kind: share for kind, share in self.shares.items() if kind in kinds.values() and share > 0.0}
        return plan_tasks([self.asked(task) for task in tasks], kinds, shares, steps, size, self.training.seed)

    def asked(self, task: TeachingTask) -> Instruction:
        """A question with its example answer, in this style."""
        return task.instruction(self.question, self.rewards.tags)


@dataclass(frozen=True)
class School:
    """Where a policy is taught.

    Attributes:
        name: of the course, for people. start: folder of the model that it begins with.
        work: folder that survives a kill. out: where ``model/``, ``history.json`` and ``examples.json`` appear.
        telemetry: where its course is logged.
    """

    name: str
    start: Path
    work: Path
    out: Path
    telemetry: Path

    def model(self, *, cold: bool) -> QualityLMM:
        """What a part begins with; ``cold`` is the first of them."""
        return QualityLMM.from_pretrained(self.start if cold else self.work / "cold_start" / "model")


@dataclass(frozen=True)
class Matter:
    """What is taught from what.

    Attributes:
        tasks: questions whose media are there. media: theirs, see :func:`shown_media`.
    """

    teaching: Teaching
    school: School
    tasks: Sequence[TeachingTask]
    media: CachedFeatures | PreparedMedia

    def course(self, plan: list[list[Instruction]]) -> Course:
        """The questions of a plan."""
        return Course({task.task_id: task for task in self.tasks}, self.media, plan)

    def probe(self) -> Course:
        """Some questions of each kind, by hash, one kind behind the other."""
        plan = []
        for kind in KINDS:
            mine = sorted((one for one in self.tasks if one.kind == kind), key=lambda one: digest(one.task_id))
            plan.append([self.teaching.asked(task) for task in mine[: self.teaching.probe_tasks]])
        return self.course([part for part in plan if part])


def shown_media(
    place: Place, gathered: Gathered, model: QualityLMM, teaching: Teaching, preparation: Preparation
) -> CachedFeatures | PreparedMedia:
    """What the questions show: as features of a frozen encoder, or as pixels where it learns."""
    wanted = {medium for task in gathered.tasks for medium in task.media}
    shown = pd.DataFrame(gathered.frame[[medium in wanted for medium in gathered.frame["id"]]])
    read = partial(read_any_media, place)
    if _ENCODER & set(teaching.trained):
        views = Views(model.spec, 1, teaching.training.seed)
        return prepare_media(place.work / "media", shown, read, views, preparation)
    name = preparation.stage
    return encode_media(place.work / "features", shown, read, {name: model}, preparation)[name]


def taught_tasks(gathered: Gathered, media: CachedFeatures | PreparedMedia) -> list[TeachingTask]:
    """Questions whose media decode; media and questions that do not are added to the rejects.

    Raises:
        StageError: none is left.
    """
    tasks = usable(gathered, media.broken)
    gathered.rejects += media.rejects.to_dict("records")
    if not tasks:
        raise StageError("no question is left to ask: none of its media decodes")
    return tasks


def teach_ourselves(matter: Matter) -> dict[str, Any]:
    """Teach a policy: the numbers to report, by name.

    ``steps``, ``trained_parameters`` and ``frozen_sha256`` per part, ``cold_start`` and ``teacher``; ``loss_first`` and
    ``loss_last`` of the examples; ``first``, ``last``, ``probe_before`` and ``probe_after`` of the teaching.

    Raises:
        StageError: a frozen part moved, a loss is not finite, or no question has an example answer.
    """
    cold = _cold_start(matter)
    taught = _taught(matter)
    parts = {"cold_start": cold, "teacher": taught} if cold else {"teacher": taught}
    return {
        **{
            name: {part: values[name] for part, values in parts.items()}
            for name in ("steps", "trained_parameters", "frozen_sha256")
        },
        **{name: cold.get(name, {}) for name in ("loss_first", "loss_last")},
        **{name: taught[name] for name in ("first", "last", "probe_before", "probe_after")},
    }


def _train_parts(model: QualityLMM, teaching: Teaching) -> None:
    train_only(model, [module for part in teaching.trained for module in parts_of(model)[part]])


def _cold_start(matter: Matter) -> dict[str, Any]:
    """Learn example answers, or take back what a run before the kill has finished; empty if there is none.

    Raises:
        StageError: no question has an example answer.
    """
    teaching, school = matter.teaching, matter.school
    if teaching.cold_start.steps == 0:
        return {}
    told = [task for task in matter.tasks if task.thought]
    if not told:
        msg = (
            f"no question has a reviewed description for an example answer: set cold_start.steps of {school.name} to 0"
        )
        raise StageError(msg)
    training, model = teaching.example_training, school.model(cold=True)
    plan = teaching.plan(told, training.steps, training.batch_examples)
    _train_parts(model, teaching)

    def train(work: Path) -> list[StepRecord]:
        course = Run(f"{school.name} examples", work, school.telemetry / "examples")
        batches = PlannedMixture(plan, matter.media, training)
        return Trainer(ExampleObjective(model, teaching.head), batches, training, callbacks(training, course)).fit()

    def finish(history: Sequence[StepRecord]) -> dict[str, Any]:
        model.save_pretrained(school.work / "cold_start" / "model")
        write_json(school.out / "examples.json", history_rows(history))
        first, last = curve_ends(history)
        return {"loss_first": first, "loss_last": last}

    return _finished(school.work / "cold_start", model, teaching, train, finish)


def _taught(matter: Matter) -> dict[str, Any]:
    """Learn from drawn answers, or take back what a run before the kill has finished."""
    teaching, school, training = matter.teaching, matter.school, matter.teaching.training
    model = school.model(cold=teaching.cold_start.steps == 0)
    model.to(device_of(training))
    _train_parts(model, teaching)
    policy = Policy.of(model, teaching.head, teaching.drawing.temperature)
    reference = _reference(policy, teaching) if teaching.objective.beta > 0.0 else None
    questions = training.batch_examples // teaching.drawing.group
    rounds = -(-training.steps // teaching.drawing.num_iterations)
    course, probe = matter.course(teaching.plan(matter.tasks, rounds, questions)), matter.probe()
    rollouts = Rollouts(policy, reference, course, (teaching.rewards, teaching.objective, teaching.drawing), training)
    objective = TeachingObjective(policy, teaching.objective)
    ask = partial(mean_reward, policy, probe, (teaching.rewards, teaching.drawing), training)
    measures = Measures(
        school.work / "teacher" / "measures.jsonl", lambda: rollouts.measures | objective.take_measures()
    )
    asked: dict[str, Any] = {}

    def train(work: Path) -> list[StepRecord]:
        asked["probe_before"] = ask()
        around = [
            measures,
            Checkpoint(work / "checkpoint.safetensors", training.checkpoint_every),
            Progress(school.name),
            Speed(work / "speed.json"),
            Telemetry(school.telemetry / "teacher", lambda: measures.last),
        ]
        history = Trainer(objective, rollouts, training, around).fit()
        if all(measures.row(record.step)["wasted"] == 1.0 for record in history):
            log.warning("no group held answers of unequal rewards, so nothing was taught: lengthen the cold start")
        return history

    def finish(history: Sequence[StepRecord]) -> dict[str, Any]:
        model.save_pretrained(school.out / "model")
        rows = [row | measures.row(int(row["step"] or 0)) for row in history_rows(history)]
        write_json(school.out / "history.json", rows)
        return reward_ends(rows) | asked | {"probe_after": ask()}

    return _finished(school.work / "teacher", model, teaching, train, finish)


def _reference(policy: Policy, teaching: Teaching) -> Policy:
    """The policy as it starts; what is frozen is shared, what learns is copied."""
    model = policy.model
    frozen = [part for name, parts in parts_of(model).items() if name not in teaching.trained for part in parts]
    shared: list[object] = [model.tokenizer, *(module for part in frozen for module in part.modules())]
    twin = copy.deepcopy(model, {id(one): one for one in shared})
    return Policy.of(twin.requires_grad_(False), teaching.head, policy.temperature)


def _finished(
    work: Path,
    model: QualityLMM,
    teaching: Teaching,
    train: Callable[[Path], list[StepRecord]],
    finish: Callable[[Sequence[StepRecord]], dict[str, Any]],
) -> dict[str, Any]:
    """Train a part of the stage and write down that it has finished, or read that it had."""
    done = work / "done.json"
    if done.is_file():
        return json.loads(done.read_text())
    model.to(device_of(teaching.training))
    with frozen_stays(model, teaching.training.frozen_precision) as proof:
        history = train(work)
    values = {"steps": len(history), "trained_parameters": proof.trained, "frozen_sha256": proof.frozen_sha256}
    values |= finish(history)
    write_json(done, values)
    return values


def reward_ends(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means of the figures of a teaching (rewards, wasted groups, penalty ...) over the ends of its steps."""
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
