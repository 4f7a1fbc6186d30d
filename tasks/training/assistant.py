"""The pre-trained LMM learns to answer: supervised fine-tuning of all its parameters on instructions, focal loss.

VITAL section 3, model zoo: VITAL-Assistant is the base model after full fine-tuning on instruction data (Q-Pathway,
AesMMIT, VQA2-Stage3, OmniVQA-Chat). Such data sets are imported by ``vital data import --instructions``; beside them,
or without any, the line asks about its own media what review, recipes and opinions can answer. Media of the held-out
contents are never trained on: their questions are published for the stage ``answer``.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from models.conversations import text_tokens
from models.quality_lmm import QualityLMM
from tasks import group
from tasks.errors import StageError
from tasks.instructions import (
    ImportedSource,
    Instruction,
    ShownMedia,
    imported_instructions,
    instructions_of,
    media_frame,
    read_any_media,
)
from tasks.pool import load_candidates
from tasks.prepared import Preparation, PreparedMedia, Preparer, Views
from tasks.records import EXAMPLES, INSTRUCTIONS, REJECTS, REVIEWED, Split, Task
from tasks.shards import frame_of, read_table, write_json, write_table
from tasks.stage import Place
from tasks.streamed import MediaWay, StreamedMedia, Streaming, open_media
from tasks.training.engine import device_of, wanted_processes
from tasks.training.examples import Example, open_examples
from tasks.training.freezing import Part, frozen_stays, parts_of, train_only
from tasks.training.instruction_batches import FocalConfig, InstructionMixture, InstructionObjective
from tasks.training.line_questions import QuestionRule, dialogues, line_questions, measured
from tasks.training.objective import LossConfig, QualityObjective
from tasks.training.pretrain import require_gate
from tasks.training.session import Course, callbacks, curve_ends, lacking_gpus, own_share
from tasks.training.trainer import StepRecord, Trainer, TrainingConfig, history_rows
from tasks.training_set import FOLDER

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What is fine-tuned on what.

    Attributes:
        frozen: parts that keep their bits; none in the paper.
        questions: how the line asks about its own media.
        line_share: share of the line's training conversations that are used, by the order of their ids; 0 trains on
            imported data alone.
        sources: imported instruction tables.
        per_medium: conversations about one medium that may follow each other; 1 mixes fully, more is cheaper.
        max_tokens: longer conversations (text alone) are rejects, never cut.
        rehearse: whether each medium that is shown also teaches its opinion again, by the loss of pre-training; the
            paper fine-tunes on instructions alone.
        views: prepared versions of each medium, which take turns (see tasks.prepared).
        media: ``prepared`` decodes all media before the first step and keeps them as tensors; ``streamed`` decodes
            them while training goes on. A step sees the same tensors either way.
        streaming: how media are streamed.
        max_reject_share: share of undecodable media, and of too long conversations, above which the stage fails.
        loss: the focal loss. opinions: losses of what is rehearsed.
        training: the loop.
    """

    frozen: tuple[Part, ...]
    questions: QuestionRule
    line_share: float
    sources: tuple[ImportedSource, ...]
    per_medium: int
    max_tokens: int
    rehearse: bool
    views: int
    media: MediaWay
    streaming: Streaming
    max_reject_share: float
    loss: FocalConfig
    opinions: LossConfig
    training: TrainingConfig

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.per_medium < 1 or self.max_tokens < 1:
            raise ValueError("per_medium and max_tokens must be at least 1")
        if not 0.0 <= self.line_share <= 1.0:
            raise ValueError("line_share must lie in [0, 1]")


@dataclass(frozen=True)
class Report:
    """Counts, the proof of freezing, and the ends of the loss curve.

    Attributes:
        conversations: of training, per source. turns: questions with their answers in them.
        held_out: questions that models are measured with, per kind.
        rejected: undecodable media and conversations that are too long or show one, per reason.
        frozen_sha256: hash of every frozen tensor (buffers, and parts that the switch freezes).
        loss_first, loss_last: mean losses, over all and per kind, of the first and last twentieth of the steps.
    """

    conversations: dict[str, int]
    turns: int
    held_out: dict[str, int]
    media: int
    contents: int
    rejected: dict[str, int]
    steps: int
    trained_parameters: int
    frozen_parameters: int
    frozen_sha256: str
    loss_first: dict[str, float]
    loss_last: dict[str, float]


