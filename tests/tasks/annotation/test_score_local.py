"""One machine: one decode per medium, a bounded queue ahead of the scorers, and groups that always have one size."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import ModelError
from models.scorers import Runtime
from tasks import media
from tasks.annotation.opinions import UNSCORABLE, decode_frames
from tasks.annotation.panel import Job, Panel, Seen, TorchConfig
from tasks.annotation.score import Config, run
from tasks.annotation.score_local import LocalEngine
from tasks.pool import load_candidates, read_media
from tasks.records import OPINIONS, REJECTS
from tasks.shards import read_table
from tasks.stage import Place
from tasks.video import Reading
from tests.tasks.annotation.fake_scorers import Ends, Together
from tests.tasks.annotation.scored_pool import make_pool

NAMES = ("fragments", "ranking", "ends", "together")
CONFIG = Config(NAMES, frames=2, clips=1, backend="onnx", batch=4, max_reject_share=0.5, torch=TorchConfig(rows=3))
CONTENTS = 16


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.delenv("VITAL_STORE", raising=False)
    monkeypatch.setattr("models.scorers.catalogue._registered", {"ends": Ends, "together": Together})
    return make_pool(tmp_path)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """Every start of a decoder, image or video, by the medium's bytes."""
    counted: Counter[bytes] = Counter()
    image, video = media._decode_image, Reading.__init__

    def count_image(data: bytes, limits: media.Limits) -> Any:
        counted[data] += 1
        return image(data, limits)

    def count_video(self: Reading, data: bytes, *rest: Any) -> None:
        counted[data] += 1
        video(self, data, *rest)

    monkeypatch.setattr(media, "_decode_image", count_image)
    monkeypatch.setattr(Reading, "__init__", count_video)
    return counted


