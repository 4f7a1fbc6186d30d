"""Thumbnails of pool media as data URIs."""

import base64
import io
from typing import Any

from PIL import Image

from tasks.media import Clip, Pixels
from tasks.pool import decoded
from tasks.stage import Place

_CLIP_FRAMES = 3


class Thumbnails:
    """Makes thumbnails of one size; a medium that is shown twice is decoded once."""

    def __init__(self, place: Place, side: int, quality: int) -> None:
        self._place, self._side, self._quality = place, side, quality
        self._made: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._made)

    def of(self, row: Any) -> str:
        """``data:`` URI of a JPEG whose longer side is at most the thumbnails' side; of a clip its middle frame.

        Raises:
            MediaError: the medium's bytes are not what the table says.
        """
        if row["id"] not in self._made:
            medium = decoded(self._place, row, _CLIP_FRAMES)
            pixels = medium.frames_THWC[len(medium.frames_THWC) // 2] if isinstance(medium, Clip) else medium
            self._made[row["id"]] = self._encode(pixels)
        return self._made[row["id"]]

    def _encode(self, pixels_HWC: Pixels) -> str:
        image = Image.fromarray(pixels_HWC)
        image.thumbnail((self._side, self._side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self._quality)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
