"""Counts from sizes alone are those of what is prepared, under every way of tiling and every departure."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.compatibility import RELEASED
from models.view_shape import clip_shape, image_tiles
from models.vision_encoder import EMBEDDED_SPEC, PAPER_SPEC, VisualSpec, prepare_clip, prepare_image

SMALL = dataclasses.replace(PAPER_SPEC, tile_px=28, motion_px=8, key_frames=3)
SPECS = {
    "fragments": EMBEDDED_SPEC,
    "dynamic": SMALL,
    "bounded motion": dataclasses.replace(SMALL, motion_limit=7),
    "released": dataclasses.replace(SMALL, compatibility=RELEASED),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@settings(max_examples=40, deadline=None)
@given(height=st.integers(28, 200), width=st.integers(28, 200))
def test_tiles_of_an_image(spec: VisualSpec, height: int, width: int):
    prepared = prepare_image(np.zeros((height, width, 3), np.uint8), spec)
    assert image_tiles(height, width, spec) == len(prepared.tiles_TCHW)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@settings(max_examples=40, deadline=None)
@given(frames=st.integers(1, 80), fps=st.sampled_from([4.0, 10.0, 25.0, 29.97]))
def test_tiles_and_motion_frames_of_a_clip(spec: VisualSpec, frames: int, fps: float):
    pixels = np.zeros((frames, 30, 40, 3), np.uint8)
    prepared = prepare_clip(pixels, np.arange(frames) / fps, spec, timing=(frames, fps))
    assert prepared.motion_CTHW is not None
    assert clip_shape(frames, fps, spec) == (len(prepared.tiles_TCHW), prepared.motion_CTHW.shape[1])
