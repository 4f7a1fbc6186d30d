"""Every reader with every encoder: do teachers of different data sets reason in one language?

A reader is a teacher's language model with its projectors, an encoder what it looks with. RALI's paper (arXiv
2510.11369) swaps them between data sets and finds agreement with people almost unchanged; RACT's encoder has learnt the
texts of all sets and should serve every reader. The teacher of all sets together (stage ``teach``) stands beside them
as ``mixed``. What every pair says of held-out media is stored before any figure.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch
from tqdm import tqdm

from models.levels import expectation
from models.quality_lmm import QualityLMM
from models.rewards import Score, Tags, read_answer
from models.teaching import AskStyle, question
from tasks.data_sets import DataSet
from tasks.devices import DeviceName, device_named, lacking
from tasks.evaluation.choices import Resampling
from tasks.evaluation.swap_figures import MIXED, PRETRAINED, RACT, SwapFigures, markdown
from tasks.pool import read_media
from tasks.prepared import CachedFeatures, Preparation, encode_media, stands_on
from tasks.records import REJECTS, SWAPS, Modality, Split
from tasks.shards import TableParts, frame_of, write_json, write_table
from tasks.stage import Place
from tasks.targets import bounded, scored_candidates

log = logging.getLogger(__name__)

STAGE: Final = "cross_swap"


@dataclass(frozen=True)
class Config:
    """What is asked.

    Attributes:
        max_media: of the held-out ones of all data sets, by a hash of their ids; None asks about all.
        most_tokens: of a greedy answer.
        batch: media that are asked about together; it changes no answer, and expectations by 1e-5 at most.
        threads: CPU threads. device: where models compute.
        max_reject_share: share of undecodable media above which the stage fails.
        sampling: how uncertainty is measured.
    """

    max_media: int | None
    most_tokens: int
    batch: int
    threads: int
    device: DeviceName
    max_reject_share: float
    sampling: Resampling

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.most_tokens < 1 or self.batch < 1:
            raise ValueError("most_tokens and batch must be at least 1")


@dataclass(frozen=True)
class Report:
    """Figures; intervals are in ``figures.json``.

    Attributes:
        srcc: reader -> encoder -> SRCC of the expectation over all media of the data sets; None where undefined.
        apart: encoder -> largest difference of PLCC between two readers of it.
        unread: reader -> share of its answers, over all encoders, that name no rating.
    """

    media: int
    contents: int
    rejected: int
    data_sets: dict[str, int]
    srcc: dict[str, dict[str, float | None]]
    apart: dict[str, float | None]
    unread: dict[str, float]


def missing(config: Config, root: Path) -> list[str]:
    """What this machine lacks for the stage, one line each."""
    del root
    return lacking(config.device)


def run(config: Config, place: Place) -> Report:
    """Ask every pair; outputs ``swaps.parquet``, ``figures.json``, ``swaps.md`` and ``rejects.parquet``.

    Raises:
        StageError: too many media do not decode, or no held-out medium belongs to a data set.
    """
    torch.set_num_threads(config.threads)
    course = _Course.of(place)
    media = course.held_out(config.max_media)
    features = _features(place, course, media, config)
    lost = next(iter(features.values())).rejects
    shown = pd.DataFrame(media[~media["id"].isin(lost["id"])])
    parts = TableParts(place.work / "swaps", SWAPS)
    pairs = course.pairs(list(features))
    for reader, encoder in tqdm(pairs, desc="cross_swap", unit="pair"):
        part = f"{reader}-{encoder}"
        if not parts.has(part):
            model = QualityLMM.from_pretrained(course.readers[reader]).to(device_named(config.device))
            rows = _asked(model, shown, features[encoder], course, config)
            parts.add(part, frame_of(SWAPS, [{"reader": reader, "encoder": encoder, **row} for row in rows]))
    swaps = parts.read()
    figures = SwapFigures(swaps, course.names, config.sampling)
    write_table(place.out / "swaps.parquet", SWAPS, swaps)
    write_table(place.out / "rejects.parquet", REJECTS, lost)
    write_json(place.out / "figures.json", figures.to_json())
    (place.out / "swaps.md").write_text(markdown(figures))
    log.info("%s", markdown(figures))
    return Report(
        media=len(shown),
        contents=len(set(shown["content_id"])),
        rejected=len(lost),
        data_sets={name: int(sum(name in mine for mine in shown["data_sets"])) for name in course.names},
        srcc=figures.table("srcc"),
        apart=figures.apart(),
        unread=figures.unread(),
    )


@dataclass(frozen=True)
class _Course:
    """What ``ract`` has made, and how it wants to be asked.

    Attributes:
        readers: name -> folder of the model whose language model reads. encoders: name -> folder, likewise.
    """

    place: Place
    data_sets: tuple[DataSet, ...]
    style: AskStyle
    tags: Tags
    readers: dict[str, Path]
    encoders: dict[str, Path]

    @classmethod
    def of(cls, place: Place) -> "_Course":
        """Read what there is."""
        ract = place.artifacts("ract")
        told: dict[str, Any] = json.loads((ract / "ract.json").read_text())
        sets = tuple(DataSet(one["name"], _names(one["distortions"]), one["modality"], ()) for one in told["data_sets"])
        teachers = {one.name: ract / "teachers" / one.name / "model" for one in sets}
        mixed = {MIXED: place.artifacts("teach") / "model"}
        others = {PRETRAINED: place.artifacts("pretrain") / "model", RACT: ract / "model"}
        return cls(place, sets, told["question"], told["tags"], teachers | mixed, teachers | others | mixed)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the data sets."""
        return tuple(one.name for one in self.data_sets)

    def held_out(self, most: int | None) -> pd.DataFrame:
        """Scored held-out media of the data sets, with ``data_sets``: the names of theirs."""
        scored = scored_candidates(self.place)
        scored = pd.DataFrame(scored[scored["split"] == Split.HELD_OUT])
        members = {one.name: frozenset(one.of(scored)["id"]) for one in self.data_sets}
        scored["data_sets"] = [[name for name, ids in members.items() if key in ids] for key in scored["id"]]
        return bounded(pd.DataFrame(scored[scored["data_sets"].str.len() > 0]), most, STAGE)

    def pairs(self, encoders: Sequence[str]) -> list[tuple[str, str]]:
        """Readers and encoders that are asked together: ``mixed`` has never read another encoder than its own."""
        swapped = [(reader, encoder) for reader in self.names for encoder in encoders if encoder != MIXED]
        return [*swapped, (MIXED, MIXED)]