def processes(config: Config) -> int:
    """Processes that the stage runs in."""
    return wanted_processes(config.training)


def missing(config: Config, root: Path) -> list[str]:
    """What this machine lacks for the stage, one line each."""
    del root
    return lacking_gpus(config.training)


def run(config: Config, place: Place) -> Report:
    """Fine-tune the pre-trained model, in every process of a group.

    Outputs ``model/``, ``history.json`` (the loss curve), ``instructions.parquet`` (the line's conversations of
    training and its held-out questions) and ``rejects.parquet``.

    Raises:
        GateError: the data set has not passed validation.
        StageError: there is nothing to train on, too much is rejected, or a loss is not finite.
    """
    require_gate(place)
    model = QualityLMM.from_pretrained(place.artifacts("pretrain") / "model")
    lesson = _prepare(model, config, place)
    model.to(device_of(config.training))
    _train_parts(model, config.frozen)
    source, kept, lost = _preparer(model, config, place), place.work / "media", place.work / "rejects"
    with (
        frozen_stays(model, config.training.frozen_precision) as proof,
        open_media(config.media, config.streaming, source, lesson.shown, kept, lost) as media,
    ):
        history = _fit(model, lesson, media, config, place)
        broken = media.rejects
    usable = _seen(lesson.kept, frozenset(broken["id"]))
    rejects = pd.concat([broken, lesson.long, _unseen(lesson.kept, usable)], ignore_index=True)
    if group.current().leads:
        model.save_pretrained(place.out / "model")
        write_json(place.out / "history.json", history_rows(history))
        write_table(place.out / "instructions.parquet", INSTRUCTIONS, frame_of(INSTRUCTIONS, lesson.line))
        write_table(place.out / "rejects.parquet", REJECTS, rejects)
    first, last = curve_ends(history)
    held_out = [row["kind"] for row in lesson.line if row["split"] == Split.HELD_OUT]
    return Report(
        conversations=dict(sorted(Counter(one.source for one in usable).items())),
        turns=sum(len(one.answers) for one in usable),
        held_out=dict(sorted(Counter(held_out).items())),
        media=len(lesson.shown.shown) - len(broken),
        contents=len({one.content_id or one.instruction_id for one in usable}),
        rejected=dict(sorted(Counter(rejects["reason"]).items())),
        steps=len(history),
        trained_parameters=proof.trained,
        frozen_parameters=proof.frozen,
        frozen_sha256=proof.frozen_sha256,
        loss_first=first,
        loss_last=last,
    )


@dataclass(frozen=True)
class _Lesson:
    """What is trained on.

    Attributes:
        line: the line's rows, of training and held out. kept: conversations that are short enough. shown: their media.
        long: REJECTS rows of the others.
    """

    line: list[dict[str, Any]]
    kept: list[Instruction]
    shown: ShownMedia
    long: pd.DataFrame


def _prepare(model: QualityLMM, config: Config, place: Place) -> _Lesson:
    """Ask about the line's media, add what was imported, and count what is too long."""
    pool = load_candidates(place)
    line = _line_rows(place, pool, config)
    found, frame = _gather(config, place, [row for row in line if row["split"] == Split.TRAIN], pool)
    kept, long = _short_enough(found, model, config)
    return _Lesson(line, kept, ShownMedia(kept, frame), long)


def _preparer(model: QualityLMM, config: Config, place: Place) -> Preparer:
    archives = config.streaming.archives if config.media == "streamed" else None
    views = Views(model.spec, config.views, config.training.seed)
    preparation = Preparation("assistant", config.training.threads, config.max_reject_share)
    return Preparer(partial(read_any_media, place, archives=archives), views, preparation)


