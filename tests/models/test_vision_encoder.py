"""Preparation of pixels: what of a picture and of a clip reaches the model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.data import astronaut
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor

from models.errors import ModelError
from models.vision_encoder import (
    EMBEDDED_SPEC,
    IMAGENET_MEAN,
    IMAGENET_STD,
    PAPER_SPEC,
    VisualSpec,
    prepare_clip,
    prepare_image,
    wanted_frames,
)


def _pixels(tiles_TCHW: torch.Tensor) -> torch.Tensor:
    return (tiles_TCHW * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None]) * 255


@settings(max_examples=25, deadline=None)
@given(height=st.integers(16, 300), width=st.integers(16, 300), seed=st.integers(0, 5))
def test_every_size_gives_the_same_number_of_tiles(height: int, width: int, seed: int):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for rng in (None, np.random.default_rng(seed)):
        medium = prepare_image(pixels, EMBEDDED_SPEC, rng)
        assert medium.tiles_TCHW.shape == (3, 3, 112, 112)
        assert medium.tiles_TCHW.dtype == torch.float32
        assert bool(medium.tiles_TCHW.isfinite().all())
        assert medium.motion_CTHW is None
        assert not medium.is_video


def test_native_tiles_hold_unresized_pixels_of_every_cell():
    pixels = astronaut()[:400, :500]
    tiles = _pixels(prepare_image(pixels, EMBEDDED_SPEC).tiles_TCHW).round().to(torch.uint8)
    coordinates = np.stack(np.meshgrid(np.arange(400), np.arange(500), indexing="ij"), axis=-1)
    for tile in tiles[1:]:
        for row in range(4):
            for column in range(4):
                patch = tile[:, row * 28 : (row + 1) * 28, column * 28 : (column + 1) * 28].permute(1, 2, 0).numpy()
                windows = np.lib.stride_tricks.sliding_window_view(pixels, (28, 28), axis=(0, 1))
                starts = coordinates[:373, :473][(windows[..., 0, 0] == patch[0, 0]).all(-1)]
                places = [p for p in starts if (pixels[p[0] : p[0] + 28, p[1] : p[1] + 28] == patch).all()]
                assert places, "a fragment must be a verbatim piece of the picture"
                top, left = places[0]
                assert row * 100 <= top + 1 <= (row + 1) * 100
                assert column * 125 <= left + 1 <= (column + 1) * 125


def test_evaluation_is_deterministic_and_training_moves_the_fragments():
    pixels = astronaut()
    fixed = [prepare_image(pixels, EMBEDDED_SPEC).tiles_TCHW for _ in range(2)]
    assert torch.equal(fixed[0], fixed[1])
    drawn = [prepare_image(pixels, EMBEDDED_SPEC, np.random.default_rng(seed)).tiles_TCHW for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0][1:], drawn[2][1:])


def test_native_tiles_keep_noise_that_the_thumbnail_loses():
    pixels = astronaut()
    noisy = np.clip(pixels + np.random.default_rng(0).normal(0, 8, pixels.shape), 0, 255).round().astype(np.uint8)
    change = (prepare_image(noisy, EMBEDDED_SPEC).tiles_TCHW - prepare_image(pixels, EMBEDDED_SPEC).tiles_TCHW).std(
        (1, 2, 3)
    )
    assert change[1:].min() > 2.5 * change[0]


def test_dynamic_tiling_is_internvls_own():
    processor = GotOcr2ImageProcessor(
        size={"height": 448, "width": 448},
        crop_to_patches=True,
        min_patches=1,
        max_patches=12,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )
    for height, width in ((300, 500), (512, 512), (900, 310)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        ours = prepare_image(pixels, PAPER_SPEC).tiles_TCHW
        theirs = processor(torch.from_numpy(pixels).permute(2, 0, 1), return_tensors="pt").pixel_values
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_clip_gives_key_frames_in_time_order_and_the_middle_run_of_motion():
    frames = np.repeat(np.arange(60, dtype=np.uint8)[:, None, None, None] * 4, 40, axis=1)
    frames = np.ascontiguousarray(np.broadcast_to(frames, (60, 40, 50, 3)))
    medium = prepare_clip(frames, np.arange(60) / 25, EMBEDDED_SPEC)
    assert medium.is_video
    assert medium.tiles_TCHW.shape == (4, 3, 112, 112)
    shown = _pixels(medium.tiles_TCHW).mean((1, 2, 3)).round() / 4
    assert shown.tolist() == [15, 15, 44, 44] or shown.tolist() == [15, 15, 45, 45]
    assert medium.motion_CTHW is not None
    assert medium.motion_CTHW.shape == (3, 16, 96, 96)
    grey = (medium.motion_CTHW.mean((0, 2, 3)) * EMBEDDED_SPEC.motion_std + EMBEDDED_SPEC.motion_mean) * 255 / 4
    assert grey.round().tolist() == list(range(22, 38))


@pytest.mark.parametrize(("total", "fps"), [(1, 25), (7, 30), (61, 24), (300, 60)])
def test_wanted_frames_are_enough(total: int, fps: float):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (total, 30, 30, 3), dtype=np.uint8)
    seconds = np.arange(total) / fps
    wanted = wanted_frames(total, fps, EMBEDDED_SPEC)
    assert len(wanted) <= EMBEDDED_SPEC.motion_frames + EMBEDDED_SPEC.key_frames + 2
    whole = prepare_clip(frames, seconds, EMBEDDED_SPEC)
    part = prepare_clip(frames[wanted], seconds[wanted], EMBEDDED_SPEC)
    assert torch.equal(whole.motion_CTHW, part.motion_CTHW)
    assert torch.equal(whole.tiles_TCHW, part.tiles_TCHW)


def test_paper_clip_has_a_frame_a_second_and_every_frame_in_the_motion_stream():
    spec = VisualSpec(**{**vars(PAPER_SPEC), "tile_px": 28, "motion_px": 16})
    frames = np.zeros((75, 20, 20, 3), dtype=np.uint8)
    medium = prepare_clip(frames, np.arange(75) / 25, spec)
    assert len(medium.tiles_TCHW) == 3
    assert medium.motion_CTHW is not None
    assert medium.motion_CTHW.shape[1] == 75


def test_wrong_pixels_and_specs_are_clear_errors():
    with pytest.raises(ModelError, match="uint8 RGB"):
        prepare_image(np.zeros((20, 20), dtype=np.uint8), EMBEDDED_SPEC)
    with pytest.raises(ModelError, match="0 frames"):
        prepare_clip(np.zeros((0, 20, 20, 3), dtype=np.uint8), [], EMBEDDED_SPEC)
    with pytest.raises(ModelError, match="does not divide"):
        VisualSpec(**{**vars(EMBEDDED_SPEC), "fragment_px": 30})
    with pytest.raises(ModelError, match="does not fit this version"):
        VisualSpec.from_json({"tile_px": 112})
