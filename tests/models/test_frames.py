"""Sampling of clips: bounds and evenness of the paper's rule, and the released code's rule on numbers taken from it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.frames import (
    FramePlan,
    densest_run,
    frame_rate,
    plan_per_second,
    plan_strided,
    spread_frames,
    whole_seconds,
)

LENGTHS = st.integers(1, 5000)
RATES = st.sampled_from([0.0, 1.0, 7.5, 12.0, 24000 / 1001, 25.0, 30000 / 1001, 60.0, 120.0])
LIMITS = st.integers(1, 40)


@given(total=LENGTHS, fps=RATES, key_limit=LIMITS, motion_limit=st.integers(0, 400))
def test_a_frame_a_second_and_the_whole_clip_within_bounds(total: int, fps: float, key_limit: int, motion_limit: int):
    plan = plan_per_second(total, fps, key_limit, motion_limit)
    seconds = max(1, int(total / fps + 1e-6)) if fps else 1
    assert len(plan.key) == min(seconds, key_limit, total)
    assert list(plan.key) == sorted(set(plan.key))
    assert 0 <= plan.key[0] <= plan.key[-1] < total
    steps = set(np.diff(plan.motion).tolist())
    assert len(steps) <= 1, "the stream keeps one pace"
    assert plan.motion[0] == 0
    if motion_limit == 0 or total <= motion_limit:
        assert plan.motion == tuple(range(total))
    else:
        assert motion_limit / 2 < len(plan.motion) <= motion_limit
    assert set(plan.wanted) == {*plan.key, *plan.motion}


@given(total=st.integers(60, 3000), fps=st.sampled_from([24.0, 25.0, 30.0, 60.0]))
def test_key_frames_lie_a_second_apart(total: int, fps: float):
    plan = plan_per_second(total, fps, 10_000, 0)
    if len(plan.key) > 1:
        gaps = np.diff(plan.key) / fps
        assert gaps.min() > 1 - 2 / fps - 1 / len(plan.key)
        assert gaps.max() < 1 + 1 / (len(plan.key) - 1) + 2 / fps


@pytest.mark.parametrize(
    ("total", "fps", "key", "motion"),
    [  # computed by the authors' load_video of training, for clips of ten seconds and others
        (240, 24.0, [0, 24, 48, 72, 96, 120, 144, 168, 192, 216], 28),
        (300, 30.0, [0, 120, 240], 36),
        (250, 25.0, [0, 200], 28),
        (600, 60.0, [0, 120, 240, 360, 480], 72),
        (300, 29.97, [0, 120, 240], 36),
        (33, 16.0, [0, 16], 4),
    ],
)
def test_every_eighth_frame_as_the_released_code_takes_them(total: int, fps: float, key: list[int], motion: int):
    plan = plan_strided(total, fps, 8, 20, 0)
    assert list(plan.key) == key
    assert plan.motion == tuple(range(0, 8 * motion, 8))


@given(total=LENGTHS, fps=RATES, stride=st.sampled_from([1, 4, 8]), key_limit=LIMITS)
def test_strided_key_frames_are_frames_of_the_stream(total: int, fps: float, stride: int, key_limit: int):
    plan = plan_strided(total, fps, stride, key_limit, 0)
    assert set(plan.key) <= set(plan.motion)
    assert plan.key[0] == 0
    assert len(plan.key) <= key_limit
    assert all(index % stride == 0 and index < total for index in plan.motion)
    if total >= 4 * stride:
        assert len(plan.motion) % 4 == 0
    else:
        assert plan.motion == tuple(range(0, total, stride)), "their code fails on such clips"


def test_the_stream_of_a_long_clip_is_thinned():
    assert plan_strided(1000, 25.0, 1, 20, 100).motion == tuple(range(0, 1000, 10))


def test_rates_and_seconds():
    assert frame_rate(np.arange(11) / 10) == pytest.approx(10)
    assert frame_rate(np.zeros(3)) == 0
    assert whole_seconds(250, 25.0) == 10
    assert whole_seconds(250, 25.0 + 1e-13) == 10
    assert whole_seconds(249, 25.0) == 9
    assert whole_seconds(3, 0.0) == whole_seconds(3, 60.0) == 1


def test_spread_and_run_follow_times_not_numbers():
    uneven = np.array([0.0, 0.1, 0.2, 0.3, 5.0, 10.0])
    assert spread_frames(uneven, 2) == [3, 4]
    assert densest_run(uneven, 3) == [1, 2, 3]
    assert FramePlan((3,), (1, 3)).wanted == [1, 3]
