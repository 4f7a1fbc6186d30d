"""What the stage ``score`` would compute of some media, and why: the opinion store against the versions of today.

Nothing is computed, decoded or loaded. Whether a scorer would be admitted to a less exact runtime is not known before
its probes; the plan supposes it, and says so.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from tasks.annotation.panel import PanelConfig, Seat, expected_seats, opinion_version
from tasks.media import ADMITTED, kind_of
from tasks.memo import OpinionMemo
from tasks.pool import load_candidates
from tasks.records import Modality
from tasks.stage import Place

Contents = Mapping[Modality, frozenset[str]]
"""Hashes of contents by what they are."""

KNOWN: Final = "all known"


@dataclass(frozen=True)
class CachePlan:
    """One scorer's share of the work on media of one kind.

    Attributes:
        version: under which opinions are stored.
        cached, to_compute: contents with an opinion of this version, and without.
        why: the reason in words.
    """

    scorer: str
    modality: Modality
    version: str
    cached: int
    to_compute: int
    why: str


def contents_of_pool(place: Place) -> Contents:
    """Contents of all candidates.

    Raises:
        StageError: ``collect`` or ``distort`` has not been run.
    """
    candidates = load_candidates(place)
    return {
        kind: frozenset(candidates.loc[candidates["modality"] == kind, "bytes_sha256"].astype(str)) for kind in Modality
    }


def contents_of_files(media: Iterable[bytes]) -> Contents:
    """Contents of files; what they are is told by their first bytes, whether they decode is not looked at.

    Raises:
        MediaError: a file is empty or of no format that VITAL reads.
    """
    found: dict[Modality, set[str]] = {kind: set() for kind in Modality}
    for data in media:
        found[Modality(kind_of(data, ADMITTED))].add(hashlib.sha256(data).hexdigest())
    return {kind: frozenset(contents) for kind, contents in found.items()}


def cache_plans(config: PanelConfig, contents: Contents, memo: OpinionMemo) -> list[CachePlan]:
    """What would be computed, scorer by scorer; kinds of media that are absent are left out.

    Raises:
        ModelError: a scorer is unknown.
        InfraError: the store cannot be reached.
    """
    seats = expected_seats(config)
    return [_plan(seat, kind, config, contents[kind], memo) for seat in seats for kind in Modality if contents[kind]]


def _plan(seat: Seat, kind: Modality, config: PanelConfig, contents: frozenset[str], memo: OpinionMemo) -> CachePlan:
    version = opinion_version(seat, kind, config)
    known = memo.lookup(seat.name, version).keys()
    cached = len(contents & known)
    why = KNOWN if cached == len(contents) else _why(seat.name, bool(known), memo)
    if seat.runtime is not None and seat.runtime != seat.runtime.exact:
        exact = opinion_version(replace(seat, runtime=seat.runtime.exact), kind, config)
        why += f"; if its probes stay within the tolerance, else version {exact}"
    return CachePlan(seat.name, kind, version, cached, len(contents) - cached, why)


def _why(scorer: str, seen: bool, memo: OpinionMemo) -> str:  # noqa: FBT001 - a private reason
    if seen:
        return "new media"
    others = memo.versions(scorer)
    return (
        f"version is new: the store has {others} others of this scorer" if others else "no opinion of this scorer yet"
    )
