"""The edge corpus of media, made in code: every file that a pool may hold and that a decoder may stumble over.

``CASES`` is the one table of it: how a file is made, under which name it lies in a pool, and its stated outcome, which
is what it shows (pixels, orientation, frames) or the reason why it is refused. docs/data.md says the same in words.
"""

import io
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import av
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageCms
from skimage import data

from models.distortions.clips import encode

pillow_heif.register_heif_opener()

Pixels = NDArray[np.uint8]

PHOTO: Pixels = np.ascontiguousarray(data.astronaut()[:240, :320])
"""What everything shows: coloured, and different from each of its mirror images and turns."""
IMAGE = Image.fromarray(PHOTO)
FRAMES: list[Pixels] = [np.ascontiguousarray(np.roll(PHOTO, 3 * t, axis=1)) for t in range(30)]
GREY: Pixels = np.asarray(IMAGE.convert("L").convert("RGB"))
SMALL: Pixels = np.ascontiguousarray(PHOTO[40:104, 60:156])
"""64 x 96 pixels for files that are made by the hundred."""


@dataclass(frozen=True)
class Case:
    """One file of the corpus.

    Attributes:
        make: gives its bytes.
        outcome: ``image``, ``video`` or the reason of the refusal.
        shows: the picture (for a video: of its first frame) that comes out, upright RGB ``[H, W, 3]``.
        within: mean absolute difference from ``shows`` that coding explains, in 8-bit steps; 0 means equality.
        frames: how many frames a video shows.
        name: what the file is called in a pool.
    """

    make: Callable[[], bytes]
    outcome: str
    shows: Pixels | None = None
    within: float = 0.0
    frames: int = 1
    name: str = "x"


# Makers ----------------------------------------------------------------------------------------------------------


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


@contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """Undo what SVT-AV1 does to a thread of root's: real-time priority, which starves the machine and is inherited."""
    try:
        yield
    finally:
        if hasattr(os, "sched_setscheduler"):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def muxed(
    kind: str, codec: str, frames: Sequence[Pixels] = FRAMES, pixel_format: str = "yuv420p", **options: str
) -> bytes:
    buffer = io.BytesIO()
    with ordinary_scheduling(), av.open(buffer, "w", format=kind, options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(codec, rate=25, options={"threads": "1", **options})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], pixel_format
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def sound_only(kind: str = "mp4") -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream: Any = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return buffer.getvalue()


def varying_rate() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        time = 0
        for t, frame in enumerate(FRAMES):
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24")
            shown.pts, shown.time_base = time, Fraction(1, 1000)
            time += 20 if t % 2 else 100
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return buffer.getvalue()


def phone_rotated(mp4: bytes, quarter_turns: int = 1) -> bytes:
    """Write clockwise quarter turns into the track's display matrix, as phones do."""
    a, b = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter_turns % 4]
    one = 1 << 16
    matrix = mp4.index(b"tkhd") + 4 + 4 + 20 + 16
    return _replaced(mp4, matrix, struct.pack(">9i", a * one, b * one, 0, -b * one, a * one, 0, 0, 0, 1 << 30))


def oriented(orientation: int, kind: str = "JPEG", **options: Any) -> bytes:
    """A file whose stored pixels are turned so that the EXIF orientation (1 to 8) makes them upright."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = IMAGE.transpose(undo[orientation]) if orientation in undo else IMAGE
    exif = Image.Exif()
    exif[0x112] = orientation
    return saved(stored, kind, exif=exif, **options)


def big_float_tiff() -> bytes:
    return saved(Image.fromarray(np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)), "TIFF")


def heic_header() -> bytes:
    """The first bytes of a phone's photograph, with a size that nobody has sent."""
    return (
        struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + struct.pack(">I", 1 << 30) + b"meta" + bytes(64)
    )


def sample_time(mp4: bytes, ticks: int) -> bytes:
    """Make every sample of the track last so long, and take the edit list away, which would hide some."""
    return _in_box(mp4.replace(b"edts", b"free"), b"stts", 12, struct.pack(">I", ticks))


