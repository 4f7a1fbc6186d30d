"""Reading videos with PyAV for :mod:`tasks.media`: a cheap pass over the packets, then strict, bounded decoding."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from tasks.errors import MediaError
from tasks.media import Clip, Limits, MediaInfo, Pixels, Wanted, check_size

_MIMES: Final = {"mov": "video/mp4", "matroska": "video/x-matroska", "avi": "video/x-msvideo"}
_STRICT: Final = {"err_detect": "crccheck+bitstream+buffer+explode"}
_SLACK: Final = 2
"""FFmpeg's decoders are told to refuse frames of more than so many times the pixels that are allowed, which are checked
exactly afterwards: what they hold is padded to whole blocks."""
_QUARTER_TURNS: Final = 90
_DEFAULT_RATE: Final = 25.0
_MOST_PIXELS: Final = 2**31 - 1
"""The largest bound that FFmpeg takes."""
_THREADED: Final = ("h264", "hevc", "vp9", "av1", "libdav1d")
"""Decoders that work on several frames at once; older ones then lose errors, now and then (seen with mpeg4)."""
_EIGHTHS: Final = "3"
"""FFmpeg's ``lowres`` of one pixel per block of 8 x 8: all data are read, and nearly nothing is drawn."""
_TAIL_GAPS: Final = 1.5
_TAIL_SHARE: Final = 0.02
"""How much earlier than its header says a Matroska stream may end before it counts as truncated: in longest gaps
between frames, plus a share of the whole."""


def _options(pixels: int) -> dict[str, str]:
    """What a decoder is told about a medium of so many pixels: no concealment, and no frames far larger than it."""
    return {**_STRICT, "max_pixels": str(min(_SLACK * pixels, _MOST_PIXELS))}


def check_jpeg(data: bytes, pixels: int) -> None:
    """Refuse a JPEG whose entropy-coded data is incomplete or invalid: FFmpeg's decoder is strict where libjpeg is not.

    Args:
        data: the file.
        pixels: how many it has; another header in the data that claims many more is invalid.

    Raises:
        MediaError: ``truncated``.
    """
    try:
        if _decodes_whole(data, pixels, eighths=True):
            return
    except av.error.FFmpegError:
        pass  # what decoding at full size says counts: some codings know no other
    try:
        whole = _decodes_whole(data, pixels, eighths=False)
    except av.error.PatchWelcomeError:
        return  # a coding that FFmpeg does not know says nothing about the file
    except av.error.FFmpegError as error:
        raise MediaError("truncated", "the JPEG data is incomplete or invalid") from error
    if not whole:
        raise MediaError("truncated", "the JPEG data is incomplete or invalid")


def _decodes_whole(data: bytes, pixels: int, *, eighths: bool) -> bool:
    """Whether no frame of a JPEG is corrupt; a picture of an eighth of the sides costs its entropy decoding alone."""
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {**_options(pixels), "lowres": _EIGHTHS if eighths else "0"}
    decoder.thread_count = 1
    return not any(frame.is_corrupt for frame in [*decoder.decode(av.Packet(data)), *decoder.decode(None)])


@dataclass(frozen=True)
class Scan:
    """What the packets say: number of frames, their times in order (seconds from the first), and the stream."""

    info: MediaInfo
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class _Showing:
    """What a pass over a video has shown: indices chosen, seconds of all frames, and what the video is."""

    chosen: tuple[int, ...]
    seconds: Sequence[float]
    info: MediaInfo


