"""The file of texts: whole lines, continued, and without what is out of date."""

import json
import os
from pathlib import Path

import click
import pytest

from models.sampling import Sampling
from tasks.errors import MediaError
from tasks.evaluation.said_texts import SaidText
from vital.text_file import TextFile, lines_of, rejects_path

DRAWN = Sampling(0.5, 0.9)


@pytest.fixture
def photos(tmp_path: Path) -> dict[Path, str]:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    return {tmp_path / name: name for name in ("a.png", "b.png")}


def said(path: Path, number: int = 0) -> SaidText:
    return SaidText(path, number, "Describe it.", "image", 7, f"Text {number}.", 1)


def test_lines_tell_all_and_what_is_known_hangs_on_the_run(photos: dict[Path, str], tmp_path: Path):
    out, (first, second) = tmp_path / "texts.jsonl", photos
    with TextFile(out, photos, "run", "me", DRAWN) as file:
        file.said(said(first))
        file.lost(second, None, MediaError("truncated", "it ends early"))
        assert file.known(first, 0)
        assert not file.known(first, 1)
        assert file.known(second, 3)
    (line,) = lines_of(out)
    assert line.pop("mtime_ns") == first.stat().st_mtime_ns
    assert line == {
        "path": "a.png", "modality": "image", "text": "Text 0.", "source": "me", "number": 0, "seed": 7, "dropped": 1,
        "sampling": {"temperature": 0.5, "top_p": 0.9}, "question": "Describe it.", "size": 5, "run": "run",
    }  # fmt: skip
    (reject,) = lines_of(rejects_path(out))
    assert (reject["path"], reject["reason"], reject["error"]) == ("b.png", "truncated", "it ends early")
    with TextFile(out, photos, "other", "me", DRAWN) as file:
        assert not file.known(first, 0)
        file.said(said(first))
    assert [line["run"] for line in lines_of(out)] == ["run", "other"]


def test_a_cut_line_and_lines_about_a_former_file_are_dropped(photos: dict[Path, str], tmp_path: Path):
    out, (first, second) = tmp_path / "texts.jsonl", photos
    with TextFile(out, photos, "run", "me", DRAWN) as file:
        file.said(said(first))
        file.said(said(second))
    out.write_bytes(out.read_bytes() + b'{"path": "a.png", "te')
    os.utime(second, ns=(1, 1))
    with TextFile(out, photos, "run", "me", DRAWN) as file:
        assert file.known(first, 0)
        assert not file.known(second, 0)
        file.said(said(second))
    assert [line["path"] for line in lines_of(out)] == ["a.png", "b.png"]
    with TextFile(out, {first: "a.png"}, "run", "me", DRAWN):
        pass
    assert len(lines_of(out)) == 2, "what is not asked about stays"


def test_a_medium_that_could_not_be_read_is_tried_again(photos: dict[Path, str], tmp_path: Path):
    out, first = tmp_path / "texts.jsonl", next(iter(photos))
    with TextFile(out, photos, "run", "me", DRAWN) as file:
        file.lost(first, None, MediaError("unreadable", "no right to read it"))
    with TextFile(out, photos, "run", "me", DRAWN) as file:
        assert not file.known(first, 0)


def test_another_file_is_not_touched(photos: dict[Path, str], tmp_path: Path):
    out = tmp_path / "texts.jsonl"
    for content in (json.dumps({"path": "a.png", "text": "mine"}) + "\n", "no json\n"):
        out.write_text(content)
        with pytest.raises(click.ClickException, match="holds no texts of this command"):
            TextFile(out, photos, "run", "me", DRAWN)
        assert out.read_text() == content