def test_every_medium_is_decoded_once_whatever_is_known_of_it(
    place: Place, decodes: Counter[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(CONFIG, place)
    assert len(decodes) == CONTENTS
    assert set(decodes.values()) == {1}
    decodes.clear()
    run(CONFIG, place)
    assert not decodes
    monkeypatch.setattr(Ends, "version", "2")
    monkeypatch.setattr(Together, "version", "2")
    run(CONFIG, place)
    assert len(decodes) == CONTENTS
    assert set(decodes.values()) == {1}
    decodes.clear()
    run(replace(CONFIG, clips=2), place)  # one scorer's opinion of one clip
    run(replace(CONFIG, scorers=("ranking",)), place)
    assert list(decodes.values()) == [1]


def _watch(monkeypatch: pytest.MonkeyPatch) -> Together:
    scorer = Together()
    monkeypatch.setattr("models.scorers.catalogue._registered", {"ends": Ends, "together": lambda: scorer})
    return scorer


def test_media_are_judged_in_full_groups_by_one_thread(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = _watch(monkeypatch)
    run(CONFIG, place)
    assert scorer.sizes == [3] * 5 + [1]
    assert scorer.threads == {threading.get_ident()}
    assert scorer.runtime == Runtime(rows=3)


def test_media_wait_for_a_slow_scorer_within_bounds_and_it_does_not_wait_for_them(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scorer, lock, ahead = _watch(monkeypatch), threading.Lock(), 6
    scorer.seconds, waiting, most = 0.2, 0, 0
    look, judge = Panel.look, Panel.judge

    def count_look(self: Panel, job: Job, data: bytes) -> Seen:
        nonlocal waiting, most
        seen = look(self, job, data)
        with lock:
            waiting += 1
            most = max(most, waiting)
        return seen

    def count_judge(self: Panel, group: list[Seen]) -> Any:
        nonlocal waiting
        outcomes = judge(self, group)
        with lock:
            waiting -= len(group)
        return outcomes

    monkeypatch.setattr(Panel, "look", count_look)
    monkeypatch.setattr(Panel, "judge", count_judge)
    monkeypatch.setattr("tasks.annotation.score_local.os.cpu_count", lambda: 2)
    with caplog.at_level("INFO"):
        run(replace(CONFIG, scorers=("ends", "together"), ahead=ahead), place)
    assert 3 < most <= ahead
    assert waiting == 0
    (told,) = [record for record in caplog.records if "decode-wait share" in record.getMessage()]
    share, _, worked = told.args  # type: ignore[misc]
    assert share < 0.5  # type: ignore[operator]
    assert worked >= 6 * 0.2  # type: ignore[operator]


def test_scores_do_not_depend_on_groups(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = []
    for rows in (1, 3, 5):
        monkeypatch.setenv("VITAL_STORE", str(place.root / str(rows)))
        run(replace(CONFIG, torch=TorchConfig(rows=rows)), place)
        tables.append(np.stack(read_table(place.out / "opinions.parquet", OPINIONS)["scores"].to_list()))
    assert (tables[0] == tables[1]).all()
    assert (tables[0] == tables[2]).all()


def test_what_was_done_before_a_failure_is_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = _watch(monkeypatch)
    config = replace(CONFIG, scorers=("together",), batch=100)
    original, calls = scorer.score_many, iter(range(100))

    def fail_late(media_seen: list[Any]) -> list[float]:
        if next(calls) == 2:
            raise RuntimeError("the GPU fell off")
        return original(media_seen)

    monkeypatch.setattr(scorer, "score_many", fail_late)
    with pytest.raises(ModelError, match=r"scorer together failed \(RuntimeError: the GPU fell off\)"):
        run(config, place)
    assert sum(scorer.sizes) == 6
    run(config, place)
    assert sum(scorer.sizes) == CONTENTS


def test_a_caller_that_stops_leaves_no_thread_at_work(place: Place) -> None:
    engine = LocalEngine(CONFIG.panel, place, 4)
    rows = load_candidates(place).to_dict("records")
    jobs = [Job(row["bytes_sha256"], row, NAMES) for row in rows]
    before = threading.active_count()
    judged = engine.judged(jobs)
    next(judged)
    judged.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


class Moody(Ends):
    """Gives no number of one medium and refuses another; the mood is the class's."""

    name = "moody"
    nan_of: float | None = None
    refused: float | None = None

    def score(self, frames_THWC: np.ndarray) -> float:
        contrast = self.raw(frames_THWC)
        if contrast == self.refused:
            raise ModelError("does not like it")
        return float("nan") if contrast == self.nan_of else super().score(frames_THWC)


@pytest.mark.parametrize("rows", [1, 3])
def test_what_a_scorer_cannot_score_is_a_reject_and_never_reaches_the_store(
    rows: int, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Moody() if rows == 1 else _MoodyTogether()
    monkeypatch.setattr("models.scorers.catalogue._registered", {"ends": Ends, scorer.name: lambda: scorer})
    config = replace(CONFIG, scorers=("ends", scorer.name), torch=TorchConfig(rows=rows))
    raws = sorted(set(_raws(scorer, place)))
    scorer.nan_of, scorer.refused = raws[2], raws[5]
    run(config, place)
    rejects = read_table(place.out / "rejects.parquet", REJECTS)
    assert list(rejects["reason"]) == [UNSCORABLE, UNSCORABLE]
    assert {detail.split(":")[0] for detail in rejects["detail"]} == {f"scorer {scorer.name}"}
    assert {"nan" in detail for detail in rejects["detail"]} == {True, False}
    assert len(read_table(place.out / "opinions.parquet", OPINIONS)) == CONTENTS - 2
    scorer.nan_of = scorer.refused = None  # repaired, under the same version
    run(config, place)
    assert len(read_table(place.out / "opinions.parquet", OPINIONS)) == CONTENTS


class _MoodyTogether(Together):
    """As ``Moody``, for several media at a time."""

    name = "moody_together"
    nan_of: float | None = None
    refused: float | None = None

    def score_many(self, media: Sequence[np.ndarray]) -> list[float]:
        raws = [self.raw(frames_THWC) for frames_THWC in media]
        if self.refused in raws:
            raise ModelError("does not like it")
        return [float("nan") if raw == self.nan_of else raw / 256 for raw in raws]


def _raws(scorer: Ends | Together, place: Place) -> Iterator[float]:
    for row in load_candidates(place).to_dict("records"):
        frames = decode_frames(read_media(place, row), CONFIG.panel.rule, [scorer.sampling])
        yield scorer.raw(frames.for_sampling(scorer.sampling))


def test_where_everything_is_known_no_scorer_is_loaded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, scorers=("fragments", "ranking"))
    first = run(config, place)

    def fail(*_: Any) -> None:
        raise AssertionError("a scorer was loaded")

    monkeypatch.setattr("tasks.annotation.score_local.Panel.convene", fail)
    assert run(config, place) == first
