"""Measured properties respond to what they are named after, and statistics equal independent computations."""

import io
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.fft import dctn
from skimage.data import astronaut, coffee

from models.vision_encoder import EMBEDDED_SPEC
from tasks.records import Modality
from tasks.training.base_images import SceneConfig, changed, moving_view, scene
from tasks.training.base_media import batches, fifths_of, make_media, scene_media
from tasks.training.base_signals import (
    IMAGE_PROPERTIES,
    VIDEO_PROPERTIES,
    clip_properties,
    frame_statistics,
    image_properties,
    token_statistics,
)

Pixels = NDArray[np.uint8]

PHOTOS: tuple[Pixels, ...] = (astronaut()[100:420, 60:400], coffee()[40:360, 100:440])
TINY_WORLD = SceneConfig(scenes=3, variants=2, clips=1, clip_frames=18, sides=(120, 150))


def _blurred(pixels: Pixels, sigma: float) -> Pixels:
    return ndimage.gaussian_filter(pixels, (sigma, sigma, 0))


def _noisy(pixels: Pixels, sigma: float) -> Pixels:
    noise = np.random.default_rng(0).normal(0, sigma, pixels.shape)
    return np.clip(pixels + noise, 0, 255).round().astype(np.uint8)


def _jpeg(pixels: Pixels, quality: int) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def _scaled(pixels: Pixels, gain: float, lift: float = 0.0) -> Pixels:
    return np.clip((pixels.astype(float) - 128) * gain + 128 + lift, 0, 255).round().astype(np.uint8)


def _grey(pixels: Pixels, share: float) -> Pixels:
    mean = pixels.mean(2, keepdims=True)
    return (mean + (pixels - mean) * share).round().astype(np.uint8)


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize(
    ("key", "less", "more"),
    [
        ("sharpness", lambda p: _blurred(p, 2.0), lambda p: _blurred(p, 0.5)),
        ("detail", lambda p: _blurred(p, 4.0), lambda p: p),
        ("noise", lambda p: p, lambda p: _noisy(p, 12)),
        ("contrast", lambda p: _scaled(p, 0.5), lambda p: p),
        ("brightness", lambda p: _scaled(p, 1, -40), lambda p: _scaled(p, 1, 20)),
        ("colourfulness", lambda p: _grey(p, 0.3), lambda p: p),
        ("blockiness", lambda p: p, lambda p: _jpeg(p, 8)),
        ("smoothness", lambda p: _noisy(p, 8), lambda p: _jpeg(p, 8)),
        ("clipping", lambda p: _scaled(p, 0.7), lambda p: _scaled(p, 2.0)),
        ("halo", lambda p: _blurred(p, 1.0), lambda p: p),
    ],
)
def test_image_property_grows_with_its_cause(
    photo: Pixels, key: str, less: Callable[[Pixels], Pixels], more: Callable[[Pixels], Pixels]
):
    assert image_properties(less(photo))[key] < image_properties(more(photo))[key]


