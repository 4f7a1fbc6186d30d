"""The size at which a picture is judged: that of a screen, as a viewer would see it.

Shape legend: T frames, H height, W width, C colours.
"""

from typing import Final

import numpy as np
from PIL import Image

from models.scorers.protocol import Pixels

SHORTEST: Final = 720
"""Rows of the screen: a picture whose shorter side is below this is enlarged to it, as far as LONGEST allows."""
LONGEST: Final = 1280
"""Columns of the screen: a picture whose longer side is above this is reduced to it."""
LEAST: Final = 192
"""No side is smaller than this; only pictures longer than wide by more than six are squeezed for it."""


def size_on_screen(height: int, width: int) -> tuple[int, int]:
    """Height and width at which a picture is judged: its shape kept, between SHORTEST rows and LONGEST columns."""
    scale = min(max(1.0, SHORTEST / min(height, width)), LONGEST / max(height, width))
    return max(LEAST, round(height * scale)), max(LEAST, round(width * scale))


def on_screen(frames_THWC: Pixels) -> Pixels:
    """Bring frames ``[T, H, W, 3]`` to the size at which they are judged; those that have it come back as they are."""
    height, width = size_on_screen(frames_THWC.shape[1], frames_THWC.shape[2])
    if (height, width) == frames_THWC.shape[1:3]:
        return frames_THWC
    size = (width, height)
    images = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0) for frame in frames_THWC]
    return np.stack([np.asarray(image) for image in images])
