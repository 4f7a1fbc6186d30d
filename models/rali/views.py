"""What the student looks at: tiles of a frame, in NumPy and Pillow alone, the same in training and in scoring.

``fragments`` is for small tiles, as the tiny family looks (``models/vision_encoder.py``): a thumbnail, and mosaics of
unresized fragments, one from every cell of a grid, which keep noise, blur and compression. ``clip`` is CLIP's own: the
shorter side to the tile's, and a square from the middle.

Shape legend: ``T`` frames, ``M`` tiles of a medium, ``H`` and ``W`` pixels, ``S`` side of a tile; pixels are uint8 RGB.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import ModelError
from models.scorers.protocol import Pixels, check_frames

ViewKind = Literal["fragments", "clip"]


@dataclass(frozen=True)
class TileView:
    """How frames become tiles; stored with the student.

    Attributes:
        side: of a tile, in pixels.
        fragment: side of a fragment, which divides ``side`` (``fragments`` only).
        native: mosaics of a frame beside its thumbnail (``fragments`` only).
    """

    kind: ViewKind
    side: int
    fragment: int = 0
    native: int = 0

    def __post_init__(self) -> None:
        """Check that the numbers fit each other.

        Raises:
            ModelError: they do not.
        """
        if self.kind == "fragments" and (self.fragment < 1 or self.side % self.fragment or self.native < 0):
            msg = f"a view of fragments needs a fragment ({self.fragment}) that divides the side ({self.side})"
            raise ModelError(msg)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TileView":
        """Rebuild a stored view.

        Raises:
            ModelError: it was not stored by this version of the project.
        """
        try:
            return cls(**values)
        except TypeError as error:
            msg = f"this student's view does not fit this version of the project: {error}"
            raise ModelError(msg) from error

    @property
    def tiles(self) -> int:
        """Tiles of one frame."""
        return 1 + self.native if self.kind == "fragments" else 1

    def of(self, frames_THWC: Pixels, rng: np.random.Generator | None = None) -> Pixels:
        """Tiles ``[M, S, S, 3]`` of a medium's frames, frame by frame.

        Args:
            rng: draws the fragments' places, the same in all frames, and a mirror image (training); without it places
                are fixed (scoring).

        Raises:
            ModelError: the frames are not uint8 ``[T, H, W, 3]``.
        """
        check_frames(frames_THWC)
        if rng is not None and rng.random() < 0.5:
            frames_THWC = frames_THWC[:, :, ::-1]
        if self.kind == "clip":
            return np.stack([_middle(frame, self.side) for frame in frames_THWC])
        cells = self.side // self.fragment
        shares = [
            np.full((2, cells, cells), (number + 0.5) / self.native) if rng is None else rng.random((2, cells, cells))
            for number in range(self.native)
        ]
        return np.concatenate([self._fragments(frame, shares) for frame in frames_THWC])

    def _fragments(self, frame_HWC: Pixels, shares: list[NDArray[np.float64]]) -> Pixels:
        thumbnail = _resized(frame_HWC, self.side, self.side)
        least = min(frame_HWC.shape[:2])
        if least < self.fragment:
            height, width = (max(self.fragment, round(side * self.fragment / least)) for side in frame_HWC.shape[:2])
            frame_HWC = _resized(frame_HWC, height, width)
        return np.stack([thumbnail, *(_mosaic(frame_HWC, self.fragment, share) for share in shares)])


def _mosaic(frame_HWC: Pixels, size: int, shares_2RC: NDArray[np.float64]) -> Pixels:
    """One fragment of every cell, at its share of the room that the cell leaves."""
    cells = shares_2RC.shape[1]
    tops = _starts(frame_HWC.shape[0], size, shares_2RC[0])
    lefts = _starts(frame_HWC.shape[1], size, shares_2RC[1].T).T
    tile = np.empty((size * cells, size * cells, 3), dtype=np.uint8)
    for row in range(cells):
        for column in range(cells):
            top, left = int(tops[row, column]), int(lefts[row, column])
            patch = frame_HWC[top : top + size, left : left + size]
            tile[row * size : (row + 1) * size, column * size : (column + 1) * size] = patch
    return tile


def _starts(length: int, size: int, shares_RC: NDArray[np.float64]) -> NDArray[np.int64]:
    edges = np.linspace(0, length, len(shares_RC) + 1)
    room = np.maximum(edges[1:] - edges[:-1] - size, 0)[:, None]
    return np.clip(np.floor(edges[:-1, None] + room * shares_RC), 0, length - size).astype(np.int64)


def _middle(frame_HWC: Pixels, side: int) -> Pixels:
    """CLIP's view: the shorter side resized to ``side``, the middle cut out."""
    height, width = frame_HWC.shape[:2]
    least = min(height, width)
    height, width = int(height * side / least), int(width * side / least)
    frame = _resized(frame_HWC, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frame[top : top + side, left : left + side]


def _resized(frame_HWC: Pixels, height: int, width: int) -> Pixels:
    """Bicubic, with antialiasing."""
    image = Image.fromarray(np.ascontiguousarray(frame_HWC))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
