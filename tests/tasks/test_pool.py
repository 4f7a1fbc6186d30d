from pathlib import Path

import pandas as pd
import pytest

from tasks.errors import StageError
from tasks.pool import load_candidates, read_media
from tasks.records import CANDIDATES
from tasks.shards import digest, frame_of, write_archive, write_table
from tasks.stage import Place


def publish(root: Path, stage: str, media: dict[str, bytes]) -> None:
    folder = root / "artifacts" / stage
    places = write_archive(folder / "media" / "a.tar", media.items())
    rows = [
        {
            "id": digest(name), "content_id": digest(name), "parent_id": None, "split": "train", "modality": "image",
            "mime": "image/png", "width": 1, "height": 1, "frames": 1, "fps": 0.0, "duration_s": 0.0, "source": name,
            "bytes_sha256": "", "shard": place.shard, "offset": place.offset, "length": place.length,
            "distortion": None, "severity": 0, "seed": 0, "generator": None,
        }
        for name, place in places.items()
    ]  # fmt: skip
    write_table(folder / "candidates.parquet", CANDIDATES, frame_of(CANDIDATES, rows))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    publish(tmp_path, "collect", {"b": b"bee", "a": b"an original"})
    publish(tmp_path, "distort", {"c": b"a child"})
    return Place(tmp_path, tmp_path / "work", tmp_path / "out")


def test_originals_and_children_are_one_frame_and_each_row_finds_its_bytes(place: Place):
    pool = load_candidates(place)
    assert list(pool.columns) == [*CANDIDATES.columns, "stage"]
    assert dict(zip(pool["source"], pool["stage"], strict=True)) == {"a": "collect", "b": "collect", "c": "distort"}
    assert pool["id"].is_monotonic_increasing
    expected = {"a": b"an original", "b": b"bee", "c": b"a child"}
    for row in pool.itertuples():
        assert read_media(place, row) == expected[row.source]
    for _, series in pool.iterrows():
        assert read_media(place, series) == expected[series["source"]]
        assert read_media(place, dict(series)) == expected[series["source"]]


def test_a_stage_that_has_not_run_is_named(tmp_path: Path):
    publish(tmp_path, "collect", {"a": b"an original"})
    with pytest.raises(StageError, match="artifacts/distort is missing: run dvc repro distort"):
        load_candidates(Place(tmp_path, tmp_path / "work", tmp_path / "out"))


def test_an_archive_that_is_gone_is_named(place: Place):
    row = pd.Series(load_candidates(place).iloc[0])
    (place.root / "artifacts" / str(row["stage"]) / "media" / "a.tar").unlink()
    with pytest.raises(StageError, match=r"a\.tar is missing"):
        read_media(place, row)
