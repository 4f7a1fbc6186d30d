"""Thumbnails of media as data URIs."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tasks.errors import MediaError
from tasks.media import Clip, Pixels, decode_image, decode_video, is_video, read_file
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
        return picture(pixels_HWC, self._side, self._quality).uri


@dataclass(frozen=True)
class Picture:
    """A thumbnail as a ``data:`` URI, with its sides in pixels."""

    uri: str
    width: int
    height: int


def picture(pixels_HWC: Pixels, side: int, quality: int) -> Picture:
    """A JPEG whose longer side is at most ``side``."""
    image = Image.fromarray(pixels_HWC)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(uri, *image.size)


def pictures_of(names: Iterable[str], side: int, quality: int) -> dict[str, Picture]:
    """Thumbnails of media by their names as files, of a clip its middle frame; those that are gone have none."""
    made: dict[str, Picture] = {}
    for name in dict.fromkeys(names):
        try:
            data = read_file(Path(name))
            clip = decode_video(data, _CLIP_FRAMES) if is_video(data) else None
            pixels = decode_image(data) if clip is None else clip.frames_THWC[len(clip.frames_THWC) // 2]
        except MediaError:
            continue
        made[name] = picture(pixels, side, quality)
    return made
