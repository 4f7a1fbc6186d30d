import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from models.conversations import Turn
from tasks.errors import MediaError, StageError
from tasks.instructions import ShownMedia, external_media, instructions_of, media_frame, read_any_media
from tasks.records import INSTRUCTIONS, MEDIUM_MARK
from tasks.stage import Place


def row(**changes: Any) -> dict[str, Any]:
    values = {"instruction_id": "i", "source": "s", "kind": "open", "split": "train", "content_id": "c"}
    values |= {"media": ["a"], "modalities": ["image"], "questions": [f"{MEDIUM_MARK}\nHow?"], "answers": ["So."]}
    return values | {"options": [], "letter": None} | changes


def test_marks_become_the_numbers_of_the_media_in_order():
    told = row(
        media=["b", "a", "b"],
        modalities=["image"] * 3,
        questions=[f"One: {MEDIUM_MARK}, two: {MEDIUM_MARK}", f"{MEDIUM_MARK}\nAgain?", "And?"],
        answers=["x", "y", "z"],
    )
    (found,) = instructions_of([told])
    assert found.conversation({"a": 0, "b": 1}) == (
        Turn(("One: ", 1, ", two: ", 0), "x"),
        Turn((1, "\nAgain?"), "y"),
        Turn(("And?",), "z"),
    )


@pytest.mark.parametrize(
    "changes",
    [{"media": []}, {"questions": ["How?"]}, {"answers": ["So.", "More."]}, {"questions": [], "answers": []}],
)
def test_a_row_that_does_not_fit_together_is_an_error(changes: dict[str, Any]):
    with pytest.raises(StageError, match="import its data set again"):
        instructions_of([row(**changes)])


def test_media_of_two_tables_with_one_path_are_two_media():
    first, second = instructions_of([row()], "0"), instructions_of([row(modalities=["video"])], "1")
    frame = media_frame(
        pd.DataFrame(columns=list(external_media(first, "x").columns)),
        [external_media(first, "here"), external_media(second, "there")],
    )
    assert frame["id"].tolist() == ["0:a", "1:a"]
    assert frame["modality"].tolist() == ["image", "video"]
    assert frame["shard"].tolist() == ["here/a", "there/a"]


def test_bytes_of_imported_media_lie_below_their_root(tmp_path: Path):
    place = Place(tmp_path, tmp_path / "w", tmp_path / "o")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").write_bytes(b"bytes")
    frame = external_media(instructions_of([row()], "0"), "root")
    assert read_any_media(place, next(frame.itertuples(index=False))) == b"bytes"
    with pytest.raises(MediaError, match="cannot read root/b") as caught:
        read_any_media(place, SimpleNamespace(stage="external", shard="root/b"))
    assert caught.value.reason == "missing"


def test_null_cells_of_a_table_are_none():
    frame = pd.DataFrame.from_records([row(content_id=None)], columns=INSTRUCTIONS.columns)
    (found,) = instructions_of(INSTRUCTIONS.to_arrow(frame).to_pandas().to_dict("records"))
    assert (found.content_id, found.letter, found.options) == (None, None, ())


def test_shown_media_are_those_of_the_conversations_and_can_be_sent_to_another_process():
    found = instructions_of([row(), row(instruction_id="j", media=["b"], modalities=["video"])], "0")
    frame = media_frame(external_media(found, "here"), [external_media(instructions_of([row()], "1"), "there")])
    media = ShownMedia(found, frame)
    assert list(media.shown) == media.frame()["id"].tolist() == ["0:a", "0:b"]
    clip = pickle.loads(pickle.dumps(media.medium("0:b")))  # noqa: S301 - our own bytes
    assert (clip.id, clip.modality, clip.stage, clip.shard, clip.frames) == ("0:b", "video", "external", "here/b", 0)
