"""The three steps that make a student: align the image tower to texts, build the codebook, tune it to scores.

Shape legend: ``N`` media or texts, ``D`` joint space, ``F`` features of a text.
"""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from models.rali.alignment import false_negatives, info_nce, recall_at_1
from models.rali.codebook import Projection, Recipe, build_codebook
from models.rali.head import BasisHead
from models.rali.image_towers import CompactTower
from models.rali.student import RaliStudent, Tower
from models.rali.text_towers import DecoderTextTower, TextTower
from tasks import group
from tasks.errors import StageError
from tasks.shards import atomic, write_json
from tasks.training.config import TrainingConfig
from tasks.training.engine import device_of
from tasks.training.freezing import train_only
from tasks.training.rali_lessons import Lessons, Seen, TileBatch, TileBatches, embedded, said_of, scores_of
from tasks.training.session import Course, callbacks, curve_ends, own_share
from tasks.training.trainer import StepRecord, Trainer, history_rows

log = logging.getLogger(__name__)

_WEIGHTS: Final = "module.safetensors"
_FLAT: Final = 0.3
"""Scores with a smaller share of the targets' standard deviation hardly leave the mean."""
_MOST_FITTED: Final = 512
"""Media from which a compact tower takes what is normal for a block."""


@dataclass(frozen=True)
class AlignConfig:
    """How images are aligned to texts.

    Attributes:
        enabled: without it the tower stays as it was (the ablation without alignment).
        temperature: of the cosines at the start (CLIP's .07). learn_temperature: whether it learns, as CLIP's does.
        text_trained: whether a CLIP text tower learns; a decoder never does, its linear layer always.
        false_negatives: ``masked`` leaves texts that say the same, and other texts of one medium, out of the negatives.
        texts_per_image: texts of one medium that take turns, at most; None takes all, 1 is RALI's ablation without
            seed augmentation.
    """

    enabled: bool
    temperature: float
    learn_temperature: bool
    text_trained: bool
    false_negatives: Literal["masked", "kept"]
    texts_per_image: int | None

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.temperature <= 0.0:
            raise ValueError("align.temperature must be positive")
        if self.texts_per_image is not None and self.texts_per_image < 1:
            raise ValueError("align.texts_per_image must be at least 1, or null for all")


@dataclass(frozen=True)
class BuildConfig:
    """How the codebook is built.

    Attributes:
        compress: whether PCA is applied. dims: of the compressed space. centred: whether the mean is taken off first.
        recipe: buckets and centres.
    """

    compress: bool
    dims: int
    centred: bool
    recipe: Recipe


@dataclass(frozen=True)
class FitConfig:
    """How scores are tuned.

    Attributes:
        enabled: without it Eq. 3 is applied to the codebook as it is (the ablation without score fine-tuning).
        tau: temperature of Eq. 3; the paper has none, which is 1.
        trained: ``basis`` is the paper's, vectors and scores; ``all`` the image tower as well.
        steps, learning_rate: of the loop; all else is that of the alignment.
    """

    enabled: bool
    tau: float
    trained: Literal["basis", "all"]
    steps: int
    learning_rate: float

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.tau <= 0.0 or self.learning_rate <= 0.0:
            raise ValueError("fit.tau and fit.learning_rate must be positive")
        if self.steps < 1:
            raise ValueError("fit.steps must be at least 1")


@dataclass(frozen=True)
class Workshop:
    """What all steps share.

    Attributes:
        work: folder that survives a kill. telemetry: folder of curves. seen: all media.
        training: the loop of the alignment.
    """

    work: Path
    telemetry: Path
    seen: Seen
    lessons: Lessons
    training: TrainingConfig

    @property
    def device(self) -> torch.device:
        """Where networks compute."""
        return device_of(self.training)

    def course(self, name: str) -> Course:
        """A run of the loop."""
        return Course(f"rali {name}", self.work / name, self.telemetry / name)


# ------------------------------------------------------------------------- alignment


class Aligner(nn.Module):
    """Both towers and the temperature.

    Args:
        temperature: at the start.
    """

    def __init__(self, tower: Tower, text: TextTower, temperature: float) -> None:
        super().__init__()
        self.tower, self.text = tower, text
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))


class AlignObjective:
    """Symmetric InfoNCE of each medium with one of its texts.

    Args:
        features: text -> what a tower that stays reads of it; None where the text tower learns.
    """

    def __init__(
        self, model: Aligner, texts: Mapping[str, Sequence[str]], features: Mapping[str, Tensor] | None, *, masked: bool
    ) -> None:
        self.model, self._texts, self._features, self._masked = model, texts, features, masked

    def losses(self, batch: TileBatch) -> dict[str, Tensor]:
        """Losses ``[N]``."""
        said, model = said_of(self._texts, batch), self.model
        device = model.log_scale.device
        known = self._features
        features_NF = model.text.features(said) if known is None else torch.stack([known[text] for text in said])
        text_ND = model.text.project(features_NF.to(device))
        image_ND = batch.pixels.through(model.tower, device)
        masked_NN = false_negatives(batch.example_ids, said) if self._masked else None
        return {"align": info_nce(image_ND, text_ND, model.log_scale.exp(), masked_NN)}


