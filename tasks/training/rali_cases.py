"""RALI's ablation (its Table 4) and what text adds: the student made in several ways, once per seed.

All cases of a seed share media, tiles and, where it is the same, the alignment. The scores of held-out media are kept
before any figure; a run that was killed continues at the first case that is not finished.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import pandas as pd
import torch
from tqdm import tqdm

from models.quality_lmm import QualityLMM
from models.rali.student import RaliStudent, Tower
from tasks.instructions import media_frame, read_any_media
from tasks.prepared import Preparation
from tasks.records import PREDICTIONS, Split
from tasks.shards import TableParts, digest, frame_of
from tasks.stage import Place
from tasks.targets import scored_candidates
from tasks.tiles import Tiles, TileViews, prepare_tiles
from tasks.training.rali import Config, text_tower, training_tiles
from tasks.training.rali_course import Workshop, align, build, fit, start_tower
from tasks.training.rali_lessons import Seen, embedded, gather_lessons

Change = Callable[[Config], Config]


def _align(**values: object) -> Change:
    return lambda config: dataclasses.replace(config, align=dataclasses.replace(config.align, **values))  # type: ignore[arg-type]


def _no_buckets(config: Config) -> Config:
    recipe = dataclasses.replace(config.build.recipe, grouping="none")
    return dataclasses.replace(config, build=dataclasses.replace(config.build, recipe=recipe))


def _text_then_opinions(config: Config) -> Config:
    return dataclasses.replace(config, fit=dataclasses.replace(config.fit, trained="all"))


def _opinions_alone(config: Config) -> Config:
    """No text, and the steps of the alignment given to the tuning of the whole student."""
    steps = config.training.steps + config.fit.steps
    alone = dataclasses.replace(config.fit, trained="all", steps=steps)
    return dataclasses.replace(_align(enabled=False)(config), fit=alone)


CASES: Final[dict[str, Change]] = {
    "full": lambda config: config,
    "no_alignment": _align(enabled=False),
    "no_pca": lambda config: dataclasses.replace(config, build=dataclasses.replace(config.build, compress=False)),
    "no_buckets": _no_buckets,
    "no_seed_augmentation": _align(texts_per_image=1),
    "no_fit": lambda config: dataclasses.replace(config, fit=dataclasses.replace(config.fit, enabled=False)),
    "text_then_opinions": _text_then_opinions,
    "opinions_alone": _opinions_alone,
}
"""Name -> what differs from the section ``rali``. The first six are those of the paper's Table 4. The last two train
the whole student to the scores, after the alignment and without it, with the same number of steps in all."""


@dataclass(frozen=True)
class _Ground:
    """What all cases stand on.

    Attributes:
        seen: tiles of what is learnt from. asked: tiles of the held-out media. held_out: their rows.
    """

    place: Place
    seen: Tiles
    asked: Tiles
    held_out: pd.DataFrame


def run_cases(config: Config, place: Place, cases: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """Make every case once per seed and score the held-out media.

    Returns:
        PREDICTIONS rows; ``model`` is ``CASE-seedK``.

    Raises:
        StageError, ModelError: as the stage ``rali``.
    """
    torch.set_num_threads(config.training.threads)
    ground = _ground(config, place)
    found = []
    for seed in seeds:
        seeded = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))
        for case in tqdm(cases, desc=f"rali: cases of seed {seed}", unit="case"):
            changed = CASES[case](seeded)
            parts = TableParts(place.work / "cases", PREDICTIONS)
            name = f"{case}-seed{seed}"
            part = digest(name, dataclasses.asdict(changed))
            if not parts.has(part):
                parts.add(part, _scores(_student(changed, ground), ground, name))
            found.append(parts.read_part(part))
    return pd.concat(found, ignore_index=True)


def _ground(config: Config, place: Place) -> _Ground:
    lessons = gather_lessons(place, config.texts, None, config.scores)
    scored = scored_candidates(place)
    held_out = pd.DataFrame(scored[scored["split"] == Split.HELD_OUT])
    preparation = Preparation("rali", config.training.threads, config.max_reject_share)
    views = TileViews(config.view, config.frames, 1, 0)
    read = partial(read_any_media, place)
    asked = prepare_tiles(place.work / "held_out", media_frame(held_out, []), read, views, preparation)
    readable = pd.DataFrame(held_out[held_out["id"].isin(asked.ids)])
    return _Ground(place, training_tiles(config, place, lessons), asked, readable)


def _student(config: Config, ground: _Ground) -> RaliStudent:
    """One case; its alignment is taken from another case of the seed that has the same."""
    place, seed = ground.place, config.training.seed
    lessons = gather_lessons(place, config.texts, config.align.texts_per_image, config.scores)
    aligned = place.work / "aligned" / digest(dataclasses.asdict(config.align), dataclasses.asdict(config.training))
    torch.manual_seed(seed)
    tower: Tower = config.tower.built(config.view, place.root)
    seen = Seen(ground.seen, tower)
    shop = Workshop(aligned, place.telemetry("rali_cases"), seen, lessons.of(seen.ids), config.training)
    start_tower(tower, shop)
    if config.align.enabled:
        teacher = QualityLMM.from_pretrained(place.artifacts("pretrain") / "model")
        align(tower, text_tower(config, place, teacher, tower), shop, config.align, aligned)
    head, _ = build(tower, shop, config.build, config.fit.tau)
    student = RaliStudent(tower, head, config.view, config.frames)
    own = place.work / "fitted" / digest(dataclasses.asdict(config))
    fit(student, dataclasses.replace(shop, work=own), config.fit, own)
    return student.eval()


@torch.no_grad()
def _scores(student: RaliStudent, ground: _Ground, name: str) -> pd.DataFrame:
    rows = ground.held_out
    device = student.head.scores.device
    embeddings = embedded(student.tower, Seen(ground.asked, student.tower), list(rows["id"]), device).to(device)
    scores = student.head(embeddings).double().cpu().numpy()
    common = {"model": name, "level_probs": [], "target_kind": "machine_opinion", "readout": "rali"}
    records = [
        {**common, "score": float(score), "target": float(row["target"])}
        | {key: row[key] for key in ("id", "content_id", "modality", "distortion", "severity")}
        for row, score in zip(rows.to_dict("records"), scores, strict=True)
    ]
    return frame_of(PREDICTIONS, records)
