"""What FAST-VQA and DOVER look at: which frames, spliced fragments of them, or the whole frame resized.

The facts are those of the official repositories; what they draw at random is fixed here: runs lie in the middle of
the range that is drawn from, offsets of fragments come from a generator seeded by the medium's content.

Shape legend: T frames, H height, W width, G cells of the grid in a direction, N clips, C colours.
"""

from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.errors import ModelError
from models.scorers.protocol import Pixels, Strip

FRAGMENT: Final = 32
"""Side of a fragment in pixels."""
_MEAN: Final = (123.675, 116.28, 103.53)
_STD: Final = (58.395, 57.12, 57.375)
"""ImageNet's statistics of RGB in [0, 255]."""
_SMALLEST: Final = 16
_MOST_ELONGATED: Final = 16.0
"""A frame that must be enlarged may be this many times longer than wide: enlarging costs the square of it."""

Offsets = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Runs:
    """Runs of frames spread over a video.

    Attributes:
        runs: how many, in as many equal parts.
        length: frames in a run.
        interval: step from one of its frames to the next.
    """

    runs: int
    length: int
    interval: int

    def indices(self, total: int) -> list[tuple[int, ...]]:
        """Frames of each run in a video of ``total`` frames; a run that passes the end goes on from the beginning."""
        part = total // self.runs
        start = max(part - self.length * self.interval - 1, 0) // 2
        steps = range(0, self.length * self.interval, self.interval)
        return [tuple((run * part + start + step) % total for step in steps) for run in range(self.runs)]


@dataclass(frozen=True)
class FragmentClips:
    """Clips of spliced fragments.

    Attributes:
        clips: of a video.
        cells: of the grid, in a direction.
        aligned: frames of a clip that share the offsets of their fragments.
    """

    clips: Runs
    cells: int
    aligned: int

    def strips(self, total: int) -> tuple[Strip, ...]:
        """Strips of a medium of ``total`` frames; a single frame is one static clip."""
        runs = self.clips.indices(total) if total > 1 else [(0,) * self.clips.length]
        pieces = [run[start : start + self.aligned] for run in runs for start in range(0, len(run), self.aligned)]
        return tuple(Strip(piece, partial(self._cut, number)) for number, piece in enumerate(pieces))

    def _cut(self, number: int, frame_HWC: Pixels, seed: int) -> Pixels:
        enlarged_HWC = enlarge(frame_HWC, self.cells * FRAGMENT)
        height, width = enlarged_HWC.shape[:2]
        return fragments(enlarged_HWC, self.cells, draw_offsets(height, width, self.cells, seed=seed + number))


def draw_offsets(height: int, width: int, cells: int, seed: int) -> Offsets:
    """Rows and columns ``[G, G]`` by which fragments lie inside their cells; 0 where a cell has no room."""
    generator = np.random.default_rng(seed)
    rows, columns = (
        generator.integers(0, max(extent // cells - FRAGMENT, 1), (cells, cells)) for extent in (height, width)
    )
    return rows, columns


def fragments(frame_HWC: Pixels, cells: int, offsets: Offsets) -> Pixels:
    """Splice a fragment of every cell of a grid, native pixels, ``[32 G, 32 G, 3]`` (FAST-VQA, section 3.1).

    Raises:
        ModelError: a side is shorter than the spliced picture.
    """
    height, width = frame_HWC.shape[:2]
    side = cells * FRAGMENT
    if min(height, width) < side:
        msg = f"a frame of {width}x{height} has no room for {cells} x {cells} fragments of {FRAGMENT} pixels"
        raise ModelError(msg)
    spliced = np.empty((side, side, 3), np.uint8)
    for row, column in np.ndindex(cells, cells):
        top = row * (height // cells) + offsets[0][row, column]
        left = column * (width // cells) + offsets[1][row, column]
        y, x = row * FRAGMENT, column * FRAGMENT
        spliced[y : y + FRAGMENT, x : x + FRAGMENT] = frame_HWC[top : top + FRAGMENT, left : left + FRAGMENT]
    return spliced


def enlarge(frame_HWC: Pixels, side: int) -> Pixels:
    """Bring the shorter side to ``side`` where it is shorter, bilinearly; values are cut to integers, not rounded.

    Raises:
        ModelError: a shorter side below 16 pixels, or a narrow strip that would grow beyond bounds.
    """
    height, width = frame_HWC.shape[:2]
    shorter, longer = min(height, width), max(height, width)
    if shorter < _SMALLEST:
        msg = f"a frame of {width}x{height} is too small: the shorter side must be at least {_SMALLEST} pixels"
        raise ModelError(msg)
    if shorter >= side:
        return frame_HWC
    if longer > _MOST_ELONGATED * shorter:
        msg = (
            f"a frame of {width}x{height} is too elongated: at most {_MOST_ELONGATED:g} to 1 where it must be enlarged"
        )
        raise ModelError(msg)
    scale = 1 / (shorter / side)
    scale = scale if int(shorter * scale) >= side else float(np.nextafter(scale, np.inf))
    unit_C1HW = torch.from_numpy(np.ascontiguousarray(frame_HWC.transpose(2, 0, 1)))[:, None] / 255.0
    enlarged_C1HW = functional.interpolate(unit_C1HW, scale_factor=scale, mode="bilinear")
    return (enlarged_C1HW * 255.0).to(torch.uint8)[:, 0].permute(1, 2, 0).numpy()


def squeeze(frame_HWC: Pixels, side: int) -> Pixels:
    """Resize a frame to a square of ``side`` pixels, bilinearly and without antialiasing.

    torchvision resized tensors like this when DOVER was trained; since 0.17 it smooths unless told otherwise.
    """
    float_C1HW = torch.from_numpy(np.ascontiguousarray(frame_HWC.transpose(2, 0, 1)))[:, None].float()
    squeezed_C1HW = functional.interpolate(float_C1HW, size=(side, side), mode="bilinear")
    return squeezed_C1HW.round().to(torch.uint8)[:, 0].permute(1, 2, 0).numpy()


def normalised(frames_THWC: Pixels, length: int, device: str = "cpu") -> Tensor:
    """Clips ``[N, C, length, H, W]`` of frames, by ImageNet's mean and standard deviation; pixels travel as bytes."""
    mean, std = torch.tensor(_MEAN, device=device), torch.tensor(_STD, device=device)
    values_THWC = (torch.from_numpy(np.ascontiguousarray(frames_THWC)).to(device) - mean) / std
    return values_THWC.unflatten(0, (-1, length)).permute(0, 4, 1, 2, 3)
