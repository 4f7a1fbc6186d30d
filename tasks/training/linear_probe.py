"""The paper's linear probe: a head of two linear layers learns machine opinion from an encoder that stays as it is.

Media of the split ``train`` are encoded once, and their pooled features lie in files of the work folder; the head then
learns the level that the machine opinion's mean lies in, by cross entropy (VITAL, linear probe; the paper has human
scores of LSVQ there, which this line does not have). ``model/`` stands on the pre-trained encoder, ``control/`` on that
of the base before pre-training: what the former is worth is told by both together.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.levels import LEVELS
from models.probe_head import QualityProbe, ReadoutName, level_class, load_encoder
from models.quality_lmm import QualityLMM
from models.standardisation import Standardisation
from models.vision_encoder import VisualSpec
from tasks import group
from tasks.errors import StageError
from tasks.feature_rows import FeatureRows, Kept, encode_rows
from tasks.pool import read_media
from tasks.prepared import Preparation
from tasks.records import REJECTS, Split, Task
from tasks.shards import write_json, write_table
from tasks.stage import Place
from tasks.targets import bounded, scored_candidates
from tasks.training.batches import ALONE, RankShare, cut
from tasks.training.draws import Shuffled
from tasks.training.engine import device_of, wanted_processes
from tasks.training.freezing import frozen_stays, train_only
from tasks.training.session import Course, callbacks, curve_ends, lacking_gpus, own_share
from tasks.training.trainer import Trainer, TrainingConfig, history_rows

MODEL: Final = "model"
CONTROL: Final = "control"
"""The probe of the pre-trained encoder, and that of the encoder before pre-training."""


@dataclass(frozen=True)
class Config:
    """What the head reads, and how it learns.

    Attributes:
        layers: the image encoder's layers whose hidden states are read, counted from 1 (7, 13, 19 of 24 in
            the released code, which counts from 0).
        width: of the layer between.
        readout: what levels count in a score; stored with the model.
        control: whether to train the same head on the encoder before pre-training too.
        max_examples: bound on the media that are learnt from; None takes all. Which ones is decided by a hash of their
            ids, so that a smaller number lies within a larger one.
        kept: how features are kept in the work folder; ``float16`` takes half the room.
        standardise: whether the head learns on standard features (mean 0, deviation 1 over what it is trained on); the
            published head takes raw ones either way and has the same shape. The released code trains on raw ones.
        max_reject_share: share of undecodable media above which the stage fails.
        training: the loop, for each head; an example is a medium.
    """

    layers: tuple[int, ...]
    width: int
    readout: ReadoutName
    control: bool
    max_examples: int | None
    kept: Kept
    standardise: bool
    max_reject_share: float
    training: TrainingConfig

    def __post_init__(self) -> None:
        """Check ranges."""
        if not self.layers or len(set(self.layers)) < len(self.layers) or min(self.layers) < 1:
            raise ValueError("layers must name different layers, counted from 1")
        if self.width < 1:
            raise ValueError("width must be at least 1")
        if self.max_examples is not None and self.max_examples < 1:
            raise ValueError("max_examples must be at least 1, or null for all")


@dataclass(frozen=True)
class Report:
    """Counts, the proof of freezing, and the ends of the loss curves.

    Attributes:
        levels: training media per level, best first.
        parameters: of a head. features: length of a pooled vector.
        frozen_sha256: per probe, hash of every frozen tensor, the same before and after.
        loss_first, loss_last: per probe, mean losses of the first and last twentieth of its steps.
    """

    media: int
    contents: int
    rejected: int
    levels: dict[str, int]
    features: int
    parameters: int
    frozen_sha256: dict[str, str]
    loss_first: dict[str, dict[str, float]]
    loss_last: dict[str, dict[str, float]]


def processes(config: Config) -> int:
    """Processes that the stage runs in."""
    return wanted_processes(config.training)


def missing(config: Config, root: Path) -> list[str]:
    """What this machine lacks for the stage, one line each."""
    del root
    return lacking_gpus(config.training)


def run(config: Config, place: Place) -> Report:
    """Train the heads, in every process of a group.

    Outputs ``model/``, ``control/`` with a loss curve each, and ``rejects.parquet``.

    Raises:
        StageError: there is nothing to train on, too many media do not decode, a frozen part moved, or a loss is not
            finite.
        ModelError: the encoder has no such layers.
    """
    scored = scored_candidates(place)
    rows = bounded(pd.DataFrame(scored[scored["split"] == Split.TRAIN]), config.max_examples, "linear_probe")
    probes = _probes(config, place)
    features = _encode(config, place, rows, probes)
    known = pd.DataFrame(rows.set_index("id").loc[features[MODEL].ids])
    if known.empty:
        raise StageError("no medium of the split train has an opinion: run dvc repro score, or collect more media")
    class_N = np.array([level_class(mu) for mu in known["target"]], dtype=np.int64)
    results = {
        name: _train(probe, Samples(features[name], class_N), config, place, name) for name, probe in probes.items()
    }
    if group.current().leads:
        write_table(place.out / "rejects.parquet", REJECTS, features[MODEL].rejects)
    counts = Counter(class_N.tolist())
    head = probes[MODEL].head
    return Report(
        media=len(known),
        contents=len(set(known["content_id"])),
        rejected=len(features[MODEL].rejects),
        levels={level: counts[number] for number, level in enumerate(LEVELS)},
        features=head.inner.in_features,
        parameters=sum(parameter.numel() for parameter in head.parameters()),
        frozen_sha256={name: found["frozen_sha256"] for name, found in results.items()},
        loss_first={name: found["loss_first"] for name, found in results.items()},
        loss_last={name: found["loss_last"] for name, found in results.items()},
    )


def _probes(config: Config, place: Place) -> dict[str, QualityProbe]:
    """Probes with new heads, the same numbers in each."""
    pretrained = place.artifacts("pretrain")
    layout = json.loads((pretrained / "model" / "quality_lmm.json").read_text())
    encoders = {MODEL: (*load_encoder(pretrained / "encoder"), VisualSpec.from_json(layout["spec"]))}
    if config.control:
        decoder = json.loads((pretrained / "recipe.json").read_text())["decoder"]
        base = QualityLMM.from_pretrained(place.artifacts("base") / decoder)
        encoders[CONTROL] = (base.image_encoder, base.motion_extractor, base.spec)
    probes = {}
    for name, parts in encoders.items():
        probes[name] = QualityProbe(*parts, config.layers, config.width, config.readout).eval()
        probes[name].head.start_anew(torch.Generator().manual_seed(config.training.seed))
    return probes


def _encode(
    config: Config, place: Place, rows: pd.DataFrame, probes: Mapping[str, QualityProbe]
) -> dict[str, FeatureRows]:
    device = device_of(config.training)
    preparation = Preparation("linear_probe", config.training.threads, config.max_reject_share, device)
    return encode_rows(
        place.work / "features", rows, lambda row: read_media(place, row), probes, preparation, config.kept
    )


@dataclass(frozen=True)
class Samples:
    """What is learnt from: pooled features of media, and the class of each (:func:`models.probe_head.level_class`)."""

    features: FeatureRows
    class_N: np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class ProbeBatch:
    """Pooled features, raw or standard, ``[N, F]`` and classes ``[N]`` of some media."""

    pooled_NF: Tensor
    class_N: Tensor
    example_ids: list[str]

    @property
    def encodes(self) -> bool:
        """Never: the features are there."""
        return False


class ProbeBatches:
    """Batches of media: each once before any comes again, in an order that is new in every epoch.

    Args:
        scale: what makes their features standard; None leaves them raw.
    """

    def __init__(
        self,
        samples: Samples,
        config: TrainingConfig,
        scale: Standardisation | None = None,
        share: RankShare = ALONE,
    ) -> None:
        self._samples, self._scale = samples, scale
        self._parts, self._share = config.micro_batches, share
        sizes = {Task.SINGLE: len(samples.features)}
        self._order = Shuffled(sizes, {Task.SINGLE: 1.0}, config.seed, config.batch_examples)

    def step(self, number: int) -> list[ProbeBatch]:
        """This process's micro-batches of a step."""
        numbers = [turn.number for turn in self._order.step(number)]
        parts = cut(numbers, self._parts, self._share.ranks)
        return [self._batch(part) for part in parts[self._share.rank :: self._share.ranks]]

    def _batch(self, numbers: Sequence[int]) -> ProbeBatch:
        pooled_NF = self._samples.features.rows(numbers)
        if self._scale is not None:
            pooled_NF = self._scale.applied(pooled_NF)
        ids = [self._samples.features.ids[number] for number in numbers]
        return ProbeBatch(pooled_NF, torch.from_numpy(self._samples.class_N[list(numbers)]), ids)


