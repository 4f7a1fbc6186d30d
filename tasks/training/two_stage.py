"""Two-stage tuning: learn to describe, then learn to infer quality from the description alone.

"Building Reasonable Inference for Vision-Language Models in Blind Image Quality Assessment" (arXiv 2512.09555), in the
reading that docs/two_stage.md states. From the pre-trained model: ``describer/`` learns medium -> description without
verdict; ``reasoner/`` learns description -> level; ``one_stage/`` is the baseline that does both in one answer, on the
same data with the steps of both stages together. Image encoder and motion extractor stay, so their features are
computed once.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import nn

from models.quality_lmm import QualityLMM, VisualFeatures
from models.two_stage import Description, Reasoner, ReasonerInput, ReasonerKind, TwoStageLMM, logits_after, pair
from tasks import group
from tasks.errors import StageError
from tasks.instructions import ImportedSource, Instruction, read_any_media
from tasks.prepared import CachedFeatures, Preparation, encode_media
from tasks.records import REJECTS, Split
from tasks.shards import frame_of, write_json, write_table
from tasks.stage import Place
from tasks.training.engine import device_of, wanted_processes
from tasks.training.freezing import Part, bits_of, frozen_stays, parts_of, train_only
from tasks.training.instruction_batches import InstructionMixture
from tasks.training.pretrain import require_gate
from tasks.training.reasoning_lessons import (
    Exercise,
    Lesson,
    Sifted,
    assessing,
    counted,
    describing,
    gather_lessons,
    judging,
    short_enough,
    usable,
)
from tasks.training.reasoning_objective import ReasoningObjective, Rehearsal, RehearsingMixture, VerdictLoss
from tasks.training.session import Course, callbacks, curve_ends, lacking_gpus, own_share
from tasks.training.trainer import Trainer, TrainingConfig, history_rows

DESCRIBER, REASONER, ONE_STAGE = "describer", "reasoner", "one_stage"


@dataclass(frozen=True)
class Config:
    """What learns what.

    Attributes:
        splits: of the line's contents that are learnt from; never the held-out ones.
        line_share: share of the line's descriptions that are used, by the order of their ids; 0 for imports alone.
        sources: imported instruction tables whose answers describe and end in a verdict.
        max_tokens: longer descriptions are rejects, never cut.
        max_reject_share: share of undecodable media above which the stage fails.
        trained: parts of describer and one-stage model that learn; a reasoner of text is a decoder and learns wholly.
        input: what the reasoner reads: ``text``, the description alone, or ``block_mask`` (models.two_stage).
        reasoner: ``separate`` trains a copy of the describer's decoder and leaves the describer its bits; ``shared``
            goes on with the describer itself.
        rehearsal_share: of the second stage's examples under ``shared``, how many rehearse the first.
        control: whether the one-stage baseline is trained.
        per_medium: descriptions of one medium that may follow each other.
        leak_media: media whose image is swapped to measure what a verdict owes to it beside the description.
        verdict: how the level is learnt.
        training: the loop of the first stage, and of all but these two numbers:
        reasoner_steps, reasoner_learning_rate: of the second stage.
    """

    splits: tuple[Literal["train", "warm_up"], ...]
    line_share: float
    sources: tuple[ImportedSource, ...]
    max_tokens: int
    max_reject_share: float
    trained: tuple[Part, ...]
    input: ReasonerInput
    reasoner: ReasonerKind
    rehearsal_share: float
    control: bool
    per_medium: int
    leak_media: int
    verdict: VerdictLoss
    training: TrainingConfig
    reasoner_steps: int
    reasoner_learning_rate: float

    def __post_init__(self) -> None:
        """Check ranges."""
        if not self.trained or len(set(self.trained)) < len(self.trained) or set(self.trained) & _ENCODER:
            raise ValueError("trained must name the parts that learn, each once, one at least, and none of the encoder")
        if not self.splits and self.line_share > 0.0:
            raise ValueError("splits must name one at least, or line_share be 0")
        for name in ("line_share", "rehearsal_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                msg = f"{name} must lie in [0, 1]"
                raise ValueError(msg)
        for name in ("max_tokens", "per_medium", "leak_media", "reasoner_steps"):
            if getattr(self, name) < 1:
                msg = f"{name} must be at least 1"
                raise ValueError(msg)
        if self.rehearsal_share >= 1.0 or self.reasoner_learning_rate <= 0.0:
            raise ValueError("rehearsal_share must be below 1, and reasoner_learning_rate positive")

    @property
    def reasoning(self) -> TrainingConfig:
        """The loop of the second stage."""
        return dataclasses.replace(self.training, steps=self.reasoner_steps, learning_rate=self.reasoner_learning_rate)

    @property
    def together(self) -> TrainingConfig:
        """The loop of the baseline: the steps of both stages."""
        return dataclasses.replace(self.training, steps=self.training.steps + self.reasoner_steps)


_ENCODER = frozenset({"image_encoder", "motion_extractor"})


@dataclass(frozen=True)
class Report:
    """Counts, the proofs of freezing, the ends of the loss curves, and what leaks.

    Attributes:
        lessons: descriptions per source. levels: per level of their verdicts.
        dropped_sentences: that gave the verdict away; leaks: what was found in them, per kind.
        rejected: media and descriptions that were not used, per reason.
        steps, trained_parameters: per model.
        frozen_sha256: per model, hash of all that it left untouched, the same before and after; of a separate reasoner
            that is the whole describer.
        loss_first, loss_last: per model, mean losses of the first and last twentieth of its steps.
        swapped: mean absolute change of the five level probabilities when the medium is another and the description
            stays: of the two-stage model under its ``input``; of the one-stage model as it is (``one_stage``), and with
            its verdict's attention to the medium blocked (``one_stage_blocked``).
    """

    lessons: dict[str, int]
    levels: dict[str, int]
    media: int
    contents: int
    dropped_sentences: int
    leaks: dict[str, int]
    rejected: dict[str, int]
    steps: dict[str, int]
    trained_parameters: dict[str, int]
    frozen_sha256: dict[str, str]
    loss_first: dict[str, dict[str, float]]
    loss_last: dict[str, dict[str, float]]
    swapped: dict[str, float]


def processes(config: Config) -> int:
    """Processes that the stage runs in."""
    return wanted_processes(config.training)


def missing(config: Config, root: Path) -> list[str]:
    """What this machine lacks for the stage, one line each."""
    del root
    return lacking_gpus(config.training)


def run(config: Config, place: Place) -> Report:
    """Train describer, reasoner and baseline, in every process of a group.

    Outputs a folder that ``models.two_stage.TwoStageLMM`` reads (``describer/``, ``reasoner/``, ``two_stage.json``),
    ``one_stage/`` (a quality LMM), a ``history.json`` in each, and ``rejects.parquet``.

    Raises:
        GateError: the data set has not passed validation.
        StageError: there is nothing to learn from, a split leaks, a frozen part moved, or a loss is not finite.
    """
    require_gate(place)
    matter = _prepare(config, place)
    results = {DESCRIBER: _describer(matter, config, place), REASONER: _reasoner(matter, config, place)}
    if config.control:
        results[ONE_STAGE] = _one_stage(matter, config, place)
    swapped = _swapped(matter, config, place)
    if group.current().leads:
        write_table(place.out / "rejects.parquet", REJECTS, matter.rejects)
    counts = counted(matter.lessons)
    return Report(
        lessons=counts["source"],
        levels=counts["level"],
        media=len({lesson.medium for lesson in matter.lessons}),
        contents=len({lesson.content_id for lesson in matter.lessons}),
        dropped_sentences=matter.sifted.sentences,
        leaks=dict(sorted(matter.sifted.leaks.items())),
        rejected=dict(sorted(Counter(matter.rejects["reason"]).items())),
        swapped=swapped,
        **{
            name: {model: values[name] for model, values in results.items()}
            for name in ("steps", "trained_parameters", "frozen_sha256", "loss_first", "loss_last")
        },
    )


# ----------------------------------------------------------------------------- data


@dataclass(frozen=True)
class _Matter:
    """What is learnt from.

    Attributes:
        lessons: those that can be used. features: of their media. sifted: what became of the others.
    """

    lessons: list[Lesson]
    features: CachedFeatures
    sifted: Sifted

    @property
    def rejects(self) -> pd.DataFrame:
        """REJECTS rows of media and lessons."""
        return pd.concat([self.features.rejects, frame_of(REJECTS, self.sifted.rejects)], ignore_index=True)


def _prepare(config: Config, place: Place) -> _Matter:
    """Gather lessons, and run the frozen encoder on their media."""
    sifted = gather_lessons(place, [Split(split) for split in config.splits], config.line_share, config.sources)
    model = _pretrained(place)
    short = short_enough(sifted, model, config.max_tokens)
    wanted = {lesson.medium for lesson in short}
    shown = pd.DataFrame(sifted.frame[[medium in wanted for medium in sifted.frame["id"]]])
    training = config.training
    preparation = Preparation("two_stage", training.threads, config.max_reject_share, device_of(training))
    read = partial(read_any_media, place)
    features = encode_media(place.work / "features", shown, read, {DESCRIBER: model}, preparation)[DESCRIBER]
    lessons = usable(short, features.broken, sifted)
    if not lessons:
        raise StageError("no description is left to learn from: see the rejects of two_stage in the log")
    return _Matter(lessons, features, sifted)


def _pretrained(place: Place) -> QualityLMM:
    return QualityLMM.from_pretrained(place.artifacts("pretrain") / "model")


# -------------------------------------------------------------------------- courses


def _describer(matter: _Matter, config: Config, place: Place) -> dict[str, Any]:
    """Stage one."""
    model = _pretrained(place)
    exercises = [describing(lesson, model) for lesson in matter.lessons]
    _train_parts(model, config)
    save = partial(model.save_pretrained, _first_stage(config, place))
    return _train(_Plan(DESCRIBER, config.training, config, place, matter), model, exercises, save)


def _first_stage(config: Config, place: Place) -> Path:
    """Where the first stage's model lies; the shared one goes on from there, and is published when it has."""
    return place.out / DESCRIBER if config.reasoner == "separate" else place.work / "first_stage"


