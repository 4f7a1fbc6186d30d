"""Texts and scores from files of other people: what counts, what is rejected, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import StageError
from tasks.human_scale import Meaning, Polarity
from tasks.own_media import OwnMedia
from tasks.training.own_lessons import read_scores, read_texts, reasons

FIVE = Meaning(Polarity.MOS, 1, 5)


@pytest.fixture
def media(tmp_path: Path) -> OwnMedia:
    return OwnMedia(tmp_path / "photos", ("a.png", "b.png", "c.png"))


def written(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_texts_are_gathered_by_medium_each_once_and_the_rest_is_counted(media: OwnMedia, tmp_path: Path):
    said = read_texts(
        written(
            tmp_path / "texts.jsonl",
            {"path": "a.png", "text": "Soft edges. The quality is bad.", "source": "me"},
            {"path": "a.png", "text": "Soft edges.", "source": "you"},
            {"path": "a.png", "text": "Grain.", "source": "you"},
            {"path": "b.png", "text": "Clean."},
            {"path": "b.png", "text": "A good photo."},
            {"path": "z.png", "text": "Clean."},
            {"path": "c.png"},
            "no json",
        ),
        media,
        "drop",
        None,
    )
    assert {name: set(own) for name, own in said.texts.items()} == {
        "a.png": {"Soft edges.", "Grain."},
        "b.png": {"Clean."},
    }
    assert said.told["sources"] == {"me": 1, "unknown": 1, "you": 1}
    assert said.told["dropped_sentences"] == 2
    assert reasons(said.rejects) == {"no_medium": 1, "no_text": 2, "nothing_left": 1}


def test_texts_of_a_medium_can_be_bounded_and_come_in_an_order_of_their_words(media: OwnMedia, tmp_path: Path):
    lines = [{"path": "a.png", "text": text} for text in ("One.", "Two.", "Three.")]
    every = read_texts(written(tmp_path / "x.jsonl", *lines), media, "drop", None).texts["a.png"]
    turned = read_texts(written(tmp_path / "y.jsonl", *reversed(lines)), media, "drop", 2).texts["a.png"]
    assert turned == every[:2]


def test_a_file_without_a_usable_text_is_refused_with_the_reasons(media: OwnMedia, tmp_path: Path):
    lines = [{"path": "z.png", "text": "Soft."}, {"text": "Soft."}]
    with pytest.raises(StageError, match=r"no text about a medium of .*photos \(no_medium 1, no_text 1\)"):
        read_texts(written(tmp_path / "x.jsonl", *lines), media, "drop", None)
    with pytest.raises(StageError, match="it is empty"):
        read_texts(written(tmp_path / "x.jsonl"), media, "drop", None)


def test_scores_are_brought_to_one_scale_by_what_is_declared(media: OwnMedia, tmp_path: Path):
    table = written(tmp_path / "s.csv", "path,score", "a.png,1", "b.png,4", "b.png,4.0", "z.png,2", "c.png,nan")
    given = read_scores(table, media, FIVE)
    assert given.scores == {"a.png": 0.0, "b.png": 0.75}
    assert reasons(given.rejects) == {"no_medium": 1, "no_number": 1}
    assert read_scores(table, media, Meaning(Polarity.DMOS, 0, 5)).scores == {"a.png": 0.8, "b.png": pytest.approx(0.2)}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["a.png,0.5"], "s.csv:2: the score 0.5 lies outside 1 to 5: declare --range"),
        (["a.png,2", "./a.png,3"], "s.csv:3: a.png has another score before"),
        (["z.png,2"], r"holds no score of a medium of .*photos \(no_medium 1\)"),
    ],
)
def test_scores_that_cannot_be_meant_are_refused(media: OwnMedia, tmp_path: Path, rows: list[str], says: str):
    with pytest.raises(StageError, match=says):
        read_scores(written(tmp_path / "s.csv", "path,score", *rows), media, FIVE)
