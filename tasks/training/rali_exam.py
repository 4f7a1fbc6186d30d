"""What the cases of a student are measured on: held-out media of the line, and media that people have rated.

The teacher is measured on the same media: its score is the expectation over its level words.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from models.levels import expectation
from models.quality_lmm import QualityLMM
from models.rali.image_towers import ImageTower
from tasks.errors import StageError
from tasks.instructions import ImportedSource, check_source, external_frame, media_frame, read_any_media
from tasks.prepared import Preparation, encode_media
from tasks.records import PREDICTIONS, Split
from tasks.shards import TableParts, digest, frame_of
from tasks.stage import Place
from tasks.targets import scored_candidates
from tasks.tiles import TileViews, prepare_tiles
from tasks.training.engine import device_of
from tasks.training.explain import MODEL_FOLDERS, Explainer
from tasks.training.rali import Config
from tasks.training.rali_lessons import Seen

log = logging.getLogger(__name__)

TEACHER: Final = "teacher"
"""The teacher's name among the models of predictions."""
PEOPLE: Final = "mos"
"""The kind of target of media that people have rated; their ids begin with the number of their table, and a colon."""
_TOGETHER: Final = 32


@dataclass(frozen=True)
class Teacher:
    """Whose scores the student learns.

    Attributes:
        stage: of the line, as ``explain.teacher`` names it.
    """

    stage: Explainer

    def folder(self, place: Place) -> Path:
        """Where its model lies."""
        return place.artifacts(self.stage) / MODEL_FOLDERS[self.stage]


@dataclass(frozen=True)
class Exam:
    """What cases are measured on beside held-out media, and what they do not learn from.

    Attributes:
        unseen: types of distortion; no case learns from media that have one of them.
        people: tables with ``path``, ``modality`` and ``quality`` in [0, 1], as ``vital data import`` makes them.
        content: pattern whose first group, in a path of these tables, names what is shown; None: each medium is one.
        teacher: is measured too; None: it is not.
    """

    unseen: tuple[str, ...] = ()
    people: tuple[ImportedSource, ...] = ()
    content: str | None = None
    teacher: Teacher | None = None


class Asked(NamedTuple):
    """Media that every case is asked about.

    Attributes:
        name: of their finished parts; empty for the line's own. rows: those that decode, with what PREDICTIONS keeps
            of them. seen: as students see them, whichever tower they have.
    """

    name: str
    rows: pd.DataFrame
    seen: Seen


def asked_of_line(config: Config, place: Place, tower: ImageTower) -> Asked:
    """Held-out media that have an opinion.

    Args:
        tower: any of the section's; what it measures is what all of them measure.

    Raises:
        StageError: too many do not decode.
    """
    scored = scored_candidates(place)
    held_out = pd.DataFrame(scored[scored["split"] == Split.HELD_OUT])
    return _asked("", held_out.assign(target_kind="machine_opinion"), place.work / "held_out", config, place, tower)


def asked_of_people(config: Config, place: Place, exam: Exam, tower: ImageTower) -> list[Asked]:
    """Rated media, one entry per table; ``tower`` as in :func:`asked_of_line`.

    Raises:
        StageError: a table or root is missing, a table has other columns or a quality off the scale, a path repeats or
            does not say what is shown, or too many media do not decode.
    """
    found = []
    for number, source in enumerate(exam.people):
        rows = _rated(place, source, number, exam.content)
        name = digest(source.root, rows[["id", "content_id", "target"]].to_numpy().tolist())
        found.append(_asked(name, rows, place.work / "people" / digest(source.root), config, place, tower))
    return found


def _asked(name: str, rows: pd.DataFrame, folder: Path, config: Config, place: Place, tower: ImageTower) -> Asked:
    preparation = Preparation("rali", config.training.threads, config.max_reject_share)
    views, read = TileViews(config.view, config.frames, 1, 0), partial(read_any_media, place)
    tiles = prepare_tiles(folder, media_frame(rows, []), read, views, preparation)
    if len(tiles.rejects):
        log.warning("%d of %d media do not decode and are asked about by nobody", len(tiles.rejects), len(rows))
    return Asked(name, pd.DataFrame(rows[rows["id"].isin(tiles.ids)]), Seen(tiles, tower))


