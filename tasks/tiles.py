"""Media as a student without a language model sees them: uint8 tiles, kept in memory-mapped files of a work folder.

Frames of a clip are those that ``vital score`` shows a scorer of frames.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from models.rali.views import TileView
from models.scorers.protocol import Pixels, middle_frames
from tasks.errors import MediaError
from tasks.media import ADMITTED, decode_image, decode_video
from tasks.prepared import Opened, Preparation, Reader, check_rejects, fill_parts, open_part
from tasks.records import REJECTS, Modality
from tasks.shards import digest, frame_of

_TOGETHER: Final = 64
"""Media of a file."""


def frames_of(data: bytes, modality: str, frames: int) -> Pixels:
    """Frames ``[T, H, W, 3]`` of an encoded medium; one of an image.

    Raises:
        MediaError: the bytes do not decode.
    """
    if modality != Modality.VIDEO:
        return decode_image(data, ADMITTED)[None]
    return decode_video(data, lambda total: middle_frames(total, frames), ADMITTED).frames_THWC


@dataclass(frozen=True)
class TileViews:
    """Which versions of each medium are kept.

    Attributes:
        view: how frames become tiles. frames: of a video.
        count: the first version is that of scoring; the others are drawn.
        seed: of the drawn ones, mixed with the medium's id.
    """

    view: TileView
    frames: int
    count: int
    seed: int


@dataclass(frozen=True)
class _Source:
    """Decodes a medium and cuts its tiles."""

    read: Reader
    views: TileViews
    preparation: Preparation

    def open(self, row: Any) -> Opened[Pixels]:
        """Tiles ``[M, S, S, 3]`` of every version."""
        try:
            frames = frames_of(self.read(row), row.modality, self.views.frames)
        except MediaError as error:
            return row.id, {"stage": self.preparation.stage, "id": row.id, "reason": error.reason, "detail": str(error)}
        versions = []
        for number in range(self.views.count):
            entropy = [self.views.seed, number, int(digest(row.id)[:12], 16)]
            versions.append(self.views.view.of(frames, np.random.default_rng(entropy) if number else None))
        return row.id, versions

    def part_name(self, ids: Sequence[str]) -> str:
        """Of the media, and of how they are seen."""
        return digest(dataclasses.asdict(self.views), list(ids))


class Tiles:
    """Tiles by medium; see :func:`prepare_tiles`.

    Attributes:
        versions: of each medium. rejects: REJECTS rows of the media that do not decode.
    """

    def __init__(self, paths: list[Path], versions: int) -> None:
        self.versions = versions
        self._file_of: dict[str, Any] = {}
        rejects: list[dict[str, str]] = []
        for path in paths:
            file, ids, lost = open_part(path)
            self._file_of.update(dict.fromkeys(ids, file))
            rejects += lost
        self.rejects = frame_of(REJECTS, rejects)

    @property
    def ids(self) -> list[str]:
        """Media that decoded, sorted."""
        return sorted(self._file_of)

    def read(self, medium: str, visit: int = 0) -> Tensor:
        """Tiles ``[M, S, S, 3]`` as they are shown for the ``visit``-th time: versions take turns."""
        return self._file_of[medium].get_tensor(f"{medium}/{visit % self.versions}")


def prepare_tiles(
    folder: Path, candidates: pd.DataFrame, read: Reader, views: TileViews, preparation: Preparation
) -> Tiles:
    """Decode media once and keep their tiles below ``folder``; finished files are kept.

    All processes of a group call it, and share the work.

    Raises:
        StageError: more media are broken than ``preparation`` allows.
    """

    def made_of(groups: Iterator[Mapping[str, list[Pixels]]]) -> dict[str, Tensor]:
        return {
            f"{name}/{number}": torch.from_numpy(np.ascontiguousarray(tiles))
            for media in groups
            for name, versions in media.items()
            for number, tiles in enumerate(versions)
        }

    tiles = Tiles(fill_parts(folder, candidates, _Source(read, views, preparation), made_of, _TOGETHER), views.count)
    check_rejects(tiles.rejects, len(candidates), preparation)
    return tiles
