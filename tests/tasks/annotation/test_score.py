"""The stage ``score``: a complete table, the memo's economy, and the same bytes after a kill."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner

from infra.object_store import open_store
from models.scorers.built_in import Card, read_card
from tasks.annotation.panel import Job, Panel, Seen
from tasks.annotation.score import Config, run
from tasks.errors import StageError
from tasks.memo import OpinionMemo
from tasks.records import CANDIDATES, OPINIONS, REJECTS
from tasks.shards import frame_of, read_table, write_table
from tasks.stage import Place
from tests.infra import conftest as infra_fixtures
from tests.tasks.annotation.scored_pool import make_pool, png, publish, row
from vital.store_commands import store as store_command

s3_endpoint = infra_fixtures.s3_endpoint
bucket = infra_fixtures.bucket

NAMES = ("fragments", "two_branch", "level_probs", "multiscale_attention", "multi_task", "ranking")
CONFIG = Config(scorers=NAMES, frames=2, clips=1, backend="onnx", batch=4, max_reject_share=0.5)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.delenv("VITAL_STORE", raising=False)
    return make_pool(tmp_path)


def _computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the scorers asked per decoded medium."""
    asked: list[int] = []
    original = Panel.look

    def counting(self: Panel, job: Job, data: bytes) -> Seen:
        asked.append(len(job.wanted))
        return original(self, job, data)

    monkeypatch.setattr(Panel, "look", counting)
    return asked


def test_every_candidate_gets_a_row_of_six_scores(place: Place) -> None:
    report = run(CONFIG, place)
    table = read_table(place.out / "opinions.parquet", OPINIONS)
    assert report.candidates == report.opinions == len(table) == 4 + 12
    assert read_table(place.out / "rejects.parquet", REJECTS).empty
    scores = np.stack(table["scores"].to_list())
    assert scores.shape == (16, 6)
    assert table["mu"].to_numpy() == pytest.approx(scores.mean(axis=1))
    assert table["sigma"].to_numpy() == pytest.approx(scores.std(axis=1))
    assert np.stack(table["pmod"].to_list()).sum(axis=1) == pytest.approx(1)
    versions = dict(zip(table["id"], table["versions"], strict=True))
    assert [v.split("+")[-1] for v in versions["clip"]] == ["1clips", *["2frames"] * 5]
    assert all(v.count("+") == 1 for v in versions["coffee"])
    assert report.below_parent > 0.8
    assert set(report.scorers) == set(NAMES)
    assert len(report.srcc) == 15


def _newer_ranking(path: Path) -> Card:
    card = read_card(path)
    return replace(card, version=f"{card.version}x") if path.stem == "ranking" else card


def test_the_memo_pays_for_media_seen_before_and_a_new_version_for_itself_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _computed(monkeypatch)
    first = run(CONFIG, place)
    assert asked == [6] * 16
    table = (place.out / "opinions.parquet").read_bytes()
    asked.clear()
    assert run(CONFIG, place) == first
    assert asked == []
    monkeypatch.setattr("models.scorers.built_in.read_card", _newer_ranking)
    run(CONFIG, place)
    assert asked == [1] * 16
    monkeypatch.undo()
    monkeypatch.setattr(OpinionMemo, "lookup", lambda *_: {})
    run(CONFIG, place)
    assert (place.out / "opinions.parquet").read_bytes() == table


def test_opinions_move_with_the_store_and_another_workspace_pays_for_none(
    place: Place, tmp_path: Path, bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Place(tmp_path / "other", tmp_path / "other" / "work", tmp_path / "other" / "work" / "out")
    other.out.mkdir(parents=True)
    (other.root / "artifacts").symlink_to(place.root / "artifacts")
    for root in (place.root, other.root):
        (root / ".dvc").mkdir()
        monkeypatch.setattr("infra.workspace.CHECKOUT", root)
        used = CliRunner().invoke(store_command, ["use", f"s3://{bucket}/p", "--endpoint", s3_endpoint])
        assert used.exit_code == 0, used.output
    asked = _computed(monkeypatch)
    first = run(CONFIG, place)
    assert asked == [6] * 16
    assert any(key.startswith("opinions/") for key in open_store(f"s3://{bucket}/p/objects", s3_endpoint).list(""))
    assert not (place.root / ".vital").exists()
    asked.clear()
    assert run(CONFIG, other) == first
    assert asked == []


def test_what_cannot_be_decoded_is_a_reject_with_a_reason_and_too_many_fail(place: Place) -> None:
    good, broken = png(skimage.data.coffee()), png(skimage.data.chelsea())[:500]
    media = {"good": good, "same": good, "broken": broken}
    publish(place, "collect", media, [row(key, data) for key, data in media.items()])
    report = run(CONFIG, place)
    rejects = read_table(place.out / "rejects.parquet", REJECTS)
    assert rejects[["stage", "id", "reason"]].to_numpy().tolist() == [["score", "broken", "truncated"]]
    assert (report.candidates, report.opinions, report.rejects) == (15, 14, 1)
    strict = Config(scorers=NAMES, frames=2, clips=1, backend="onnx", batch=4, max_reject_share=0.01)
    with pytest.raises(StageError, match="1 of 15"):
        run(strict, place)


def test_an_empty_pool_is_an_error(place: Place) -> None:
    for stage in ("collect", "distort"):
        write_table(place.root / "artifacts" / stage / "candidates.parquet", CANDIDATES, frame_of(CANDIDATES, []))
    with pytest.raises(StageError, match="no candidate"):
        run(CONFIG, place)


@pytest.mark.parametrize(
    "values", [{"scorers": ()}, {"scorers": ("ranking", "ranking")}, {"batch": 0}, {"frames": 0}, {"clips": 0}]
)
def test_configs_without_sense_are_refused(values: dict[str, object]) -> None:
    base = {"scorers": NAMES, "frames": 2, "clips": 1, "backend": "onnx", "batch": 4, "max_reject_share": 0.1}
    with pytest.raises(ValueError, match="must"):
        Config(**{**base, **values})  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_bytes(place: Place) -> None:
    program = (
        "import sys; from pathlib import Path; from tasks.stage import Place; from tasks.annotation.score import *\n"
        f"run(Config({NAMES!r}, 2, 1, 'onnx', 2, 0.5), Place(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[2])))"
    )
    root, store = str(place.root), place.root / ".vital" / "store"
    command = [sys.executable, "-c", program, root]
    checkout = Path(__file__).parents[3]

    def shards() -> int:
        return len(list(store.rglob("*.parquet")))

    process = subprocess.Popen([*command, str(place.out)], cwd=checkout, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while shards() < 6 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    saved = shards()
    assert 6 <= saved < 6 * 9
    subprocess.run([*command, str(place.out)], check=True, cwd=checkout, stderr=subprocess.DEVNULL)
    undisturbed = place.root / "undisturbed"
    undisturbed.mkdir()
    environment = {**os.environ, "VITAL_STORE": str(place.root / "other")}
    subprocess.run([*command, str(undisturbed)], check=True, cwd=checkout, stderr=subprocess.DEVNULL, env=environment)
    for name in ("opinions.parquet", "rejects.parquet"):
        assert (place.out / name).read_bytes() == (undisturbed / name).read_bytes()
