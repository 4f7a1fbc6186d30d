"""With the real library: what is written is a data set to it, and what it wrote comes back value by value."""

import json
from pathlib import Path

import datasets
import pytest
from PIL import Image

from tasks.errors import StageError
from tasks.exchange.formats import Options, export_text, import_file, import_records
from tasks.exchange.hub import read_hub, write_hub
from tasks.exchange.json_text import cut
from tasks.exchange.polarity import Meaning, Polarity
from tasks.exchange.tables import HUMAN_SCORES

STARS = Options(Meaning(Polarity.MOS, 1, 5))
TEXT = '[{"image": "b.jpg", "mos": "3.50"},\r\n{"image": "a.jpg", "mos": "4.00", "std": 0.5}]\r\n'


def test_a_table_goes_through_a_data_set_without_loss(tmp_path: Path):
    found = import_records(cut(TEXT, "x"), "x", STARS)
    write_hub(tmp_path / "hub", found.table, found.frame)
    seen = datasets.load_from_disk(str(tmp_path / "hub"))
    assert [(row["path"], row["quality"]) for row in seen] == [("b.jpg", 0.625), ("a.jpg", 0.75)]
    back = import_file(tmp_path / "hub", Options())
    assert back.table is HUMAN_SCORES
    assert HUMAN_SCORES.to_arrow(back.frame).equals(HUMAN_SCORES.to_arrow(found.frame))
    assert export_text(back.table, back.frame) == (TEXT, 0)


def test_equal_tables_are_equal_files(tmp_path: Path):
    found = import_records(cut(TEXT, "x"), "x", STARS)
    for name in ("one", "two"):
        write_hub(tmp_path / name, found.table, found.frame)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) >= 3
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
    with pytest.raises(StageError, match="is not empty"):
        write_hub(tmp_path / "one", found.table, found.frame)


def test_somebody_elses_data_set_is_read_by_its_columns_and_pictures_are_left_out(tmp_path: Path):
    picture = Image.new("RGB", (8, 8))
    foreign = datasets.Dataset.from_dict(
        {"video": ["a.mp4", "b.mp4", "c.mp4"], "mos": [1.5, 2.5, 4.0], "frame": [picture] * 3},
        features=datasets.Features(
            video=datasets.Value("string"), mos=datasets.Value("float64"), frame=datasets.Image()
        ),
    )
    foreign.select([2, 0]).save_to_disk(str(tmp_path / "part"))
    with pytest.raises(StageError, match="nobody says"):
        import_file(tmp_path / "part", Options())
    found = import_file(tmp_path / "part", STARS)
    assert found.left_out == ["frame"]
    assert found.frame[["path", "score", "modality"]].values.tolist() == [
        ["c.mp4", 4.0, "video"],
        ["a.mp4", 1.5, "video"],
    ]
    splits = datasets.DatasetDict(train=foreign.select([0, 1]), test=foreign.select([2]))
    splits.save_to_disk(str(tmp_path / "splits"))
    assert import_file(tmp_path / "splits", STARS).frame["path"].tolist() == ["a.mp4", "b.mp4", "c.mp4"]
    lines = export_text(found.table, found.frame)[0]
    assert [json.loads(line) for line in lines.splitlines()] == [
        {"video": "c.mp4", "mos": 4.0},
        {"video": "a.mp4", "mos": 1.5},
    ]


def test_parquet_of_others_is_read_the_same_way(tmp_path: Path):
    datasets.Dataset.from_dict({"image": ["a.png"], "gt_score": ["3"]}).to_parquet(str(tmp_path / "x.parquet"))
    assert import_file(tmp_path / "x.parquet", STARS).frame.loc[0, "quality"] == 0.5


def test_what_is_no_data_set_is_told(tmp_path: Path):
    with pytest.raises(StageError, match="did not write"):
        import_file(tmp_path, Options())
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(StageError, match="holds no data set"):
        read_hub(tmp_path)
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(StageError, match="not a readable Parquet"):
        import_file(tmp_path / "x.parquet", Options())
    with pytest.raises(StageError, match="is missing"):
        import_file(tmp_path / "y.parquet", Options())
