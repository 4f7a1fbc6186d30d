"""Per-sample predictions of every model on held-out contents, stored before any metric is computed.

Held-out media come in groups. Each medium is decoded once and each encoder sees it once; the decoders of the zoo then
read the cached features, which go when all models have judged the group. The target is the machine opinion's mean. The
probes' heads read pooled features of their own encoders; the student (``rali``) decodes for itself, as it does where it
is used. Beside the models stand a ridge regression on features of the
untouched encoder, fitted on the training contents, and NIQE.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from models.levels import LEVELS, expectation
from models.linear_probe import LinearProbe
from models.probe_head import QualityProbe
from models.quality_lmm import QualityLMM, VisualFeatures
from tasks.devices import DeviceName, device_named, lacking
from tasks.errors import StageError
from tasks.evaluation.baselines import MeanPooled, ProbeConfig, niqe_scores, pooled, train_probe
from tasks.evaluation.student import STUDENT, student_scores
from tasks.feature_rows import encode_rows
from tasks.pool import read_media
from tasks.prepared import CachedFeatures, FrozenEncoder, Preparation, check_rejects, encode_media, stands_on
from tasks.records import PREDICTIONS, REJECTS, Split
from tasks.shards import TableParts, digest, frame_of, write_json, write_table
from tasks.stage import Place
from tasks.targets import bounded, scored_candidates

BASE: Final = "base"
VITAL: Final = "vital"
ASSISTANT: Final = "assistant"
"""The encoders: before and after pre-training, and after the fine-tuning on instructions."""

PROBES: Final = {"vital-probe": "model", "base-probe": "control"}
"""The paper's linear probe and its control -> their folders in ``artifacts/linear_probe``."""
_PROBE_READOUTS: Final = {"centres": "expectation", "released": "probe_released"}
"""What a probe's readout is called in the predictions."""


@dataclass(frozen=True)
class Config:
    """How predictions are made.

    Attributes:
        batch: media whose level logits are computed together; it does not change them beyond 1e-5.
        in_flight: media of a group, whose features are kept at a time: it bounds the work folder. Models are loaded
            anew for each group. It does not change predictions beyond 1e-5; multiples of ``batch`` and of 64 are equal
            to the bit.
        threads: CPU threads.
        device: where encoders and decoders compute, one decoder after the other; ``cuda`` is the first GPU.
        max_reject_share: share of undecodable media above which the stage fails.
        probe: how the linear probe is fitted.
        niqe_frames: frames of a video over which NIQE is averaged.
    """

    batch: int
    in_flight: int
    threads: int
    device: DeviceName
    max_reject_share: float
    probe: ProbeConfig
    niqe_frames: int

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.batch < 1 or self.in_flight < 1:
            raise ValueError("batch and in_flight must be at least 1")


@dataclass(frozen=True)
class Report:
    """Counts of what was predicted.

    Attributes:
        predictions: rows per model.
        unscored: held-out media per model that it could not score; they have no row.
        probe_penalty: the chosen penalty.
    """

    held_out_media: int
    held_out_contents: int
    rejected: int
    predictions: dict[str, int]
    unscored: dict[str, int]
    probe_penalty: float


@dataclass(frozen=True)
class Entry:
    """One member of the zoo: its name in the table, its folder, and which encoder it stands on."""

    name: str
    folder: Path
    encoder: str


def missing(config: Config, root: Path) -> list[str]:
    """What this machine lacks for the stage, one line each."""
    del root
    return lacking(config.device)


def run(config: Config, place: Place) -> Report:
    """Predict; outputs ``predictions.parquet`` and ``rejects.parquet``.

    Raises:
        StageError: too many media do not decode, or an input is missing.
    """
    torch.set_num_threads(config.threads)
    pool = scored_candidates(place)
    held_out, train = (pd.DataFrame(pool[pool["split"] == split]) for split in (Split.HELD_OUT, Split.TRAIN))
    if held_out.empty:
        raise StageError("no medium of the split held_out has an opinion: run dvc repro score, or collect more media")
    judges = _Judges(config, place, held_out, train)
    groups = [held_out.iloc[start : start + config.in_flight] for start in range(0, len(held_out), config.in_flight)]
    predictions = pd.concat([_predict_group(pd.DataFrame(group), judges) for group in groups], ignore_index=True)
    lost = frame_of(REJECTS, judges.rejects.read().to_dict("records"))
    for folder in (judges.features, judges.train_features):
        shutil.rmtree(folder, ignore_errors=True)
    write_table(place.out / "predictions.parquet", PREDICTIONS, predictions)
    write_table(place.out / "rejects.parquet", REJECTS, lost)
    counts = {name: int((predictions["model"] == name).sum()) for name in sorted(set(predictions["model"]))}
    return Report(
        held_out_media=len(held_out),
        held_out_contents=len(set(held_out["content_id"])),
        rejected=len(lost),
        predictions=counts,
        unscored={name: len(held_out) - len(lost) - rows for name, rows in counts.items()},
        probe_penalty=json.loads((place.work / "probe.json").read_text())["penalty"],
    )