def _replaced(content: bytes, at: int, part: bytes) -> bytes:
    return content[:at] + part + content[at + len(part) :]


def _in_box(mp4: bytes, box: bytes, offset: int, part: bytes) -> bytes:
    """Write over ``part`` bytes at ``offset`` after a box's name."""
    return _replaced(mp4, mp4.index(box) + 4 + offset, part)


def _flipped(content: bytes, at: int) -> bytes:
    return _replaced(content, at, bytes([content[at] ^ 1]))


def _zeroed(content: bytes, at: int, length: int) -> bytes:
    return _replaced(content, at, bytes(length))


def _cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


def _sof(jpeg: bytes, height: int, width: int) -> bytes:
    """Write another size into the frame header of a baseline JPEG."""
    return _replaced(jpeg, jpeg.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


def _fast_start() -> bytes:
    """The clip with its index before its data."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.mp4"
        with av.open(io.BytesIO(mp4())) as source, av.open(path, "w", options={"movflags": "+faststart"}) as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        return path.read_bytes()


def interlaced(share: float = 1.0) -> bytes:
    """An interlaced (Adam7) PNG, of which the data of the last passes may be missing."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(
        b"\0" + np.ascontiguousarray(row).tobytes()
        for left, top, across, down in passes
        for row in PHOTO[top::down, left::across]
    )
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 320, 240, 8, 2, 0, 0, 1))
    rows = png_chunk(b"IDAT", zlib.compress(_cut(rows, share)))
    return b"\x89PNG\r\n\x1a\n" + header + rows + png_chunk(b"IEND", b"")


def _tall_tiff() -> bytes:
    """Uncompressed strips of 240 rows under a header that says 480."""
    tiff = saved(IMAGE, "TIFF", tiffinfo={278: 16})
    entry = tiff.index(struct.pack("<HHI", 257, 4, 1))
    return _replaced(tiff, entry + 8, struct.pack("<I", 480))


