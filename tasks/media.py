"""Decoding of untrusted media: every file is either decoded right or refused with a reason; nothing in between.

One decoder per kind (Pillow for images, PyAV for videos), an allow-list of formats recognised by content and not by
name, and bounds on pixels, bytes, frames and seconds that hold before memory is spent. docs/data.md lists the outcome
of every edge case.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from tasks.errors import MediaError
from tasks.integrity import check_integrity

if TYPE_CHECKING:
    from tasks.video import Reading

Pixels = NDArray[np.uint8]
Wanted = Sequence[int] | int | Callable[[int], Sequence[int]]

IMAGE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".gif"}
)
VIDEO_SUFFIXES: Final = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"})

_MIMES: Final = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "HEIF": "image/heif",
    "AVIF": "image/avif",
    "GIF": "image/gif",
}
_HEIF_BRANDS: Final = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"})
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_STRIP: Final = 64
"""Rows that are copied at a time, few enough for a processor's cache."""
_QUICKTIME_ATOMS: Final = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"})
_MANY_IMAGES: Final = frozenset({"GIF", "PNG", "WEBP", "TIFF", "AVIF"})
"""Formats in which several images mean an animation or pages; in MPO and HEIC the first is the photograph."""
_BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""What Pillow's plugins raise on broken files; a decoder that runs out of memory or is interrupted still says so."""
_GROUND: Final = 128
_UNKNOWN: Final = "not an image or video format that VITAL reads"

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # our own bound refuses before decoding
warnings.filterwarnings(
    "ignore", category=UserWarning, module=r"PIL\."
)  # broken EXIF and the like: told by the outcome


@dataclass(frozen=True)
class Limits:
    """Bounds on what is decoded; a file beyond one is refused as ``too_large``, ``too_small`` or ``too_elongated``.

    ``max_elongation`` bounds the longer side over the shorter one: scorers enlarge the shorter side to what a viewer
    sees, so the memory of a narrow strip grows with the square of its elongation.
    """

    max_bytes: int = 512 * 1024 * 1024
    max_pixels: int = 100_000_000
    min_side: int = 16
    max_elongation: float = 16.0
    max_seconds: float = 60.0
    max_frames: int = 7200


ADMITTED: Final = Limits(
    max_bytes=2**40, max_pixels=2**40, min_side=1, max_elongation=1e9, max_seconds=1e9, max_frames=2**40
)
"""For media that ``collect`` has admitted by its own limits."""


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
    """Decoded frames of a video: ``frames_THWC`` uint8 RGB shown at ``seconds_T`` after the first frame."""

    frames_THWC: Pixels
    seconds_T: NDArray[np.float64]
    info: MediaInfo


