"""Every case of the edge corpus ends as its table says, which is what docs/data.md says."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import av.error
import media_corpus
import numpy as np
import pytest
from media_corpus import CASES, FRAMES, GREY_16, GREY_16_SHOWN, IMAGE, PHOTO, content, muxed, phone_rotated, saved
from PIL import ExifTags, Image, ImageOps

from models.distortions.clips import encode
from models.scorers import Sampling
from tasks import video
from tasks.annotation.opinions import FrameRule, decode_frames
from tasks.errors import MediaError
from tasks.media import ADMITTED, Limits, MediaInfo, decode_image, decode_video, is_video, iterate_video, probe
from tasks.video import check_jpeg

MP4 = media_corpus.mp4()
JPEG = media_corpus.jpeg()


def outcome(content: bytes, limits: Limits | None = None) -> str:
    try:
        return probe(content, limits).modality
    except MediaError as error:
        refusal = error
    assert len(str(refusal).splitlines()) == 1
    return refusal.reason


@pytest.mark.parametrize("name", CASES)
def test_a_case_ends_as_the_table_says(name: str):
    case = CASES[name]
    assert outcome(content(name)) == case.outcome
    if case.outcome not in {"image", "video"}:
        with pytest.raises(MediaError) as caught:
            decode_frames(content(name), FrameRule(), list(Sampling))
        assert caught.value.reason == case.outcome
        return
    info = probe(content(name))
    shown_HWC = shown(name)
    assert shown_HWC.dtype == np.uint8
    assert case.shows is not None
    assert shown_HWC.shape == case.shows.shape == (info.height, info.width, 3)
    assert np.abs(shown_HWC.astype(int) - case.shows).mean() <= case.within
    assert info.frames == case.frames
    seen = decode_frames(content(name), FrameRule(), list(Sampling))
    assert len(seen.for_sampling(Sampling.FRAMES)) == min(case.frames, 4)


def shown(name: str) -> np.ndarray:
    """The picture, or the first frame, and what of a video does not depend on the case."""
    if CASES[name].outcome == "image":
        info = probe(content(name))
        assert (info.frames, info.fps, info.duration_s) == (1, 0.0, 0.0)
        return decode_image(content(name))
    clip = decode_video(content(name), 5)
    assert clip.info == probe(content(name))
    assert len(clip.frames_THWC) == min(5, clip.info.frames)
    assert clip.seconds_T[0] == 0
    assert (np.diff(clip.seconds_T) > 0).all() or name == "video whose frames last no time"
    assert sum(1 for _ in iterate_video(content(name))) == clip.info.frames
    if clip.info.frames == 30 and name not in {"video of varying rate", "video whose frames last no time"}:
        assert clip.info.fps == pytest.approx(25, rel=0.01)
        assert clip.info.duration_s == pytest.approx(1.2, rel=0.01)
    return clip.frames_THWC[0]


def test_a_wrong_orientation_or_wrong_colours_would_be_seen():
    widest = max(case.within for case in CASES.values())
    others = [np.rot90(PHOTO, 2), PHOTO[:, ::-1], PHOTO[::-1], PHOTO[..., ::-1], 255 - PHOTO]
    assert min(np.abs(PHOTO.astype(int) - other).mean() for other in others) > 2 * widest
    assert np.abs(PHOTO.astype(int) - FRAMES[1]).mean() > widest  # so would another frame


def test_16_bit_samples_are_scaled_not_saturated():
    assert np.array_equal(decode_image(saved(Image.fromarray(GREY_16), "PNG")), GREY_16_SHOWN)
    assert np.array_equal(np.unique(GREY_16_SHOWN), np.arange(256))


def test_a_display_matrix_turns_every_pixel():
    upright, rotated = decode_video(MP4, [0]), decode_video(phone_rotated(MP4), [0])
    assert np.array_equal(rotated.frames_THWC[0], np.rot90(upright.frames_THWC[0], -1))
    assert (rotated.info.width, rotated.info.height) == (240, 320)


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
    assert outcome(saved(IMAGE.resize((100, 8)), "PNG"), ADMITTED) == "image"


def test_a_size_that_only_the_data_claims_is_refused_before_it_is_allocated():
    check_jpeg(JPEG, 320 * 240)
    with pytest.raises(MediaError, match="incomplete or invalid"):
        check_jpeg(JPEG, 320 * 240 // 3)


@pytest.mark.parametrize("name", ["baseline", "progressive", "grey", "four colours", "restarts", "full colour"])
def test_a_jpeg_is_refused_by_an_eighth_where_it_is_by_the_whole(name: str):
    """What the cheap decoding says of damaged files is what decoding at full size says, file by file."""
    photo = Image.fromarray(PHOTO).crop((0, 0, 157, 101))
    options: dict[str, object] = {"progressive": {"progressive": True}, "restarts": {"restart_marker_blocks": 4}}.get(
        name, {"subsampling": 0} if name == "full colour" else {}
    )
    mode = {"grey": "L", "four colours": "CMYK"}.get(name, "RGB")
    whole = np.frombuffer(saved(photo.convert(mode), "JPEG", **options), np.uint8)
    draw, refused = np.random.default_rng(5), 0
    for _ in range(150):
        damaged = whole.copy()
        at = int(draw.integers(2, len(whole) - 20))
        damaged[at : at + int(draw.integers(1, 20))] = draw.integers(0, 256)
        data = damaged[: at if draw.random() < 0.2 else None].tobytes()
        found = whether_whole(check_jpeg, data)
        assert found == whether_whole(whole_by_full_size, data)
        refused += not found
    assert 10 < refused < 150
    assert whether_whole(check_jpeg, whole.tobytes())


def whether_whole(check: Callable[[bytes, int], None], data: bytes) -> bool:
    try:
        check(data, 1 << 20)
    except MediaError:
        return False
    return True


def whole_by_full_size(data: bytes, pixels: int) -> None:
    try:
        whole = video._decodes_whole(data, pixels, eighths=False)
    except av.error.PatchWelcomeError:
        return
    except av.error.FFmpegError:
        whole = False
    if not whole:
        raise MediaError("truncated", "")


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("size", [(31, 63), (64, 64), (50, 129)])
def test_pixels_taken_in_strips_are_pillows(size: tuple[int, int], orientation: int):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = saved(Image.fromarray(PHOTO).resize(size), "JPEG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(decode_image(data), expected)


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
    clip = decode_video(media_corpus.varying_rate(), [0, 1, 2, 3])
    assert clip.seconds_T.tolist() == pytest.approx([0, 0.1, 0.12, 0.22])
    assert clip.info.fps == pytest.approx(29 / 1.78)


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