def _predict_group(media: pd.DataFrame, judges: "_Judges") -> pd.DataFrame:
    """What all models say of some media; features go when it is known, and a finished group is not asked about again.

    Returns:
        PREDICTIONS rows.
    """
    place, config, name = judges.place, judges.config, digest(list(media["id"]))
    parts = TableParts(place.work / "predictions" / name, PREDICTIONS)
    if judges.rejects.has(name):
        return parts.read()
    features = judges.look_at(media)
    seen = decodable(media, features[BASE])
    for entry in list_zoo(place):
        if not parts.has(entry.name):
            model = load_entry(entry, judges.encoders)
            parts.add(entry.name, level_rows(entry.name, model, seen, features[entry.encoder], config))
    for probe_name, probe in judges.probes.items():
        if not parts.has(probe_name):
            probs_N5 = _level_probs(probe_name, probe, seen, features[probe_name], config)
            readout = _PROBE_READOUTS[probe.readout]
            parts.add(probe_name, prediction_rows(probe_name, seen, probe.scores(probs_N5), probs_N5, readout))
    if not parts.has("linear-probe"):
        scores = judges.ridge.predict(pooled(seen["id"], features[BASE], judges.encoders[BASE]))
        parts.add("linear-probe", prediction_rows("linear-probe", seen, scores, None, "linear_probe"))
    if not parts.has(STUDENT):
        parts.add(STUDENT, prediction_rows(STUDENT, seen, student_scores(place, seen, config.threads), None, "rali"))
    if not parts.has("niqe"):
        parts.add("niqe", prediction_rows("niqe", seen, niqe_scores(place, seen, config.niqe_frames), None, "niqe"))
    judges.rejects.add(name, features[BASE].rejects)
    shutil.rmtree(judges.features)
    return parts.read()


class _Judges:
    """What every group of media is shown to; loaded when an unfinished group needs it."""

    def __init__(self, config: Config, place: Place, held_out: pd.DataFrame, train: pd.DataFrame) -> None:
        self.config, self.place, self._train, self._media = config, place, train, len(held_out)
        self.features, self.train_features = place.work / "features", place.work / "train_features"
        self.rejects = TableParts(place.work / "rejects", REJECTS)
        """Of the groups that are finished."""

    @cached_property
    def encoders(self) -> dict[str, QualityLMM]:
        """The encoders of the zoo, each in a whole model."""
        return {name: QualityLMM.from_pretrained(folder) for name, folder in _encoder_folders(self.place).items()}

    @cached_property
    def probes(self) -> dict[str, QualityProbe]:
        """The paper's linear probes that there are."""
        folder = self.place.artifacts("linear_probe")
        return {
            name: QualityProbe.from_pretrained(folder / where)
            for name, where in PROBES.items()
            if (folder / where).is_dir()
        }

    @cached_property
    def ridge(self) -> LinearProbe:
        """The ridge regression, fitted to the training media."""
        place, rows = self.place, bounded(self._train, self.config.probe.max_media, "predict")
        encoder = {BASE: MeanPooled(self.encoders[BASE])}
        preparation = _preparation(self.config, self.config.max_reject_share)
        read = partial(read_media, place)
        known = encode_rows(self.train_features, rows, read, encoder, preparation, "float32")[BASE]
        seen = pd.DataFrame(rows.set_index("id").loc[known.ids])
        probe = train_probe(seen, known.rows(range(len(known))).numpy(), self.config.probe)
        write_json(place.work / "probe.json", {"penalty": probe.penalty})
        return probe

    def look_at(self, media: pd.DataFrame) -> dict[str, CachedFeatures]:
        """Features of a group under all encoders.

        Raises:
            StageError: more media are broken, of this group and those before it, than may be of all.
        """
        asked: dict[str, FrozenEncoder] = {**self.encoders, **self.probes}
        found = encode_media(
            self.features, media, partial(read_media, self.place), asked, _preparation(self.config, 1.0)
        )
        rejects = pd.concat([self.rejects.read(), found[BASE].rejects], ignore_index=True)
        check_rejects(rejects, self._media, _preparation(self.config, self.config.max_reject_share))
        return found


def list_zoo(place: Place) -> list[Entry]:
    """Every model of the line: the base before and after pre-training, the assistant, and the warm-up's matrix."""
    decoder = pretrained_decoder(place)
    return [
        Entry(f"base-{decoder}", place.artifacts("base") / decoder, BASE),
        pretrained_entry(place),
        Entry(f"vital-assistant-{decoder}", place.artifacts("assistant") / "model", ASSISTANT),
        *warm_up_entries(place),
    ]