def _rated(place: Place, source: ImportedSource, number: int, content: str | None) -> pd.DataFrame:
    path = place.root / source.table
    if not path.is_file():
        msg = f"{source.table} is missing: make it by vital data import"
        raise StageError(msg)
    check_source(place, source)
    table = pd.read_parquet(path)
    if lacking := {"path", "modality", "quality"} - set(table.columns):
        msg = f"{source.table} lacks the column {min(lacking)}: make it by vital data import"
        raise StageError(msg)
    if table.empty or table["path"].duplicated().any() or not table["quality"].between(0.0, 1.0).all():
        msg = f"{source.table} must have one row for every path, and a quality in [0, 1] in each"
        raise StageError(msg)
    modalities = dict(zip((f"{number}:{name}" for name in table["path"]), table["modality"], strict=True))
    known = external_frame(modalities, source.root)
    shown = [_content(name, content, source) for name in table["path"]]
    values = {"content_id": shown, "target": table["quality"].astype(float).tolist()}
    return known.assign(distortion=None, severity=0, target_kind=PEOPLE, **values)


def _content(path: str, pattern: str | None, source: ImportedSource) -> str:
    found = re.search(pattern, path) if pattern else None
    if pattern and (found is None or found[1] is None):
        msg = f"{source.table}: the pattern of contents finds nothing in {path!r}"
        raise StageError(msg)
    return found[1] if found else path


def predictions_of(asked: Asked, model: str, scores: NDArray[np.float64], readout: str) -> pd.DataFrame:
    """PREDICTIONS rows of one model."""
    common = {"model": model, "level_probs": [], "readout": readout}
    kept = ("id", "content_id", "modality", "distortion", "severity", "target", "target_kind")
    records = [
        {**common, "score": float(score)} | {key: row[key] for key in kept}
        for row, score in zip(asked.rows.to_dict("records"), scores, strict=True)
    ]
    return frame_of(PREDICTIONS, records)


def teacher_predictions(teacher: Teacher, asked: Sequence[Asked], config: Config, place: Place) -> pd.DataFrame:
    """What the teacher makes of the same media; what is finished is kept.

    Raises:
        StageError: more media are broken than the student's section allows.
    """
    parts, found = TableParts(place.work / "taught", PREDICTIONS), []
    names = [digest(teacher.stage, one.name) for one in asked]
    missing = [one for one, name in zip(asked, names, strict=True) if not parts.has(name)]
    model = QualityLMM.from_pretrained(teacher.folder(place)).to(device_of(config.training)) if missing else None
    for one, name in zip(asked, names, strict=True):
        if not parts.has(name) and model is not None:
            scores = _expectations(model, one.rows, config, place, place.work / "features" / name)
            parts.add(name, predictions_of(one, TEACHER, scores, "expectation"))
        found.append(parts.read_part(name))
    return pd.concat(found, ignore_index=True)


@torch.no_grad()
def _expectations(
    model: QualityLMM, rows: pd.DataFrame, config: Config, place: Place, folder: Path
) -> NDArray[np.float64]:
    """Qualities ``[N]`` of media that decode."""
    preparation = Preparation("rali", config.training.threads, 0.0, device_of(config.training))
    shown, read = media_frame(rows, []), partial(read_any_media, place)
    features: Any = encode_media(folder, shown, read, {TEACHER: model}, preparation)[TEACHER]
    ids, told = [str(name) for name in rows["id"]], []
    for first in tqdm(range(0, len(ids), _TOGETHER), desc="rali: the teacher", unit="batch"):
        media = [features.read(name) for name in ids[first : first + _TOGETHER]]
        told.append(expectation(model.level_probabilities(media).cpu().numpy()))
    return np.concatenate(told)
