"""Collect the candidate pool: files of a folder or objects of an S3 prefix become rows, or leave with a reason.

A candidate's id is the hash of its bytes, so it never changes and equal files are one candidate. The split is a
function of the id alone, so it stays what it is while the pool grows.
"""

import hashlib
import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tqdm import tqdm

from tasks.annotation.known_pool import FOLDER, FOUND, KnownPool
from tasks.annotation.sources import open_pool
from tasks.errors import MediaError, StageError
from tasks.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Limits, MediaInfo, probe
from tasks.records import CANDIDATES, REJECTS, Modality, Split
from tasks.shards import TableParts, digest, frame_of, write_archive, write_table
from tasks.stage import Place

log = logging.getLogger(__name__)

SIDECAR_SUFFIXES: Final = frozenset(
    {".csv", ".tsv", ".md", ".txt", ".rst", ".json", ".jsonl", ".yaml", ".yml", ".xml", ".xmp", ".html", ".pdf"}
    | {".log", ".ini", ".toml", ".parquet", ".db", ".aae", ".thm", ".srt", ".vtt", ".py", ".sh"}
)
"""Files that accompany media and are no candidates: counted as ignored, never opened."""

_STAGE: Final = "collect"
_HASH_BITS: Final = 52


@dataclass(frozen=True)
class Fractions:
    """Share of the contents that each split gets; they sum to 1."""

    train: float
    warm_up: float
    held_out: float

    def __post_init__(self) -> None:
        """Check that the shares are shares."""
        shares = (self.train, self.warm_up, self.held_out)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
            msg = f"the fractions must be at least 0 and sum to 1, not {shares}"
            raise ValueError(msg)


@dataclass(frozen=True)
class Config:
    """What is collected and how it is split.

    Attributes:
        pool: folder relative to the workspace, ``s3://bucket/prefix``, or a manifest (see ``sources``).
        endpoint: S3 server other than AWS's; null for AWS or for a folder.
        fractions: shares of the splits.
        split_seed: which contents go where.
        archive_items: media per archive; a killed run loses at most one unfinished archive.
        limits: what is refused as too large or too small.
    """

    pool: str
    endpoint: str | None
    fractions: Fractions
    split_seed: int
    archive_items: int
    limits: Limits


@dataclass(frozen=True)
class Report:
    """Counts of one run: ``files = ignored + candidates + rejects``; ``contents`` is keyed "split modality"."""

    files: int
    ignored: int
    candidates: int
    rejects: int
    megabytes: float
    reasons: dict[str, int]
    contents: dict[str, int]


def run(config: Config, place: Place) -> Report:
    """Collect the pool into ``candidates.parquet``, ``rejects.parquet`` and ``media/*.tar``.

    Raises:
        StageError: the pool does not exist or holds nothing that can be used.
    """
    pool = KnownPool(open_pool(config.pool, config.endpoint, place.root), place.before)
    everything = pool.names()
    keys = [key for key in everything if PurePosixPath(key).suffix.lower() not in SIDECAR_SUFFIXES]
    if not keys:
        msg = f"the pool {config.pool} holds no image or video ({len(everything)} other files): put media there"
        raise StageError(msg)
    kept, refused = TableParts(place.work / "kept", CANDIDATES), TableParts(place.work / "refused", REJECTS)
    found = TableParts(place.work / FOLDER, FOUND)
    seen: set[str] = set()
    with tqdm(total=len(keys), desc=_STAGE, unit="file") as progress:
        for index in range(0, len(keys), config.archive_items):
            chunk = keys[index : index + config.archive_items]
            part = digest(index, [pool.uri(key) for key in chunk])
            if not kept.has(part):
                rows, rejects = _collect_chunk(config, pool, place, chunk, _Seen(seen, index))
                refused.add(part, frame_of(REJECTS, rejects))
                found.add(part, frame_of(FOUND, pool.found(rows, chunk)))
                kept.add(part, frame_of(CANDIDATES, rows))
            seen.update(kept.read_part(part)["id"])
            progress.update(len(chunk))
    candidates, rejects = kept.read(), refused.read()
    if candidates.empty:
        msg = f"none of the {len(keys)} files of the pool {config.pool} can be used; the first: {_first(rejects)}"
        raise StageError(msg)
    write_table(place.out / "rejects.parquet", REJECTS, rejects)
    write_table(place.out / "candidates.parquet", CANDIDATES, candidates)
    return _report(len(everything), len(everything) - len(keys), candidates, rejects)