def read_file(path: Path) -> bytes:
    """Read a file that a user or a pool named.

    Raises:
        MediaError: ``missing`` or ``unreadable``.
    """
    try:
        if path.exists() and not path.is_file():
            raise MediaError("unreadable", "cannot be read: is no regular file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MediaError("missing", "no such file") from error
    except OSError as error:
        raise MediaError("unreadable", f"cannot be read: {error.strerror or error}") from error


def probe(data: bytes, limits: Limits | None = None) -> MediaInfo:
    """Recognise a medium by its content and verify that all of it decodes.

    Raises:
        MediaError: with reason ``empty``, ``unknown_format``, ``unsupported``, ``truncated``, ``too_large``,
            ``too_small``, ``too_elongated``, ``animated`` or ``no_frames``.
    """
    bounds = limits or Limits()
    if is_video(data, bounds):
        return _reading(data, bounds).verify()
    pixels, mime = _decode_image(data, bounds)
    height, width = pixels.shape[:2]
    return MediaInfo("image", mime, width, height, 1, 0.0, 0.0)


def outline_video(data: bytes) -> MediaInfo:
    """Say what a video is by its packets, decoding nothing: for upright videos that the line itself has encoded.

    Raises:
        MediaError: ``unknown_format``, ``truncated`` or ``no_frames``.
    """
    return _reading(data, ADMITTED).outline()


def is_video(data: bytes, limits: Limits | None = None) -> bool:
    """Say whether the container is one of the video formats on the allow-list, by its first bytes.

    Raises:
        MediaError: ``empty`` or ``too_large``.
    """
    bounds = limits or Limits()
    if not data:
        raise MediaError("empty", "the file has no bytes")
    if len(data) > bounds.max_bytes:
        raise MediaError("too_large", f"the file has {len(data)} bytes; the limit is {bounds.max_bytes}")
    return _video_format(data) is not None


def decode_image(data: bytes, limits: Limits | None = None) -> Pixels:
    """Decode a still image to upright 8-bit RGB ``[H, W, 3]``.

    EXIF orientation is applied, alpha is composited over mid grey, 16-bit samples are scaled (not saturated), CMYK
    and palettes are converted; colours are taken as sRGB, embedded profiles are not applied.

    Raises:
        MediaError: as :func:`probe`.
    """
    return _decode_image(data, limits or Limits())[0]


def decode_video(data: bytes, wanted: Wanted, limits: Limits | None = None) -> Clip:
    """Decode chosen frames of a video; memory grows with the frames asked for, not with the video.

    Args:
        wanted: frame indices (beyond the end: the last frame), or a number of frames to spread evenly over the clip,
            or a rule that gives the indices once the number of frames is known.

    Raises:
        MediaError: as :func:`probe`; a stream that ends early is ``truncated``.
    """
    return _reading(data, limits or Limits()).clip(wanted)


def watch_video(
    data: bytes, wanted: Wanted, see: Callable[[int, Pixels], None], limits: Limits | None = None
) -> MediaInfo:
    """Show chosen frames of a video one by one, in rising order; only what ``see`` keeps of them stays in memory.

    Args:
        wanted: as in :func:`decode_video`. A rule is asked anew, and all is shown again, if the video turns out to have
            another number of frames than its packets promise.
        see: called with the index of a frame and its pixels, upright RGB ``[H, W, 3]``.

    Raises:
        MediaError: as :func:`probe`; a stream that ends early is ``truncated``.
    """
    return _reading(data, limits or Limits()).watch(wanted, see)


def iterate_video(data: bytes, limits: Limits | None = None) -> Iterator[Pixels]:
    """Yield all frames of a video, upright RGB ``[H, W, 3]``, one at a time.

    Raises:
        MediaError: as :func:`probe`.
    """
    return _reading(data, limits or Limits()).frames()


def kind_of(data: bytes, limits: Limits | None = None) -> str:
    """``image`` or ``video``, by the first bytes alone.

    Raises:
        MediaError: ``empty``, ``too_large`` or ``unknown_format``.
    """
    if is_video(data, limits):
        return "video"
    if _image_format(data) is None:
        raise MediaError("unknown_format", _UNKNOWN)
    return "image"


def _reading(data: bytes, limits: Limits) -> "Reading":
    from tasks.video import Reading  # noqa: PLC0415 - images do not pay for PyAV

    found = _video_format(data) if is_video(data, limits) else None
    if found is None:
        raise MediaError("unknown_format", "not a video format that VITAL reads")
    return Reading(data, found, limits)


def _video_format(data: bytes) -> str | None:
    """FFmpeg's name of the container."""
    if data[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    still = data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS | _AVIF_BRANDS
    return "mov" if data[4:8] in _QUICKTIME_ATOMS and not still else None


def _image_format(data: bytes) -> str | None:
    """Pillow's name of the format, by signature."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS | _AVIF_BRANDS:
        return "HEIF" if data[8:12] in _HEIF_BRANDS else "AVIF"
    if data[:4] == b"RIFF":
        return "WEBP" if data[8:12] == b"WEBP" else None
    signatures = {
        b"\xff\xd8\xff": "JPEG",
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"BM": "BMP",
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
        b"GIF87a": "GIF",
        b"GIF89a": "GIF",
    }
    return next((name for signature, name in signatures.items() if data.startswith(signature)), None)


def _decode_image(data: bytes, limits: Limits) -> tuple[Pixels, str]:
    is_video(data, limits)
    name = _image_format(data)
    if name is None:
        raise MediaError("unknown_format", _UNKNOWN)
    if name == "HEIF":
        import pillow_heif  # noqa: PLC0415 - 40 ms that only HEIC files pay

        pillow_heif.register_heif_opener()
    try:
        with Image.open(io.BytesIO(data), formats=[name]) as image:
            _check_image(image, name, limits)
            check_integrity(data, image)
            image.load()
            return _to_rgb(image), _MIMES[name]
    except UnidentifiedImageError as error:
        raise MediaError("truncated", f"begins as {name} but is not one") from error
    except Image.DecompressionBombError as error:
        raise MediaError("too_large", f"more than {limits.max_pixels} pixels") from error
    except _BROKEN as error:
        raise MediaError("truncated", f"the {name} data is broken: {' '.join(str(error).split())}") from error


def _check_image(image: Image.Image, name: str, limits: Limits) -> None:
    check_size(*image.size, limits)
    if name in _MANY_IMAGES and getattr(image, "n_frames", 1) > 1:
        raise MediaError("animated", f"a {name} of several images is neither a photograph nor a video that VITAL reads")
    if image.mode == "F":
        raise MediaError("unsupported", "floating-point samples have no agreed white: save as 8 or 16 bits")


def check_size(width: int, height: int, limits: Limits) -> None:
    """Refuse sizes outside the limits.

    Raises:
        MediaError: ``too_large``, ``too_small`` or ``too_elongated``.
    """
    if width * height > limits.max_pixels:
        raise MediaError("too_large", f"{width}x{height} is more than {limits.max_pixels} pixels")
    if min(width, height) < limits.min_side:
        raise MediaError("too_small", f"{width}x{height}: the shorter side must be at least {limits.min_side} pixels")
    if max(width, height) > limits.max_elongation * min(width, height):
        raise MediaError(
            "too_elongated",
            f"{width}x{height}: the longer side is more than {limits.max_elongation:g} times the shorter",
        )


def _to_rgb(image: Image.Image) -> Pixels:
    upright = _upright(image)
    if upright.mode.startswith("I"):
        samples = np.asarray(upright).astype(np.float64)
        if samples.min(initial=0) < 0 or samples.max(initial=0) > 65535:
            raise MediaError("unsupported", "samples of more than 16 bits: save as 8 or 16 bits")
        grey = np.rint(samples / 65535 * 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if upright.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (_GROUND, _GROUND, _GROUND, 255))
        return _pixels(Image.alpha_composite(ground, layer).convert("RGB"))
    return _pixels(upright if upright.mode == "RGB" else upright.convert("RGB"))


def _pixels(image: Image.Image) -> Pixels:
    """Samples ``[H, W, 3]`` of an RGB image, taken in strips: of a whole image, Pillow joins many small copies."""
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for top in range(0, image.height, _STRIP):
        end = min(top + _STRIP, image.height)
        pixels[top:end] = np.asarray(image.crop((0, top, image.width, end)))
    return pixels


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; metadata that cannot be parsed has none. An upright image is not copied."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except _BROKEN:
        return image