def align(tower: Tower, text: TextTower, shop: Workshop, config: AlignConfig, out: Path) -> dict[str, Any]:
    """Align the tower in place, or take back what a run before the kill has finished; returns what is to be told.

    Raises:
        StageError: there are fewer than two media with texts, or a loss is not finite.
    """
    texts = shop.lessons.texts
    if len(texts) < 2:
        raise StageError("alignment needs two media with texts at least: see explain's texts and rali.texts")
    everything = sorted({one for own in texts.values() for one in own})
    values: dict[str, Any] = {"lengths": text.lengths(everything)}
    if taken := _taken_back(tower, shop.work / "align"):
        return values | taken
    model = Aligner(tower, text, config.temperature)
    known = _read_texts(text, everything, learns=config.text_trained)
    train_only(model.to(shop.device), _learning(model, config))
    model.log_scale.requires_grad_(config.learn_temperature)
    objective = AlignObjective(model, texts, known, masked=config.false_negatives == "masked")
    batches = TileBatches(sorted(texts), shop.seen, shop.training, own_share())
    history = Trainer(objective, batches, shop.training, callbacks(shop.training, shop.course("align"))).fit()
    told = _ends(history) | {"recall_at_1": _recall(model, known, shop)}
    told["temperature"] = float(torch.exp(-model.log_scale.detach()))
    _keep(tower.cpu(), shop.work / "align", told, history, out / "align.json")
    return values | told


def _learning(model: Aligner, config: AlignConfig) -> list[nn.Module]:
    text: Any = model.text.linear if isinstance(model.text, DecoderTextTower) else model.text
    learns = config.text_trained or isinstance(model.text, DecoderTextTower)
    return [model.tower, *([text] if learns else [])]


def _read_texts(text: TextTower, texts: Sequence[str], *, learns: bool) -> dict[str, Tensor] | None:
    """What a text tower that stays reads of every text; a decoder's features are brought to one scale."""
    if learns and not isinstance(text, DecoderTextTower):
        return None
    with torch.no_grad():
        features_NF = text.features(texts)
    if isinstance(text, DecoderTextTower):
        text.fit_to(features_NF)
    return dict(zip(texts, features_NF, strict=True))


@torch.no_grad()
def _recall(model: Aligner, known: Mapping[str, Tensor] | None, shop: Workshop) -> float:
    """Share of training media whose nearest text is the first of their own."""
    texts, device = shop.lessons.texts, model.log_scale.device
    media = sorted(texts)
    first = [texts[name][0] for name in media]
    features_NF = model.text.features(first) if known is None else torch.stack([known[one] for one in first])
    image_ND = embedded(model.tower, shop.seen, media, device)
    return recall_at_1(image_ND, model.text.project(features_NF.to(device)).cpu(), first)


