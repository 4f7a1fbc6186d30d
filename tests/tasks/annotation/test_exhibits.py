import base64
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import told_pool
from PIL import Image

from models.signals.evidence import Medium
from tasks.annotation import exhibits
from tasks.annotation.exhibits import Exhibits, Pictures, ShownMedia, data_url, shown_frames
from tasks.errors import MediaError
from tasks.pool import load_candidates
from tasks.stage import Place

PICTURES = Pictures(max_side=64, frames=3)


def opened(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_a_small_picture_travels_without_loss():
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    url = data_url(picture, Pictures(max_side=64))
    assert url.startswith("data:image/png;base64,")
    assert (np.asarray(opened(url)) == picture).all()


def test_a_large_picture_is_reduced_by_averaging_and_bounded_in_bytes():
    picture = np.random.default_rng(0).integers(0, 255, (400, 600, 3)).astype(np.uint8)
    assert opened(data_url(picture, Pictures(max_side=300))).size == (300, 200)
    small = Pictures(max_side=600, max_bytes=20_000)
    url = data_url(picture, small)
    assert url.startswith("data:image/jpeg")
    assert len(base64.b64decode(url.partition(",")[2])) <= 20_000
    flat = np.full((10, 500, 3), 77, np.uint8)
    reduced = np.asarray(opened(data_url(flat, Pictures(max_side=100))))
    assert (reduced == 77).all()
    assert reduced.shape == (2, 100, 3)


@pytest.mark.parametrize(("total", "frames", "shown"), [(1, 8, [0]), (10, 3, [1, 5, 8]), (8, 8, list(range(8)))])
def test_frames_are_spread_evenly(total: int, frames: int, shown: list[int]):
    clip = np.arange(total, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    assert [int(frame[0, 0, 0]) for frame in shown_frames(Medium(clip), frames)] == shown


class Something:
    """Neither pixels nor an exhibit."""

    is_clip = False


def test_a_medium_in_pixels_is_encoded_once():
    shown, medium = Exhibits(Pictures()), Medium(np.zeros((2, 32, 32, 3), np.uint8))
    assert shown.of(medium) is shown.of(medium)
    assert len(shown.of(medium)) == 2
    with pytest.raises(TypeError, match="in pixels"):
        shown.of(Something())


def samples_of(root: Path) -> list[dict[str, Any]]:
    rows = load_candidates(Place(root, root, root)).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    told_pool.build(tmp_path, images=6)
    return Place(tmp_path, tmp_path / ".work", tmp_path / ".work" / "out")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Contents that are decoded, in order."""
    seen: list[str] = []
    original = exhibits.made_of_pictures

    def counted(place: Place, sample: Any, *more: Any) -> Any:
        seen.append(sample["bytes_sha256"])
        return original(place, sample, *more)

    monkeypatch.setattr(exhibits, "made_of_pictures", counted)
    return seen


def test_an_exhibit_shows_the_pictures_of_its_sample(place: Place):
    media, shown = ShownMedia(place, PICTURES), Exhibits(PICTURES)
    told = [media.of(sample) for sample in samples_of(place.root)]
    assert sorted((exhibit.is_clip, len(shown.of(exhibit))) for exhibit in told) == [*[(False, 1)] * 6, (True, 3)]
    assert len({url for exhibit in told for url in shown.of(exhibit)}) == 9
    assert all(opened(url).size[0] == 64 for exhibit in told for url in exhibit.urls())


def test_a_medium_is_decoded_once_for_many_threads_and_after_a_kill(place: Place, decoded: list[str]):
    samples = samples_of(place.root)
    media = ShownMedia(place, PICTURES)
    with ThreadPoolExecutor(16) as pool:
        first = list(pool.map(lambda sample: media.of(sample).urls(), samples * 8))
    assert len(decoded) == len(set(decoded)) == 7
    later = ShownMedia(place, PICTURES)  # of a process that was started after a kill
    assert [later.of(sample).urls() for sample in samples] == first[:7]
    assert len(decoded) == 7
    other = ShownMedia(place, Pictures(max_side=32, frames=3))
    assert other.of(samples[0]).urls() != first[0]


def test_what_does_not_fit_in_memory_comes_from_disk_and_not_from_the_decoder(
    place: Place, decoded: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exhibits, "_KEPT_BYTES", 1)
    media, samples = ShownMedia(place, PICTURES), samples_of(place.root)
    turns = [[media.of(sample).urls() for sample in samples] for _ in range(3)]
    assert turns[0] == turns[1] == turns[2]
    assert len(decoded) == 7
    assert len(media._kept) == 1


def test_pictures_are_gone_when_the_part_is_done(place: Place, decoded: list[str]):
    media, sample = ShownMedia(place, PICTURES), samples_of(place.root)[0]
    media.of(sample)
    assert list(place.work.rglob("*.urls"))
    media.forget()
    assert not list(place.work.rglob("*.urls"))
    assert media.of(sample).urls()
    assert len(decoded) == 2


def test_nobody_waits_for_the_decoding_of_another_medium(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exhibits.os, "cpu_count", lambda: 2)
    slow, quick = samples_of(place.root)[:2]
    original, held = exhibits.made_of_pictures, threading.Event()

    def waiting(place: Place, sample: Any, *more: Any) -> Any:
        if sample["id"] == slow["id"]:
            assert held.wait(30)
        return original(place, sample, *more)

    monkeypatch.setattr(exhibits, "made_of_pictures", waiting)
    media = ShownMedia(place, PICTURES)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(media.of, slow)
        time.sleep(0.05)
        assert media.of(quick).urls()
        assert not late.done()
        held.set()
        assert late.result().urls()


def test_a_broken_medium_is_told_to_everybody_who_asks(place: Place):
    media, sample = ShownMedia(place, PICTURES), samples_of(place.root)[0]
    for _ in range(2):
        with pytest.raises(MediaError):
            media.of(sample | {"length": 60})
    assert media.of(sample).urls()


def test_the_version_says_what_decides_the_pictures():
    versions = {Pictures(**told).version for told in ({}, {"max_side": 512}, {"frames": 4}, {"max_bytes": 5000})}
    assert len(versions) == 4
    assert all(version.endswith(f"-{exhibits._RULES}") for version in versions)
