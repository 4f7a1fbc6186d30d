"""What each built-in scorer looks at: fixed crops and sizes at inference, drawn ones in training.

Pure NumPy and Pillow on uint8, shared by the torch and the ONNX backend, so that both see the same bytes. A view is a
tuple of arrays whose first axis counts what is scored: frames, or clips. In training a generator draws the crops.

Shape legend: N scored items, T frames, K crops, H height, W width, C colours.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image

from models.scorers.protocol import CLIP_FRAMES, Pixels

Draw = np.random.Generator | None
"""Where crops are drawn from in training; None means the fixed crops of inference."""
View = tuple[Pixels, ...]
ViewFunction = Callable[[Pixels, Draw], View]

SHORTEST: Final = 384
"""Pictures whose shorter side is below this are enlarged to it, as a viewer would; training samples have this side."""
LONGEST: Final = 1536
"""Pictures whose longer side is above this are reduced to it, about what a screen shows."""

_FRAGMENT: Final = 32
_GRID: Final = 6
_TECHNICAL: Final = 128
_PATCH: Final = 96
_GLANCE: Final = 128
_SPECTRUM: Final = 256
_SPECTRUM_LONGEST: Final = 1024
_SPECTRUM_MULTIPLE: Final = 32
_PYRAMID: Final = 256
_HALF: Final = 128


def fragments(frames_THWC: Pixels, draw: Draw = None) -> View:
    """Clips of spliced fragments, ``[N, T, 192, 192, 3]``: a 6 x 6 grid of 32-pixel patches at native resolution.

    The patches lie at the same places in every frame, so motion inside them survives (FAST-VQA, 2022). A still image
    becomes a static clip of two frames. Longer inputs are cut into runs of eight frames.
    """
    frames = frames_THWC if len(frames_THWC) > 1 else np.repeat(frames_THWC, 2, axis=0)
    side = _FRAGMENT * _GRID
    if min(frames.shape[1:3]) < SHORTEST:
        frames = np.stack([_enlarged(frame, SHORTEST) for frame in frames])
    rows = [_fragment_starts(extent, draw) for extent in frames.shape[1:3]]
    index = [(starts[:, None] + np.arange(_FRAGMENT)).reshape(-1) for starts in rows]
    spliced = frames[:, index[0][:, None], index[1][None, :]]
    if draw is not None and draw.random() < 0.5:
        spliced = spliced[:, :, ::-1]
    count = max(1, len(spliced) // CLIP_FRAMES)
    length = min(CLIP_FRAMES, len(spliced))
    return (np.ascontiguousarray(spliced[: count * length]).reshape(count, length, side, side, 3),)


def two_branch(frames_THWC: Pixels, draw: Draw = None) -> View:
    """Native crops ``[N, K, 128, 128, 3]`` for technical quality, and the whole at a glance ``[N, 128, 128, 3]``."""
    frames = [fit(frame) for frame in frames_THWC]
    crops = np.stack([_crops(frame, _TECHNICAL, (2, 3), 2, draw) for frame in frames])
    return crops, np.stack([_whole(frame, _GLANCE, draw) for frame in frames])


def level_probs(frames_THWC: Pixels, draw: Draw = None) -> View:
    """The picture at native resolution up to 1024 pixels, sides cut to multiples of 32: ``[N, H, W, 3]``."""
    if draw is not None:
        frame = fit(frames_THWC[0])
        top, left = (int(draw.integers(0, extent - _SPECTRUM + 1)) for extent in frame.shape[:2])
        if draw.random() < 0.6:  # codec blocks of most pictures start at the corner
            top, left = top // 8 * 8, left // 8 * 8
        crop = frame[top : top + _SPECTRUM, left : left + _SPECTRUM]
        return (_mirrored(crop, draw)[None],)
    frames = [fit(frame, longest=_SPECTRUM_LONGEST) for frame in frames_THWC]
    height, width = (extent // _SPECTRUM_MULTIPLE * _SPECTRUM_MULTIPLE for extent in frames[0].shape[:2])
    return (np.stack([np.ascontiguousarray(frame[:height, :width]) for frame in frames]),)


def multiscale_attention(frames_THWC: Pixels, draw: Draw = None) -> View:
    """The whole picture squeezed to ``[N, 256, 256, 3]``: what is visible when it is seen entire."""
    return (np.stack([_whole(frame, _PYRAMID, draw) for frame in frames_THWC]),)


def multi_task(frames_THWC: Pixels, draw: Draw = None) -> View:
    """Nine native patches in a 3 x 3 grid, ``[N, K, 96, 96, 3]`` (four drawn ones in training)."""
    return (np.stack([_crops(fit(frame), _PATCH, (3, 3), 4, draw) for frame in frames_THWC]),)


def ranking(frames_THWC: Pixels, draw: Draw = None) -> View:
    """Crops of the picture at half size, ``[N, K, 128, 128, 3]`` in a 2 x 3 grid (two drawn ones in training)."""
    halves = [_halved(fit(frame)) for frame in frames_THWC]
    return (np.stack([_crops(half, _HALF, (2, 3), 2, draw) for half in halves]),)


def fit(frame_HWC: Pixels, *, shortest: int = SHORTEST, longest: int = LONGEST) -> Pixels:
    """Bring a picture to viewing size, keeping its shape: not below ``shortest``, and then not above ``longest``."""
    height, width = frame_HWC.shape[:2]
    if min(height, width) < shortest:
        frame_HWC = _enlarged(frame_HWC, shortest)
        height, width = frame_HWC.shape[:2]
    if max(height, width) <= longest:
        return frame_HWC
    scale = longest / max(height, width)
    size = (max(shortest, round(width * scale)), max(shortest, round(height * scale)))
    return np.asarray(Image.fromarray(frame_HWC).resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0))


def _enlarged(frame_HWC: Pixels, shortest: int) -> Pixels:
    height, width = frame_HWC.shape[:2]
    scale = shortest / min(height, width)
    size = (max(shortest, round(width * scale)), max(shortest, round(height * scale)))
    return np.asarray(Image.fromarray(frame_HWC).resize(size, Image.Resampling.BICUBIC))


def _halved(frame_HWC: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(frame_HWC).reduce(2))


def _whole(frame_HWC: Pixels, side: int, draw: Draw) -> Pixels:
    """The picture squeezed to a square; in training a drawn window of at least three quarters of it, maybe mirrored."""
    height, width = frame_HWC.shape[:2]
    box = (0.0, 0.0, float(width), float(height))
    if draw is not None:
        share = draw.uniform(0.75, 1.0, size=2) * (width, height)
        left, top = draw.uniform(0, 1, size=2) * ((width, height) - share)
        box = (float(left), float(top), float(left + share[0]), float(top + share[1]))
    image = Image.fromarray(frame_HWC).resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    return _mirrored(np.asarray(image), draw)


def _crops(frame_HWC: Pixels, side: int, grid: tuple[int, int], drawn: int, draw: Draw) -> Pixels:
    """``[K, side, side, 3]``: crops centred in the cells of a grid, or ``drawn`` random ones."""
    height, width = frame_HWC.shape[:2]
    if draw is not None:
        places = [
            (int(draw.integers(0, height - side + 1)), int(draw.integers(0, width - side + 1))) for _ in range(drawn)
        ]
        return np.stack([_mirrored(frame_HWC[y : y + side, x : x + side], draw) for y, x in places])
    tops, lefts = (_cell_starts(extent, side, cells) for extent, cells in zip((height, width), grid, strict=True))
    return np.stack([frame_HWC[y : y + side, x : x + side] for y in tops for x in lefts])


def _cell_starts(extent: int, side: int, cells: int) -> list[int]:
    """First pixels of ``cells`` windows centred in equal cells, moved inwards where they would leave the picture."""
    return [min(max(round((cell + 0.5) * extent / cells - side / 2), 0), extent - side) for cell in range(cells)]


def _fragment_starts(extent: int, draw: Draw) -> np.ndarray:
    """First pixel of the fragment in each cell of the grid: the cell's middle, or drawn within the cell."""
    edges = np.arange(_GRID) * extent / _GRID
    room = extent / _GRID - _FRAGMENT
    offset = 0.5 if draw is None else draw.random(_GRID)
    return np.floor(edges + room * offset).astype(int)


def _mirrored(pixels_HWC: Pixels, draw: Draw) -> Pixels:
    return pixels_HWC[:, ::-1] if draw is not None and draw.random() < 0.5 else pixels_HWC