def missing(config: Config, root: Path) -> list[str]:
    """Say what this machine lacks to collect the pool, a line each."""
    try:
        open_pool(config.pool, config.endpoint, root)
    except StageError as error:
        return [str(error)]
    if config.pool.startswith("s3://") and not {"AWS_ACCESS_KEY_ID", "AWS_PROFILE"} & set(os.environ):
        return [f"credentials for {config.pool}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"]
    return []


def split_of(content_id: str, seed: int, fractions: Fractions) -> Split:
    """Draw the split of a content from its id alone, so that it is the same in every pool.

    >>> split_of("a", 1, Fractions(1.0, 0.0, 0.0))
    <Split.TRAIN: 'train'>
    """
    draw = int(digest(content_id, seed), 16) % (1 << _HASH_BITS) / (1 << _HASH_BITS)
    if draw < fractions.train:
        return Split.TRAIN
    return Split.WARM_UP if draw < fractions.train + fractions.warm_up else Split.HELD_OUT


@dataclass(frozen=True)
class _Seen:
    """Ids of earlier chunks, and the chunk's number."""

    ids: set[str]
    index: int


def _collect_chunk(
    config: Config, pool: KnownPool, place: Place, keys: Sequence[str], before: _Seen
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows: dict[str, dict[str, Any]] = {}
    rejects: list[dict[str, Any]] = []

    def media() -> Iterator[tuple[str, bytes]]:
        for key, data, found in _looked_at(pool, keys, config.limits):
            identity = digest(data)
            if identity in before.ids or identity in rows:
                again = MediaError("duplicate", f"the same bytes as {identity}")
                rejects.append(_reject(pool.uri(key), key, again))
            elif isinstance(found, MediaError):
                rejects.append(_reject(pool.uri(key), key, found))
            else:
                rows[identity] = _row(config, pool.uri(key), data, found)
                yield identity + PurePosixPath(key).suffix.lower(), data

    path = place.out / "media" / f"originals-{before.index // config.archive_items:05d}.tar"
    places = write_archive(path, media())
    if not places:
        path.unlink()
    for name, where in places.items():
        rows[name.partition(".")[0]] |= asdict(where)
    return list(rows.values()), rejects


def _looked_at(
    pool: KnownPool, keys: Sequence[str], limits: Limits
) -> Iterator[tuple[str, bytes, MediaInfo | MediaError]]:
    """Read and probe ahead in threads, in order; only as many media as there are threads wait in memory."""

    def look(key: str) -> tuple[str, bytes, MediaInfo | MediaError]:
        data = b""
        try:
            data = pool.read(key)
            return key, data, pool.info(data) or probe(data, limits)
        except MediaError as error:
            return key, data, error

    window = 2 * (os.cpu_count() or 1)
    with ThreadPoolExecutor(max_workers=window) as workers:
        waiting: deque[Future[tuple[str, bytes, MediaInfo | MediaError]]] = deque()
        for key in keys:
            waiting.append(workers.submit(look, key))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _row(config: Config, source: str, data: bytes, info: MediaInfo) -> dict[str, Any]:
    identity = digest(data)
    return {
        "id": identity,
        "content_id": identity,
        "parent_id": None,
        "split": split_of(identity, config.split_seed, config.fractions),
        **asdict(info),
        "modality": Modality(info.modality),
        "source": source,
        "bytes_sha256": hashlib.sha256(data).hexdigest(),
        "distortion": None,
        "severity": 0,
        "seed": 0,
        "generator": None,
    }


def _reject(source: str, key: str, error: MediaError) -> dict[str, Any]:
    """Reject row; a file that neither its name nor its content calls a medium is ``not_media``."""
    named = PurePosixPath(key).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    reason = "not_media" if error.reason == "unknown_format" and not named else error.reason
    return {"stage": _STAGE, "id": source, "reason": reason, "detail": str(error)}


def _first(rejects: Any) -> str:
    row = rejects.iloc[0]
    return f"{row['id']}: {row['detail']}"


def _report(files: int, ignored: int, candidates: Any, rejects: Any) -> Report:
    contents = Counter(f"{row.split} {row.modality}" for row in candidates.itertuples())
    return Report(
        files=files,
        ignored=ignored,
        candidates=len(candidates),
        rejects=len(rejects),
        megabytes=round(sum(candidates["length"]) / 1e6, 3),
        reasons=dict(sorted(Counter(rejects["reason"]).items())),
        contents=dict(sorted(contents.items())),
    )
