"""RACT: several data sets in one model, with reasoning text as what they have in common (arXiv 2510.11369).

Opinions of one data set say little about those of another: each has its raters, its range and its faults. So every set
gets a teacher of its own, trained by what its answers earn within the set; every teacher writes down what it sees in
its set's media; and the vision encoder of one model learns those texts across all sets. The language model that reads
for it, one teacher's, stays to the bit. docs/ract.md states the reading.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

from models.drawn_answers import Policy
from models.quality_lmm import QualityLMM
from tasks.data_sets import DataSet
from tasks.errors import StageError
from tasks.instructions import Instruction, read_any_media
from tasks.pool import load_candidates
from tasks.prepared import Preparation, PreparedMedia, Views, prepare_media
from tasks.records import EXPLANATIONS, REJECTS, Split
from tasks.shards import TableParts, frame_of, write_json, write_table
from tasks.stage import Place
from tasks.training.engine import device_of
from tasks.training.freezing import Part, bits_of, frozen_stays, parts_of, train_only
from tasks.training.instruction_batches import InstructionMixture
from tasks.training.pretrain import require_gate
from tasks.training.ract_labels import LabelRule, Labels, Writer, label_lessons, labelled_tasks
from tasks.training.session import Course, callbacks, curve_ends, lacking_gpus
from tasks.training.teaching_course import Matter, School, Teaching, shown_media, taught_tasks, teach_ourselves
from tasks.training.teaching_objective import LabelObjective
from tasks.training.teaching_tasks import Gathered, TeachingTask, gather_tasks
from tasks.training.trainer import Trainer, TrainingConfig, history_rows

STAGE: Final = "ract"
READER: Final[tuple[Part, ...]] = ("projector", "motion_projector", "decoder")
"""What reads an encoder's tokens and reasons about them."""
_ENCODER: Final = frozenset({"image_encoder", "motion_extractor"})


@dataclass(frozen=True)
class Config:
    """Which data sets, and how their texts are learnt.

    Attributes:
        data_sets: two at least; a medium may belong to several.
        splits: of the line's contents; never the held-out ones; none for sources alone.
        max_reject_share: share of undecodable media of a set above which the stage fails.
        teachers: how the teacher of each set is taught, from the pre-trained model.
        labels: what they write.
        reader: the data set whose teacher's language model reads for the encoder that learns; it stays.
        trained: what learns from the labels, of ``image_encoder`` and ``motion_extractor``.
        views: of each medium that the labels are learnt from.
        training: the loop of that.
    """

    data_sets: tuple[DataSet, ...]
    splits: tuple[Literal["train", "warm_up"], ...]
    max_reject_share: float
    teachers: Teaching
    labels: LabelRule
    reader: str
    trained: tuple[Part, ...]
    views: int
    training: TrainingConfig

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        names = [one.name for one in self.data_sets]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError("data_sets must be two at least, each with a name of its own")
        if self.reader not in names:
            msg = f"reader must name one of the data sets, {', '.join(names)}"
            raise ValueError(msg)
        if not self.trained or not set(self.trained) <= _ENCODER:
            raise ValueError("trained must name image_encoder or motion_extractor: what reads for them stays")
        if not self.splits and not all(one.sources for one in self.data_sets):
            raise ValueError("splits must name one at least, or every data set have sources")
        if {self.training.engine, self.teachers.training.engine} != {"single"}:
            raise ValueError("ract runs in one process: both training.engine must be single")


@dataclass(frozen=True)
class Report:
    """What every set gave, what its teacher learnt, and what the encoder learnt from all of them.

    Attributes:
        tasks: questions per data set, per kind. media: that are labelled, per data set.
        teachers: per data set, mean reward of the first and last steps, of the same questions before and after, and the
            hash of what the teacher left untouched.
        labels: texts per data set. distinct: share of different ones. leaks: found in them, per kind.
        dropped_sentences: for a leak. rejected: media and answers that were not used, per reason.
        reader: the data set whose teacher reads. reader_sha256: of its language model and projectors, before and after.
        trained_parameters, frozen_sha256, loss_first, loss_last: of the learning from labels.
    """

    tasks: dict[str, dict[str, int]]
    media: dict[str, int]
    teachers: dict[str, dict[str, Any]]
    labels: dict[str, int]
    distinct: dict[str, float]
    leaks: dict[str, int]
    dropped_sentences: int
    rejected: dict[str, int]
    reader: str
    reader_sha256: str
    steps: int
    trained_parameters: int
    frozen_sha256: str
    loss_first: float
    loss_last: float


