"""Which frames of a clip the model looks at: pure functions of the clip's length and rate.

Key frames become tiles for the image encoder; motion frames make up the stream for the motion extractor. Frames are
named by their index, so that only those need to be decoded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_CLOCK: Final = 1e-6  # a clip of ten seconds stays one when its rate is a rounded quotient


@dataclass(frozen=True)
class FramePlan:
    """Indices of the frames that are looked at, each in rising order.

    Attributes:
        key: frames that become tiles.
        motion: frames of the motion stream.
    """

    key: tuple[int, ...]
    motion: tuple[int, ...]

    @property
    def wanted(self) -> list[int]:
        """All of them, in rising order."""
        return sorted({*self.key, *self.motion})


def whole_seconds(total: int, fps: float) -> int:
    """Full seconds of a clip of ``total`` frames, at least one; a rate that is not positive counts as one second."""
    return max(1, math.floor(total / fps + _CLOCK)) if fps > 0 else 1


def frame_rate(seconds_T: NDArray[np.float64]) -> float:
    """Mean rate of frames shown at these times; 0 if they have no extent in time."""
    span = float(seconds_T[-1] - seconds_T[0])
    return (len(seconds_T) - 1) / span if span > 0 else 0.0


def spread_frames(seconds_T: NDArray[np.float64], count: int) -> list[int]:
    """Frames nearest to the middles of ``count`` equal parts of the clip's time."""
    share = (np.arange(count) + 0.5) / count
    times = seconds_T[0] + share * (seconds_T[-1] - seconds_T[0])
    return sorted({int(np.abs(seconds_T - time).argmin()) for time in times})


def densest_run(seconds_T: NDArray[np.float64], count: int) -> list[int]:
    """``count`` frames in a row that lie as close in time as any such run, the one nearest to the clip's middle."""
    spans = seconds_T[count - 1 :] - seconds_T[: len(seconds_T) - count + 1]
    starts = np.flatnonzero(spans <= spans.min() + 1e-6)
    middle = seconds_T[0] + 0.5 * (seconds_T[-1] - seconds_T[0])
    start = int(min(starts, key=lambda s: abs(0.5 * (seconds_T[s] + seconds_T[s + count - 1]) - middle)))
    return list(range(start, start + count))


def plan_per_second(total: int, fps: float, key_limit: int, motion_limit: int) -> FramePlan:
    """The paper's sampling (VITAL section 3): one key frame a second, every frame in the motion stream, within bounds.

    Args:
        total: frames of the clip. fps: its rate; not positive if it has none.
        key_limit: most key frames; a longer clip spreads them evenly over its time.
        motion_limit: most motion frames, 0 for no bound; a longer clip is thinned to every second, third, ... frame.
    """
    count = min(key_limit, whole_seconds(total, fps), total)
    seconds_T = np.arange(total) / (fps if fps > 0 else 1.0)
    return FramePlan(tuple(spread_frames(seconds_T, count)), tuple(_thinned(range(total), motion_limit)))


def plan_strided(total: int, fps: float, stride: int, key_limit: int, motion_limit: int) -> FramePlan:
    """The released code's sampling (``frame_stride`` of :class:`models.compatibility.Compatibility`).

    Frames at full seconds are key frames if they are in the stream; frame 0 always is. Two departures from their code:
    a clip of fewer frames than a group (four strides), which makes theirs fail, gives all its strided frames; and
    what exceeds the bounds is thinned.
    """
    group = 4 * stride
    usable = total // group * group or total
    stream = range(0, usable, stride)
    full_seconds = (round(fps * second) for second in range(whole_seconds(total, fps)))
    key = [index for index in full_seconds if index in stream]
    return FramePlan(tuple(_thinned(key, key_limit)), tuple(_thinned(stream, motion_limit)))


def _thinned(indices: Sequence[int], limit: int) -> Sequence[int]:
    """At most ``limit`` of the indices at an even step; all of them if the limit is 0."""
    return indices[:: math.ceil(len(indices) / limit)] if limit else indices
