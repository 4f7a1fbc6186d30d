import dataclasses
import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from models.quality_lmm import QualityLMM
from models.vision_encoder import VisualInput
from tasks.archives import Archives
from tasks.errors import MediaError, StageError
from tasks.prepared import Preparation, Preparer, Views, prepare_media
from tasks.records import REJECTS, Split, Task
from tasks.stage import Place
from tasks.streamed import StreamedMedia, Streaming
from tasks.training.examples import MappedExamples, open_examples
from tasks.training_set import FOLDER

THREADS = Streaming(workers=2, kind="threads", ahead=2, archives=None)
PROCESSES = dataclasses.replace(THREADS, kind="processes", workers=1)


@pytest.fixture
def examples(line: Path) -> MappedExamples:
    return open_examples(line / "artifacts" / "assemble" / FOLDER, Split.HELD_OUT, {Task.SINGLE: 1.0})


@pytest.fixture
def preparer(line: Path) -> Preparer:
    spec = QualityLMM.from_pretrained(line / "artifacts" / "base" / "small").spec
    reader = Archives(Place(line, line, line), None).read
    return Preparer(reader, Views(spec, 3, 7), Preparation("pretrain", 1, 0.2))


class Watched:
    """A reader that counts what it is asked for, waits if told to, and returns no picture of chosen media."""

    def __init__(self, read: Any, rotten: tuple[str, ...] = ()) -> None:
        self._read, self.rotten, self.asked = read, rotten, list[str]()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, row: Any) -> bytes:
        self.may_go_on.wait(30)
        self.asked.append(row.id)
        return b"no picture" if row.id in self.rotten else self._read(row)


def _same(one: VisualInput, other: VisualInput) -> bool:
    motions = one.motion_CTHW, other.motion_CTHW
    if (motions[0] is None) != (motions[1] is None):
        return False
    moved = motions[0] is None or motions[1] is None or torch.equal(*motions)
    return moved and torch.equal(one.tiles_TCHW, other.tiles_TCHW)


def _check_equals_prepared(media: StreamedMedia, examples: MappedExamples, preparer: Preparer, folder: Path) -> None:
    frame = examples.frame()
    assert set(frame["modality"]) == {"image", "video"}
    prepared = prepare_media(folder, frame, preparer.read, preparer.views, preparer.preparation)
    wanted = [(medium, visit) for visit in (0, 4) for medium in frame["id"]]
    media.foresee(wanted)
    for medium, visit in reversed(wanted):
        assert _same(media.read(medium, visit), prepared.read(medium, visit))
    assert media.rejects.empty
    assert list(media.rejects.columns) == REJECTS.columns
    assert media.waited_s > 0


def test_what_is_streamed_is_bit_for_bit_what_would_have_been_prepared(
    examples: MappedExamples, preparer: Preparer, tmp_path: Path
):
    with StreamedMedia(preparer, examples, THREADS, tmp_path / "rejects") as media:
        _check_equals_prepared(media, examples, preparer, tmp_path / "media")


@pytest.mark.slow
def test_processes_give_the_same_and_one_that_dies_is_told(
    examples: MappedExamples, preparer: Preparer, tmp_path: Path
):
    ids = examples.frame()["id"].tolist()
    with StreamedMedia(preparer, examples, PROCESSES, tmp_path / "rejects") as media:
        _check_equals_prepared(media, examples, preparer, tmp_path / "media")
        (worker,) = multiprocessing.active_children()
        worker.kill()
        worker.join()
        with pytest.raises(StageError, match=r"died while it read .* or one near it.*goes on from its checkpoint"):
            media.read(ids[0], 2)
        with pytest.raises(StageError, match="died while it read"):
            media.foresee([(ids[1], 2)])


