import hashlib
import io
import itertools

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from models.distortions import (
    CELLS,
    IMAGE_CELLS,
    IMAGE_TYPES,
    LEVELS,
    NO_OP_CELLS,
    SEVERITY_WORDS,
    VIDEO_CELLS,
    VIDEO_TYPES,
    distort_clip,
    distort_image,
    strength,
    words,
)
from models.errors import ModelError

PHOTOS = {
    "astronaut": np.ascontiguousarray(data.astronaut()[:320, :400]),
    "coffee": np.ascontiguousarray(data.coffee()[:320, :400]),
    "chelsea": np.ascontiguousarray(data.chelsea()),
}
CLIP = [np.ascontiguousarray(np.roll(PHOTOS["coffee"][:144, :192], 2 * t, axis=1)) for t in range(24)]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)))


def decoded(mp4: bytes) -> np.ndarray:
    with av.open(io.BytesIO(mp4)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_there_are_the_25_kadis_types_in_id_order_and_four_video_types():
    assert [kind.id for kind in IMAGE_TYPES.values()] == list(range(1, 26))
    assert all(name == kind.name for name, kind in {**IMAGE_TYPES, **VIDEO_TYPES}.items())
    assert list(VIDEO_TYPES) == ["h264_compression", "h265_compression", "frame_stutter", "camera_shake"]
    assert all(len(kind.parameters) == 5 for kind in {**IMAGE_TYPES, **VIDEO_TYPES}.values())


def test_kadis_parameters_are_kept_where_the_catalogue_does_not_say_otherwise():
    # The generator's table as recorded in papers/vital.md section 3, by KADIS id.
    kadis = {
        2: (1, 2, 4, 6, 8), 3: (1, 2, 4, 6, 10), 4: (1, 3, 6, 8, 12), 5: (1, 3, 6, 8, 12), 6: (64, 48, 32, 16, 8),
        7: (0.4, 0.2, 0.1, 0, -0.4), 9: (16, 32, 45, 120, 400), 10: (43, 36, 24, 7, 4),
        11: (0.001, 0.002, 0.003, 0.005, 0.01), 12: (0.0001, 0.0005, 0.001, 0.002, 0.003),
        13: (0.001, 0.005, 0.01, 0.02, 0.03), 14: (0.001, 0.005, 0.01, 0.02, 0.05), 15: (0.01, 0.03, 0.05, 0.1, 0.15),
        16: (0.1, 0.2, 0.4, 0.7, 1.1), 17: (0.05, 0.1, 0.2, 0.4, 0.8), 18: (0.15, 0.08, 0, -0.08, -0.15),
        19: (0.05, 0.1, 0.2, 0.5, 1), 20: (20, 40, 60, 80, 100), 21: (0.01, 0.05, 0.1, 0.2, 0.5),
        22: (20, 16, 13, 10, 7), 23: (2, 4, 6, 8, 10), 24: (1, 2, 3, 6, 12), 25: (0.3, 0.15, 0, -0.4, -0.6),
    }  # fmt: skip
    ours = {1: (0.1, 0.5, 1, 2, 5), 8: (1, 2, 3, 6, 9)}
    for kind in IMAGE_TYPES.values():
        if kind.id in ours:
            assert kind.parameters[1:] == ours[kind.id][1:]
            assert "ours" in kind.note
        else:
            assert kind.parameters == kadis[kind.id]


def test_only_the_two_known_cells_change_nothing_and_they_are_excluded():
    assert {("mean_shift", 3), ("contrast_change", 3)} == NO_OP_CELLS
    assert len(IMAGE_CELLS) == 123
    assert len(VIDEO_CELLS) == 20
    assert len(set(CELLS)) == 143
    photo = PHOTOS["astronaut"]
    for kind, severity in itertools.product(IMAGE_TYPES, LEVELS):
        same = np.array_equal(distort_image(photo, kind, severity, 5), photo)
        assert same == ((kind, severity) in NO_OP_CELLS), (kind, severity)


@pytest.mark.parametrize("kind", IMAGE_TYPES)
def test_distance_rises_with_strength(kind: str):
    order = sorted((level for level in LEVELS if strength(kind, level)), key=lambda level: strength(kind, level))
    for name, photo in PHOTOS.items():
        by_strength: dict[int, list[float]] = {}
        for level in order:
            distorted = distort_image(photo, kind, level, seed=11)
            assert distorted.shape == photo.shape
            assert distorted.dtype == np.uint8
            by_strength.setdefault(strength(kind, level), []).append(distance(distorted, photo))
        groups = list(by_strength.values())
        assert groups[0][0] > 0.1
        assert all(max(weaker) < min(stronger) for weaker, stronger in itertools.pairwise(groups)), (name, groups)


@pytest.mark.parametrize("kind", VIDEO_TYPES)
def test_video_distance_rises_with_severity_and_length_stays(kind: str):
    distances = []
    for severity in LEVELS:
        clip = decoded(distort_clip(iter(CLIP), 24.0, kind, severity, seed=3))
        assert clip.shape == (24, 144, 192, 3)
        distances.append(distance(clip, np.stack(CLIP)))
    assert all(a < b for a, b in itertools.pairwise(distances)), distances


def test_codec_types_are_real_bitstreams():
    for kind, name in (("h264_compression", "h264"), ("h265_compression", "hevc")):
        sizes = []
        for severity in LEVELS:
            mp4 = distort_clip(iter(CLIP), 24.0, kind, severity, seed=0)
            with av.open(io.BytesIO(mp4)) as container:
                assert container.streams.video[0].codec_context.name == name
            sizes.append(len(mp4))
        assert sizes == sorted(sizes, reverse=True)


def test_codec_side_of_other_types_is_nearly_lossless():
    plain = decoded(distort_clip(iter(CLIP), 24.0, "frame_stutter", 1, seed=3))
    moving = [t for t in range(1, 24) if distance(plain[t], CLIP[t]) < distance(plain[t], CLIP[t - 1])]
    assert len(moving) > 12  # frames that were not repeated
    assert max(distance(plain[t], CLIP[t]) for t in moving) < 6  # chroma subsampling and CRF 12


def test_stutter_repeats_whole_frames():
    # the coded picture of a repeated frame is the picture before it, up to the codec
    clip = decoded(distort_clip(iter(CLIP), 24.0, "frame_stutter", 5, seed=3)).astype(np.float64)
    repeated = [distance(a, b) < 3 for a, b in itertools.pairwise(clip)]
    assert 0.7 < np.mean(repeated) < 1.0


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(IMAGE_CELLS), st.integers(0, 2**31 - 1))
def test_equal_seeds_are_equal_bytes_and_the_input_is_left_alone(cell: tuple[str, int], seed: int):
    photo = PHOTOS["chelsea"][:120, :160].copy()
    before = hashlib.sha256(photo.tobytes()).hexdigest()
    first, second = distort_image(photo, *cell, seed), distort_image(photo, *cell, seed)
    assert np.array_equal(first, second)
    assert hashlib.sha256(photo.tobytes()).hexdigest() == before


