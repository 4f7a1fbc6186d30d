"""One decode per medium, frames by a stated rule, six scores, and the summary of them."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.distortions import distort_clip
from models.errors import ModelError
from models.levels import CENTRES, LEVELS
from models.scorers import BUILT_INS, CLIP_FRAMES, Excerpt, Sampling, Strip
from models.scorers.screen import on_screen
from tasks.annotation import opinions
from tasks.annotation.opinions import (
    UNSCORABLE,
    FrameRule,
    decode_frames,
    load_scorers,
    opinion_of,
    score_by,
    score_path,
)
from tasks.errors import MediaError
from tasks.media import Limits, MediaInfo, Pixels, Wanted, decode_video
from tasks.video import Reading, Scan


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
    for whole, screen in ((Sampling.FRAMES, Sampling.SCREEN_FRAMES), (Sampling.CLIPS, Sampling.SCREEN_CLIPS)):
        assert (frames.for_sampling(screen) == on_screen(frames.for_sampling(whole))).all()


class Longest:
    """A scorer that chooses its frames itself: the last, then the first twice, each one pixel of it."""

    name, version = "longest", "1"
    sampling = Excerpt(lambda total: (Strip((total - 1, 0, 0), lambda frame_HWC, _: frame_HWC[:1, :1]),))

    def raw(self, frames_THWC: Pixels) -> float:
        assert frames_THWC.shape[1:] == (1, 1, 3)
        return float(frames_THWC[:, 0, 0, 0] @ [1, 0.001, 0.000001])

    def score(self, frames_THWC: Pixels) -> float:
        return self.raw(frames_THWC) / 1000


def test_scorers_that_choose_their_frames_are_served_by_the_same_decode(
    clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = decode_video(clip, range(45)).frames_THWC
    shown: list[int] = []
    original = opinions.watch_video

    def counting(data: bytes, wanted: Wanted, see: Callable[[int, Pixels], None], limits: Limits | None) -> MediaInfo:
        return original(data, wanted, lambda index, pixels: (shown.append(index), see(index, pixels))[1], limits)

    monkeypatch.setattr(opinions, "watch_video", counting)
    scorer, ranking = Longest(), load_scorers(["ranking"])[0]
    alone = opinion_of(clip, [ranking]).scores
    assert shown == sorted(FrameRule().singles(45))
    shown.clear()
    together = opinion_of(clip, [scorer, ranking]).scores
    assert shown == sorted({0, 44, *FrameRule().singles(45)})
    assert together["ranking"] == alone["ranking"]
    assert together["longest"] == scorer.score(scorer.sampling.of(everything))
    photo = skimage.data.coffee()
    assert opinion_of(_png(photo), [scorer]).scores["longest"] == scorer.score(scorer.sampling.of(photo[None]))


def test_a_video_of_fewer_frames_than_packets_is_shown_again_by_the_true_number(
    clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorers = [Longest(), *load_scorers(["ranking"])]
    expected = opinion_of(clip, scorers)
    original = Reading.scan

    def more(self: Reading) -> Scan:
        scan = original(self)
        return Scan(scan.info, (*scan.seconds, 9.0))

    monkeypatch.setattr(Reading, "scan", more)
    assert opinion_of(clip, scorers) == expected


@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_medium_that_a_scorer_cannot_see_is_refused_with_its_reason(kind: str, clip: bytes) -> None:
    def refuse(frame_HWC: Pixels, _seed: int) -> Pixels:
        msg = f"a frame of {frame_HWC.shape[1]} pixels is too narrow"
        raise ModelError(msg)

    scorer = Longest()
    scorer.sampling = Excerpt(lambda total: (Strip((total // 2,), refuse),))
    with pytest.raises(MediaError, match="pixels is too narrow") as caught:
        opinion_of(clip if kind == "video" else _png(skimage.data.coffee()), [scorer])
    assert caught.value.reason == "unsupported"


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


class _Odd:
    """A third party's scorer that answers as it is told."""

    name, version, sampling = "odd", "1", Sampling.FRAMES

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def raw(self, frames_THWC: np.ndarray) -> float:
        return float(frames_THWC.mean())

    def score(self, frames_THWC: np.ndarray) -> float:  # noqa: ARG002 - the protocol's signature
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (float("nan"), "gave nan"), (7, "gave 7"), (None, "gave None"), ("0.5", "gave '0.5'"),
        (ModelError("too dark"), "too dark"),
    ],
)  # fmt: skip
def test_a_scorer_that_gives_no_score_is_named(answer: object, told: str) -> None:
    with pytest.raises(MediaError, match=f"scorer odd: {told}") as caught:
        score_by(_Odd(answer), np.zeros((1, 20, 20, 3), np.uint8))
    assert caught.value.reason == UNSCORABLE
    with pytest.raises(ModelError, match=r"scorer odd failed \(ZeroDivisionError: division by zero\)"):
        score_by(_Odd(ZeroDivisionError("division by zero")), np.zeros((1, 20, 20, 3), np.uint8))
    assert score_by(_Odd(np.float32(0.25)), np.zeros((1, 20, 20, 3), np.uint8)) == 0.25


def test_one_name_is_one_scorer_and_no_name_is_refused() -> None:
    assert [scorer.name for scorer in load_scorers("ranking")] == ["ranking"]
    with pytest.raises(ModelError, match="at least one"):
        load_scorers([])