def test_media_are_prepared_ahead_in_order_and_only_once(examples: MappedExamples, preparer: Preparer, tmp_path: Path):
    ids = examples.frame()["id"].tolist()
    watched = Watched(preparer.read)
    one_by_one = dataclasses.replace(THREADS, workers=1)
    with StreamedMedia(dataclasses.replace(preparer, read=watched), examples, one_by_one, tmp_path) as media:
        media.foresee([(medium, 0) for medium in ids[:4]])
        media.foresee([(medium, visit) for medium in ids[1:6] for visit in (0, 3)])  # view 0 again
        deadline = time.monotonic() + 60
        while len(watched.asked) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert watched.asked in (ids[:6], ids[1:6])  # the first was dropped, begun or not
        asked = len(watched.asked)
        for medium in ids[1:6]:
            media.read(medium, 0)
        assert len(watched.asked) == asked


def test_what_nobody_foresees_any_more_is_not_prepared(examples: MappedExamples, preparer: Preparer, tmp_path: Path):
    ids = examples.frame()["id"].tolist()
    watched = Watched(preparer.read)
    watched.may_go_on.clear()
    with StreamedMedia(
        dataclasses.replace(preparer, read=watched), examples, dataclasses.replace(THREADS, workers=1), tmp_path
    ) as media:
        media.foresee([(medium, 0) for medium in ids])
        media.foresee([(ids[-1], 0)])
        watched.may_go_on.set()
        media.read(ids[-1], 0)
        assert set(watched.asked) <= {ids[0], ids[-1]}  # one was being read already
        assert isinstance(media.read(ids[3], 1), VisualInput)  # unforeseen, and read all the same


def test_a_broken_medium_is_a_reject_that_a_later_run_knows(
    examples: MappedExamples, preparer: Preparer, tmp_path: Path
):
    ids = examples.frame()["id"].tolist()
    watched = Watched(preparer.read, rotten=(ids[0],))
    broken = dataclasses.replace(preparer, read=watched)
    for visit in (0, 1):
        with StreamedMedia(broken, examples, THREADS, tmp_path) as media:
            assert media.broken == frozenset()  # a run that goes on draws what it would have drawn
            media.foresee([(ids[0], visit), (ids[1], visit)])
            for _ in range(2):
                with pytest.raises(MediaError, match="not an image") as caught:
                    media.read(ids[0], visit)
                assert caught.value.reason == "unknown_format"
            media.read(ids[1], visit)
            (row,) = media.rejects.to_dict("records")
            assert row["id"] == ids[0]
            assert row["stage"] == "pretrain"
            assert row["reason"] == "unknown_format"
    assert watched.asked.count(ids[0]) == 1


def test_one_reject_too_many_stops_the_run_and_names_them(examples: MappedExamples, preparer: Preparer, tmp_path: Path):
    ids = examples.frame()["id"].tolist()
    allowed = int(0.2 * len(ids))
    broken = dataclasses.replace(preparer, read=Watched(preparer.read, rotten=tuple(ids)))
    with (
        StreamedMedia(broken, examples, THREADS, tmp_path) as one,
        StreamedMedia(broken, examples, THREADS, tmp_path) as other,
    ):  # two processes of one run
        for medium in ids[:allowed]:
            with pytest.raises(MediaError):
                one.read(medium, 0)
        with pytest.raises(StageError, match=f"{allowed + 1} of {len(ids)} media do not decode") as caught:
            other.read(ids[allowed], 0)
    assert all(f"{medium} (unknown_format)" in str(caught.value) for medium in ids[: allowed + 1])
    assert len(other.rejects) == allowed + 1


def test_an_archive_that_is_not_there_is_no_reject(line: Path, examples: MappedExamples, preparer: Preparer):
    (medium,) = [row.id for row in _rows(examples) if row.stage == "collect"][:1]
    for path in (line / "artifacts" / "collect" / "media").iterdir():
        path.unlink()
    with StreamedMedia(preparer, examples, THREADS, line / "rejects") as media:
        with pytest.raises(StageError, match="is missing: run the stage that makes it"):
            media.read(medium, 0)
        assert media.rejects.empty


def _rows(examples: MappedExamples) -> Iterator[Any]:
    return (examples.medium(medium) for medium in examples.frame()["id"])


@pytest.mark.parametrize("change", [{"workers": 0}, {"ahead": -1}])
def test_impossible_streaming_is_refused(change: dict[str, int]):
    with pytest.raises(ValueError, match="workers >= 1 and ahead >= 0"):
        dataclasses.replace(THREADS, **change)
