from collections import Counter
from pathlib import Path

import pytest

from tasks.exchange.instruction_rows import MediaRoot, RecordRejectedError, gathered, instruction_row, kind_of
from tasks.records import Modality


@pytest.mark.parametrize(
    ("stem", "options", "kind"),
    [
        ("Is it?", ["Yes", "No"], "yes_no"),
        ("Is it?", ["no.", "yes"], "yes_no"),
        ("Which one?", ["Noise", "Blur"], "which"),
        ("How?", ["Good", "Bad", "Fair"], "what_how"),
        ("Describe it.", [], "open"),
    ],
)
def test_kinds_follow_the_options(stem: str, options: list[str], kind: str):
    assert kind_of(stem, options) == kind


def test_a_folder_is_no_medium_and_answers_are_remembered(tmp_path: Path):
    (tmp_path / "a.png").mkdir()
    root = MediaRoot(tmp_path)
    for _ in range(2):
        with pytest.raises(RecordRejectedError, match="is not below"):
            root.path("a.png")
    (tmp_path / "b.png").write_bytes(b"x")
    assert root.path("./b.png") == "b.png"
    assert MediaRoot(None).path("b.png") == "b.png"


def test_the_id_says_what_is_said_about_what():
    def made(path: str, answer: str) -> str:
        rest = {"options": [], "letter": None, "kind": "open", "split": "train"}
        return instruction_row("s", [(path, Modality.IMAGE)], ["How?"], answers=[answer], **rest)["instruction_id"]

    assert made("a", "x") == made("a", "x")
    assert len({made("a", "x"), made("b", "x"), made("a", "y")}) == 3


def test_notes_are_told_in_order():
    row = instruction_row("s", [], ["How?"], answers=["So."], options=[], letter=None, kind="open", split="train")
    found = gathered([("0", lambda: row), ("1", lambda: row)], Counter({"b": 1, "a": 2}), "s")
    assert list(found.notes.items()) == [("a", 2), ("b", 1)]
    assert found.rejects["reason"].tolist() == ["duplicate"]
