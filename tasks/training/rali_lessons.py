"""What a student learns from, and how it is dealt out in steps: media with texts, and media with scores.

Shape legend: ``N`` media, ``M`` tiles of each, ``S`` side of a tile, ``D`` joint space.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.rali.image_towers import ImageTower
from tasks.records import EXPLANATIONS, TAUGHT, Task
from tasks.shards import digest, read_table
from tasks.stage import Place
from tasks.tiles import Tiles
from tasks.training.batches import ALONE, RankShare, cut
from tasks.training.config import TrainingConfig
from tasks.training.draws import Shuffled

_REMEMBERED: Final = 8192
"""Versions of media whose measurements are held: .3 GB of images for the compact tower."""


@dataclass(frozen=True)
class Lessons:
    """Texts and scores of media.

    Attributes:
        texts: medium -> what is said of it, in a fixed order; media without texts are not there.
        scores: medium -> quality, [0, 1]; media without a score are not there.
        contents: number of contents among all of them.
    """

    texts: dict[str, list[str]]
    scores: dict[str, float]
    contents: int

    @property
    def media(self) -> list[str]:
        """All of them, sorted."""
        return sorted(self.texts.keys() | self.scores.keys())

    def of(self, readable: Sequence[str]) -> "Lessons":
        """Those of media that decoded."""
        kept = set(readable)
        texts = {name: said for name, said in self.texts.items() if name in kept}
        return Lessons(texts, {name: worth for name, worth in self.scores.items() if name in kept}, self.contents)


def gather_lessons(place: Place, sources: Sequence[str], per_medium: int | None, scores: str) -> Lessons:
    """Lessons from what ``explain`` has gathered.

    Args:
        sources: whose texts; none takes all. per_medium: texts of a medium at most, chosen by a hash of their words.
        scores: column of TAUGHT, ``teacher`` or ``opinion``.

    Raises:
        StageError: ``explain`` has not been published.
    """
    folder = place.artifacts("explain")
    said = read_table(folder / "explanations.parquet", EXPLANATIONS)
    taught = read_table(folder / "taught.parquet", TAUGHT)
    if sources:
        said = pd.DataFrame(said[said["source"].isin(sources)])
    texts: dict[str, list[str]] = {}
    for name, text in zip(said["id"], said["text"], strict=True):
        if text not in texts.setdefault(name, []):
            texts[name].append(text)
    chosen = {name: sorted(own, key=lambda text: digest("rali", text))[:per_medium] for name, own in texts.items()}
    known = taught[taught[scores].notna()]
    worth = dict(zip(known["id"], known[scores].astype(float), strict=True))
    return Lessons(chosen, worth, len(set(taught["content_id"])))


# ----------------------------------------------------------------------------- tiles


class Seen:
    """Media as a tower's weights see them: its measurements of their tiles, each made once while memory lasts.

    Attributes:
        ids: media that decoded, sorted. tiles: of all of them.
    """

    def __init__(self, tiles: Tiles, tower: ImageTower) -> None:
        self.tiles, self.ids = tiles, tiles.ids
        self._tower = tower
        self._measured = lru_cache(maxsize=_REMEMBERED)(self._measure)

    def read(self, medium: str, visit: int = 0) -> Tensor:
        """What is measured of a medium's tiles ``[M, ...]`` as they are shown for the ``visit``-th time."""
        return self._measured(medium, visit % self.tiles.versions)

    @torch.no_grad()
    def _measure(self, medium: str, version: int) -> Tensor:
        return self._tower.measure(self.tiles.read(medium, version))


@dataclass(frozen=True)
class Stacked:
    """What is seen of some media, those with the same number of tiles together.

    Attributes:
        members: places of the media of each group. tiles: ``[n, M, ...]`` of each group.
    """

    members: list[list[int]]
    tiles: list[Tensor]

    @classmethod
    def of(cls, tiles: Sequence[Tensor]) -> "Stacked":
        """Stack what is seen of media in their order."""
        groups: dict[int, list[int]] = {}
        for place, one in enumerate(tiles):
            groups.setdefault(len(one), []).append(place)
        return cls(list(groups.values()), [torch.stack([tiles[place] for place in own]) for own in groups.values()])

    def through(self, tower: ImageTower, device: torch.device) -> Tensor:
        """Embeddings ``[N, D]`` in the media's order."""
        found = torch.cat([tower.judge(tiles.to(device)) for tiles in self.tiles])
        order = [place for own in self.members for place in own]
        return found[torch.tensor(np.argsort(order), device=found.device)]


@torch.no_grad()
def embedded(tower: ImageTower, seen: Seen, media: Sequence[str], device: torch.device, together: int = 64) -> Tensor:
    """Embeddings ``[N, D]`` of media as scoring sees them, on the CPU."""
    parts = [media[first : first + together] for first in range(0, len(media), together)]
    return torch.cat([Stacked.of([seen.read(name) for name in part]).through(tower, device).cpu() for part in parts])


# --------------------------------------------------------------------------- batches


@dataclass(frozen=True)
class TileBatch:
    """Media of a micro-batch with their tiles.

    Attributes:
        example_ids: the media. visits: how often each was shown before. pixels: no group where embeddings are known.
    """

    example_ids: list[str]
    visits: list[int]
    pixels: Stacked

    @property
    def encodes(self) -> bool:
        """Whether the image tower runs."""
        return bool(self.pixels.members)


class TileBatches:
    """Batches of media: each once before any comes again, in an order that is new in every epoch.

    Args:
        seen: None where embeddings are known.
    """

    def __init__(
        self, media: Sequence[str], seen: Seen | None, config: TrainingConfig, share: RankShare = ALONE
    ) -> None:
        self._media, self._seen, self._share = list(media), seen, share
        self._parts = config.micro_batches
        sizes = {Task.SINGLE: len(self._media)}
        self._order = Shuffled(sizes, {Task.SINGLE: 1.0}, config.seed, config.batch_examples)

    def step(self, number: int) -> list[TileBatch]:
        """This process's micro-batches of a step."""
        turns = [(self._media[turn.number], turn.visits[0]) for turn in self._order.step(number)]
        parts = cut(turns, self._parts, self._share.ranks)
        return [self._batch(part) for part in parts[self._share.rank :: self._share.ranks]]

    def _batch(self, turns: Sequence[tuple[str, int]]) -> TileBatch:
        names, visits = [name for name, _ in turns], [visit for _, visit in turns]
        seen = self._seen
        shown = [] if seen is None else [seen.read(name, visit) for name, visit in turns]
        return TileBatch(names, visits, Stacked.of(shown))


def said_of(texts: Mapping[str, Sequence[str]], batch: TileBatch) -> list[str]:
    """The text of each medium of a batch: a medium's texts take turns."""
    turns = zip(batch.example_ids, batch.visits, strict=True)
    return [texts[name][visit % len(texts[name])] for name, visit in turns]


def scores_of(scores: Mapping[str, float], media: Sequence[str]) -> NDArray[np.float64]:
    """Scores ``[N]`` of media."""
    return np.array([scores[name] for name in media], dtype=np.float64)
