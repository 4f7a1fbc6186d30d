"""A folder of one's own: what its media are called, what they are, and tables that tell of them."""

from pathlib import Path

import pytest

from tasks.errors import MediaError, StageError
from tasks.own_media import OwnMedia, csv_rows, json_lines, read_own

PNG = b"\x89PNG\r\n\x1a\n"
MP4 = b"\x00\x00\x00\x20ftypisom" + bytes(40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in {"b.png": PNG, "trip/a.jpg": MP4, "trip/empty.mp4": b""}.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "photos"


@pytest.fixture
def media(folder: Path) -> OwnMedia:
    return OwnMedia.of(folder, [path for path in folder.rglob("*") if path.is_file()])


def test_media_are_called_by_their_path_below_the_folder(
    media: OwnMedia, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    assert media.names == ("b.png", "trip/a.jpg", "trip/empty.mp4")
    monkeypatch.chdir(folder / "trip")
    assert [media.name_of(told) for told in ("trip/a.jpg", "./b.png", "a.jpg")] == ["trip/a.jpg", "b.png", "trip/a.jpg"]
    assert media.name_of(str(folder / "b.png")) == "b.png"
    assert [media.name_of(told) for told in ("c.png", "../../b.png", "", "a\0b")] == [None] * 4


def test_first_bytes_tell_clips_from_photos_not_names(media: OwnMedia):
    assert media.frame["modality"].tolist() == ["image", "video", "image"]
    assert read_own(next(media.frame.itertuples())) == PNG
    gone = media.frame.assign(shard="nowhere.png")
    with pytest.raises(MediaError, match="no such file"):
        read_own(next(gone.itertuples()))


def test_its_state_changes_when_a_medium_is_written_and_not_when_it_is_read(media: OwnMedia, folder: Path):
    again = OwnMedia(folder, media.names)
    assert again.state == media.state
    (folder / "b.png").write_bytes(PNG + b"more")
    assert OwnMedia(folder, media.names).state != media.state


def test_a_folder_without_media_is_refused(tmp_path: Path):
    with pytest.raises(StageError, match="holds no photos or clips"):
        OwnMedia.of(tmp_path, [])


def test_tables_are_read_as_texts_or_refused_in_words(tmp_path: Path):
    table = tmp_path / "scores.csv"
    table.write_bytes('\ufeffscore,path,more\n3,"a, b.png",x\n4\n'.encode())
    assert list(csv_rows(table, ("path", "score"))) == [
        {"path": "a, b.png", "score": "3"},
        {"path": "", "score": "4"},
    ]
    with pytest.raises(StageError, match=r"has no column 'mos': its first line must name path, mos"):
        list(csv_rows(table, ("path", "mos")))
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StageError, match="is no CSV file"):
        list(csv_rows(table, ("path",)))
    with pytest.raises(StageError, match="is no file of JSON lines"):
        list(json_lines(tmp_path / "nowhere.jsonl"))
    lines = tmp_path / "texts.jsonl"
    lines.write_text('{"a": 1}\n\n[2]\n{"a":\n')
    assert list(json_lines(lines)) == [(1, {"a": 1}), (3, [2]), (4, None)]