@pytest.mark.parametrize(
    "kind",
    [
        "motion_blur",
        "color_shift",
        "white_noise",
        "impulse_noise",
        "denoise",
        "jitter",
        "non_eccentricity_patch",
        "color_block",
    ],
)
def test_another_seed_is_another_pattern(kind: str):
    photo = PHOTOS["astronaut"]
    assert not np.array_equal(distort_image(photo, kind, 4, 1), distort_image(photo, kind, 4, 2))


def test_clips_are_byte_identical_for_a_seed():
    for kind in (*VIDEO_TYPES, "white_noise"):
        one, two = (distort_clip(iter(CLIP), 24.0, kind, 3, seed=9) for _ in range(2))
        assert one == two, kind


def test_noise_flickers_on_clips_and_blocks_stay_where_they_are():
    still = [CLIP[0]] * 6
    noisy = decoded(distort_clip(iter(still), 24.0, "white_noise", 5, seed=1))
    blocks = decoded(distort_clip(iter(still), 24.0, "color_block", 5, seed=1))
    assert distance(noisy[2], noisy[3]) > 10
    assert distance(blocks[2], blocks[3]) < 2


def test_odd_sizes_keep_their_size():
    odd = [frame[:143, :191] for frame in CLIP[:4]]
    assert decoded(distort_clip(iter(odd), 25.0, "h264_compression", 2, seed=0)).shape == (4, 143, 191, 3)


