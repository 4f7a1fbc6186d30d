"""Make distorted children of every original: type and severity are known, bytes carry exactly the distorted pixels.

Which cells (type, severity) a parent gets depends on the parent and the seed alone, so a growing pool changes no
earlier child. Which cells no parent of a small pool has drawn the report tells.
"""

import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from models.distortions import GENERATOR, IMAGE_CELLS, VIDEO_CELLS, distort_clip, distort_image
from models.errors import ModelError
from tasks.errors import MediaError
from tasks.media import ADMITTED, MediaInfo, Pixels, decode_image, iterate_video, outline_video
from tasks.records import CANDIDATES, REJECTS, Modality
from tasks.shards import Placed, TableParts, digest, frame_of, read_placed, read_table, write_archive, write_table
from tasks.stage import Place

log = logging.getLogger(__name__)

Cell = tuple[str, int]

_STAGE: Final = "distort"
_SEED_BITS: Final = 31
_WEBP_SIDE: Final = 16383
"""Largest side of a WebP image, pixels; beyond it a child is PNG."""
_WEBP: Final = {"format": "WEBP", "lossless": True, "method": 0, "quality": 25}
"""Lossless; measured on the sample pool: 20 to 35 % smaller than PNG at a quarter of its time."""
_PNG: Final = {"format": "PNG"}


@dataclass(frozen=True)
class Config:
    """How many children a parent gets.

    Attributes:
        seed: which cells and which random patterns.
        children_per_image: cells drawn per photograph, at most one per type while there are types left.
        children_per_clip: video cells drawn per clip.
        image_types_per_clip: image cells drawn per clip; every frame is distorted.
        max_side: longer side to which larger parents are scaled before they are distorted, pixels; KADIS's parameters
            are in pixels of 512x384 images.
        parents_per_archive: originals whose children share an archive; a killed run loses at most one archive.
    """

    seed: int
    children_per_image: int
    children_per_clip: int
    image_types_per_clip: int
    max_side: int
    parents_per_archive: int


@dataclass(frozen=True)
class Report:
    """Counts of one run: ``planned = children + rejects``."""

    parents: int
    planned: int
    children: int
    rejects: int
    megabytes: float
    reasons: dict[str, int]
    cells: int
    cells_covered: int


@dataclass(frozen=True)
class Child:
    """One child that is to be made."""

    parent_id: str
    kind: str
    severity: int
    seed: int
    max_side: int | None

    @property
    def generator(self) -> str:
        """Version of the generator, and the size to which it scaled the parent, if it did."""
        return GENERATOR if self.max_side is None else f"{GENERATOR}@{self.max_side}"

    @property
    def id(self) -> str:
        """Hash of all that determines the child, so that it is the same wherever it is made."""
        return digest(self.parent_id, self.kind, self.severity, self.seed, self.generator)


def run(config: Config, place: Place) -> Report:
    """Make the children into ``candidates.parquet``, ``rejects.parquet`` and ``media/*.tar``.

    Raises:
        StageError: ``collect`` has not been run.
    """
    source = place.artifacts("collect")
    originals = read_table(source / "candidates.parquet", CANDIDATES)
    planned = plan(originals, config)
    made, refused = TableParts(place.work / "made", CANDIDATES), TableParts(place.work / "refused", REJECTS)
    parents, earlier = originals.to_dict("records"), _Earlier.of(place.before)
    with (
        ThreadPoolExecutor(max_workers=os.cpu_count()) as workers,
        tqdm(total=sum(map(len, planned.values())), desc=_STAGE, unit="child") as progress,
    ):
        for index in range(0, len(parents), config.parents_per_archive):
            chunk = parents[index : index + config.parents_per_archive]
            part = digest(index, [parent["id"] for parent in chunk])
            if not made.has(part):
                jobs = [(parent, planned[parent["id"]], source / "media", earlier) for parent in chunk]
                outcomes = (item for items in workers.map(_children_of, jobs) for item in items)
                number = index // config.parents_per_archive
                rows, rejects = _store(place, number, outcomes)
                refused.add(part, frame_of(REJECTS, rejects))
                made.add(part, frame_of(CANDIDATES, rows))
            progress.update(sum(len(planned[parent["id"]]) for parent in chunk))
    children, rejects = made.read(), refused.read()
    write_table(place.out / "rejects.parquet", REJECTS, rejects)
    write_table(place.out / "candidates.parquet", CANDIDATES, children)
    return _report(originals, planned, children, rejects)