def missing(config: Config, root: Path) -> list[str]:
    """What this machine lacks for the stage, one line each."""
    del root
    return [*lacking_gpus(config.teachers.training), *lacking_gpus(config.training)]


def run(config: Config, place: Place) -> Report:
    """Teach, label, learn.

    Outputs ``teachers/<data set>/`` (as ``teach`` does), ``model/`` (a quality LMM: the encoder that has learnt from
    all sets, with the reader's language model), ``ract.json`` (data sets and reader), ``labels.parquet``,
    ``history.json`` and ``rejects.parquet``.

    Raises:
        GateError: the data set has not passed validation.
        StageError: a set has nothing to ask, a teacher says nothing that can be learnt, a split leaks, a frozen part
            moved, or a loss is not finite.
    """
    if config.splits:
        require_gate(place)
    sets = [_Set(one, config, place) for one in config.data_sets]
    teachers = {one.name: one.teach() for one in sets}
    labels = {one.name: one.label() for one in sets}
    learnt = _learn(config, place, sets, labels)
    rows = [row for some in labels.values() for row in some.rows]
    found = [*(one.gathered.rejects for one in sets), *(some.rejects for some in labels.values())]
    rejects = _told_once([row for some in found for row in some])
    write_table(place.out / "labels.parquet", EXPLANATIONS, frame_of(EXPLANATIONS, rows))
    write_table(place.out / "rejects.parquet", REJECTS, frame_of(REJECTS, rejects))
    asked = {"question": config.teachers.question, "tags": config.teachers.rewards.tags}
    told = [dataclasses.asdict(one) for one in config.data_sets]
    write_json(place.out / "ract.json", {"data_sets": told, "reader": config.reader, **asked})
    leaks: Counter[str] = sum((some.leaks for some in labels.values()), Counter())
    return Report(
        tasks={one.name: dict(sorted(Counter(task.kind for task in one.tasks).items())) for one in sets},
        media={one.name: len(one.labelled) for one in sets},
        teachers=teachers,
        labels={name: len(some.rows) for name, some in labels.items()},
        distinct={
            name: round(len({row["text"] for row in some.rows}) / len(some.rows), 6) for name, some in labels.items()
        },
        leaks=dict(sorted(leaks.items())),
        dropped_sentences=sum(some.dropped for some in labels.values()),
        rejected=dict(sorted(Counter(row["reason"] for row in rejects).items())),
        reader=config.reader,
        **learnt,
    )