def _holed_tiff() -> bytes:
    tiff = saved(IMAGE, "TIFF", compression="jpeg", tiffinfo={278: 16})
    with Image.open(io.BytesIO(tiff)) as image:
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        offset, length = tags[273][7], tags[279][7]
    return _zeroed(tiff, offset + length // 2, length // 2)


@cache
def mp4() -> bytes:
    return encode(FRAMES, 25.0)


@cache
def jpeg() -> bytes:
    return saved(IMAGE, "JPEG", quality=95, subsampling=0)


def _alpha() -> Image.Image:
    """The photograph, opaque on the left, clear on the right."""
    layer = IMAGE.convert("RGBA")
    mask = np.zeros((240, 320), np.uint8)
    mask[:, :160] = 255
    layer.putalpha(Image.fromarray(mask))
    return layer


HALF_GREY: Pixels = np.where(np.arange(320)[None, :, None] < 160, PHOTO, np.uint8(128)).astype(np.uint8)
BLACK_BELOW: Pixels = np.where(np.arange(240)[:, None, None] < 120, PHOTO, np.uint8(0)).astype(np.uint8)
ONE_BIT: Pixels = np.asarray(IMAGE.convert("1").convert("RGB"))
PALETTE = IMAGE.quantize(16)
GREY_16: NDArray[np.uint16] = (np.arange(240 * 320, dtype=np.uint32).reshape(240, 320) % 65536).astype(np.uint16)
GREY_16_SHOWN: Pixels = np.repeat(np.rint(GREY_16 / 257).astype(np.uint8)[..., None], 3, axis=2)
RGB_16_ROWS = b"".join(b"\0" + row.astype(">u2").tobytes() for row in PHOTO.astype(np.uint16) * 257)
TWO = {"save_all": True, "append_images": [IMAGE.rotate(9)]}
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()

# The table --------------------------------------------------------------------------------------------------------

PHOTOGRAPHS: dict[str, Case] = {
    "JPEG": Case(jpeg, "image", PHOTO, 3, name="x.jpg"),
    "progressive JPEG": Case(lambda: saved(IMAGE, "JPEG", progressive=True, quality=95), "image", PHOTO, 3),
    "grey JPEG": Case(lambda: saved(IMAGE.convert("L"), "JPEG", quality=95), "image", GREY, 3),
    "CMYK JPEG": Case(lambda: saved(IMAGE.convert("CMYK"), "JPEG", quality=95), "image", PHOTO, 4),
    "JPEG with bytes after its end": Case(lambda: jpeg() + b"camera maker's notes" * 50, "image", PHOTO, 3),
    "JPEG without its end marker": Case(lambda: jpeg()[:-2], "image", PHOTO, 3),
    "JPEG with an unreadable EXIF": Case(
        lambda: saved(IMAGE, "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff\xff\xff"), "image", PHOTO, 3
    ),
    "JPEG with a colour profile": Case(
        lambda: saved(IMAGE, "JPEG", quality=95, icc_profile=PROFILE), "image", PHOTO, 3
    ),
    "MPO, the first of its pictures": Case(
        lambda: saved(IMAGE, "MPO", save_all=True, append_images=[IMAGE], quality=95), "image", PHOTO, 3
    ),
    "PNG": Case(lambda: saved(IMAGE, "PNG"), "image", PHOTO, name="x.png"),
    "PNG named .jpg": Case(lambda: saved(IMAGE, "PNG", compress_level=1), "image", PHOTO, name="x.jpg"),
    "PNG without a name's end": Case(lambda: saved(IMAGE, "PNG", compress_level=2), "image", PHOTO, name="x"),
    "PNG named .mp4": Case(lambda: saved(IMAGE, "PNG", compress_level=3), "image", PHOTO, name="x.mp4"),
    "PNG with a colour profile": Case(lambda: saved(IMAGE, "PNG", icc_profile=PROFILE), "image", PHOTO),
    "16-bit grey PNG": Case(lambda: saved(Image.fromarray(GREY_16), "PNG"), "image", GREY_16_SHOWN),
    "16-bit RGB PNG": Case(lambda: png(320, 240, 16, 2, RGB_16_ROWS), "image", PHOTO),
    "palette PNG": Case(lambda: saved(PALETTE, "PNG"), "image", np.asarray(PALETTE.convert("RGB"))),
    "PNG with black below": Case(
        lambda: saved(Image.fromarray(BLACK_BELOW), "PNG", compress_level=4), "image", BLACK_BELOW
    ),
    "interlaced PNG": Case(interlaced, "image", PHOTO),
    "1-bit PNG": Case(lambda: saved(IMAGE.convert("1"), "PNG"), "image", ONE_BIT),
    "grey PNG": Case(lambda: saved(IMAGE.convert("L"), "PNG"), "image", GREY),
    "transparent PNG": Case(lambda: saved(_alpha(), "PNG"), "image", HALF_GREY),
    "transparent WebP": Case(lambda: saved(_alpha(), "WEBP", lossless=True), "image", HALF_GREY),
    "transparent TIFF": Case(lambda: saved(_alpha(), "TIFF"), "image", HALF_GREY),
    "16-bit grey TIFF": Case(lambda: saved(Image.fromarray(GREY_16), "TIFF"), "image", GREY_16_SHOWN),
    "WebP": Case(lambda: saved(IMAGE, "WEBP", lossless=True), "image", PHOTO, name="x.webp"),
    "lossy WebP": Case(lambda: saved(IMAGE, "WEBP", quality=95), "image", PHOTO, 4),
    "BMP": Case(lambda: saved(IMAGE, "BMP"), "image", PHOTO),
    "TIFF": Case(lambda: saved(IMAGE, "TIFF", compression="tiff_lzw"), "image", PHOTO),
    "TIFF of JPEG strips": Case(
        lambda: saved(IMAGE, "TIFF", compression="jpeg", quality=95, tiffinfo={278: 16}), "image", PHOTO, 4
    ),
    "CMYK TIFF": Case(lambda: saved(IMAGE.convert("CMYK"), "TIFF"), "image", PHOTO),
    "GIF of one image": Case(lambda: saved(PALETTE, "GIF"), "image", np.asarray(PALETTE.convert("RGB"))),
    "HEIC": Case(lambda: saved(IMAGE, "HEIF", quality=95), "image", PHOTO, 4, name="x.heic"),
    "HEIC named .jpg": Case(lambda: saved(IMAGE, "HEIF", quality=94), "image", PHOTO, 4, name="x.jpg"),
    "AVIF": Case(lambda: saved(IMAGE, "AVIF", quality=95), "image", PHOTO, 4),
    "odd size": Case(lambda: saved(IMAGE.crop((0, 0, 317, 239)), "JPEG", quality=95), "image", PHOTO[:239, :317], 3),
    **{
        f"EXIF orientation {turn}": Case(
            lambda turn=turn: oriented(turn, quality=95, subsampling=0), "image", PHOTO, 3, name="x.jpg"
        )
        for turn in range(1, 9)
    },
    "EXIF orientation 9, which does not exist": Case(lambda: oriented(9, quality=95), "image", PHOTO, 3),
    "EXIF orientation of a PNG": Case(lambda: oriented(6, "PNG"), "image", PHOTO),
    "EXIF orientation of a WebP": Case(lambda: oriented(8, "WEBP", lossless=True), "image", PHOTO),
    "EXIF orientation of a HEIC, which its own turns outrank": Case(
        lambda: oriented(6, "HEIF", quality=95), "image", np.rot90(PHOTO), 4
    ),
    "orientation of an AVIF": Case(lambda: oriented(6, "AVIF", quality=95), "image", PHOTO, 4),
    "orientation of a TIFF": Case(lambda: oriented(3, "TIFF"), "image", PHOTO),
}  # fmt: skip

CLIPS: dict[str, Case] = {
    "MP4, H.264": Case(mp4, "video", PHOTO, 5, 30, name="x.mp4"),
    "MP4 named .png": Case(lambda: encode(FRAMES, 25.0, crf=13), "video", PHOTO, 5, 30, name="x.png"),
    "MP4, H.265": Case(lambda: encode(FRAMES, 25.0, "libx265", 18), "video", PHOTO, 6, 30),
    "MP4, H.265 of 10 bits": Case(
        lambda: muxed("mp4", "libx265", FRAMES[:6], "yuv420p10le", **{"x265-params": "log-level=error"}, crf="16"),
        "video", PHOTO, 6, 6,
    ),
    "MP4, H.264 of 10 bits": Case(
        lambda: muxed("mp4", "libx264", FRAMES[:6], "yuv420p10le", crf="12"), "video", PHOTO, 5, 6
    ),
    "MOV": Case(lambda: muxed("mov", "libx264", crf="12"), "video", PHOTO, 5, 30, name="x.mov"),
    "Matroska, H.264": Case(lambda: muxed("matroska", "libx264", crf="12"), "video", PHOTO, 5, 30),
    "WebM, VP9": Case(lambda: muxed("webm", "libvpx-vp9", crf="12"), "video", PHOTO, 8, 30, name="x.webm"),
    "Matroska, AV1": Case(lambda: muxed("matroska", "libsvtav1"), "video", PHOTO, 8, 30),
    "AVI, MPEG-4": Case(lambda: muxed("avi", "mpeg4", qmin="1", qmax="2"), "video", PHOTO, 6, 30, name="x.avi"),
    "grey video": Case(lambda: muxed("mp4", "libx264", [GREY] * 6, crf="12"), "video", GREY, 5, 6),
    "video of an odd size": Case(
        lambda: encode([frame[:239, :319] for frame in FRAMES], 25.0), "video", PHOTO[:239, :319], 5, 30
    ),
    "video of varying rate": Case(varying_rate, "video", PHOTO, 8, 30),
    "video of one frame": Case(lambda: encode(FRAMES[:1], 25.0), "video", PHOTO, 5, 1),
    "video whose frames last no time": Case(lambda: sample_time(mp4(), 0), "video", PHOTO, 5, 30),
    "video of which an edit list shows one frame": Case(
        lambda: _in_box(mp4(), b"stts", 12, struct.pack(">I", 2**18)), "video", PHOTO, 5, 1
    ),
    "video of no stated duration": Case(
        lambda: _in_box(mp4(), b"mvhd", 16, struct.pack(">I", 0)), "video", PHOTO, 5, 30
    ),
    **{
        f"video turned by {90 * turns} degrees": Case(
            lambda turns=turns: phone_rotated(
                encode([np.ascontiguousarray(np.rot90(frame, turns)) for frame in FRAMES[:6]], 25.0), turns
            ),
            "video", PHOTO, 5, 6, name="x.mp4",
        )
        for turns in (1, 2, 3)
    },
}  # fmt: skip

REFUSED: dict[str, Case] = {
    "no bytes": Case(lambda: b"", "empty", name="x.jpg"),
    "text": Case(lambda: b"not a picture at all\n" * 20, "unknown_format", name="x.jpg"),
    "SVG": Case(lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unknown_format", name="x.png"),
    "PDF": Case(lambda: b"%PDF-1.7\n" + bytes(100), "unknown_format", name="x.jpeg"),
    "ZIP": Case(lambda: b"PK\x03\x04" + bytes(100), "unknown_format", name="x.webp"),
    "MPEG-TS": Case(lambda: muxed("mpegts", "libx264", FRAMES[:4]), "unknown_format", name="x.mp4"),
    "JPEG cut in half": Case(lambda: _cut(jpeg(), 0.5), "truncated", name="x.jpg"),
    "JPEG cut in half, with an end marker": Case(lambda: _cut(jpeg(), 0.5) + b"\xff\xd9", "truncated"),
    "JPEG with a hole": Case(lambda: jpeg()[:8000] + jpeg()[10000:], "truncated"),
    "progressive JPEG cut": Case(
        lambda: saved(IMAGE, "JPEG", progressive=True)[:-2000] + b"\xff\xd9", "truncated"
    ),
    "bare JPEG signature": Case(lambda: b"\xff\xd8\xff\xe0", "truncated"),
    "PNG cut": Case(lambda: saved(IMAGE, "PNG")[:-5000], "truncated", name="x.png"),
    "PNG with a wrong checksum": Case(lambda: _flipped(saved(IMAGE, "PNG"), 3000), "truncated"),
    "PNG whose data ends early under right checksums": Case(
        lambda: png(320, 240, 8, 2, b"".join(b"\0" + row.tobytes() for row in PHOTO[:120])), "truncated"
    ),
    "PNG of which the last row is missing": Case(
        lambda: png(320, 240, 8, 2, b"".join(b"\0" + row.tobytes() for row in PHOTO[:239]) + bytes(900)), "truncated"
    ),
    "interlaced PNG whose data ends early": Case(lambda: interlaced(0.7), "truncated"),
    "lossless WebP cut": Case(lambda: saved(IMAGE, "WEBP", lossless=True)[:-200], "truncated"),
    "WebP cut": Case(lambda: saved(IMAGE, "WEBP")[:-200], "truncated"),
    "HEIC cut": Case(lambda: saved(IMAGE, "HEIF")[:-500], "truncated"),
    "HEIC of a header alone": Case(heic_header, "truncated", name="x.heic"),
    "AVIF cut": Case(lambda: saved(IMAGE, "AVIF")[:-500], "truncated"),
    "GIF cut": Case(lambda: saved(IMAGE, "GIF")[:-2000], "truncated"),
    "BMP cut": Case(lambda: _cut(saved(IMAGE, "BMP"), 0.5), "truncated"),
    "TIFF cut": Case(lambda: _cut(saved(IMAGE, "TIFF"), 0.5), "truncated"),
    "TIFF that claims twice the rows that it holds": Case(_tall_tiff, "truncated"),
    "TIFF with a hole in its JPEG data": Case(_holed_tiff, "truncated"),
    "PNG of 900 megapixels in a kilobyte": Case(lambda: png(30000, 30000, 8, 2, bytes(1000)), "too_large"),
    "PNG of 110 megapixels in a kilobyte": Case(lambda: png(11000, 10000, 8, 2, bytes(1000)), "too_large"),
    "PNG of four billion columns": Case(lambda: png(2**31 - 1, 2**31 - 1, 8, 2, bytes(100)), "too_large"),
    "JPEG that claims 65535 x 65535": Case(lambda: _sof(jpeg(), 65535, 65535), "too_large"),
    "GIF that claims 65535 x 65535": Case(
        lambda: _replaced(saved(PALETTE, "GIF"), 6, b"\xff\xff\xff\xff"), "too_large"
    ),
    "BMP that claims 30000 x 30000": Case(
        lambda: _replaced(saved(IMAGE, "BMP"), 18, struct.pack("<ii", 30000, 30000)), "too_large"
    ),
    "one pixel": Case(lambda: saved(IMAGE.crop((0, 0, 1, 1)), "PNG"), "too_small", name="x.png"),
    "icon": Case(lambda: saved(IMAGE.resize((100, 8)), "PNG"), "too_small"),
    "narrow strip": Case(lambda: saved(IMAGE.resize((16, 8000)), "PNG"), "too_elongated"),
    "narrow video": Case(
        lambda: encode([np.tile(frame[:16], (1, 2, 1)) for frame in FRAMES[:3]], 25.0), "too_elongated"
    ),
    "animated GIF": Case(lambda: saved(IMAGE, "GIF", **TWO), "animated", name="x.gif"),
    "animated PNG": Case(lambda: saved(IMAGE, "PNG", **TWO), "animated", name="x.png"),
    "animated WebP": Case(lambda: saved(IMAGE, "WEBP", **TWO), "animated", name="x.webp"),
    "TIFF of two pages": Case(lambda: saved(IMAGE, "TIFF", **TWO), "animated", name="x.tif"),
    "TIFF of floating-point samples": Case(big_float_tiff, "unsupported", name="x.tiff"),
    "MP4 without its index": Case(lambda: _cut(mp4(), 0.5), "truncated", name="x.mp4"),
    "MP4 with a broken frame": Case(lambda: _zeroed(mp4(), len(mp4()) // 2, 400), "truncated"),
    "MP4 whose index comes first, cut": Case(lambda: _cut(_fast_start(), 0.8), "truncated"),
    "MP4 header and nothing else": Case(lambda: b"\0\0\0\x18ftypisom" + bytes(12), "truncated"),
    "MP4 that claims four billion samples": Case(
        lambda: _in_box(mp4(), b"stsz", 8, struct.pack(">I", 2**32 - 1)), "truncated"
    ),
    "MP4 whose samples claim two gigabytes each": Case(
        lambda: _in_box(mp4(), b"stsz", 12, struct.pack(">30I", *[2**31 - 1] * 30)), "truncated"
    ),
    "MP4 whose samples lie behind its end": Case(
        lambda: _in_box(mp4(), b"stco", 8, struct.pack(">I", 2**32 - 16)), "truncated"
    ),
    "MP4 whose frames last for days": Case(
        lambda: sample_time(mp4(), 2**30), "too_large"
    ),
    "Matroska cut": Case(lambda: _cut(muxed("matroska", "libx264"), 0.7), "truncated"),
    "WebM cut": Case(lambda: _cut(muxed("webm", "libvpx-vp9"), 0.95), "truncated"),
    "AVI cut": Case(lambda: _cut(muxed("avi", "mpeg4"), 0.7), "truncated"),
    "sound without pictures": Case(sound_only, "no_frames", name="x.mp4"),
    "sound in Matroska": Case(lambda: sound_only("matroska"), "no_frames", name="x.mkv"),
    "tiny video": Case(lambda: encode([frame[:12, :64] for frame in FRAMES[:3]], 25.0), "too_small"),
    "video of two pixels": Case(lambda: encode([frame[:2, :2] for frame in FRAMES[:3]], 25.0), "too_small"),
}  # fmt: skip

CASES: dict[str, Case] = {**PHOTOGRAPHS, **CLIPS, **REFUSED}
"""All of it: description -> case."""


@cache
def content(case: str) -> bytes:
    """The bytes of a case, made once."""
    return CASES[case].make()


def pool_name(case: str) -> str:
    """A name for the case's file that no other case has, with the end that the table gives it."""
    return f"{list(CASES).index(case):03d}{PurePosixPath(CASES[case].name).suffix}"