def pretrained_entry(place: Place) -> Entry:
    """The pre-trained model with the decoder that read for it."""
    return Entry(f"vital-base-{pretrained_decoder(place)}", place.artifacts("pretrain") / "model", VITAL)


def warm_up_entries(place: Place) -> list[Entry]:
    """The warm-up's matrix: decoders on the pre-trained encoder, before and after, and on the base encoder."""
    zoo: list[Entry] = []
    variants = {"zero": ("vital-zero", VITAL), "warm": ("vital-warm-up", VITAL), "control": ("base-warm-up", BASE)}
    for folder in sorted(path for path in place.artifacts("warm_up").iterdir() if path.is_dir()):
        for variant, (name, encoder) in variants.items():
            if (folder / variant).is_dir():
                zoo.append(Entry(f"{name}-{folder.name}", folder / variant, encoder))
    return zoo


def pretrained_decoder(place: Place) -> str:
    """Name of the decoder that pre-training read with."""
    return json.loads((place.artifacts("pretrain") / "recipe.json").read_text())["decoder"]


def _encoder_folders(place: Place) -> dict[str, Path]:
    return {
        BASE: place.artifacts("base") / pretrained_decoder(place),
        VITAL: place.artifacts("pretrain") / "model",
        ASSISTANT: place.artifacts("assistant") / "model",
    }


def encode(
    folder: Path, place: Place, rows: pd.DataFrame, encoders: Mapping[str, FrozenEncoder], config: Config
) -> dict[str, CachedFeatures]:
    """Features of some media under every encoder, kept below ``folder``; see ``tasks.prepared.encode_media``."""
    preparation = _preparation(config, config.max_reject_share)
    return encode_media(folder, rows, partial(read_media, place), encoders, preparation)


def _preparation(config: Config, max_reject_share: float) -> Preparation:
    return Preparation("predict", config.threads, max_reject_share, device_named(config.device))


def decodable(rows: pd.DataFrame, features: CachedFeatures) -> pd.DataFrame:
    """The media whose features there are."""
    return pd.DataFrame(rows[[medium in features.ids for medium in rows["id"]]])


def load_entry(entry: Entry, encoders: Mapping[str, QualityLMM]) -> QualityLMM:
    """Load one model and make sure that the cached features are its own encoder's.

    Raises:
        StageError: its encoder has other weights.
    """
    model = QualityLMM.from_pretrained(entry.folder)
    if not stands_on(model, encoders[entry.encoder]):
        msg = f"{entry.name} does not stand on the {entry.encoder} encoder: run dvc repro warm_up"
        raise StageError(msg)
    return model


def prediction_rows(
    model: str, media: pd.DataFrame, scores: NDArray[np.float64], probs_N5: NDArray[np.float64] | None, readout: str
) -> pd.DataFrame:
    """PREDICTIONS rows; media whose score is not finite have none."""
    records: list[dict[str, Any]] = []
    for position, (row, score) in enumerate(zip(media.itertuples(index=False), scores, strict=True)):
        candidate: Any = row
        if np.isfinite(score):
            records.append(
                {
                    "model": model,
                    "id": candidate.id,
                    "content_id": candidate.content_id,
                    "modality": candidate.modality,
                    "distortion": candidate.distortion,
                    "severity": candidate.severity,
                    "score": float(score),
                    "level_probs": [] if probs_N5 is None else probs_N5[position].tolist(),
                    "target": float(candidate.target),
                    "target_kind": "machine_opinion",
                    "readout": readout,
                }
            )
    return frame_of(PREDICTIONS, records)


def level_rows(
    name: str, model: QualityLMM, media: pd.DataFrame, features: CachedFeatures, config: Config
) -> pd.DataFrame:
    """Expectation over the five levels, for every medium."""
    probs_N5 = _level_probs(name, model, media, features, config)
    return prediction_rows(name, media, expectation(probs_N5), probs_N5, "expectation")


class _Judge(Protocol):
    """A model that knows the five levels."""

    def level_probabilities(self, inputs: Sequence[VisualFeatures]) -> Tensor:
        """Probabilities ``[N, 5]``, best first."""
        ...

    def to(self, device: torch.device) -> Self:
        """Move it."""
        ...


def _level_probs(
    name: str, judge: _Judge, media: pd.DataFrame, features: CachedFeatures, config: Config
) -> NDArray[np.float64]:
    """Level probabilities ``[N, 5]`` of every medium, best first."""
    ids = list(media["id"])
    judge = judge.to(device_named(config.device))
    probs: list[NDArray[np.float64]] = []
    for start in tqdm(range(0, len(ids), config.batch), desc=f"predict: {name}", unit="batch"):
        members = [features.read(medium) for medium in ids[start : start + config.batch]]
        probs.append(judge.level_probabilities(members).double().cpu().numpy())
    return np.concatenate(probs) if probs else np.zeros((0, len(LEVELS)))
