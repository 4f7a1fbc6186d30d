"""The plan agrees with what the stage then computes, says why, and decodes nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.scorers.built_in import BuiltInScorer
from tasks import media
from tasks.annotation.cache_plan import CachePlan, cache_plans, contents_of_files, contents_of_pool
from tasks.annotation.panel import Job, Panel, Seen, TorchConfig
from tasks.annotation.score import Config, run
from tasks.errors import MediaError
from tasks.memo import open_memo
from tasks.pool import load_candidates, read_media
from tasks.records import Modality
from tasks.stage import Place
from tasks.video import Reading
from tests.tasks.annotation.fake_scorers import Together
from tests.tasks.annotation.scored_pool import make_pool, png, publish, row

CONFIG = Config(("fragments", "ranking"), frames=2, clips=1, backend="onnx", batch=4, max_reject_share=0.5)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.delenv("VITAL_STORE", raising=False)
    return make_pool(tmp_path)


def plans(config: Config, place: Place) -> list[CachePlan]:
    return cache_plans(config.panel, contents_of_pool(place), open_memo(place.root))


def told(found: Sequence[CachePlan]) -> list[tuple[str, str, int, int, str]]:
    return [(one.scorer, one.modality.value, one.cached, one.to_compute, one.why) for one in found]


def test_the_plan_before_and_after_a_run_and_with_new_media(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = "no opinion of this scorer yet"
    assert told(plans(CONFIG, place)) == [
        ("fragments", "image", 0, 15, nothing),
        ("fragments", "video", 0, 1, nothing),
        ("ranking", "image", 0, 15, nothing),
        ("ranking", "video", 0, 1, nothing),
    ]
    run(CONFIG, place)
    assert {one.why for one in plans(CONFIG, place)} == {"all known"}
    more = [one for one in plans(replace(CONFIG, clips=2), place) if one.to_compute]
    assert told(more) == [("fragments", "video", 0, 1, "version is new: the store has 2 others of this scorer")]
    media_of = {key: png(255 - photo_like(index)) for index, key in enumerate(("new", "newer"))}
    publish(place, "collect", media_of, [row(key, data) for key, data in media_of.items()])
    new = [one for one in plans(CONFIG, place) if one.to_compute]
    assert told(new) == [(name, "image", 12, 2, "new media") for name in CONFIG.scorers]
    looked: list[int] = []
    original = Panel.look

    def count(self: Panel, job: Job, data: bytes) -> Seen:
        looked.append(len(job.wanted))
        return original(self, job, data)

    monkeypatch.setattr(Panel, "look", count)
    run(CONFIG, place)
    assert looked == [2, 2]


def photo_like(seed: int) -> np.ndarray:

    return np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_a_plan_loads_and_decodes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in ((media, "_decode_image"), (Reading, "__init__"), (BuiltInScorer, "__init__")):
        monkeypatch.setattr(owner, name, None)
    monkeypatch.setenv("TORCH_HOME", "/nowhere")
    config = replace(CONFIG, scorers=("ranking", "dover", "q_align"))
    assert [one.to_compute for one in plans(config, place)] == [15, 1] * 3


def test_files_are_the_same_contents_as_in_the_pool(place: Place) -> None:
    run(CONFIG, place)
    files = [read_media(place, candidate) for candidate in load_candidates(place).to_dict("records")]
    found = contents_of_files([*files, files[0]])
    assert found == contents_of_pool(place)
    assert {one.why for one in cache_plans(CONFIG.panel, found, open_memo(place.root))} == {"all known"}
    photo = contents_of_files([png(photo_like(3))])
    assert [one.modality for one in cache_plans(CONFIG.panel, photo, open_memo(place.root))] == [Modality.IMAGE] * 2
    for broken, reason in ((b"", "empty"), (b"# a text", "unknown_format")):
        with pytest.raises(MediaError) as caught:
            contents_of_files([broken])
        assert caught.value.reason == reason


def test_what_the_probes_decide_is_told_with_both_versions(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.scorers.catalogue._registered", {"together": Together})
    torch = TorchConfig(precision="bf16", rows=2)
    found = plans(replace(CONFIG, scorers=("together",), torch=torch), place)
    assert [one.version for one in found] == ["1+bf16+2rows", "1+bf16+2rows+2frames"]
    assert found[1].why.endswith("; if its probes stay within the tolerance, else version 1+2rows+2frames")
