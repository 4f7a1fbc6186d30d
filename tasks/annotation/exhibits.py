"""The pictures that are sent to an endpoint: a whole image, or frames of a clip, as data URLs of bounded size."""

import base64
import io
import threading
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

from models.signals.evidence import Medium, Pixels

_LEAST_SIDE = 32


@dataclass(frozen=True)
class Pictures:
    """How much of a medium is shown.

    Attributes:
        max_side: longer side, pixels; larger pictures are reduced by averaging.
        frames: of a clip, evenly spread over the frames that are looked at.
        max_bytes: of one encoded picture: PNG if it fits, else JPEG at quality 95 without colour subsampling, else less
            of a side.
    """

    max_side: int = 1024
    frames: int = 8
    max_bytes: int = 1_500_000

    def __post_init__(self) -> None:
        if self.max_side < _LEAST_SIDE or self.frames < 1 or self.max_bytes < 4096:
            raise ValueError("pictures need max_side >= 32, frames >= 1 and max_bytes >= 4096")

    @property
    def version(self) -> str:
        """Part of the prompts' versions: what is shown changes answers."""
        return f"{self.max_side}x{self.frames}x{self.max_bytes}"

    def count(self, frames: int) -> int:
        """How many pictures of a medium with so many frames are sent."""
        return min(max(frames, 1), self.frames)


class Exhibits:
    """Pictures of media, encoded once however often they are shown; for any number of threads."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures, self._lock = pictures, threading.Lock()
        self._kept: WeakKeyDictionary[Medium, tuple[str, ...]] = WeakKeyDictionary()

    def of(self, medium: Medium) -> tuple[str, ...]:
        """Data URLs of a medium's pictures, in order."""
        with self._lock:
            kept = self._kept.get(medium)
        if kept is None:
            kept = tuple(data_url(frame, self._pictures) for frame in shown_frames(medium, self._pictures.frames))
            with self._lock:
                self._kept[medium] = kept
        return kept


def shown_frames(medium: Medium, frames: int) -> list[Pixels]:
    """An image, or frames of a clip at the centres of equal spans, ``[H, W, 3]`` each."""
    total = len(medium.frames_THWC)
    count = min(total, frames)
    return [medium.frames_THWC[(2 * number + 1) * total // (2 * count)] for number in range(count)]


def data_url(picture_HWC: Pixels, pictures: Pictures) -> str:
    """One picture as a data URL within the limits of side and bytes."""
    picture = Image.fromarray(np.ascontiguousarray(picture_HWC))
    side = min(pictures.max_side, max(picture.size))
    while True:
        shown = _reduced(picture, side)
        for kind, options in (("png", {}), ("jpeg", {"quality": 95, "subsampling": 0})):
            sink = io.BytesIO()
            shown.save(sink, kind, **options)
            if sink.tell() <= pictures.max_bytes or (kind == "jpeg" and side <= _LEAST_SIDE):
                return f"data:image/{kind};base64,{base64.b64encode(sink.getvalue()).decode()}"
        side = max(side * 3 // 4, _LEAST_SIDE)


def reduced_frame(picture_HWC: Pixels, side: int) -> Pixels:
    """A picture whose longer side is at most ``side`` pixels."""
    if max(picture_HWC.shape[:2]) <= side:
        return picture_HWC
    return np.asarray(_reduced(Image.fromarray(np.ascontiguousarray(picture_HWC)), side))


def _reduced(picture: Image.Image, side: int) -> Image.Image:
    longest = max(picture.size)
    if longest <= side:
        return picture
    width, height = (max(1, round(size * side / longest)) for size in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX)