def _features(place: Place, course: _Course, media: pd.DataFrame, config: Config) -> dict[str, CachedFeatures]:
    """What every encoder says of every medium; an encoder that is another one's to the bit looks once."""
    models = {name: QualityLMM.from_pretrained(folder) for name, folder in course.encoders.items()}
    same = {name: next(first for first in models if stands_on(models[first], models[name])) for name in models}
    looking = {name: models[name] for name in dict.fromkeys(same.values())}
    preparation = Preparation(STAGE, config.threads, config.max_reject_share, device_named(config.device))
    found = encode_media(place.work / "features", media, partial(read_media, place), looking, preparation)
    return {name: found[first] for name, first in same.items()}


def _asked(
    reader: QualityLMM, media: pd.DataFrame, features: CachedFeatures, course: _Course, config: Config
) -> list[dict[str, Any]]:
    """SWAPS rows of one pair, without its names."""
    records, rows = media.sort_values("id").to_dict("records"), []
    for start in range(0, len(records), config.batch):
        some = records[start : start + config.batch]
        looks = [features.read(row["id"]) for row in some]
        prompts = [question("score", course.style, is_video=row["modality"] == Modality.VIDEO) for row in some]
        quality_N = expectation(reader.level_probabilities(looks).cpu().numpy())
        answers = reader.generate(looks, prompts, max_new_tokens=config.most_tokens)
        for row, quality, said in zip(some, quality_N, answers, strict=True):
            known = {key: row[key] for key in ("id", "content_id", "data_sets", "target")}
            rows.append({**known, "expectation": float(quality), "rating": rating_in(said, course.tags), "said": said})
    return rows


def rating_in(said: str, tags: Tags) -> float | None:
    """Quality that an answer names, on [0, 1]; None if it names none, or one off the scale."""
    reading = read_answer(said, "score", tags).said
    return reading.quality if isinstance(reading, Score) and 0.0 <= reading.quality <= 1.0 else None


def _names(told: list[str] | None) -> tuple[str, ...] | None:
    return None if told is None else tuple(told)