def start_tower(tower: Tower, shop: Workshop) -> None:
    """Let a compact tower take from training media what is normal for a block."""
    if isinstance(tower, CompactTower):
        media = shop.lessons.media
        step = max(1, len(media) // _MOST_FITTED)
        tower.fit_to(torch.cat([shop.seen.tiles.read(name) for name in media[::step]]))


# -------------------------------------------------------------------- codebook, scores


def build(tower: Tower, shop: Workshop, config: BuildConfig, tau: float) -> tuple[BasisHead, dict[str, Any]]:
    """The head of the codebook, and what is to be told of it.

    Raises:
        ModelError: the codebook cannot be made of these media.
    """
    media = sorted(shop.lessons.scores)
    unit_ND = functional.normalize(
        embedded(tower.to(shop.device), shop.seen, media, shop.device).double(), dim=1
    ).numpy()
    width = unit_ND.shape[1]
    projection = Projection.identity(width)
    if config.compress:
        projection = Projection.principal(unit_ND, config.dims, centred=config.centred)
    codebook = build_codebook(projection.applied(unit_ND), scores_of(shop.lessons.scores, media), config.recipe)
    sizes = np.bincount(codebook.labels_N)
    told = {
        "explained": projection.explained,
        "empty_buckets": codebook.empty_buckets,
        "largest_basis": int(sizes.max()),
    }
    return BasisHead.of(projection, codebook, tau), told


class FitObjective:
    """Squared error of each medium's score.

    Args:
        known: medium -> its embedding, where the tower stays.
    """

    def __init__(self, model: RaliStudent, scores: Mapping[str, float], known: Mapping[str, Tensor] | None) -> None:
        self.model, self._scores, self._known = model, scores, known

    def losses(self, batch: TileBatch) -> dict[str, Tensor]:
        """Losses ``[N]``."""
        head = self.model.head
        device = head.scores.device
        if self._known is None:
            embedding_ND = batch.pixels.through(self.model.tower, device)
        else:
            embedding_ND = torch.stack([self._known[name] for name in batch.example_ids]).to(device)
        wanted_N = torch.from_numpy(scores_of(self._scores, batch.example_ids)).to(embedding_ND)
        return {"fit": (head(embedding_ND) - wanted_N) ** 2}


def fit(student: RaliStudent, shop: Workshop, config: FitConfig, out: Path) -> dict[str, Any]:
    """Tune the student in place, or take back what a run before the kill has finished; returns what is to be told.

    Raises:
        StageError: a loss is not finite.
    """
    told: dict[str, Any] = {"before": spread_of(student, shop)}
    if not config.enabled:
        ratio = told["before"]["std_ratio"]
        if ratio < _FLAT:
            flat = "without tuning, scores have %.2f of the targets' standard deviation: lower fit.tau, or tune them"
            log.warning(flat, ratio)
        return told
    if taken := _taken_back(student, shop.work / "fit"):
        return told | taken
    media, basis = sorted(shop.lessons.scores), config.trained == "basis"
    student.to(shop.device)
    train_only(student, [student.head] if basis else [student.tower, student.head])
    known = None
    if basis:
        known = dict(zip(media, embedded(student.tower, shop.seen, media, shop.device), strict=True))
    training = dataclasses.replace(shop.training, steps=config.steps, learning_rate=config.learning_rate)
    batches = TileBatches(media, None if basis else shop.seen, training, own_share())
    objective = FitObjective(student, shop.lessons.scores, known)
    history = Trainer(objective, batches, training, callbacks(training, shop.course("fit"))).fit()
    student.eval()
    found = _ends(history) | {"after": spread_of(student, shop)}
    _keep(student.cpu(), shop.work / "fit", found, history, out / "fit.json")
    return told | found


@torch.no_grad()
def spread_of(student: RaliStudent, shop: Workshop) -> dict[str, float]:
    """How scores of the training media stand to their targets: ``pred_std/target_std``, error, SRCC."""
    media = sorted(shop.lessons.scores)
    device = shop.device
    student.to(device)
    found_N = student.head(embedded(student.tower, shop.seen, media, device).to(device)).double().cpu().numpy()
    return spread(found_N, scores_of(shop.lessons.scores, media))


def spread(found_N: NDArray[np.float64], wanted_N: NDArray[np.float64]) -> dict[str, float]:
    """``std_ratio``, ``rmse`` and ``srcc`` of scores; SRCC is 0 where one side is constant."""
    varies = found_N.std() > 0.0 and wanted_N.std() > 0.0
    rank: Any = spearmanr(found_N, wanted_N) if varies else None
    return {
        "std_ratio": round(float(found_N.std() / wanted_N.std()), 6) if wanted_N.std() > 0.0 else 0.0,
        "rmse": round(float(np.sqrt(np.mean((found_N - wanted_N) ** 2))), 6),
        "srcc": 0.0 if rank is None else round(float(rank.statistic), 6),
    }


# --------------------------------------------------------------------------- resuming


def _ends(history: Sequence[StepRecord]) -> dict[str, Any]:
    first, last = curve_ends(history)
    return {"steps": len(history), "loss_first": first["all"], "loss_last": last["all"]}


def _keep(module: nn.Module, work: Path, told: Mapping[str, Any], history: Sequence[StepRecord], curve: Path) -> None:
    """Keep a finished step: weights, what is told of it, its curve; the last file says that it is finished."""

    def write() -> None:
        keep_weights(module, work)
        write_json(curve, history_rows(history))
        write_json(work / "done.json", dict(told))

    group.current().led(write)


def _taken_back(module: nn.Module, work: Path) -> dict[str, Any] | None:
    """What :func:`_keep` told, with the weights back in the module."""

    def read() -> dict[str, Any] | None:
        path = work / "done.json"
        return json.loads(path.read_text()) if path.is_file() else None

    told = group.current().led(read)
    if told is not None:
        take_weights(module, work)
    return told


def keep_weights(module: nn.Module, folder: Path) -> None:
    """Write a module's weights into a folder, whole or not at all."""
    state = {name: value.detach().contiguous() for name, value in module.state_dict().items()}
    with atomic(folder / _WEIGHTS) as file:
        file.write(save(state))


def take_weights(module: nn.Module, folder: Path) -> None:
    """Put weights that :func:`keep_weights` wrote back into a module."""
    module.load_state_dict(load_file(folder / _WEIGHTS))
