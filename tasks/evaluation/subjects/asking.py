"""Media that a subject is asked about: opened in their order, a batch in memory at a time, rejects told with them."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from models.sampling import Sampling
from tasks.errors import MediaError, StageError
from tasks.evaluation.subjects.course import Drawing
from tasks.evaluation.subjects.protocol import Shown, Subject

T = TypeVar("T")
Ask = Callable[[Sequence[Shown]], Sequence[T]]
"""What is asked about some media: a result for each."""


@dataclass(frozen=True)
class Rejected:
    """A medium that nothing could be asked about, and why."""

    path: Path
    error: MediaError


def ask_each(subject: Subject, paths: Iterable[Path], ask: Ask[T], batch: int) -> Iterator[T | Rejected]:
    """Ask about files in their order, so many at a time.

    Args:
        ask: may raise ``MediaError`` too, where it is the medium that a subject refuses; the others of its batch are
            then asked without it.
    """
    waiting = iter(paths)
    while opened := [_opened(subject, path) for path in islice(waiting, batch)]:
        shown = [one for one in opened if not isinstance(one, Rejected)]
        found = iter(_asked(shown, ask))
        for one in opened:
            yield one if isinstance(one, Rejected) else next(found)


def _opened(subject: Subject, path: Path) -> Shown | Rejected:
    try:
        return subject.open(path)
    except MediaError as error:
        return Rejected(path, error)


def _asked(shown: Sequence[Shown], ask: Ask[T]) -> Sequence[T | Rejected]:
    if not shown:
        return []
    try:
        return ask(shown)
    except MediaError as error:
        if len(shown) == 1:
            return [Rejected(shown[0].path, error)]
        return [result for one in shown for result in _asked([one], ask)]


def drawing(sampling: Sampling, media: Sequence[Shown], seed: int, repeat: int = 0) -> Drawing:
    """How media are asked for the ``repeat``-th time.

    A medium's random numbers hang on its path, the seed and the repeat alone: neither on its company nor on the order.
    """
    return Drawing(sampling, [seed_of(medium.path, seed, repeat) for medium in media])


def seed_of(path: Path, seed: int, repeat: int = 0) -> int:
    """Seed of one medium's answers, below 2 ** 30, which every endpoint takes even doubled."""
    told = f"{seed}\n{repeat}\n{path.as_posix()}"
    return int.from_bytes(hashlib.sha256(told.encode("utf-8", "surrogateescape")).digest()[:4]) >> 2


def check_rejects(reasons: Mapping[str, int], total: int, limit: float) -> None:
    """Refuse to report on what is left if too much is missing.

    Args:
        reasons: how many media were rejected for each. total: media that were named. limit: share, in [0, 1].

    Raises:
        StageError: more than the limit were rejected, or all.
    """
    lost = sum(reasons.values())
    if lost >= total or lost > limit * total:
        why = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or "none was named"
        msg = f"{lost} of {total} media cannot be asked about ({why}): mend them, or raise --max-reject-share"
        raise StageError(msg)


def counted(rejected: Iterable[str]) -> dict[str, int]:
    """How often each reason comes, in their order."""
    return dict(sorted(Counter(rejected).items()))