def _reasoner(matter: _Matter, config: Config, place: Place) -> dict[str, Any]:
    """Stage two; the describer of a separate reasoner keeps its bits.

    Raises:
        StageError: it does not.
    """
    shared = config.reasoner == "shared"
    both = pair(QualityLMM.from_pretrained(_first_stage(config, place)), config.input, shared=shared)
    describer, reasoner = both.describer, both.reasoner
    before = bits_of(describer.state_dict())
    exercises = [judging(lesson, reasoner, config.input) for lesson in matter.lessons]
    rehearsed = [describing(lesson, describer) for lesson in matter.lessons] if shared else []
    trainee = describer if shared else reasoner
    _train_parts(trainee, config)

    def save() -> None:
        if not shared and bits_of(describer.state_dict()) != before:
            raise StageError("the describer changed while its reasoner was trained; neither is published")
        (both.save_pretrained if shared else both.save_reasoner)(place.out)

    plan = _Plan(REASONER, config.reasoning, config, place, matter)
    values = _train(plan, trainee, exercises, save, rehearsed)
    return values if shared else values | {"frozen_sha256": before}


def _one_stage(matter: _Matter, config: Config, place: Place) -> dict[str, Any]:
    """The baseline."""
    model = _pretrained(place)
    exercises = [assessing(lesson, model) for lesson in matter.lessons]
    _train_parts(model, config)

    def save() -> None:
        model.save_pretrained(place.out / ONE_STAGE)
        write_json(place.out / ONE_STAGE / "course.json", {"course": ONE_STAGE})  # how instruments ask it

    return _train(_Plan(ONE_STAGE, config.together, config, place, matter), model, exercises, save)


