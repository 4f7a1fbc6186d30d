"""What each built-in scorer looks at: fixed crops and sizes of the picture at the size at which a screen shows it.

Frames come as ``models/scorers/screen.py`` gives them, with no side below ``LEAST``.

Pure NumPy and Pillow on uint8, shared by the torch and the ONNX backend, so that both see the same bytes. A view is a
tuple of arrays whose first axis counts what is scored: frames, or clips.

Shape legend: N scored items, T frames, K crops, H height, W width, C colours.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image

from models.scorers.protocol import CLIP_FRAMES, Pixels

View = tuple[Pixels, ...]
ViewFunction = Callable[[Pixels], View]

_FRAGMENT: Final = 32
_GRID: Final = 6
_TECHNICAL: Final = 128
_PATCH: Final = 96
_GLANCE: Final = 128
_CROP: Final = 160
_MULTIPLE: Final = 32


def fragments(frames_THWC: Pixels) -> View:
    """Clips of spliced fragments, ``[N, T, 192, 192, 3]``: a 6 x 6 grid of 32-pixel patches.

    The patches lie at the same places in every frame, so motion inside them survives (FAST-VQA, 2022). A still image
    becomes a static clip of two frames. Longer inputs are cut into runs of eight frames.
    """
    frames = frames_THWC if len(frames_THWC) > 1 else np.repeat(frames_THWC, 2, axis=0)
    side = _FRAGMENT * _GRID
    rows = [_cell_starts(extent, _FRAGMENT, _GRID) for extent in frames.shape[1:3]]
    index = [(np.array(starts)[:, None] + np.arange(_FRAGMENT)).reshape(-1) for starts in rows]
    spliced = frames[:, index[0][:, None], index[1][None, :]]
    count = max(1, len(spliced) // CLIP_FRAMES)
    length = min(CLIP_FRAMES, len(spliced))
    return (np.ascontiguousarray(spliced[: count * length]).reshape(count, length, side, side, 3),)


def two_branch(frames_THWC: Pixels) -> View:
    """Six crops ``[N, 6, 128, 128, 3]`` for technical quality, and the whole at a glance ``[N, 128, 128, 3]``."""
    crops = np.stack([_crops(frame, _TECHNICAL, (2, 3)) for frame in frames_THWC])
    return crops, np.stack([_glance(frame) for frame in frames_THWC])


def whole(frames_THWC: Pixels) -> View:
    """The whole picture, sides cut to multiples of 32: ``[N, H, W, 3]``."""
    height, width = (extent // _MULTIPLE * _MULTIPLE for extent in frames_THWC.shape[1:3])
    return (np.ascontiguousarray(frames_THWC[:, :height, :width]),)


def multi_task(frames_THWC: Pixels) -> View:
    """Nine patches in a 3 x 3 grid, ``[N, 9, 96, 96, 3]``."""
    return (np.stack([_crops(frame, _PATCH, (3, 3)) for frame in frames_THWC]),)


def ranking(frames_THWC: Pixels) -> View:
    """Six crops in a 2 x 3 grid, ``[N, 6, 160, 160, 3]``."""
    return (np.stack([_crops(frame, _CROP, (2, 3)) for frame in frames_THWC]),)


def _glance(frame_HWC: Pixels) -> Pixels:
    """The picture squeezed to a small square."""
    size = (_GLANCE, _GLANCE)
    return np.asarray(Image.fromarray(frame_HWC).resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0))


def _crops(frame_HWC: Pixels, side: int, grid: tuple[int, int]) -> Pixels:
    """``[K, side, side, 3]``: crops centred in the cells of a grid."""
    height, width = frame_HWC.shape[:2]
    tops, lefts = (_cell_starts(extent, side, cells) for extent, cells in zip((height, width), grid, strict=True))
    return np.stack([frame_HWC[y : y + side, x : x + side] for y in tops for x in lefts])


def _cell_starts(extent: int, side: int, cells: int) -> list[int]:
    """First pixels of ``cells`` windows centred in equal cells, moved inwards where they would leave the picture."""
    return [min(max(round((cell + 0.5) * extent / cells - side / 2), 0), extent - side) for cell in range(cells)]