def test_clip_properties_grow_with_their_causes():
    photo = np.ascontiguousarray(PHOTOS[0])

    def view(steps: Sequence[tuple[int, ...]]) -> Pixels:
        return np.stack([photo[y : y + 200, x : x + 200] for y, x in steps])

    still = view([(50, 50)] * 16)
    pan = view([(50, 10 + 4 * i) for i in range(16)])
    rng = np.random.default_rng(0)
    shaken = view([tuple(50 + rng.integers(-8, 9, 2)) for _ in range(16)])
    halting = view([(50, 10 + 16 * (i // 4)) for i in range(16)])
    flicker = np.stack([_scaled(photo[:200, :200], 1, 12 * (-1) ** i) for i in range(16)])
    of = {name: clip_properties(clip) for name, clip in
          {"still": still, "pan": pan, "shaken": shaken, "halting": halting, "flicker": flicker}.items()}  # fmt: skip
    assert set(of["still"]) == {*IMAGE_PROPERTIES, *VIDEO_PROPERTIES}
    assert of["still"]["motion"] < of["pan"]["motion"]
    assert of["shaken"]["steadiness"] < of["pan"]["steadiness"] <= of["still"]["steadiness"]
    assert of["still"]["flicker"] < of["flicker"]["flicker"]
    assert of["halting"]["fluency"] < of["pan"]["fluency"]


def test_token_statistics_are_those_of_each_tokens_pixels():
    tile = torch.from_numpy(np.array(PHOTOS[0][:112, :112])).permute(2, 0, 1)[None].float() / 255
    statistics = token_statistics(tile, 28)
    assert statistics.shape[:2] == (1, 16)
    assert bool(statistics.isfinite().all())
    row, column = 1, 2
    block = tile[0, :, row * 28 : (row + 1) * 28, column * 28 : (column + 1) * 28].double().numpy()
    luma = np.tensordot((0.299, 0.587, 0.114), block, 1)
    energy = dctn(luma, norm="ortho") ** 2
    radius = np.hypot(*np.mgrid[0:28, 0:28])
    edges = np.geomspace(0.9, 42, 10)
    bands = [np.log(energy[(radius > a) & (radius <= b)].mean() + 1e-5) for a, b in itertools.pairwise(edges)]
    found = statistics[0, row * 4 + column]
    assert np.allclose(found[:9], bands, atol=1e-3)
    assert np.allclose(found[15:18], block.mean((1, 2)), atol=1e-5)
    assert float(found[18]) == pytest.approx(luma.std(ddof=1), abs=1e-5)
    alone = token_statistics(torch.from_numpy(block)[None].float(), 28)[0, 0]
    assert torch.allclose(alone, found, atol=1e-4)


def test_frame_statistics_see_change_and_standstill():
    clip = torch.rand(3, 6, 16, 16)
    clip[:, 3] = clip[:, 2]
    statistics = frame_statistics(clip)
    assert statistics.shape == (6, 7)
    assert statistics[3, 6] == 1
    assert statistics[3, 3] < statistics[2, 3]
    assert float(statistics[2, 3]) == pytest.approx(
        float(np.log(((clip[:, 2] - clip[:, 1]).mean(0) ** 2).mean() + 1e-5)), abs=1e-5
    )


def test_worlds_are_drawn_from_their_seed_whatever_the_number_of_workers():
    one, two = (make_media(TINY_WORLD, EMBEDDED_SPEC, 5, workers) for workers in (1, 2))
    assert [medium.modality for medium in one].count(Modality.VIDEO) == 1
    assert len(one) == 7
    for first, second in zip(one, two, strict=True):
        assert np.array_equal(first.tiles_T3HW, second.tiles_T3HW)
        assert first.properties == second.properties
    other = scene_media(0, TINY_WORLD, EMBEDDED_SPEC, 6)
    assert not np.array_equal(other[0].tiles_T3HW, one[0].tiles_T3HW)
    seen = one[0].visual_input()
    assert seen.tiles_TCHW.shape == (3, 3, 112, 112)
    assert not seen.is_video
    assert one[2].visual_input().is_video


def test_pictures_and_changes_keep_their_shape():
    rng = np.random.default_rng(0)
    for _ in range(12):
        picture = scene(rng, (100, 160))
        assert picture.dtype == np.uint8
        assert 100 <= min(picture.shape[:2]) <= max(picture.shape[:2]) <= 160
        assert changed(rng, picture).shape == picture.shape
    clip = moving_view(rng, picture, 9)
    assert clip.shape[0] == 9
    assert clip.dtype == np.uint8


def test_fifths_hold_a_fifth_each_and_the_top_is_zero():
    media = make_media(SceneConfig(20, 5, 0, 2, (64, 80)), EMBEDDED_SPEC, 1, 1)
    fifths = fifths_of(media)
    counts = np.bincount([row["brightness"] for row in fifths], minlength=5)
    assert counts.sum() == 100
    assert counts.min() >= 17, "only equal values may share a fifth beyond its share"
    top = max(range(len(media)), key=lambda i: media[i].properties["brightness"])
    assert fifths[top]["brightness"] == 0


def test_batches_show_everything_once_before_anything_twice():
    drawn = np.concatenate(list(batches(10, 4, 5, 0)))
    assert sorted(drawn[:10].tolist()) == list(range(10))
    assert sorted(drawn[10:].tolist()) == list(range(10))