@dataclass(frozen=True)
class Reading:
    """One video file in memory, opened anew for every pass."""

    data: bytes
    container: str
    limits: Limits

    def verify(self) -> MediaInfo:
        """Decode everything, keep nothing, and say what the video is.

        Raises:
            MediaError: as :func:`tasks.media.probe`.
        """
        scan = self.scan()
        times: list[float] = []
        size = (0, 0)
        for seconds, frame in self._decoded():
            size = size if times else _upright_size(frame)
            times.append(seconds)
        return _shown(scan.info, times, size)

    def outline(self) -> MediaInfo:
        """Say what the video is by its packets alone; see :func:`tasks.media.outline_video`."""
        scan = self.scan()
        return _shown(scan.info, scan.seconds, (scan.info.width, scan.info.height))

    def clip(self, wanted: Wanted) -> Clip:
        """Decode the wanted frames; see :func:`tasks.media.decode_video`."""
        kept: dict[int, Pixels] = {}
        showing = self._show(wanted, kept.__setitem__)
        frames_THWC = np.stack([kept[index] for index in showing.chosen])
        seconds_T = np.array(showing.seconds, dtype=np.float64)[list(showing.chosen)]
        return Clip(frames_THWC, seconds_T, showing.info)

    def watch(self, wanted: Wanted, see: Callable[[int, Pixels], None]) -> MediaInfo:
        """Show the wanted frames one by one; see :func:`tasks.media.watch_video`."""
        return self._show(wanted, see).info

    def _show(self, wanted: Wanted, see: Callable[[int, Pixels], None]) -> _Showing:
        scan = self.scan()
        chosen, times, sizes = self._pass(wanted, len(scan.seconds), see)
        if len(times) != len(scan.seconds):  # packets that show nothing: choose again, now from what is shown
            chosen, times, sizes = self._pass(wanted, len(times), see)
        if len(sizes) > 1:
            raise MediaError("unsupported", "the frame size changes within the video")
        return _Showing(chosen, times, _shown(scan.info, times, sizes.pop()))

    def _pass(
        self, wanted: Wanted, total: int, see: Callable[[int, Pixels], None]
    ) -> tuple[tuple[int, ...], list[float], set[tuple[int, int]]]:
        """Decode everything once: the frames chosen of ``total``, all times, and the sizes of what was chosen."""
        chosen = _choose(wanted, total)
        times: list[float] = []
        sizes: set[tuple[int, int]] = set()
        for seconds, frame in self._decoded():
            if len(times) in chosen:
                pixels = _pixels(frame)
                sizes.add((pixels.shape[1], pixels.shape[0]))
                see(len(times), pixels)
            times.append(seconds)
        return chosen, times, sizes

    def frames(self) -> Iterator[Pixels]:
        """Yield all frames; see :func:`tasks.media.iterate_video`."""
        self.scan()
        for _, frame in self._decoded():
            yield _pixels(frame)

    def scan(self) -> Scan:
        """Read the packets without decoding: frames, times, and whether the file is whole.

        Raises:
            MediaError: ``no_frames``, ``too_large``, ``too_small``, ``too_elongated`` or ``truncated``.
        """
        with self._open() as (container, stream):
            info = self._stream_info(stream)
            times: list[Fraction] = []
            count = 0
            base = stream.time_base or Fraction(1)
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                count += 1
                if packet.is_corrupt:
                    raise MediaError("truncated", "the video data ends within a frame")
                if count > self.limits.max_frames:
                    raise MediaError("too_large", f"more than {self.limits.max_frames} frames")
                if not packet.is_discard:
                    stamp = packet.pts if packet.pts is not None else packet.dts
                    times.append(stamp * base if stamp is not None else Fraction(count - 1) / Fraction(info.fps))
            if not times and (stream.frames or container.duration):
                raise MediaError("truncated", "the file ends before its first frame")
            if not times:
                raise MediaError("no_frames", "the video stream holds no frame")
            if count < stream.frames:
                raise MediaError("truncated", f"the file holds {count} of {stream.frames} frames")
            seconds = [float(time - min(times)) for time in sorted(times)]
            self._check_length(container, seconds, info.fps)
        return Scan(info, tuple(seconds))

    def _check_length(self, container: InputContainer, seconds: Sequence[float], fps: float) -> None:
        length = seconds[-1] if len(seconds) > 1 else 1 / fps
        if length > self.limits.max_seconds:
            raise MediaError("too_large", f"{length:.1f} s is longer than {self.limits.max_seconds} s")
        stated = (container.duration or 0) / av.time_base
        only_video = len(container.streams) == 1
        slack = _TAIL_GAPS * float(np.diff(seconds).max(initial=1 / fps)) + _TAIL_SHARE * stated
        if self.container == "matroska" and only_video and length < stated - slack:
            raise MediaError("truncated", f"the video ends after {length:.1f} of {stated:.1f} s")

    def _stream_info(self, stream: VideoStream) -> MediaInfo:
        width, height = stream.codec_context.width, stream.codec_context.height
        if not width or not height:
            raise MediaError("truncated", "the video stream has no readable header")
        check_size(width, height, self.limits)
        rate = float(stream.average_rate or stream.guessed_rate or _DEFAULT_RATE)
        return MediaInfo("video", _MIMES[self.container], width, height, 0, rate, 0.0)

    def _decoded(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Decode strictly: yields seconds from the first frame, and the frame, in the order of showing."""
        with self._open() as (container, stream):
            start: float | None = None
            shown = 0
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise MediaError("truncated", f"the video data is broken at frame {shown}")
                check_size(frame.width, frame.height, self.limits)
                shown += 1
                if shown > self.limits.max_frames:
                    raise MediaError("too_large", f"more than {self.limits.max_frames} frames")
                time = frame.time
                if time is None or self.container == "avi":  # AVI has no times of showing, only a rate
                    time = (shown - 1) / float(stream.average_rate or _DEFAULT_RATE)
                start = time if start is None else start
                yield time - start, frame
            if not shown:
                raise MediaError("no_frames", "the video stream shows no frame")

    @contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        try:
            with av.open(io.BytesIO(self.data), "r", format=self.container) as container:
                if not len(container.streams):
                    raise MediaError("truncated", "the file holds no stream: its index is missing")
                streams = [s for s in container.streams.video if not _is_cover(s)]
                if not streams:
                    raise MediaError("no_frames", "the file has no video stream")
                stream = streams[0]
                if stream.codec_context is None:  # PyAV's types do not say so
                    raise MediaError("unsupported", "the codec of the video stream is not known")
                stream.codec_context.options = _options(self.limits.max_pixels)
                stream.thread_type = "AUTO" if stream.codec_context.name in _THREADED else "SLICE"
                yield container, stream
        except (av.error.FFmpegError, ValueError, EOFError) as error:
            raise MediaError(
                "truncated", f"the video data is broken: {getattr(error, 'strerror', None) or error}"
            ) from error


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & stream.disposition.__class__.attached_pic)


def _choose(wanted: Wanted, total: int) -> tuple[int, ...]:
    if callable(wanted):
        wanted = wanted(total)
    if isinstance(wanted, int):
        spread = np.linspace(0, total - 1, max(1, min(wanted, total)))
        return tuple(int(index) for index in np.unique(spread.round()))
    if not wanted:
        raise ValueError("ask for at least one frame")
    return tuple(min(int(index), total - 1) for index in wanted)


def _shown(info: MediaInfo, times: Sequence[float], size: tuple[int, int]) -> MediaInfo:
    """Complete the info by what was shown; the rate of a video of varying rate is its mean."""
    span = times[-1] - times[0]
    rate = (len(times) - 1) / span if span > 0 else info.fps
    if abs(rate - info.fps) < 0.01 * info.fps:
        rate = info.fps
    return MediaInfo(info.modality, info.mime, *size, len(times), rate, len(times) / rate)


def _turns(frame: av.VideoFrame) -> int:
    """Counterclockwise quarter turns that the display matrix of a phone's clip asks for."""
    return round(frame.rotation / _QUARTER_TURNS) % 4


def _upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    return (frame.height, frame.width) if _turns(frame) % 2 else (frame.width, frame.height)


def _pixels(frame: av.VideoFrame) -> Pixels:
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), _turns(frame)), dtype=np.uint8)
