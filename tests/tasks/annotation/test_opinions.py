"""One decode per medium, frames by a stated rule, six scores, and the summary of them."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.distortions import distort_clip
from models.levels import CENTRES, LEVELS
from models.scorers import BUILT_INS, CLIP_FRAMES, Sampling
from tasks.annotation import opinions
from tasks.annotation.opinions import FrameRule, decode_frames, load_scorers, opinion_of, score_path
from tasks.errors import MediaError
from tasks.media import decode_video


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def clip() -> bytes:
    photo = skimage.data.astronaut()
    frames = (photo[2 * step : 2 * step + 300, step : step + 400] for step in range(45))
    return distort_clip(frames, 25.0, "h264_compression", 1, 0)


@given(st.integers(1, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_frame_rules_stay_inside_the_video_and_never_repeat(total: int, frames: int, clips: int) -> None:
    rule = FrameRule(frames, clips)
    for chosen in (rule.singles(total), rule.runs(total)):
        assert min(chosen) >= 0
        assert max(chosen) < total
        assert chosen == sorted(set(chosen))
    assert len(rule.singles(total)) == min(frames, total)
    assert len(rule.runs(total)) % CLIP_FRAMES == 0 or total < CLIP_FRAMES
    runs = np.array(rule.runs(total))
    if total >= CLIP_FRAMES:
        assert (np.diff(runs.reshape(-1, CLIP_FRAMES), axis=1) == 1).all()


def test_frames_of_a_long_video_lie_in_the_middles_of_equal_parts() -> None:
    assert FrameRule(4, 3).singles(80) == [10, 30, 50, 70]
    assert FrameRule(4, 3).runs(240)[::CLIP_FRAMES] == [36, 116, 196]


def test_a_medium_is_decoded_once_for_all_scorers(clip: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    decodes: list[str] = []
    for name in ("decode_image", "watch_video"):
        original = getattr(opinions, name)
        monkeypatch.setattr(opinions, name, lambda *a, _f=original, _n=name: (decodes.append(_n), _f(*a))[1])
    scorers = load_scorers()
    opinion_of(_png(skimage.data.coffee()), scorers)
    assert decodes == ["decode_image"]
    opinion_of(clip, scorers)
    assert decodes == ["decode_image", "watch_video"]


def test_videos_give_both_kinds_of_frames(clip: bytes) -> None:
    rule = FrameRule(3, 2)
    frames = decode_frames(clip, rule, list(Sampling))
    everything = decode_video(clip, range(45)).frames_THWC
    assert (frames.for_sampling(Sampling.FRAMES) == everything[rule.singles(45)]).all()
    assert (frames.for_sampling(Sampling.CLIPS) == everything[rule.runs(45)]).all()
    assert frames.for_sampling(Sampling.CLIPS).shape == (2 * CLIP_FRAMES, 300, 400, 3)


def test_an_opinion_summarises_six_scores(clip: bytes) -> None:
    scorers = load_scorers()
    for data in (clip, _png(skimage.data.astronaut())):
        result = opinion_of(data, scorers, "x")
        scores = list(result.scores.values())
        assert list(result.scores) == list(BUILT_INS)
        assert all(0 <= score <= 1 for score in scores)
        assert result.mu == pytest.approx(np.mean(scores))
        assert result.sigma == pytest.approx(np.std(scores))
        assert sum(result.pmod) == pytest.approx(1)
        assert np.dot(result.pmod, CENTRES) == pytest.approx(np.clip(result.mu, 0.1, 0.9), abs=1e-6)
        assert result.level == LEVELS[min(4, int((1 - result.mu) * 5))]
        assert result == opinion_of(data, scorers, "x")


def test_damage_lowers_the_opinion_of_a_clip(clip: bytes) -> None:
    photo = skimage.data.astronaut()
    frames = [photo[2 * step : 2 * step + 300, step : step + 400] for step in range(45)]
    bad = distort_clip(frames, 25.0, "h264_compression", 5, 0)
    scorers = load_scorers()
    assert opinion_of(bad, scorers).mu < opinion_of(clip, scorers).mu


def test_files_are_scored_by_path_and_refused_with_a_reason(tmp_path: Path) -> None:
    good, broken = tmp_path / "ä b.png", tmp_path / "broken.png"
    data = _png(skimage.data.chelsea())
    good.write_bytes(data)
    broken.write_bytes(data[: len(data) // 2])
    assert score_path(good).path == str(good)
    strip = tmp_path / "strip.png"
    Image.new("RGB", (16, 8000)).save(strip)
    os.mkfifo(tmp_path / "pipe.png")
    refused = [(broken, "truncated"), (strip, "too_elongated"), (tmp_path / "pipe.png", "unreadable")]
    for path, reason in (*refused, (tmp_path / "none.png", "missing"), (tmp_path, "unreadable")):
        with pytest.raises(MediaError) as caught:
            score_path(path)
        assert caught.value.reason == reason
        assert len(str(caught.value).splitlines()) == 1
