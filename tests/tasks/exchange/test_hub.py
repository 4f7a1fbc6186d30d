"""With the real library: what is written is a data set to it, and what it wrote comes back value by value."""

import errno
import json
import os
import re
from pathlib import Path

import datasets
import pytest
from PIL import Image

from tasks.errors import StageError
from tasks.exchange.export import export_text
from tasks.exchange.formats import Options, import_file, import_records
from tasks.exchange.hub import new_folder, read_hub, write_hub
from tasks.exchange.json_text import cut
from tasks.exchange.tables import HUMAN_SCORES
from tasks.human_scale import Meaning, Polarity

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


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ({"score": 7.0, "quality": 1.5}, "the score 7.0 is no number on its scale, 1 to 5"),
        ({"score": None}, "the score None is no number on its scale"),
        ({"std": 0.5}, "quality_std None is not what the std 0.5 means"),
        ({"quality_std": 0.5}, "quality_std 0.5 is not what the std None means"),
        ({"std": -1.0, "quality_std": -0.25}, "the standard deviation -1.0 is none"),
        ({"low": 9.0}, "the scale 9 to 5 is empty"),
        ({"high": None}, "polarity mos from 1.0 to None is none"),
    ],
)
def test_scores_that_were_written_into_a_data_set_are_checked(edits: dict, told: str, tmp_path: Path):
    found = import_records(cut(TEXT, "x"), "x", STARS)
    for column, value in edits.items():
        found.frame.loc[0, column] = value
    write_hub(tmp_path / "hub", found.table, found.frame)
    with pytest.raises(StageError, match=re.escape(told)):
        import_file(tmp_path / "hub", Options())


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ({"target": [1.0, 0.0]}, "target cannot be [1.0, 0.0]"),
        ({"scores": [1.0, None]}, "scores cannot be [1.0, None]"),
        ({"mean": float("inf")}, "mean cannot be inf"),
        ({"preference": 0.7}, "preference cannot be 0.7"),
    ],
)
def test_numbers_of_samples_are_checked_too(edits: dict, told: str, tmp_path: Path):
    talk = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "Good."}]
    sample = {"image": "a.jpg", "mos": [3.0, 4.0], "conversations": talk}
    found = import_records(cut(json.dumps([[sample]]), "x"), "x", Options())
    for column, value in edits.items():
        found.frame[column] = [value]
    write_hub(tmp_path / "hub", found.table, found.frame)
    with pytest.raises(StageError, match=re.escape(f"row 0 (a.jpg): {told}")):
        import_file(tmp_path / "hub", Options())


def test_a_data_set_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = import_records(cut(TEXT, "x"), "x", STARS)

    def full(_self: object, folder: str) -> None:
        (Path(folder) / "data-00000-of-00001.arrow").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(datasets.Dataset, "save_to_disk", full)
        with pytest.raises(OSError, match="No space left"):
            write_hub(tmp_path / "hub", found.table, found.frame)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "hub").mkdir()
    write_hub(tmp_path / "hub", found.table, found.frame)
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(StageError, match="file is a file: name a new folder"):
        write_hub(tmp_path / "file", found.table, found.frame)


def test_parquet_of_others_is_read_the_same_way(tmp_path: Path):
    datasets.Dataset.from_dict({"image": ["a.png"], "gt_score": ["3"]}).to_parquet(str(tmp_path / "x.parquet"))
    assert import_file(tmp_path / "x.parquet", STARS).frame.loc[0, "quality"] == 0.5


def test_splits_that_do_not_fit_together_and_empty_data_sets_are_told(tmp_path: Path):
    first = datasets.Dataset.from_dict({"image": ["a.jpg"], "mos": [1.0]})
    for name, other, told in (
        ("columns", {"image": ["b.jpg"]}, "its splits have different columns: name the folder of one split"),
        ("types", {"image": ["b.jpg"], "mos": ["x"]}, "its splits have columns of different types: name the folder"),
    ):
        datasets.DatasetDict(train=first, test=datasets.Dataset.from_dict(other)).save_to_disk(str(tmp_path / name))
        with pytest.raises(StageError, match=told):
            import_file(tmp_path / name, STARS)
    datasets.DatasetDict().save_to_disk(str(tmp_path / "none"))
    datasets.Dataset.from_dict({"image": [], "mos": []}).save_to_disk(str(tmp_path / "empty"))
    for name in ("none", "empty"):
        with pytest.raises(StageError, match=f"{name} is a data set without rows"):
            import_file(tmp_path / name, STARS)
    splits = datasets.DatasetDict(train=first, test=datasets.Dataset.from_dict({"image": [], "mos": []}))
    splits.save_to_disk(str(tmp_path / "half"))
    with pytest.raises(StageError, match=r"half/test is a data set without rows: .* name the folder of another split"):
        import_file(tmp_path / "half", STARS)


def test_not_every_index_error_of_the_library_is_a_data_set_without_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(_folder: str) -> None:
        raise IndexError("list index out of range")

    datasets.Dataset.from_dict({"image": ["a.jpg"], "mos": [1.0]}).save_to_disk(str(tmp_path / "hub"))
    monkeypatch.setattr(datasets, "load_from_disk", fail)
    with pytest.raises(StageError, match=r"holds no data set of the library datasets .*: IndexError: list index out"):
        import_file(tmp_path / "hub", STARS)


def test_a_new_folder_has_the_mode_that_the_umask_says(tmp_path: Path):
    before = os.umask(0o027)
    try:
        with new_folder(tmp_path / "hub") as fresh:
            (fresh / "x").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "hub").stat().st_mode & 0o777 == 0o750
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("state.json", "{}"),
        ("state.json", "[]"),
        ("state.json", "{"),
        ("dataset_info.json", "[]"),
        ("dataset_dict.json", "[]"),
        ("dataset_dict.json", "{}"),
        ("dataset_dict.json", '{"splits": ["train"]}'),
        ("data-00000-of-00001.arrow", "x"),
    ],
)
def test_a_damaged_data_set_is_told(file: str, text: str, tmp_path: Path):
    datasets.Dataset.from_dict({"image": ["a.jpg"], "mos": [1.0]}).save_to_disk(str(tmp_path / "hub"))
    if file == "dataset_dict.json":
        (tmp_path / "hub" / "state.json").unlink()
    (tmp_path / "hub" / file).write_text(text)
    with pytest.raises(StageError, match="hub holds no data set of the library datasets"):
        import_file(tmp_path / "hub", STARS)


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