def plan(originals: pd.DataFrame, config: Config) -> dict[str, list[Child]]:
    """Choose the children of every original.

    Returns:
        parent id -> its children, in the order of the table.
    """
    chosen: dict[str, list[Cell]] = {}
    for modality, cells, count in (
        (Modality.IMAGE, IMAGE_CELLS, config.children_per_image),
        (Modality.VIDEO, VIDEO_CELLS, config.children_per_clip),
    ):
        parents = originals.loc[originals["modality"] == modality, "id"].tolist()
        chosen |= {parent: draw_cells(parent, cells, count, config.seed) for parent in parents}
        if modality == Modality.VIDEO:
            for parent in parents:
                chosen[parent] += draw_cells(parent, IMAGE_CELLS, config.image_types_per_clip, config.seed)
    large = set(originals.loc[originals[["width", "height"]].max(axis=1) > config.max_side, "id"])
    return {
        parent: [
            Child(
                parent,
                kind,
                severity,
                pattern_seed(parent, kind, config.seed),
                config.max_side if parent in large else None,
            )
            for kind, severity in chosen[parent]
        ]
        for parent in originals["id"]
    }


def draw_cells(parent: str, cells: Sequence[Cell], count: int, seed: int) -> list[Cell]:
    """Draw ``count`` cells for one parent: a shuffled deck dealt by type, so that types repeat as late as possible."""
    deck = [cells[i] for i in np.random.default_rng(int(digest(parent, seed), 16)).permutation(len(cells))]
    rounds: Counter[str] = Counter()
    dealt: list[tuple[int, int, Cell]] = []
    for position, cell in enumerate(deck):
        dealt.append((rounds[cell[0]], position, cell))
        rounds[cell[0]] += 1
    return [cell for _, _, cell in sorted(dealt)[:count]]


def pattern_seed(parent: str, kind: str, seed: int) -> int:
    """Seed of the random pattern: the severities of one type on one parent share it."""
    return int(digest(parent, kind, seed), 16) % (1 << _SEED_BITS)


@dataclass(frozen=True)
class _Made:
    """A child's bytes, and what they are: the maker knows, so nobody decodes them to find out."""

    data: bytes
    info: MediaInfo


_Outcome = tuple[Child, Mapping[str, Any], _Made | MediaError]


@dataclass(frozen=True)
class _Earlier:
    """Children that the last run with the same code and parameters has made: their id says all that made them."""

    folder: Path | None
    rows: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, before: Path | None) -> "_Earlier":
        """What a finished run's work folder holds."""
        if before is None:
            return cls(None, {})
        rows = read_table(before / "out" / "candidates.parquet", CANDIDATES).to_dict("records")
        return cls(before / "out" / "media", {str(row["id"]): row for row in rows})

    def made(self, child: Child) -> _Made | None:
        """The child's bytes, if they are there."""
        row = self.rows.get(child.id)
        if row is None or self.folder is None:
            return None
        data = read_placed(self.folder, Placed(row["shard"], row["offset"], row["length"]))
        if hashlib.sha256(data).hexdigest() != row["bytes_sha256"]:
            return None
        facts = (row["mime"], row["width"], row["height"], row["frames"], row["fps"], row["duration_s"])
        return _Made(data, MediaInfo(Modality(row["modality"]), *facts))


def _children_of(job: tuple[dict[str, Any], list[Child], Path, _Earlier]) -> list[_Outcome]:
    """Make those children of one parent that no earlier run has made; the parent is read and decoded once for them."""
    parent, children, folder, earlier = job
    known = {child.id: earlier.made(child) for child in children}
    missing = [child for child in children if known[child.id] is None]
    new: dict[str, _Made | MediaError] = {}
    if missing:
        data = read_placed(folder, Placed(parent["shard"], parent["offset"], parent["length"]))
        try:
            is_clip = parent["modality"] == Modality.VIDEO
            make = _ClipMaker(data, parent["fps"]) if is_clip else _ImageMaker(data, children)
            new = {child.id: _attempt(make, child) for child in missing}
        except MediaError as error:
            new = {child.id: error for child in missing}
    return [(child, parent, known[child.id] or new[child.id]) for child in children]


