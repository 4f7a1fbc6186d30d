"""The edge corpus of media: every case has a stated outcome, the one that docs/data.md states."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pillow_heif
import pytest
from PIL import Image
from skimage import data

from models.distortions.clips import encode
from tasks.errors import MediaError
from tasks.media import ADMITTED, Limits, MediaInfo, decode_image, decode_video, is_video, iterate_video, probe

pillow_heif.register_heif_opener()

PHOTO = np.ascontiguousarray(data.astronaut()[:240, :320])
IMAGE = Image.fromarray(PHOTO)
FRAMES = [np.ascontiguousarray(np.roll(PHOTO, 3 * t, axis=1)) for t in range(30)]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def muxed(kind: str, codec: str, frames: list[np.ndarray] = FRAMES) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


MP4 = encode(FRAMES, 25.0)
JPEG = saved(IMAGE, "JPEG", quality=90)
EXIF_ROTATED = Image.Exif()
EXIF_ROTATED[0x112] = 6


def outcome(content: bytes, limits: Limits | None = None) -> str:
    try:
        return probe(content, limits).modality
    except MediaError as error:
        refusal = error
    assert len(str(refusal).splitlines()) == 1
    return refusal.reason


def sound_only() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return buffer.getvalue()


def varying_rate() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=1000)
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


def phone_rotated(mp4: bytes) -> bytes:
    """Write a quarter turn clockwise into the track's display matrix, as phones do."""
    header = mp4.index(b"tkhd")
    matrix = header + 4 + 4 + 20 + 16
    content = bytearray(mp4)
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    return bytes(content)


IMAGES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: JPEG,
    "progressive JPEG": lambda: saved(IMAGE, "JPEG", progressive=True),
    "grey JPEG": lambda: saved(IMAGE.convert("L"), "JPEG"),
    "CMYK JPEG": lambda: saved(IMAGE.convert("CMYK"), "JPEG"),
    "JPEG with bytes after its end": lambda: JPEG + b"camera maker's notes" * 50,
    "MPO, the first of its pictures": lambda: saved(IMAGE, "MPO", save_all=True, append_images=[IMAGE]),
    "PNG": lambda: saved(IMAGE, "PNG"),
    "16-bit PNG": lambda: saved(Image.fromarray(PHOTO[..., 0].astype(np.uint16) * 257), "PNG"),
    "palette PNG": lambda: saved(IMAGE.quantize(16), "PNG"),
    "1-bit PNG": lambda: saved(IMAGE.convert("1"), "PNG"),
    "transparent PNG": lambda: saved(IMAGE.convert("RGBA"), "PNG"),
    "WebP": lambda: saved(IMAGE, "WEBP"),
    "BMP": lambda: saved(IMAGE, "BMP"),
    "TIFF": lambda: saved(IMAGE, "TIFF", compression="tiff_lzw"),
    "GIF of one image": lambda: saved(IMAGE, "GIF"),
    "HEIC": lambda: saved(IMAGE, "HEIF"),
    "AVIF": lambda: saved(IMAGE, "AVIF"),
    "odd size": lambda: saved(IMAGE.crop((0, 0, 317, 239)), "JPEG"),
}

