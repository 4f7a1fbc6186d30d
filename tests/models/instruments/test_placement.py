"""Tokens lie where the pixels lie that change them: seen through a real image encoder that mixes no patches."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lmm import SPEC, make_model

from models.compatibility import Compatibility
from models.instruments.placement import image_views
from models.quality_lmm import QualityLMM
from models.vision_encoder import VisualSpec, prepare_image

BY_AREA = Compatibility(area_tiling=True, doubled_single_tile=True)
DYNAMIC = dataclasses.replace(SPEC, tiling="dynamic", max_tiles=6)
AREA = dataclasses.replace(DYNAMIC, compatibility=BY_AREA)
LARGE = dataclasses.replace(SPEC, tile_px=112, fragment_px=56, native_tiles=2)


def blind_to_neighbours(spec: VisualSpec) -> QualityLMM:
    """A model whose image encoder lets no patch see another."""
    model = make_model(spec=spec)
    with torch.no_grad():
        for layer in model.image_encoder.encoder.layer:
            layer.attention.projection_layer.weight.zero_()
            layer.attention.projection_layer.bias.zero_()
    return model


def changed_tokens(model: QualityLMM, spec: VisualSpec, pixels: np.ndarray, other: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        one, two = (model.visual_features([prepare_image(p, spec)])[0].tiles_PSC.flatten(0, 1) for p in (pixels, other))
    return ((one - two).abs().amax(-1) > 1e-6).numpy()


@pytest.mark.parametrize("size", [(120, 200), (300, 90), (20, 31)])
@pytest.mark.parametrize("spec", [SPEC, LARGE, DYNAMIC, AREA], ids=["fragments", "large", "dynamic", "by area"])
def test_a_change_of_pixels_is_seen_by_the_tokens_that_lie_there(spec: VisualSpec, size: tuple[int, int]):
    model, rng = blind_to_neighbours(spec), np.random.default_rng(0)
    side = spec.tile_px // 28  # a patch has 14 pixels, a token two by two of them
    views = image_views(spec, *size, side)
    assert views is not None
    boxes = np.concatenate([view.boxes_K4 for view in views]) * [*size, *size]
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    assert len(boxes) == changed_tokens(model, spec, pixels, pixels).size
    seen = 0
    for _ in range(6):
        top, left = (int(rng.integers(0, length - 4)) for length in size)
        other = pixels.copy()
        other[top : top + 4, left : left + 4] = 255 - other[top : top + 4, left : left + 4]
        found = changed_tokens(model, spec, pixels, other)
        reach = 3.0 * max(1.0, *(length / spec.tile_px for length in size))  # pixels that resizing blends
        gap = np.maximum.reduce(
            [boxes[:, 0] - (top + 4), top - boxes[:, 2], boxes[:, 1] - (left + 4), left - boxes[:, 3]]
        )
        assert not found[gap > reach].any(), "tokens away from the change do not see it"
        over = gap < -1.5
        assert found[over].all(), "tokens well over the change do"
        seen += int(over.sum())
    assert seen >= 6


@settings(max_examples=30)
@given(st.integers(30, 500), st.integers(30, 500))
def test_tiles_cover_the_picture_once(height: int, width: int):
    for spec in (SPEC, DYNAMIC):
        views = image_views(spec, height, width, 2)
        assert views is not None
        for view in views:
            assert (view.boxes_K4 >= 0).all()
            assert (view.boxes_K4 <= 1 + 1e-9).all()
            assert (view.boxes_K4[:, 2:] > view.boxes_K4[:, :2]).all()
            if not view.name.startswith("fragments"):
                assert np.prod(view.boxes_K4[:, 2:] - view.boxes_K4[:, :2], axis=1).sum() == pytest.approx(1.0)


def test_a_token_of_several_fragments_lies_nowhere():
    small = dataclasses.replace(SPEC, fragment_px=14)
    assert image_views(small, 100, 100, 2) is None