class ProbeObjective:
    """Cross entropy of the level that a medium's opinion lies in."""

    def __init__(self, model: QualityProbe) -> None:
        self.model = model

    def losses(self, batch: ProbeBatch) -> dict[str, Tensor]:
        """Losses ``[media]`` under the task's name."""
        return {Task.SINGLE: cross_entropy(self.model(batch.pooled_NF).float(), batch.class_N, reduction="none")}


def _train(probe: QualityProbe, samples: Samples, config: Config, place: Place, name: str) -> dict[str, Any]:
    """Train one head, or take back what a run before the kill has finished; returns the numbers to report."""
    here, work = group.current(), place.work / name
    done = work / "done.json"
    if found := here.led(lambda: json.loads(done.read_text()) if done.is_file() else None):
        return found
    scale = here.led(lambda: Standardisation.over(samples.features.parts())) if config.standardise else None
    batches = ProbeBatches(samples, config.training, scale, own_share())
    course = Course(f"linear_probe {name}", work, place.telemetry("linear_probe") / name)
    train_only(probe.to(device_of(config.training)), [probe.head])
    with frozen_stays(probe, config.training.frozen_precision) as proof:
        history = Trainer(ProbeObjective(probe), batches, config.training, callbacks(config.training, course)).fit()
    first, last = curve_ends(history)
    values = {"frozen_sha256": proof.frozen_sha256, "loss_first": first, "loss_last": last}
    if here.leads:
        if scale is not None:
            scale.fold_into(probe.head.inner)
        probe.save_pretrained(place.out / name)
        write_json(place.out / name / "history.json", history_rows(history))
        write_json(done, values)
    return values
