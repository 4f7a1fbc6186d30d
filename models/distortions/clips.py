"""Clip types: H.264 and H.265 compression, frame stutter, camera shake; and the encoder they share (PyAV).

Frames are consumed one by one. Encoders run on one thread with fixed options, so equal frames give equal bytes.
"""

import io
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError

if TYPE_CHECKING:
    from av.video.stream import VideoStream

Pixels = NDArray[np.uint8]
Frames = Iterable[Pixels]

_TRANSPARENT_CRF: Final = 12
"""CRF of clips whose distortion is not the codec: below what is visible, and a few hundred kB per clip."""
_RATE_DENOMINATOR: Final = 1001
_SHAKE_MEMORY: Final = 0.6
"""Correlation of the shift from frame to frame (first-order autoregression): hand-held shake, not white jumps."""
_OPTIONS: Final = {
    "libx264": {"preset": "veryfast", "threads": "1", "x264-params": "cpu-independent=1"},
    "libx265": {"preset": "ultrafast", "x265-params": "pools=none:frame-threads=1:wpp=0:info=0:log-level=error"},
}


def encode(frames: Frames, fps: float, codec: str = "libx264", crf: float = _TRANSPARENT_CRF) -> bytes:
    """Encode frames as MP4 at constant rate; sides stay what they are (4:2:0 if both are even, else 4:4:4).

    Raises:
        ModelError: no frame, frames of different sizes, or a rate that is not positive.
    """
    import av  # noqa: PLC0415 - only clips pay for it

    if not fps > 0:
        msg = f"fps must be positive, not {fps}"
        raise ModelError(msg)
    first, rest = _first(frames)
    height, width = first.shape[:2]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        rate = Fraction(fps).limit_denominator(_RATE_DENOMINATOR)
        options = {**_OPTIONS[codec], "crf": str(crf)}
        stream = cast("VideoStream", container.add_stream(codec, rate=rate, options=options))
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        for frame in rest:
            if frame.shape != first.shape:
                msg = f"frames differ in size: {first.shape} and {frame.shape}"
                raise ModelError(msg)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def h264_compression(frames: Frames, fps: float, crf: float, _generator: np.random.Generator) -> bytes:
    """Encode with libx264 at ``crf``; the bitstream is the result."""
    return encode(frames, fps, "libx264", crf)


def h265_compression(frames: Frames, fps: float, crf: float, _generator: np.random.Generator) -> bytes:
    """Encode with libx265 at ``crf``; the bitstream is the result."""
    return encode(frames, fps, "libx265", crf)


def frame_stutter(frames: Frames, fps: float, share: float, generator: np.random.Generator) -> bytes:
    """Repeat the frame before in place of about ``share`` of the frames; length and rate stay."""
    return encode(stuttered(frames, share, generator), fps)


def camera_shake(frames: Frames, fps: float, deviation: float, generator: np.random.Generator) -> bytes:
    """Shift whole frames along a random path; ``deviation`` is a share of the shorter side."""
    return encode(shaken(frames, deviation, generator), fps)


def stuttered(frames: Frames, share: float, generator: np.random.Generator) -> Iterator[Pixels]:
    """Yield the frames with repeats. Larger shares of one seed repeat a superset of the frames."""
    shown: deque[Pixels] = deque(maxlen=1)
    for frame in frames:
        if not (generator.random() < share and shown):
            shown.append(frame)
        yield shown[0]


def shaken(frames: Frames, deviation: float, generator: np.random.Generator) -> Iterator[Pixels]:
    """Yield the frames shifted by whole pixels, edges mirrored. Shares of one seed follow the same path, scaled."""
    path = generator.standard_normal(2)
    for frame in frames:
        height, width = frame.shape[:2]
        down, right = np.rint(path * deviation * min(height, width)).astype(int)
        yield _shifted(_shifted(frame, int(down), 0), int(right), 1)
        path = _SHAKE_MEMORY * path + np.sqrt(1 - _SHAKE_MEMORY**2) * generator.standard_normal(2)


def _shifted(frame: Pixels, by: int, axis: int) -> Pixels:
    size = frame.shape[axis]
    index = np.arange(size) - by
    mirrored = np.abs(np.where(index >= size, 2 * size - 2 - index, index)) % size
    return np.take(frame, mirrored, axis=axis)


def _first(frames: Frames) -> tuple[Pixels, Iterator[Pixels]]:
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ModelError("a clip needs at least one frame")
    return first, itertools.chain([first], iterator)