def test_mean_level_noise_has_the_variance_that_the_table_says():
    grey = np.full((256, 256, 3), 128, dtype=np.uint8)
    for level, variance in zip(LEVELS, IMAGE_TYPES["white_noise"].parameters, strict=True):
        noisy = distort_image(grey, "white_noise", level, 3).astype(np.float64) / 255
        assert noisy.var() == pytest.approx(variance, rel=0.03)
    for level, share in zip(LEVELS, IMAGE_TYPES["impulse_noise"].parameters, strict=True):
        hit = distort_image(grey, "impulse_noise", level, 3) != 128
        assert hit.mean() == pytest.approx(share, rel=0.12)
    shifted = distort_image(grey, "mean_shift", 1, 0)
    assert int(shifted[0, 0, 0]) == 166  # 128 + .15 * 255, rounded


def test_saturation_agrees_with_the_colour_space_it_names():
    from skimage import color

    photo = PHOTOS["coffee"]
    hsv = color.rgb2hsv(photo)
    hsv[..., 1] *= 0.4
    expected = np.rint(color.hsv2rgb(hsv) * 255)
    assert np.abs(distort_image(photo, "color_saturation_1", 1, 0) - expected).max() <= 1
    photo = PHOTOS["chelsea"]
    lab = color.rgb2lab(photo)
    lab[..., 1:] *= 1.5
    expected = np.rint(np.clip(color.lab2rgb(lab), 0, 1) * 255)
    inside = expected.min(axis=2) > 0  # outside the gamut scikit-image clips in another space
    assert inside.mean() > 0.9
    assert np.abs(distort_image(photo, "color_saturation_2", 1, 0) - expected)[inside].max() <= 1


def test_words_follow_the_strength():
    assert words("white_noise", 3) == "relatively severe white noise"
    assert words("h264_compression", 2) == "mild H264 compression"
    assert words("mean_shift", 1) == words("mean_shift", 5) == "severe mean shift"
    assert words("contrast_change", 2) == "slight contrast change"
    assert len({words(*cell) for cell in CELLS}) == len(CELLS) - 2  # both directions of mean shift have one name
    assert len(set(SEVERITY_WORDS)) == 5
    with pytest.raises(ModelError, match="changes nothing"):
        words("contrast_change", 3)


def test_wrong_requests_say_what_is_wrong():
    photo = PHOTOS["chelsea"]
    with pytest.raises(ModelError, match="unknown distortion 'fog'"):
        distort_image(photo, "fog", 1, 0)
    with pytest.raises(ModelError, match="severity must be 1 to 5"):
        distort_image(photo, "jpeg", 6, 0)
    with pytest.raises(ModelError, match="use distort_clip"):
        distort_image(photo, "camera_shake", 1, 0)
    with pytest.raises(ModelError, match="needs sides of at least 64"):
        distort_image(photo[:40], "color_block", 1, 0)
    with pytest.raises(ModelError, match="uint8"):
        distort_image(photo.astype(np.float32), "jpeg", 1, 0)
    with pytest.raises(ModelError, match="at least one frame"):
        distort_clip(iter([]), 25.0, "h264_compression", 1, 0)
    with pytest.raises(ModelError, match="fps must be positive"):
        distort_clip(iter(CLIP), 0.0, "h264_compression", 1, 0)
    with pytest.raises(ModelError, match="differ in size"):
        distort_clip(iter([CLIP[0], CLIP[0][:, :96]]), 25.0, "h264_compression", 1, 0)
