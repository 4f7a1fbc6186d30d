"""Decoding of untrusted media: every file is either decoded right or refused with a reason; nothing in between.

One decoder per kind (Pillow for images, PyAV for videos), an allow-list of formats recognised by content and not by
name, and bounds on pixels, bytes, frames and seconds that hold before memory is spent.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks.errors import MediaError

Pixels = NDArray[np.uint8]

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".gif"})
VIDEO_SUFFIXES: Final = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"})

_IMAGE_FORMATS: Final = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "HEIF": "image/heif",
    "GIF": "image/gif",
}
_VIDEO_MIMES: Final = {"mov": "video/mp4", "mp4": "video/mp4", "matroska": "video/x-matroska", "avi": "video/x-msvideo"}


@dataclass(frozen=True)
class Limits:
    """Bounds on what is decoded; a file beyond one of them is refused as ``too_large``."""

    max_bytes: int = 512 * 1024 * 1024
    max_pixels: int = 100_000_000
    min_side: int = 16
    max_seconds: float = 60.0
    max_frames: int = 7200


@dataclass(frozen=True)
class MediaInfo:
    """What a medium is; ``frames`` is 1 and ``fps``, ``duration_s`` are 0 for images."""

    modality: str
    mime: str
    width: int
    height: int
    frames: int
    fps: float
    duration_s: float


@dataclass(frozen=True)
class Clip:
    """Decoded frames of a video: ``frames_THWC`` uint8 RGB at times ``seconds_T``."""

    frames_THWC: Pixels
    seconds_T: NDArray[np.float64]
    info: MediaInfo


def probe(data: bytes, limits: Limits | None = None) -> MediaInfo:
    """Recognise a medium by its content and fully verify that it decodes.

    Raises:
        MediaError: with reason ``empty``, ``unknown_format``, ``truncated``, ``too_large``, ``too_small``,
            ``animated`` or ``no_frames``.
    """
    bounds = limits or Limits()
    if is_video(data, bounds):
        return decode_video(data, [0], bounds).info
    pixels, mime = _decode_image(data, bounds)
    height, width = pixels.shape[:2]
    return MediaInfo("image", mime, width, height, 1, 0.0, 0.0)


def is_video(data: bytes, limits: Limits | None = None) -> bool:
    """Say whether the container is one of the video formats on the allow-list, by its first bytes.

    Raises:
        MediaError: ``empty`` or ``too_large``.
    """
    if not data:
        raise MediaError("empty", "the file has no bytes")
    if len(data) > (limits or Limits()).max_bytes:
        raise MediaError("too_large", f"the file has {len(data)} bytes; the limit is {(limits or Limits()).max_bytes}")
    if data[4:8] == b"ftyp":
        return data[8:12] not in {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis"}
    return data[:4] == b"\x1aE\xdf\xa3" or (data[:4] == b"RIFF" and data[8:12] == b"AVI ")


def decode_image(data: bytes, limits: Limits | None = None) -> Pixels:
    """Decode a still image to upright 8-bit RGB ``[H, W, 3]``.

    EXIF orientation is applied, alpha is composited over mid grey, 16-bit samples are scaled (not saturated), CMYK
    and palettes are converted.

    Raises:
        MediaError: as :func:`probe`.
    """
    return _decode_image(data, limits or Limits())[0]


def _decode_image(data: bytes, limits: Limits) -> tuple[Pixels, str]:
    if not data:
        raise MediaError("empty", "the file has no bytes")
    _register_heif(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=list(_IMAGE_FORMATS))
            _check_image_bounds(image, limits)
            image.load()
    except UnidentifiedImageError as error:
        raise MediaError("unknown_format", "not an image or video format that VITAL reads") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError("too_large", f"more than {limits.max_pixels} pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        raise MediaError("truncated", f"the image data is broken: {error}") from error
    return _to_rgb(image), _IMAGE_FORMATS[image.format or ""]


def _register_heif(data: bytes) -> None:
    if data[4:8] == b"ftyp" and "HEIF" not in Image.OPEN:
        import pillow_heif  # noqa: PLC0415 - 40 ms that only HEIC files pay

        pillow_heif.register_heif_opener()


def _check_image_bounds(image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise MediaError("too_large", f"{width}x{height} is more than {limits.max_pixels} pixels")
    if min(width, height) < limits.min_side:
        raise MediaError("too_small", f"{width}x{height}: the shorter side must be at least {limits.min_side} pixels")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise MediaError("animated", "animated images are neither a photograph nor a video; convert the file to mp4")


def _to_rgb(image: Image.Image) -> Pixels:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        samples = np.asarray(upright, dtype=np.float64)
        top = 65535.0 if samples.max(initial=0) > 255 or upright.mode != "F" else 255.0
        grey = np.clip(samples / top * 255.0 + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if upright.mode in {"RGBA", "LA", "PA"} or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (128, 128, 128, 255))
        return np.asarray(Image.alpha_composite(ground, layer).convert("RGB"))
    return np.asarray(upright.convert("RGB"))


def decode_video(data: bytes, wanted: Sequence[int] | int, limits: Limits | None = None) -> Clip:
    """Decode chosen frames of a video in one pass.

    Args:
        wanted: frame indices, or a number of frames to spread evenly over the clip.

    Raises:
        MediaError: as :func:`probe`; a stream that ends early is ``truncated``.
    """
    import av  # noqa: PLC0415 - images do not pay for it
    import av.error  # noqa: PLC0415

    bounds = limits or Limits()
    try:
        with av.open(io.BytesIO(data)) as container:
            if not container.streams.video:
                raise MediaError("no_frames", "the file has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            info = _video_info(container, stream, bounds)
            frames = _decode_frames(container, stream, bounds)
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        raise MediaError("truncated", f"the video data is broken: {error}") from error
    if not frames:
        raise MediaError("no_frames", "the video stream holds no frame")
    total = len(frames)
    if isinstance(wanted, int):
        chosen = np.unique(np.linspace(0, total - 1, min(wanted, total)).round().astype(int))
    else:
        chosen = np.array([min(index, total - 1) for index in wanted])
    pixels = np.stack([frames[i].to_ndarray(format="rgb24") for i in chosen])
    rate = info.fps or 25.0
    found = MediaInfo("video", info.mime, pixels.shape[2], pixels.shape[1], total, rate, total / rate)
    return Clip(pixels, chosen / rate, found)


def _video_info(container: "av.container.InputContainer", stream: "av.VideoStream", limits: Limits) -> MediaInfo:  # type: ignore[name-defined]  # noqa: F821
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > limits.max_pixels:
        raise MediaError("too_large", f"{width}x{height} is more than {limits.max_pixels} pixels")
    if min(width, height) < limits.min_side:
        raise MediaError("too_small", f"{width}x{height}: the shorter side must be at least {limits.min_side} pixels")
    rate = float(stream.average_rate or stream.guessed_rate or Fraction(25))
    seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    if seconds > limits.max_seconds:
        raise MediaError("too_large", f"{seconds:.1f} s is longer than {limits.max_seconds} s")
    mime = next((m for key, m in _VIDEO_MIMES.items() if key in container.format.name), "video/mp4")
    return MediaInfo("video", mime, width, height, stream.frames, rate, seconds)


def _decode_frames(container: "av.container.InputContainer", stream: "av.VideoStream", limits: Limits) -> list:  # type: ignore[name-defined,type-arg]  # noqa: F821
    frames = []
    for frame in container.decode(stream):
        frames.append(frame)
        if len(frames) > limits.max_frames:
            raise MediaError("too_large", f"more than {limits.max_frames} frames")
    return frames