def _told_once(rejects: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows under the name of this stage that differ: a medium of two sets is told once."""
    rows = [{**row, "stage": STAGE} for row in rejects]
    return list({tuple(sorted(row.items())): row for row in rows}.values())


class _Set:
    """A data set on its way through the stage.

    Attributes:
        gathered: what there is to ask. tasks: what of it can be shown. labelled: a question for each labelled medium.
        media: pixels of everything that it shows.
    """

    def __init__(self, data_set: DataSet, config: Config, place: Place) -> None:
        self.name, self._config, self._place = data_set.name, config, place
        chosen = frozenset(data_set.of(load_candidates(place))["id"])
        splits = [Split(split) for split in config.splits]
        self.gathered: Gathered = gather_tasks(place, splits, data_set.sources, config.teachers.shares, chosen)
        self._school = School(
            name=f"{STAGE} {self.name}",
            start=place.artifacts("pretrain") / "model",
            work=place.work / "teachers" / self.name,
            out=place.out / "teachers" / self.name,
            telemetry=place.telemetry(STAGE) / self.name,
        )
        training = config.teachers.training
        self._preparation = Preparation(STAGE, training.threads, config.max_reject_share, device_of(training))
        model = self._school.model(cold=True)
        self._shown = shown_media(place, self.gathered, model, config.teachers, self._preparation)
        self.tasks: list[TeachingTask] = taught_tasks(self.gathered, self._shown)
        self.labelled = labelled_tasks(self.tasks, config.labels)
        self._spec = model.spec

    @property
    def teacher(self) -> Path:
        """Folder of its teacher's model."""
        return self._school.out / "model"

    def teach(self) -> dict[str, Any]:
        """Train its teacher, or take back what a run before the kill has finished."""
        taught = teach_ourselves(Matter(self._config.teachers, self._school, self.tasks, self._shown))
        return {
            "reward_first": taught["first"]["reward"],
            "reward_last": taught["last"]["reward"],
            "probe_before": taught["probe_before"].get("all"),
            "probe_after": taught["probe_after"].get("all"),
            "frozen_sha256": taught["frozen_sha256"]["teacher"],
        }

    def label(self) -> Labels:
        """Have its teacher write."""
        config = self._config
        model = QualityLMM.from_pretrained(self.teacher).to(device_of(config.training))
        policy = Policy.of(model, config.teachers.head, config.labels.temperature)
        seed, tags = config.training.seed, config.teachers.rewards.tags
        writer = Writer(policy, config.teachers.question, tags, config.labels, seed)
        contents = dict(zip(self.gathered.frame["id"], self.gathered.frame["content_id"], strict=True))
        parts = TableParts(self._place.work / "labels", EXPLANATIONS)
        return writer.write(self.name, self.labelled, self._shown, contents, parts)

    def lessons(self, labels: Labels) -> list[Instruction]:
        """Its labels as conversations."""
        teachers, known = self._config.teachers, {(self.name, task.media[0]): task for task in self.labelled}
        return label_lessons(labels.rows, known, self._config.labels, teachers.question, teachers.rewards.tags)

    @property
    def rows(self) -> pd.DataFrame:
        """Of its labelled media."""
        wanted = {task.media[0] for task in self.labelled}
        return pd.DataFrame(self.gathered.frame[[medium in wanted for medium in self.gathered.frame["id"]]])


def _learn(config: Config, place: Place, sets: Sequence[_Set], labels: Mapping[str, Labels]) -> dict[str, Any]:
    """Let the reader's encoder learn the labels of all sets, or take back what a run before the kill has finished.

    Raises:
        StageError: something else than the encoder moved.
    """
    work, training = place.work / "learning", config.training
    if (work / "done.json").is_file():
        return json.loads((work / "done.json").read_text())
    model = QualityLMM.from_pretrained(next(one.teacher for one in sets if one.name == config.reader))
    before = reader_bits(model)
    train_only(model, [module for part in config.trained for module in parts_of(model)[part]])
    lessons = [lesson for one in sets for lesson in one.lessons(labels[one.name])]
    media = _pixels(config, place, sets, model)
    model.to(device_of(training))
    with frozen_stays(model, training.frozen_precision) as proof:
        objective = LabelObjective(model, config.teachers.head, ended=config.labels.content == "text_and_score")
        course = Course(f"{STAGE} encoder", work, place.telemetry(STAGE) / "encoder")
        mixture = InstructionMixture(lessons, media, training, 1, {})
        history = Trainer(objective, mixture, training, callbacks(training, course)).fit()
    if reader_bits(model) != before:
        raise StageError("the language model changed while the encoder learnt; it is not published")
    model.save_pretrained(place.out / "model")
    write_json(place.out / "history.json", history_rows(history))
    first, last = curve_ends(history)
    values = {
        "reader_sha256": before,
        "steps": len(history),
        "trained_parameters": proof.trained,
        "frozen_sha256": proof.frozen_sha256,
        "loss_first": first["all"],
        "loss_last": last["all"],
    }
    write_json(work / "done.json", values)
    return values


def _pixels(config: Config, place: Place, sets: Sequence[_Set], model: QualityLMM) -> PreparedMedia:
    """The labelled media of all sets, a medium of several sets once."""
    frame = pd.concat([one.rows for one in sets]).drop_duplicates("id")
    preparation = Preparation(STAGE, config.training.threads, config.max_reject_share, device_of(config.training))
    views = Views(model.spec, config.views, config.training.seed)
    return prepare_media(place.work / "pixels", frame, partial(read_any_media, place), views, preparation)


def reader_bits(model: QualityLMM) -> str:
    """Hash of the parts that read for an encoder: the language model with its head, and the projectors."""
    parts = parts_of(model)
    state = {
        f"{name}.{number}.{key}": tensor
        for name in READER
        for number, module in enumerate(parts[name])
        for key, tensor in module.state_dict().items()
    }
    return bits_of(state)