def _attempt(make: "_ImageMaker | _ClipMaker", child: Child) -> _Made | MediaError:
    try:
        return make(child)
    except MediaError as error:
        return error
    except ModelError as error:
        return MediaError("too_small", str(error))


class _ImageMaker:
    def __init__(self, data: bytes, children: Sequence[Child]) -> None:
        pixels = decode_image(data, ADMITTED)
        self.pixels = fitted(pixels, children[0].max_side) if children else pixels

    def __call__(self, child: Child) -> _Made:
        distorted = distort_image(self.pixels, child.kind, child.severity, child.seed)
        if np.array_equal(distorted, self.pixels):
            raise MediaError("no_change", f"{child.kind} at severity {child.severity} changes no pixel of this image")
        buffer = io.BytesIO()
        options = _WEBP if max(distorted.shape) <= _WEBP_SIDE else _PNG
        Image.fromarray(distorted).save(buffer, **options)
        height, width = distorted.shape[:2]
        mime = f"image/{options['format'].lower()}"
        return _Made(buffer.getvalue(), MediaInfo(Modality.IMAGE, mime, width, height, 1, 0.0, 0.0))


def fitted(pixels: Pixels, max_side: int | None) -> Pixels:
    """Scale ``[H, W, 3]`` down so that the longer side is ``max_side`` (Lanczos); None leaves it as it is."""
    if max_side is None:
        return pixels
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


class _ClipMaker:
    def __init__(self, data: bytes, fps: float) -> None:
        self._data, self._fps = data, fps

    def __call__(self, child: Child) -> _Made:
        frames = (fitted(frame, child.max_side) for frame in iterate_video(self._data, ADMITTED))
        made = distort_clip(frames, self._fps, child.kind, child.severity, child.seed)
        return _Made(made, outline_video(made))


def _store(
    place: Place, number: int, outcomes: Iterable[_Outcome]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows: dict[str, dict[str, Any]] = {}
    rejects: list[dict[str, Any]] = []

    def media() -> Iterator[tuple[str, bytes]]:
        for child, parent, outcome in outcomes:
            if isinstance(outcome, MediaError):
                detail = f"{child.kind} {child.severity} of {parent['source']}: {outcome}"
                rejects.append({"stage": _STAGE, "id": child.id, "reason": outcome.reason, "detail": detail})
                continue
            rows[child.id] = _row(child, parent, outcome)
            yield f"{child.id}{'.mp4' if outcome.info.modality == Modality.VIDEO else '.webp'}", outcome.data

    path = place.out / "media" / f"children-{number:05d}.tar"
    places = write_archive(path, media())
    if not places:
        path.unlink()
    for name, where in places.items():
        rows[name.partition(".")[0]] |= asdict(where)
    return list(rows.values()), rejects


def _row(child: Child, parent: Mapping[str, Any], made: _Made) -> dict[str, Any]:
    return {
        "id": child.id,
        "content_id": parent["content_id"],
        "parent_id": child.parent_id,
        "split": parent["split"],
        **asdict(made.info),
        "source": parent["source"],
        "bytes_sha256": hashlib.sha256(made.data).hexdigest(),
        "distortion": child.kind,
        "severity": child.severity,
        "seed": child.seed,
        "generator": child.generator,
    }


def _report(
    originals: pd.DataFrame, planned: Mapping[str, list[Child]], children: pd.DataFrame, rejects: pd.DataFrame
) -> Report:
    wanted: set[tuple[str, str, int]] = set()
    present = set(originals["modality"])
    if Modality.IMAGE in present:
        wanted |= {(Modality.IMAGE, *cell) for cell in IMAGE_CELLS}
    if Modality.VIDEO in present:
        wanted |= {(Modality.VIDEO, *cell) for cell in VIDEO_CELLS}
    found = set(zip(children["modality"], children["distortion"], children["severity"], strict=True))
    return Report(
        parents=len(originals),
        planned=sum(map(len, planned.values())),
        children=len(children),
        rejects=len(rejects),
        megabytes=round(sum(children["length"]) / 1e6, 3),
        reasons=dict(sorted(Counter(rejects["reason"]).items())),
        cells=len(wanted),
        cells_covered=len(wanted & found),
    )
