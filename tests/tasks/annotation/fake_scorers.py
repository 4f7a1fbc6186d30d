"""Scorers of a third party: one that takes several media at a time, and one that chooses its own frames."""

import threading
import time
from collections.abc import Sequence

import numpy as np

from models.scorers import Excerpt, Runtime, Sampling, Strip
from models.scorers.protocol import Pixels


def _corner(frame_HWC: Pixels, _seed: int) -> Pixels:
    return frame_HWC[:32, :32]


def _ends(total: int) -> tuple[Strip, ...]:
    return (Strip((0, total - 1), _corner),)


class Ends:
    """Contrast of a corner of the first and the last frame."""

    name, version, sampling = "ends", "1", Excerpt(_ends)

    def raw(self, frames_THWC: Pixels) -> float:
        return float(frames_THWC.std())

    def score(self, frames_THWC: Pixels) -> float:
        return min(self.raw(frames_THWC) / 128, 1.0)


class Together:
    """Brightness; remembers the sizes of the groups that it was asked about, and by which threads."""

    name, version, sampling = "together", "1", Sampling.FRAMES
    seconds = 0.0

    def __init__(self) -> None:
        self.runtime, self.sizes, self.threads = Runtime(), [], set()

    def run_as(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def raw(self, frames_THWC: Pixels) -> float:
        shift = 0.0 if self.runtime == self.runtime.exact else float(frames_THWC[0, 0, 0, 0] % 2)
        return float(np.mean(frames_THWC, dtype=np.float64)) + shift

    def score(self, frames_THWC: Pixels) -> float:
        return self.score_many([frames_THWC])[0]

    def score_many(self, media: Sequence[Pixels]) -> list[float]:
        time.sleep(self.seconds)
        self.sizes.append(len(media))
        self.threads.add(threading.get_ident())
        return [self.raw(frames_THWC) / 256 for frames_THWC in media]