def _train_parts(model: Reasoner, config: Config) -> None:
    parts: list[nn.Module] = [model]
    if isinstance(model, QualityLMM):
        parts = [module for part in config.trained for module in parts_of(model)[part]]
    train_only(model, parts)


@dataclass(frozen=True)
class _Plan:
    """A course: its name, its loop, and what it is part of."""

    name: str
    training: TrainingConfig
    config: Config
    place: Place
    matter: _Matter


def _train(
    plan: _Plan,
    model: Reasoner,
    exercises: Sequence[Exercise],
    save: Callable[[], None],
    rehearsed: Sequence[Exercise] = (),
) -> dict[str, Any]:
    """Train one model, or take back what a run before the kill has finished; returns the numbers to report."""
    here, place, training = group.current(), plan.place, plan.training
    work = place.work / plan.name
    if found := here.led(lambda: _read(work / "done.json")):
        return found
    model.to(device_of(training))
    with frozen_stays(model, training.frozen_precision) as proof:
        known = {one.instruction.instruction_id: one for one in (*exercises, *rehearsed)}
        objective = ReasoningObjective(model, known, plan.config.verdict)
        course = Course(f"two_stage {plan.name}", work, place.telemetry("two_stage") / plan.name)
        around = callbacks(training, course)
        history = Trainer(objective, _mixture(plan, exercises, rehearsed), training, around).fit()
    first, last = curve_ends(history)
    values: dict[str, Any] = {"steps": len(history), "trained_parameters": proof.trained}
    values |= {"frozen_sha256": proof.frozen_sha256, "loss_first": first, "loss_last": last}

    def publish() -> None:
        save()
        write_json(place.out / plan.name / "history.json", history_rows(history))
        write_json(work / "done.json", values)

    here.led(publish)
    return values


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _mixture(plan: _Plan, exercises: Sequence[Exercise], rehearsed: Sequence[Exercise]) -> InstructionMixture:
    learnt, others, features = _instructions(exercises), _instructions(rehearsed), plan.matter.features
    config, training = plan.config, plan.training
    if not others:
        return InstructionMixture(learnt, features, training, config.per_medium, {}, own_share())
    beside = Rehearsal(others, config.rehearsal_share)
    return RehearsingMixture(learnt, beside, features, training, config.per_medium, own_share())


