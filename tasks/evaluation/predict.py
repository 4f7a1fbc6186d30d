"""Per-sample predictions of every model on held-out contents, stored before any metric is computed.

Each medium is decoded once and each encoder sees it once; the decoders of the zoo then read the cached features. The
target is the machine opinion's mean. The probes' heads read pooled features of their own encoders. Beside the models
stand a ridge regression on features of the untouched encoder, fitted on the training contents, and NIQE.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from models.levels import LEVELS, expectation
from models.probe_head import QualityProbe
from models.quality_lmm import QualityLMM, VisualFeatures
from models.vision_encoder import encoder_state
from tasks.devices import DeviceName, device_named, lacking
from tasks.errors import StageError
from tasks.evaluation.baselines import ProbeConfig, niqe_scores, pooled_features, train_probe
from tasks.pool import read_media
from tasks.prepared import CachedFeatures, FrozenEncoder, Preparation, encode_media
from tasks.records import PREDICTIONS, REJECTS, Split
from tasks.shards import TableParts, frame_of, write_json, write_table
from tasks.stage import Place
from tasks.targets import scored_candidates

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
        threads: CPU threads.
        device: where encoders and decoders compute, one decoder after the other; ``cuda`` is the first GPU.
        max_reject_share: share of undecodable media above which the stage fails.
        probe: how the linear probe is fitted.
        niqe_frames: frames of a video over which NIQE is averaged.
    """

    batch: int
    threads: int
    device: DeviceName
    max_reject_share: float
    probe: ProbeConfig
    niqe_frames: int


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
    zoo = list_zoo(place)
    encoders = {encoder: QualityLMM.from_pretrained(folder) for encoder, folder in _encoder_folders(place).items()}
    features = encode(place.work / "features", place, held_out, encoders, config)
    media = decodable(held_out, features[BASE])
    parts = TableParts(place.work / "predictions", PREDICTIONS)
    for entry in zoo:
        if not parts.has(entry.name):
            model = load_entry(entry, encoders)
            parts.add(entry.name, level_rows(entry.name, model, media, features[entry.encoder], config))
    _add_probes(parts, place, media, config)
    if not parts.has("linear-probe"):
        known = encode(place.work / "features", place, train, {BASE: encoders[BASE]}, config)[BASE]
        probe = train_probe(decodable(train, known), known, config.probe)
        scores = probe.predict(pooled_features(media["id"], features[BASE]))
        write_json(place.work / "probe.json", {"penalty": probe.penalty})
        parts.add("linear-probe", _rows("linear-probe", media, scores, None, "linear_probe"))
    if not parts.has("niqe"):
        scores = niqe_scores(place, media, config.niqe_frames)
        parts.add("niqe", _rows("niqe", media, scores, None, "niqe"))
    predictions = parts.read()
    write_table(place.out / "predictions.parquet", PREDICTIONS, predictions)
    write_table(place.out / "rejects.parquet", REJECTS, features[BASE].rejects)
    counts = {name: int((predictions["model"] == name).sum()) for name in sorted(set(predictions["model"]))}
    return Report(
        held_out_media=len(held_out),
        held_out_contents=len(set(held_out["content_id"])),
        rejected=len(features[BASE].rejects),
        predictions=counts,
        unscored={name: len(media) - rows for name, rows in counts.items()},
        probe_penalty=json.loads((place.work / "probe.json").read_text())["penalty"],
    )


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
    preparation = Preparation("predict", config.threads, config.max_reject_share, device_named(config.device))
    return encode_media(folder, rows, lambda row: read_media(place, row), encoders, preparation)


def decodable(rows: pd.DataFrame, features: CachedFeatures) -> pd.DataFrame:
    """The media whose features there are."""
    return pd.DataFrame(rows[[medium in features.ids for medium in rows["id"]]])


def load_entry(entry: Entry, encoders: Mapping[str, QualityLMM]) -> QualityLMM:
    """Load one model and make sure that the cached features are its own encoder's.

    Raises:
        StageError: its encoder has other weights.
    """
    model = QualityLMM.from_pretrained(entry.folder)
    own, cached = encoder_state(model), encoder_state(encoders[entry.encoder])
    if own.keys() != cached.keys() or any(not torch.equal(own[name], cached[name]) for name in own):
        msg = f"{entry.name} does not stand on the {entry.encoder} encoder: run dvc repro warm_up"
        raise StageError(msg)
    return model


def _rows(
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
    return _rows(name, media, expectation(probs_N5), probs_N5, "expectation")


def _add_probes(parts: TableParts, place: Place, media: pd.DataFrame, config: Config) -> None:
    """Predictions of the probes that there are; each encodes once, up to the last layer that it reads."""
    folder = place.artifacts("linear_probe")
    for name, where in PROBES.items():
        if parts.has(name) or not (folder / where).is_dir():
            continue
        probe = QualityProbe.from_pretrained(folder / where)
        features = encode(place.work / "features", place, media, {name: probe}, config)[name]
        probs_N5 = _level_probs(name, probe, media, features, config)
        parts.add(name, _rows(name, media, probe.scores(probs_N5), probs_N5, _PROBE_READOUTS[probe.readout]))


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
