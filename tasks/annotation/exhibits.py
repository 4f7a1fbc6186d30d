"""The pictures that are sent to an endpoint: a whole image, or frames of a clip, as data URLs of bounded size."""

import base64
import io
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

from models.judges import Shown
from models.signals.evidence import Medium, Pixels
from tasks.annotation.sample_pixels import made_of_pictures, spread
from tasks.records import Modality
from tasks.shards import atomic
from tasks.stage import Place

_LEAST_SIDE: Final = 32
_KEPT_BYTES: Final = 2**27
"""Of encoded pictures in memory; the others of a part lie on disk."""
_RULES: Final = "2"
"""Of how frames are chosen and pictures encoded; changes with either."""


@dataclass(frozen=True)
class Pictures:
    """How much of a medium is shown.

    Attributes:
        max_side: longer side, pixels; larger pictures are reduced by averaging.
        frames: of a clip, at the centres of equal spans of the whole of it.
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
        return f"{self.max_side}x{self.frames}x{self.max_bytes}-{_RULES}"

    def count(self, frames: int) -> int:
        """How many pictures of a medium with so many frames are sent."""
        return min(max(frames, 1), self.frames)


@dataclass(frozen=True)
class Exhibit:
    """Stands for a medium in questions: its pictures are encoded and lie aside.

    Attributes:
        content: hash of the medium's bytes.
        is_clip: whether it is a video.
        urls: data URLs of its pictures, in order.
    """

    content: str
    is_clip: bool
    urls: Callable[[], tuple[str, ...]]


class Exhibits:
    """Pictures of what questions show; for any number of threads. Media in pixels are encoded once."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures, self._lock = pictures, threading.Lock()
        self._kept: WeakKeyDictionary[Medium, tuple[str, ...]] = WeakKeyDictionary()

    def of(self, medium: Shown) -> tuple[str, ...]:
        """Data URLs of the pictures, in order.

        Raises:
            TypeError: the medium is neither an exhibit nor pixels.
        """
        if isinstance(medium, Exhibit):
            return medium.urls()
        if not isinstance(medium, Medium):
            msg = f"only an exhibit or a medium in pixels can be shown, not {type(medium).__name__}"
            raise TypeError(msg)
        with self._lock:
            kept = self._kept.get(medium)
        if kept is None:
            kept = tuple(data_url(frame, self._pictures) for frame in shown_frames(medium, self._pictures.frames))
            with self._lock:
                self._kept[medium] = kept
        return kept


class ShownMedia:
    """Exhibits of a part's samples: each medium is decoded and encoded once, however often a question is worded.

    Pictures lie on disk until :meth:`forget`, also across a kill, and the last used ones in memory. For any number of
    threads: who needs a medium waits for the thread that decodes it, and as many decode at once as there are cores.

    Args:
        place: of the stage; its work folder holds the pictures.
        pictures: how much is shown.
    """

    def __init__(self, place: Place, pictures: Pictures) -> None:
        self._place, self._pictures = place, pictures
        self._folder = place.work / "pictures"
        self._lock, self._cores = threading.Lock(), threading.Semaphore(os.cpu_count() or 1)
        self._making: dict[str, threading.Lock] = {}
        self._kept: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._kept_bytes = 0

    def of(self, sample: Mapping[str, Any]) -> Exhibit:
        """The exhibit of a sample.

        Raises:
            MediaError: the medium cannot be decoded.
        """
        content = str(sample["bytes_sha256"])
        if not self._file(content).is_file():
            with self._lock:
                making = self._making.setdefault(content, threading.Lock())
            with making:
                if not self._file(content).is_file():
                    with self._cores:
                        self._make(content, sample)
        return Exhibit(content, sample["modality"] == Modality.VIDEO, lambda: self._urls(content))

    def forget(self) -> None:
        """Remove all pictures: the part is done."""
        with self._lock:
            self._kept.clear()
            self._making.clear()
            self._kept_bytes = 0
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make(self, content: str, sample: Mapping[str, Any]) -> None:
        pictures = self._pictures
        urls = made_of_pictures(self._place, sample, pictures.frames, lambda pixels: data_url(pixels, pictures))
        with atomic(self._file(content)) as file:
            file.write("\n".join(urls).encode())
        self._keep(content, urls)

    def _urls(self, content: str) -> tuple[str, ...]:
        with self._lock:
            if content in self._kept:
                self._kept.move_to_end(content)
                return self._kept[content]
        urls = tuple(self._file(content).read_text().split("\n"))
        self._keep(content, urls)
        return urls

    def _keep(self, content: str, urls: tuple[str, ...]) -> None:
        with self._lock:
            if content not in self._kept:
                self._kept[content] = urls
                self._kept_bytes += sum(map(len, urls))
            while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
                _, old = self._kept.popitem(last=False)
                self._kept_bytes -= sum(map(len, old))

    def _file(self, content: str) -> Path:
        return self._folder / self._pictures.version / f"{content}.urls"


def shown_frames(medium: Medium, frames: int) -> list[Pixels]:
    """An image, or frames of a clip at the centres of equal spans, ``[H, W, 3]`` each."""
    return [medium.frames_THWC[index] for index in spread(len(medium.frames_THWC), frames)]


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


def _reduced(picture: Image.Image, side: int) -> Image.Image:
    longest = max(picture.size)
    if longest <= side:
        return picture
    width, height = (max(1, round(size * side / longest)) for size in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX)