VIDEOS: dict[str, Callable[[], bytes]] = {
    "MP4, H.264": lambda: MP4,
    "MP4, H.265": lambda: encode(FRAMES, 25.0, "libx265", 20),
    "MOV": lambda: muxed("mov", "libx264"),
    "Matroska, H.264": lambda: muxed("matroska", "libx264"),
    "WebM, VP9": lambda: muxed("webm", "libvpx-vp9"),
    "Matroska, AV1": lambda: muxed("matroska", "libsvtav1"),
    "AVI, MPEG-4": lambda: muxed("avi", "mpeg4"),
    "odd size": lambda: encode([frame[:239, :319] for frame in FRAMES], 25.0),
    "varying rate": varying_rate,
    "one frame": lambda: encode(FRAMES[:1], 25.0),
    "rotated by a phone": lambda: phone_rotated(MP4),
}

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "no bytes": (lambda: b"", "empty"),
    "text": (lambda: b"not a picture at all\n" * 20, "unknown_format"),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unknown_format"),
    "PDF": (lambda: b"%PDF-1.7\n" + bytes(100), "unknown_format"),
    "JPEG cut in half": (lambda: JPEG[: len(JPEG) // 2], "truncated"),
    "JPEG cut in half, with an end marker": (lambda: JPEG[: len(JPEG) // 2] + b"\xff\xd9", "truncated"),
    "JPEG with a hole": (lambda: JPEG[:4000] + JPEG[6000:], "truncated"),
    "progressive JPEG cut": (lambda: saved(IMAGE, "JPEG", progressive=True)[:-2000] + b"\xff\xd9", "truncated"),
    "PNG cut": (lambda: saved(IMAGE, "PNG")[:-5000], "truncated"),
    "PNG with a wrong checksum": (lambda: _flipped(saved(IMAGE, "PNG"), 3000), "truncated"),
    "WebP cut": (lambda: saved(IMAGE, "WEBP")[:-200], "truncated"),
    "HEIC cut": (lambda: saved(IMAGE, "HEIF")[:-500], "truncated"),
    "AVIF cut": (lambda: saved(IMAGE, "AVIF")[:-500], "truncated"),
    "GIF cut": (lambda: saved(IMAGE, "GIF")[:-2000], "truncated"),
    "bare JPEG signature": (lambda: b"\xff\xd8\xff\xe0", "truncated"),
    "PNG of 900 megapixels in a kilobyte": (lambda: png(30000, 30000, 8, 2, bytes(1000)), "too_large"),
    "PNG of 110 megapixels in a kilobyte": (lambda: png(11000, 10000, 8, 2, bytes(1000)), "too_large"),
    "icon": (lambda: saved(IMAGE.resize((100, 8)), "PNG"), "too_small"),
    "narrow strip": (lambda: saved(IMAGE.resize((16, 8000)), "PNG"), "too_elongated"),
    "narrow video": (lambda: encode([np.tile(frame[:16], (1, 2, 1)) for frame in FRAMES[:3]], 25.0), "too_elongated"),
    "animated GIF": (lambda: saved(IMAGE, "GIF", save_all=True, append_images=[IMAGE.rotate(9)]), "animated"),
    "animated PNG": (lambda: saved(IMAGE, "PNG", save_all=True, append_images=[IMAGE.rotate(9)]), "animated"),
    "animated WebP": (lambda: saved(IMAGE, "WEBP", save_all=True, append_images=[IMAGE.rotate(9)]), "animated"),
    "TIFF of two pages": (lambda: saved(IMAGE, "TIFF", save_all=True, append_images=[IMAGE]), "animated"),
    "TIFF of floating-point samples": (
        lambda: saved(Image.fromarray(np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)), "TIFF"),
        "unsupported",
    ),
    "MP4 without its index": (lambda: MP4[: len(MP4) // 2], "truncated"),
    "MP4 with a broken frame": (lambda: _zeroed(MP4, len(MP4) // 2, 400), "truncated"),
    "Matroska cut": (lambda: _cut(muxed("matroska", "libx264"), 0.7), "truncated"),
    "WebM cut": (lambda: _cut(muxed("webm", "libvpx-vp9"), 0.95), "truncated"),
    "AVI cut": (lambda: _cut(muxed("avi", "mpeg4"), 0.7), "truncated"),
    "sound without pictures": (sound_only, "no_frames"),
    "tiny video": (lambda: encode([frame[:12, :64] for frame in FRAMES[:3]], 25.0), "too_small"),
    "MP4 header and nothing else": (lambda: b"\0\0\0\x18ftypisom" + bytes(12), "truncated"),
}


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _zeroed(content: bytes, at: int, length: int) -> bytes:
    return content[:at] + bytes(length) + content[at + length :]


def _cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


@pytest.mark.parametrize("case", IMAGES)
def test_images_that_are_read(case: str):
    content = IMAGES[case]()
    info = probe(content)
    pixels = decode_image(content)
    assert info.modality == "image"
    assert (info.frames, info.fps, info.duration_s) == (1, 0.0, 0.0)
    assert pixels.shape == (info.height, info.width, 3)
    assert pixels.dtype == np.uint8
    reference = PHOTO[: info.height, : info.width].astype(float)
    if case in {"grey JPEG", "1-bit PNG"}:
        reference = reference @ np.array([0.299, 0.587, 0.114])
        assert np.array_equal(pixels[..., 0], pixels[..., 2])
    elif case == "16-bit PNG":
        reference = reference[..., 0]
    blurred = [np.asarray(Image.fromarray(part.astype(np.uint8)).reduce(8), float) for part in (pixels, reference)]
    shown = blurred[0] if blurred[0].ndim == blurred[1].ndim else blurred[0][..., 0]
    assert np.abs(shown - blurred[1]).mean() < 6  # the right picture, up to its coding


@pytest.mark.parametrize("case", VIDEOS)
def test_videos_that_are_read(case: str):
    content = VIDEOS[case]()
    info = probe(content)
    assert info.modality == "video"
    clip = decode_video(content, 5)
    assert clip.info == info
    assert clip.frames_THWC.shape == (min(5, info.frames), info.height, info.width, 3)
    assert clip.seconds_T[0] == 0
    assert (np.diff(clip.seconds_T) > 0).all()
    assert info.frames == (1 if case == "one frame" else 30)
    assert sum(1 for _ in iterate_video(content)) == info.frames
    if case not in {"varying rate", "one frame"}:
        assert info.fps == pytest.approx(25, rel=0.01)
        assert info.duration_s == pytest.approx(1.2, rel=0.01)


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_are_refused_with_a_reason(case: str):
    make, reason = REFUSED[case]
    assert outcome(make()) == reason


def test_16_bit_samples_are_scaled_not_saturated():
    grey = np.arange(240 * 320, dtype=np.uint32).reshape(240, 320) % 65536
    pixels = decode_image(saved(Image.fromarray(grey.astype(np.uint16)), "PNG"))
    assert np.array_equal(pixels[..., 1], np.rint(grey / 257).astype(np.uint8))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in PHOTO.astype(np.uint16) * 257)
    assert np.array_equal(decode_image(png(320, 240, 16, 2, rows)), PHOTO)


def test_exif_orientation_and_display_matrix_turn_pictures_upright():
    turned = decode_image(saved(IMAGE, "JPEG", exif=EXIF_ROTATED, quality=100, subsampling=0))
    assert np.abs(turned.astype(int) - np.rot90(PHOTO, -1)).mean() < 1
    upright, rotated = decode_video(MP4, [0]), decode_video(phone_rotated(MP4), [0])
    assert np.array_equal(rotated.frames_THWC[0], np.rot90(upright.frames_THWC[0], -1))
    assert (rotated.info.width, rotated.info.height) == (240, 320)


def test_broken_exif_is_no_reason_to_refuse_a_photograph():
    content = saved(IMAGE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\xff\xff")
    assert outcome(content) == "image"


def test_transparency_lies_over_mid_grey():
    clear = saved(Image.new("RGBA", (32, 32), (255, 0, 0, 0)), "PNG")
    assert decode_image(clear)[5, 5].tolist() == [128, 128, 128]
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert decode_image(saved(palette, "PNG", transparency=1))[5, 5].tolist() == [128, 128, 128]


def test_content_decides_and_not_the_name():
    assert not is_video(JPEG)
    assert is_video(MP4)
    assert not is_video(saved(IMAGE, "HEIF"))
    assert is_video(muxed("avi", "mpeg4"))


def test_limits_hold_before_anything_is_decoded():
    assert outcome(MP4, Limits(max_seconds=1.0)) == "too_large"
    assert outcome(MP4, Limits(max_frames=29)) == "too_large"
    assert outcome(MP4, Limits(max_pixels=320 * 240 - 1)) == "too_large"
    assert outcome(JPEG, Limits(max_bytes=len(JPEG) - 1)) == "too_large"
    assert outcome(JPEG, Limits(min_side=241)) == "too_small"
    assert outcome(JPEG, Limits(min_side=240)) == "image"
    assert outcome(JPEG, Limits(max_elongation=1.33)) == "too_elongated"
    assert outcome(JPEG, Limits(max_elongation=320 / 240)) == "image"
    assert outcome(saved(IMAGE.resize((16, 8000)), "PNG"), ADMITTED) == "image"
    assert outcome(JPEG, Limits(max_elongation=1.33)) == "too_elongated"
    assert outcome(JPEG, Limits(max_elongation=320 / 240)) == "image"
    assert outcome(saved(IMAGE.resize((16, 8000)), "PNG"), ADMITTED) == "image"
    assert outcome(saved(IMAGE.resize((100, 8)), "PNG"), ADMITTED) == "image"


def test_frames_are_those_asked_for():
    clip = decode_video(MP4, [0, 7, 7, 29, 500])
    assert clip.frames_THWC.shape[0] == 5
    assert np.array_equal(clip.frames_THWC[1], clip.frames_THWC[2])
    assert np.array_equal(clip.frames_THWC[3], clip.frames_THWC[4])  # beyond the end: the last frame
    assert clip.seconds_T.tolist() == pytest.approx([0, 7 / 25, 7 / 25, 29 / 25, 29 / 25])
    for t, frame in zip((0, 7, 7, 29, 29), clip.frames_THWC, strict=True):
        distances = [np.abs(frame.astype(int) - other).mean() for other in FRAMES]
        assert int(np.argmin(distances)) == t
    spread = decode_video(MP4, 4)
    assert spread.seconds_T.tolist() == pytest.approx([0, 10 / 25, 19 / 25, 29 / 25])
    with pytest.raises(ValueError, match="at least one frame"):
        decode_video(MP4, [])


def test_times_of_a_video_of_varying_rate_are_its_own():
    clip = decode_video(varying_rate(), [0, 1, 2, 3])
    assert clip.seconds_T.tolist() == pytest.approx([0, 0.1, 0.12, 0.22])
    assert clip.info.fps == pytest.approx(29 / 1.78)


@pytest.mark.parametrize(
    "case", ["JPEG", "PNG", "WebP", "TIFF", "GIF of one image", "HEIC", "MP4, H.264", "AVI, MPEG-4"]
)
def test_mutated_files_never_crash(case: str):
    content = ({**IMAGES, **VIDEOS})[case]()
    chance = np.random.default_rng(len(content))
    reasons = set()
    for _ in range(25):
        mutated = bytearray(content)
        for _ in range(int(chance.choice((1, 5, 50)))):
            mutated[int(chance.integers(len(mutated)))] = int(chance.integers(256))
        reasons.add(outcome(bytes(mutated)))
    known = {"image", "video", "truncated", "unknown_format", "too_large", "too_small", "too_elongated", "animated"}
    known |= {"no_frames"}
    assert reasons <= known | {"unsupported"}
    if case in {"PNG", "MP4, H.264"}:
        assert "truncated" in reasons


def test_memory_does_not_grow_with_the_video(tmp_path: Path):
    # 400 frames of 640x480 are 369 MB as RGB; asking for four must stay far below that
    still = np.ascontiguousarray(np.tile(PHOTO, (2, 2, 1)))
    path = tmp_path / "long.mp4"
    path.write_bytes(encode((np.roll(still, t, axis=1) for t in range(400)), 25.0, crf=40))
    code = (
        "import resource, sys; from pathlib import Path; from tasks.media import decode_video, probe\n"
        "data = Path(sys.argv[1]).read_bytes(); probe(data[:0] or data)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "clip = decode_video(data, 4); assert clip.info.frames == 400, clip.info\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    checkout = Path(__file__).resolve().parents[2]
    grown = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert float(grown.stdout) < 60


def test_import_is_light():
    code = (
        "import sys, tasks.media; print([m for m in ('torch', 'pandas', 'pyarrow', 'av', 'dvc') if m in sys.modules])"
    )
    checkout = Path(__file__).resolve().parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_info_of_a_photograph():
    assert probe(JPEG) == MediaInfo("image", "image/jpeg", 320, 240, 1, 0.0, 0.0)
