"""Every generated distortion moves its own measured signal, and more of it the stronger it is."""

import io
import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from skimage import data

from models.distortions import CELLS, IMAGE_TYPES, VIDEO_TYPES, distort_clip, distort_image, strength
from models.distortions.signals import SIGNALS, signal
from models.errors import ModelError

PHOTOS = {
    "astronaut": np.ascontiguousarray(data.astronaut()[:256, 60:316]),
    "coffee": np.ascontiguousarray(data.coffee()[40:296, 100:356]),
    "chelsea": np.ascontiguousarray(data.chelsea()[:256, 100:356]),
}
CLIP = np.stack([np.ascontiguousarray(data.coffee()[60:204, 2 * t + 20 : 2 * t + 212]) for t in range(24)])


def decoded(mp4: bytes) -> np.ndarray:
    with av.open(io.BytesIO(mp4)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def by_strength(kind: str, original: np.ndarray, seed: int) -> list[list[float]]:
    """Signals of all levels that change something, those of one strength together, weakest first."""
    groups: dict[int, list[float]] = {}
    for level in sorted((level for name, level in CELLS if name == kind), key=lambda level: strength(kind, level)):
        if kind in VIDEO_TYPES:
            child = decoded(distort_clip(iter(original), 24.0, kind, level, seed))
        else:
            child = distort_image(original, kind, level, seed)
        groups.setdefault(strength(kind, level), []).append(signal(original, child, kind))
    return list(groups.values())


def rises(groups: list[list[float]]) -> bool:
    return all(max(weaker) < min(stronger) for weaker, stronger in itertools.pairwise(groups))


def test_every_type_of_the_catalogue_has_a_signal_in_its_order():
    assert list(SIGNALS) == [*IMAGE_TYPES, *VIDEO_TYPES]


@pytest.mark.parametrize("kind", IMAGE_TYPES)
def test_an_image_type_moves_its_own_signal_with_every_step_of_strength(kind: str):
    for (name, photo), seed in zip(PHOTOS.items(), (7, 19, 23), strict=True):
        groups = by_strength(kind, photo, seed)
        assert rises(groups), (name, groups)
        assert groups[0][0] > signal(photo, photo, kind)


@pytest.mark.parametrize("kind", VIDEO_TYPES)
def test_a_video_type_moves_its_own_signal_with_every_step_of_strength(kind: str):
    groups = by_strength(kind, CLIP, 7)
    assert rises(groups), groups
    assert groups[0][0] > signal(CLIP, CLIP, kind)


@pytest.mark.parametrize("kind", SIGNALS)
def test_an_unchanged_medium_has_nothing_of_a_signal(kind: str):
    original = CLIP if kind in VIDEO_TYPES else PHOTOS["chelsea"]
    assert signal(original, original, kind) == pytest.approx(0, abs=1e-9)


def test_signals_are_the_quantities_that_they_are_called():
    grey = np.full((64, 64, 3), 100, np.uint8)
    assert signal(grey, grey + np.uint8(10), "brighten") == pytest.approx(10)
    assert signal(grey, grey - np.uint8(10), "darken") == pytest.approx(10)
    assert signal(grey, grey - np.uint8(10), "mean_shift") == pytest.approx(10)
    half = grey.copy()
    half[:32] = 0
    assert signal(grey, half, "non_eccentricity_patch") == 0.5
    assert signal(grey, half, "impulse_noise") == 0.5
    noise = np.random.default_rng(0).normal(0, 6, (64, 64, 1))
    assert signal(grey, np.rint(grey + noise).astype(np.uint8), "white_noise") == pytest.approx(6, rel=0.05)
    photo = PHOTOS["astronaut"]
    moved = photo.copy()
    moved[..., 1] = np.roll(photo[..., 1], (3, -4), axis=(0, 1))
    assert signal(photo, moved, "color_shift") == pytest.approx(5)
    moved[:, :100] = photo[:, :100]  # where it stays it says nothing
    assert signal(photo, moved, "color_shift") == pytest.approx(5)
    assert signal(photo, photo, "color_shift") == 0.0
    drab = np.rint(photo.mean(axis=-1, keepdims=True) + 0.25 * (photo - photo.mean(axis=-1, keepdims=True)))
    assert signal(photo, drab.astype(np.uint8), "color_saturation_1") == pytest.approx(0.75, abs=0.01)
    still = CLIP.copy()
    still[12:] = still[11]
    assert signal(CLIP, still, "frame_stutter") == pytest.approx(12 / 23)
    assert signal(CLIP, np.roll(CLIP, 2, axis=2), "camera_shake") == pytest.approx(2, abs=0.3)


def test_wrong_questions_are_told():
    with pytest.raises(ModelError, match="unknown distortion 'fog'"):
        signal(CLIP, CLIP, "fog")
    with pytest.raises(ModelError, match="measured on two of one shape"):
        signal(CLIP, CLIP, "jpeg")
    with pytest.raises(ModelError, match="measured on two of one shape"):
        signal(CLIP, CLIP[:3], "camera_shake")


def test_the_page_of_distortions_names_every_signal(checkout: Path):
    page = (checkout / "docs" / "distortions.md").read_text()
    assert all(f"| `{kind}` | {found.words} |" in page for kind, found in SIGNALS.items())
