import numpy as np
import pytest
from skimage import data

from models.errors import ModelError
from models.signals import evidence as evidence_module
from models.signals.evidence import EvidenceConfig, Medium, draw_evidence

CONFIG = EvidenceConfig(crops=3, crop_side=96, tones=500, run_frames=10, run_side=48)
PHOTO = np.ascontiguousarray(data.coffee()[:200, :260])
CLIP = np.stack([np.roll(PHOTO, step, axis=1) for step in range(16)])


def test_equal_seeds_draw_equal_pixels_and_others_do_not():
    one, same = (draw_evidence(Medium(PHOTO), CONFIG, "id", "judge", 1) for _ in range(2))
    assert np.array_equal(one.crops_NHWC, same.crops_NHWC)
    assert np.array_equal(one.tones_PC, same.tones_PC)
    for other in (("id", "judge", 2), ("id", "another", 1), ("other", "judge", 1)):
        drawn = draw_evidence(Medium(PHOTO), CONFIG, *other)
        assert not np.array_equal(one.crops_NHWC, drawn.crops_NHWC)
        assert not np.array_equal(one.tones_PC, drawn.tones_PC)


def test_shapes_and_contents_of_an_images_evidence():
    evidence = draw_evidence(Medium(PHOTO), CONFIG, "id", 1)
    assert evidence.medium == "image"
    assert evidence.crops_NHWC.shape == (3, 96, 96, 3)
    assert evidence.tones_PC.shape == (500, 3)
    assert evidence.run_THW.shape[0] == 0
    windows = np.lib.stride_tricks.sliding_window_view(PHOTO, (96, 96, 3))[:, :, 0]
    corner = evidence.crops_NHWC[0]
    rows, columns = np.nonzero((windows[:, :, 0, 0] == corner[0, 0]).all(axis=2))
    assert any(np.array_equal(windows[r, c], corner) for r, c in zip(rows, columns, strict=True))
    assert evidence.luma_NHW[0, 0, 0] == pytest.approx(corner[0, 0] @ np.array([0.299, 0.587, 0.114]), abs=1e-3)


def test_a_clips_run_is_consecutive_and_reduced_by_averaging():
    evidence = draw_evidence(Medium(CLIP), CONFIG, "id", 1)
    assert evidence.medium == "video"
    assert evidence.run_THW.shape == (10, 50, 65)
    luma = CLIP.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    reduced = luma.reshape(16, 50, 4, 65, 4).mean(axis=(2, 4))
    starts = [start for start in range(7) if np.allclose(reduced[start : start + 10], evidence.run_THW, atol=1e-2)]
    assert len(starts) == 1


def test_a_clip_is_reduced_once_for_all_draws_and_only_if_motion_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    reduced, original = [], evidence_module._reduced
    monkeypatch.setattr(evidence_module, "_reduced", lambda *a: (reduced.append(1), original(*a))[1])
    clip = Medium(CLIP)
    drawn = [draw_evidence(clip, CONFIG, "id", "judge", turn) for turn in range(6)]
    assert [one.luma_NHW.shape for one in drawn] == [(3, 96, 96)] * 6
    assert reduced == []
    runs = [one.run_THW for one in drawn]
    assert len(reduced) == len(CLIP)
    assert len({one.run.start for one in drawn}) > 1
    for one, run in zip(drawn, runs, strict=True):
        frames = CLIP[one.run.start : one.run.start + CONFIG.run_frames]
        assert np.array_equal(run, original(frames, CONFIG.run_side))  # to the bit, whatever is reduced with it


def test_small_media_give_small_crops():
    evidence = draw_evidence(Medium(PHOTO[:40, :70]), CONFIG, "id", 1)
    assert evidence.crops_NHWC.shape == (3, 40, 70, 3)


@pytest.mark.parametrize("bad", [PHOTO.astype(float), PHOTO[..., 0], PHOTO[:0]])
def test_wrong_arrays_are_refused(bad: np.ndarray):
    with pytest.raises(ModelError, match="uint8"):
        Medium(bad)


def test_a_config_that_sees_nothing_is_refused():
    with pytest.raises(ValueError, match="evidence needs"):
        EvidenceConfig(crops=0, crop_side=96, tones=500, run_frames=10, run_side=48)
