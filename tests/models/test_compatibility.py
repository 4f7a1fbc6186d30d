"""The released code's departures: off by default, each seen in what the model is shown."""

import dataclasses

import numpy as np
import pytest
import torch

from models.compatibility import OFF, RELEASED, Compatibility
from models.errors import ModelError
from models.vision_encoder import (
    EMBEDDED_SPEC,
    IMAGENET_MEAN,
    IMAGENET_STD,
    PAPER_SPEC,
    RELEASED_SPEC,
    VisualSpec,
    prepare_clip,
    prepare_image,
)

SMALL = dataclasses.replace(PAPER_SPEC, tile_px=28, motion_px=16)


def with_flag(**flags: int | bool) -> VisualSpec:
    return dataclasses.replace(SMALL, compatibility=Compatibility(**flags))  # type: ignore[arg-type]


def clip(frames: int) -> np.ndarray:
    return np.repeat(np.arange(frames, dtype=np.uint8)[:, None, None, None], 3, 3) + np.zeros((1, 20, 20, 1), np.uint8)


def test_everything_is_off_unless_released_weights_ask_for_it():
    assert not any(dataclasses.asdict(OFF).values())
    assert all(dataclasses.asdict(RELEASED).values())
    assert EMBEDDED_SPEC.compatibility == PAPER_SPEC.compatibility == OFF
    assert RELEASED_SPEC.compatibility == RELEASED
    assert RELEASED_SPEC.motion_px == RELEASED_SPEC.tile_px == 448


def test_area_tiling_takes_another_grid():
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    aspect, area = (prepare_image(pixels, spec).tiles_TCHW for spec in (SMALL, with_flag(area_tiling=True)))
    assert len(aspect) == 13  # 4 x 3 and a thumbnail
    assert len(area) == 5  # four tiles are nearest to 3,072 pixels, and a thumbnail
    assert torch.equal(aspect[-1], area[-1])


def test_a_single_tile_is_doubled_and_more_are_not():
    one = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    assert len(prepare_image(one, SMALL).tiles_TCHW) == 1
    doubled = prepare_image(one, with_flag(doubled_single_tile=True)).tiles_TCHW
    assert len(doubled) == 2
    assert torch.equal(doubled[0], doubled[1])
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    assert len(prepare_image(wide, with_flag(doubled_single_tile=True)).tiles_TCHW) == 4
    assert len(prepare_clip(clip(10), np.arange(10) / 10, with_flag(doubled_single_tile=True)).tiles_TCHW) == 1


def test_every_eighth_frame_makes_the_stream_and_filters_key_frames():
    frames, seconds = clip(100), np.arange(100) / 30
    plain, strided = (prepare_clip(frames, seconds, spec) for spec in (SMALL, with_flag(frame_stride=8)))
    assert len(plain.tiles_TCHW) == 3
    assert plain.motion_CTHW.shape[1] == 100
    grey = (strided.motion_CTHW.mean((0, 2, 3)) * SMALL.motion_std + SMALL.motion_mean) * 255
    assert grey.round().tolist() == list(range(0, 96, 8))
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    shown = (strided.tiles_TCHW.mean((2, 3)) * std + mean) * 255
    assert shown.round()[:, 0].tolist() == [0]  # frames 30 and 60 are no multiples of 8


def test_motion_is_normalised_like_tiles():
    spec = dataclasses.replace(with_flag(imagenet_motion=True), motion_px=28)
    medium, kinetics = (
        prepare_clip(clip(5), np.arange(5) / 5, chosen)
        for chosen in (spec, dataclasses.replace(spec, compatibility=OFF))
    )
    assert torch.allclose(medium.motion_CTHW[:, 2], medium.tiles_TCHW[0])
    assert torch.equal(medium.tiles_TCHW, kinetics.tiles_TCHW)
    assert not torch.allclose(medium.motion_CTHW, kinetics.motion_CTHW, atol=1e-3)


def test_flags_are_stored_and_strangers_are_refused():
    values = dataclasses.asdict(RELEASED_SPEC)
    assert VisualSpec.from_json(values) == RELEASED_SPEC
    del values["compatibility"], values["motion_limit"]
    assert VisualSpec.from_json(values) == dataclasses.replace(RELEASED_SPEC, compatibility=OFF, motion_limit=0)
    with pytest.raises(ModelError, match="do not fit this version"):
        VisualSpec.from_json({**values, "compatibility": {"upside_down": True}})
    with pytest.raises(ModelError, match="frame_stride must be"):
        Compatibility(frame_stride=-1)
    with pytest.raises(ModelError, match="fragments know none"):
        dataclasses.replace(EMBEDDED_SPEC, compatibility=RELEASED)
