"""One vector per medium, for sets of media whose features no memory holds: rows of files that are read where they lie.

Each file holds the vectors of some thousand media under every encoder; it appears whole or not at all, and what is read
of it is mapped into memory, a row at a time. Pixels are held of a few dozen media at a time, opened files are few.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.quality_lmm import VisualFeatures
from tasks.prepared import (
    FrozenEncoder,
    Looks,
    Preparation,
    Preparer,
    Reader,
    Views,
    check_rejects,
    encoded,
    encoders_on,
    fill_parts,
    open_part,
    spec_of,
)
from tasks.records import REJECTS
from tasks.shards import frame_of

Kept = Literal["float32", "float16"]
"""How a number is kept in a file; what is read is float32."""

_MEDIA: Final = 1024
"""Media of a file: what a kill costs at most, and at the paper's size 51 MB for each encoder."""
_OPEN: Final = 256
"""Files that are open at a time: a process may map some 65,000."""


class PoolingEncoder(FrozenEncoder, Protocol):
    """An encoder whose features of a medium are one vector."""

    def gathered(self, features: Sequence[VisualFeatures]) -> Tensor:
        """Vectors ``[N, F]`` of what ``visual_features`` gave."""
        ...


class FeatureRows:
    """What one encoder says about media, by their number.

    Attributes:
        ids: media that decoded, sorted; a medium's number is its place among them.
        rejects: REJECTS rows of the others.
    """

    def __init__(self, paths: Sequence[Path], encoder: str) -> None:
        self._paths, self._encoder = paths, encoder
        self.ids: list[str] = []
        rejects: list[dict[str, str]] = []
        starts = [0]
        for path in paths:
            _, ids, lost = open_part(path)
            self.ids += ids
            rejects += lost
            starts.append(len(self.ids))
        self.rejects = frame_of(REJECTS, rejects)
        self._starts = np.array(starts)
        self._file = lru_cache(maxsize=_OPEN)(self._opened)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, numbers: Sequence[int]) -> Tensor:
        """Vectors ``[N, F]`` of some media, float32."""
        files = np.searchsorted(self._starts, numbers, side="right") - 1
        places = [(int(file), int(number - self._starts[file])) for file, number in zip(files, numbers, strict=True)]
        return torch.cat([self._file(file)[place : place + 1] for file, place in places]).float()

    def parts(self) -> Iterator[NDArray[np.float32]]:
        """All vectors in order, ``[n, F]`` of a file at a time."""
        for number, (start, end) in enumerate(zip(self._starts, self._starts[1:], strict=False)):
            if start < end:
                yield self._opened(number)[:].float().numpy()

    def _opened(self, number: int) -> Any:
        file, _, _ = open_part(self._paths[number])
        return file.get_slice(self._encoder)


def encode_rows(
    folder: Path,
    candidates: pd.DataFrame,
    read: Reader,
    encoders: Mapping[str, PoolingEncoder],
    preparation: Preparation,
    kept: Kept,
) -> dict[str, FeatureRows]:
    """Decode the media of ``candidates`` once and keep every encoder's vector of each; finished files are kept.

    All processes of a group call it, and share the work.

    Raises:
        StageError: more media are broken than ``max_reject_share`` allows, or the encoders look at media differently.
    """

    @torch.no_grad()
    def made_of(groups: Iterator[Looks]) -> dict[str, Tensor]:
        vectors: dict[str, list[Tensor]] = {encoder: [] for encoder in encoders}
        for media in filter(None, groups):
            for encoder, model in encoders.items():
                features = [VisualFeatures(*item) for _, item in encoded(media, model)]
                vectors[encoder].append(model.gathered(features).to(getattr(torch, kept)))
        return {encoder: torch.cat(found) for encoder, found in vectors.items() if found}

    source = Preparer(read, Views(spec_of(encoders), 1, 0), preparation, ("rows", kept, *encoders))
    with encoders_on(preparation.device, encoders.values()):
        paths = fill_parts(folder, candidates, source, made_of, _MEDIA)
    found = {encoder: FeatureRows(paths, encoder) for encoder in encoders}
    for rows in found.values():
        check_rejects(rows.rejects, len(candidates), preparation)
    return found