def _instructions(exercises: Sequence[Exercise]) -> list[Instruction]:
    return [one.instruction for one in exercises]


# ----------------------------------------------------------------------------- leaks


def _swapped(matter: _Matter, config: Config, place: Place) -> dict[str, float]:
    """How much level probabilities change when the medium is another one and the description stays."""
    here = group.current()
    return here.led(lambda: _leaks_of(matter, config, place))


@torch.no_grad()
def _leaks_of(matter: _Matter, config: Config, place: Place) -> dict[str, float]:
    device = device_of(config.training)
    lessons = _alike(matter.lessons)[: config.leak_media]
    texts = [Description(lesson.description, lesson.is_video) for lesson in lessons]
    media = [matter.features.read(lesson.medium) for lesson in lessons]
    others = [*media[1:], *media[:1]]
    both = TwoStageLMM.from_pretrained(place.out).to(device)
    found = {config.input: _change(lambda seen: both.verdict_logits(texts, seen), media, others)}
    if config.control:
        model = QualityLMM.from_pretrained(place.out / ONE_STAGE).to(device)
        for name, blind in ((ONE_STAGE, False), (f"{ONE_STAGE}_blocked", True)):
            logits = partial(logits_after, model, descriptions=texts, task="assessment", blind=blind)
            found[name] = _change(lambda seen, logits=logits: logits(media=seen), media, others)
    return found


def _alike(lessons: Sequence[Lesson]) -> list[Lesson]:
    """Lessons of one modality, one each medium, in the order of their ids: images if there are any."""
    videos = all(lesson.is_video for lesson in lessons)
    return list({lesson.medium: lesson for lesson in lessons if lesson.is_video == videos}.values())


def _change(
    logits: Callable[[list[VisualFeatures]], torch.Tensor], media: list[VisualFeatures], others: list[VisualFeatures]
) -> float:
    """Mean absolute change of the level probabilities."""
    return float((logits(media).softmax(-1) - logits(others).softmax(-1)).abs().mean())
