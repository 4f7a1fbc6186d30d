"""RALI's ablation (its Table 4) and what text adds: the student made in several ways, once per seed.

All cases of a seed share media, tiles and, where it is the same, the alignment. The scores of held-out media, and of
media that people have rated, are kept before any figure; a run that was killed continues at the first case that is not
finished.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from models.quality_lmm import QualityLMM
from models.rali.student import RaliStudent, Tower
from tasks.errors import StageError
from tasks.pool import load_candidates
from tasks.records import PREDICTIONS
from tasks.shards import TableParts, digest
from tasks.stage import Place
from tasks.training.rali import Config, text_tower, training_tiles
from tasks.training.rali_course import Workshop, align, build, fit, start_tower
from tasks.training.rali_exam import Asked, Exam, asked_of_line, asked_of_people, predictions_of, teacher_predictions
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
        trials: where alignments, students and their scores are kept. seen: all that is explained or scored; towers
            measure the same, so every medium is measured once for all cases.
        learnt: those of them that cases learn from. asked: what they are measured on.
    """

    place: Place
    trials: Path
    seen: Seen
    learnt: list[str]
    asked: list[Asked]


def run_cases(
    config: Config, place: Place, cases: Sequence[str], seeds: Sequence[int], exam: Exam | None = None
) -> pd.DataFrame:
    """Make every case once per seed and score the held-out media, and what else the exam names.

    Returns:
        PREDICTIONS rows; ``model`` is ``CASE-seedK``, or ``teacher`` where the exam has one.

    Raises:
        StageError, ModelError: as the stage ``rali``; or the exam cannot be held.
    """
    torch.set_num_threads(config.training.threads)
    exam = exam or Exam()
    ground = _ground(config, place, exam)
    found = [] if exam.teacher is None else [teacher_predictions(exam.teacher, ground.asked, config, place)]
    for seed in seeds:
        seeded = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))
        for case in tqdm(cases, desc=f"rali: cases of seed {seed}", unit="case"):
            found += _answers(f"{case}-seed{seed}", CASES[case](seeded), ground)
    return pd.concat(found, ignore_index=True)


def _answers(name: str, config: Config, ground: _Ground) -> list[pd.DataFrame]:
    """What one case says of everything that is asked; the student is made only for what has not been answered."""
    parts = TableParts(ground.trials / "cases", PREDICTIONS)
    settings = name, dataclasses.asdict(config)
    names = [digest(*settings, *([one.name] if one.name else [])) for one in ground.asked]
    student = None
    for one, part in zip(ground.asked, names, strict=True):
        if not parts.has(part):
            student = student or _student(config, ground)
            parts.add(part, predictions_of(one, name, _scores(student, one), "rali"))
    return [parts.read_part(part) for part in names]


def _ground(config: Config, place: Place, exam: Exam) -> _Ground:
    tower = config.tower.built(config.view, place.root)
    asked = [asked_of_line(config, place, tower), *asked_of_people(config, place, exam, tower)]
    unasked = set(exam.unseen) - set(asked[0].rows["distortion"].dropna())
    if unasked:
        msg = f"no held-out medium has the distortion {min(unasked)}: leave it out of the unseen ones"
        raise StageError(msg)
    lessons = gather_lessons(place, config.texts, None, config.scores)
    seen = Seen(training_tiles(config, place, lessons), tower)
    pool = load_candidates(place)
    left_out = set(pool.loc[pool["distortion"].isin(exam.unseen), "id"])
    trials = place.work / "unseen" / digest(sorted(exam.unseen)) if exam.unseen else place.work
    return _Ground(place, trials, seen, [name for name in seen.ids if name not in left_out], asked)


def _student(config: Config, ground: _Ground) -> RaliStudent:
    """One case; its alignment is taken from another case of the seed that has the same."""
    place, seed = ground.place, config.training.seed
    lessons = gather_lessons(place, config.texts, config.align.texts_per_image, config.scores).of(ground.learnt)
    aligned = ground.trials / "aligned" / digest(dataclasses.asdict(config.align), dataclasses.asdict(config.training))
    torch.manual_seed(seed)
    tower: Tower = config.tower.built(config.view, place.root)
    shop = Workshop(aligned, place.telemetry("rali_cases"), ground.seen, lessons, config.training)
    start_tower(tower, shop)
    if config.align.enabled:
        teacher = QualityLMM.from_pretrained(place.artifacts("pretrain") / "model")
        align(tower, text_tower(config, place, teacher, tower), shop, config.align, aligned)
    head, _ = build(tower, shop, config.build, config.fit.tau)
    student = RaliStudent(tower, head, config.view, config.frames)
    own = ground.trials / "fitted" / digest(dataclasses.asdict(config))
    fit(student, dataclasses.replace(shop, work=own), config.fit, own)
    return student.eval()


@torch.no_grad()
def _scores(student: RaliStudent, asked: Asked) -> NDArray[np.float64]:
    device = student.head.scores.device
    embeddings = embedded(student.tower, asked.seen, list(asked.rows["id"]), device).to(device)
    return student.head(embeddings).double().cpu().numpy()
