"""Encoder-centred pre-training: image encoder and motion extractor learn, everything behind them stays as it is.

The decoder and all projectors keep their bits (checked on every run), the question is empty (prompt decoupling), and
the tasks are mixed by share: PMOD single, pairs, distortion and description text (VITAL section 3). Each of these
choices has a setting that undoes it, for ablations.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from models.quality_lmm import QualityLMM
from models.questions import QuestionStyle
from models.vision_encoder import VisualSpec, save_encoder
from tasks import group
from tasks.archives import Archives
from tasks.errors import GateError
from tasks.prepared import Preparation, Preparer, Views
from tasks.records import REJECTS, Split
from tasks.shards import write_json, write_table
from tasks.stage import Place
from tasks.streamed import MediaWay, Streaming, open_media
from tasks.training.batches import BatchConfig, Material
from tasks.training.engine import device_of, wanted_processes
from tasks.training.examples import of_contents
from tasks.training.freezing import Part, frozen_stays, parts_of, train_only
from tasks.training.lengths import SequenceLengths
from tasks.training.objective import LossConfig, QualityObjective
from tasks.training.session import Course, SplitData, count_tasks, curve_ends, fit, lacking_gpus, load_split
from tasks.training.trainer import TrainingConfig, history_rows


@dataclass(frozen=True)
class Config:
    """What is pre-trained and how.

    Attributes:
        decoder: member of the base family whose decoder is the frozen reader.
        shares: task -> share of the examples of a step; they need not sum to 1. A task of share 0 is left out wholly.
        views: versions of each medium, which take turns (see tasks.prepared).
        media: ``prepared`` decodes all media before the first step and keeps them as tensors; ``streamed`` decodes
            them while training goes on. A step sees the same tensors either way.
        streaming: how media are streamed.
        max_reject_share: share of undecodable media above which the stage fails.
        batches: how steps are made of examples.
        losses: the losses.
        training: the loop.
        examples_share: part of the contents of each modality that is trained on, in (0, 1]; a smaller part lies within
            a larger one (see tasks.training.examples).
        question: ``empty`` is prompt decoupling; ``asked`` has a question of the task in every user turn, here, in the
            warm-up and wherever the model is read out (models.questions).
        trained: parts that learn; all others keep their bits.
    """

    decoder: str
    shares: dict[str, float]
    views: int
    media: MediaWay
    streaming: Streaming
    max_reject_share: float
    batches: BatchConfig
    losses: LossConfig
    training: TrainingConfig
    examples_share: float = 1.0
    question: QuestionStyle = "empty"
    trained: tuple[Part, ...] = ("image_encoder", "motion_extractor")

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 0.0 < self.examples_share <= 1.0:
            msg = f"examples_share must lie in (0, 1], not {self.examples_share:g}"
            raise ValueError(msg)
        if not self.trained or len(set(self.trained)) < len(self.trained):
            raise ValueError("trained must name the parts that learn, each once, and one at least")


@dataclass(frozen=True)
class Report:
    """Counts, the proof of freezing, and the ends of the loss curve.

    Attributes:
        examples: examples per task.
        trained_parameters, frozen_parameters: numbers of parameters.
        frozen_sha256: hash of every frozen tensor; a run after which it differs fails and publishes nothing.
        loss_first, loss_last: mean losses, over all and per task, of the first and last twentieth of the steps.
    """

    examples: dict[str, int]
    media: int
    contents: int
    rejected: int
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
    """Pre-train the encoder on the train split, in every process of a group.

    Outputs ``model/`` (the whole LMM), ``encoder/`` (what other decoders receive), ``history.json`` (the loss curve),
    ``recipe.json`` (what the warm-up must match) and ``rejects.parquet``.

    Raises:
        GateError: the data set has not passed validation.
        StageError: a split leaks, a frozen part moved, or a loss is not finite.
    """
    require_gate(place)
    dtype = None if config.training.frozen_precision == "bfloat16" else torch.float32
    model = QualityLMM.from_pretrained(place.artifacts("base") / config.decoder, dtype)
    model.question = config.question
    data = SplitData(of_contents(load_split(place, Split.TRAIN, config.shares).examples, config.examples_share))
    model.to(device_of(config.training))
    train_only(model, [module for part in config.trained for module in parts_of(model)[part]])
    source, kept, lost = preparer_of(config, place, model.spec), place.kept_media, place.work / "rejects"
    with (
        frozen_stays(model, config.training.frozen_precision) as proof,
        open_media(config.media, config.streaming, source, data.examples, kept, lost) as media,
    ):
        objective = QualityObjective(model, config.losses)
        lengths = SequenceLengths(model, data.examples.medium)
        material = Material(data.examples, media, config.shares, config.batches, lengths)
        history = fit(objective, material, config.training, Course("pretrain", place.work, place.telemetry("pretrain")))
        rejects = media.rejects
    examples = count_tasks(data.examples.without(frozenset(rejects["id"])))
    if group.current().leads:
        model.save_pretrained(place.out / "model")
        save_encoder(model, place.out / "encoder")
        write_json(place.out / "history.json", history_rows(history))
        recipe = {"decoder": config.decoder, "shares": config.shares, "examples": examples}
        write_json(place.out / "recipe.json", recipe)
        write_table(place.out / "rejects.parquet", REJECTS, rejects)
    first, last = curve_ends(history)
    return Report(
        examples=examples,
        media=len(data.examples.shown) - len(rejects),
        contents=data.contents,
        rejected=len(rejects),
        steps=len(history),
        trained_parameters=proof.trained,
        frozen_parameters=proof.frozen,
        frozen_sha256=proof.frozen_sha256,
        loss_first=first,
        loss_last=last,
    )


def preparer_of(config: Config, place: Place, spec: VisualSpec) -> Preparer:
    """How media of the training set are read and prepared."""
    archives = Archives(place, config.streaming.archives if config.media == "streamed" else None)
    views = Views(spec, config.views, config.training.seed)
    return Preparer(archives.read, views, Preparation("pretrain", config.training.threads, config.max_reject_share))


def require_gate(place: Place) -> None:
    """Refuse to train on data that did not pass validation.

    Raises:
        GateError: ``artifacts/validate/results.json`` does not say success.
    """
    path = place.artifacts("validate") / "results.json"
    try:
        success = json.loads(path.read_text())["success"]
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError) as error:
        msg = "artifacts/validate/results.json holds no verdict: run dvc repro validate"
        raise GateError(msg) from error
    if success is not True:
        msg = "the data set did not pass validation, so nothing is trained on it: see artifacts/validate/results.json"
        raise GateError(msg)