def _line_rows(place: Place, pool: pd.DataFrame, config: Config) -> list[dict[str, Any]]:
    """The line's training conversations and its held-out questions; no content is in both."""
    reviewed = read_table(place.artifacts("review") / "reviewed.parquet", REVIEWED)
    examples = read_table(place.artifacts("assemble") / "examples.parquet", EXAMPLES)
    asked: dict[Split, list[dict[str, Any]]] = {}
    for split in (Split.TRAIN, Split.HELD_OUT):
        media = {row["id"]: row for row in pd.DataFrame(pool[pool["split"] == split]).to_dict("records")}
        told = [row for row in reviewed.to_dict("records") if row["id"] in media]
        taught = pd.DataFrame(examples[examples["split"] == split]).to_dict("records")
        asked[split] = line_questions(media, told, taught, config.questions)
    shared = {row["content_id"] for row in asked[Split.TRAIN]} & {row["content_id"] for row in asked[Split.HELD_OUT]}
    if shared:
        msg = f"content {min(shared)} is in two splits: training would see what it is tested on"
        raise StageError(msg)
    training = sorted(dialogues(asked[Split.TRAIN], config.questions), key=lambda row: row["instruction_id"])
    training = training[: round(config.line_share * len(training))]
    return [*training, *(dict(row) for row in measured(asked[Split.HELD_OUT], config.questions))]


def _gather(
    config: Config, place: Place, line: Sequence[dict[str, Any]], pool: pd.DataFrame
) -> tuple[list[Instruction], pd.DataFrame]:
    """All training conversations, and the media that they may show.

    Raises:
        StageError: an imported table holds rows that are not for training.
    """
    imported, frames = imported_instructions(place, config.sources)
    found = [*instructions_of(line), *imported]
    if not found:
        raise StageError("there are no instructions: raise assistant.line_share or name assistant.sources")
    return found, media_frame(pool, frames)


def _short_enough(
    found: Sequence[Instruction], model: QualityLMM, config: Config
) -> tuple[list[Instruction], pd.DataFrame]:
    """Conversations whose text has at most ``max_tokens`` tokens, and REJECTS rows of the others.

    Raises:
        StageError: more are longer than ``max_reject_share`` allows.
    """
    kept, rejects = [], []
    for one in found:
        tokens = text_tokens(model, one.conversation(dict.fromkeys(one.media, 0)))
        if tokens <= config.max_tokens:
            kept.append(one)
        else:
            rejects.append(_reject(one, "too_long", f"{tokens} tokens of text, and {config.max_tokens} are allowed"))
    if len(rejects) > config.max_reject_share * len(found):
        msg = (
            f"{len(rejects)} of {len(found)} conversations are longer than {config.max_tokens} tokens, more than the "
            f"declared share {config.max_reject_share}: raise assistant.max_tokens"
        )
        raise StageError(msg)
    return kept, frame_of(REJECTS, rejects)


def _seen(kept: Sequence[Instruction], broken: frozenset[str]) -> list[Instruction]:
    """Conversations none of whose media is known not to decode."""
    return [one for one in kept if broken.isdisjoint(one.media)]


def _unseen(kept: Sequence[Instruction], usable: Sequence[Instruction]) -> pd.DataFrame:
    """REJECTS rows of conversations that show a medium which does not decode; nothing takes their place."""
    seen = {one.instruction_id for one in usable}
    lost = [one for one in kept if one.instruction_id not in seen]
    return frame_of(
        REJECTS, [_reject(one, "medium_rejected", "it shows a medium that does not decode") for one in lost]
    )


def _reject(one: Instruction, reason: str, detail: str) -> dict[str, Any]:
    return {"stage": "assistant", "id": one.instruction_id, "reason": reason, "detail": f"{one.source}: {detail}"}


def _train_parts(model: QualityLMM, frozen: Sequence[Part]) -> None:
    """Let everything require gradients but ``frozen``."""
    parts = parts_of(model)
    train_only(model, [module for part, modules in parts.items() if part not in frozen for module in modules])


def _opinions(config: Config, place: Place) -> dict[str, Example]:
    """The opinion on each training medium, if opinions are rehearsed."""
    if not config.rehearse:
        return {}
    examples = open_examples(place.artifacts("assemble") / FOLDER, Split.TRAIN, {Task.SINGLE: 1.0})
    return {one.ids[0]: one for one in examples}


def _fit(
    model: QualityLMM, lesson: _Lesson, media: PreparedMedia | StreamedMedia, config: Config, place: Place
) -> list[StepRecord]:
    """Run the loop; a run that was killed continues at its checkpoint."""
    usable, opinions = _seen(lesson.kept, media.broken), _opinions(config, place)
    mixture = InstructionMixture(usable, media, config.training, config.per_medium, opinions, own_share())
    objective = InstructionObjective(model, config.loss, QualityObjective(model, config.opinions))
    around = callbacks(config.training, Course("assistant", place.work, place.telemetry("assistant")))
    return Trainer(objective, mixture, config.training, around).fit()
