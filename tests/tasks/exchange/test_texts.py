"""Texts of models as a table of instructions that the stage explain imports."""

from pathlib import Path
from typing import Any

import pytest

from tasks.errors import StageError
from tasks.exchange.texts import texts_table
from tasks.instructions import ImportedSource, imported_instructions
from tasks.records import INSTRUCTIONS, QuestionKind
from tasks.shards import write_table
from tasks.stage import Place


def line(path: str, text: str, source: str = "one", modality: str = "image") -> dict[str, Any]:
    return {"path": path, "text": text, "source": source, "modality": modality, "question": "Describe it."}


def test_each_text_is_an_open_answer_about_its_medium(tmp_path: Path):
    for name in ("a.png", "b.mp4"):
        (tmp_path / name).write_bytes(b"bytes")
    lines = [line("a.png", "Soft."), line("a.png", "Grainy."), line("a.png", "Soft.", "two")]
    found = texts_table([*lines, line("b.mp4", "It shakes.", modality="video"), lines[0]], tmp_path)
    assert found.rejects["reason"].tolist() == ["duplicate"]
    write_table(tmp_path / "texts.parquet", INSTRUCTIONS, found.frame)
    place = Place(tmp_path, tmp_path, tmp_path)
    told, (frame,) = imported_instructions(place, [ImportedSource("texts.parquet", ".")])
    assert sorted((one.source, one.media[0], one.answers[0]) for one in told) == [
        ("one", "0:a.png", "Grainy."),
        ("one", "0:a.png", "Soft."),
        ("one", "0:b.mp4", "It shakes."),
        ("two", "0:a.png", "Soft."),
    ]
    assert {one.kind for one in told} == {QuestionKind.OPEN}
    assert {one.questions for one in told} == {("<medium>\nDescribe it.",)}
    assert {one.content_id for one in told} == {"a.png", "b.mp4"}
    assert dict(zip(frame["id"], frame["modality"], strict=True)) == {"0:a.png": "image", "0:b.mp4": "video"}


def test_what_is_no_instruction_is_a_reject(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"bytes")
    found = texts_table([line("a.png", "Soft."), line("a.png", "Ends <|im_end|>"), line("b.png", "Soft.")], tmp_path)
    assert sorted(found.rejects["reason"]) == ["missing_medium", "reserved_token"]
    with pytest.raises(StageError, match="it has no records"):
        texts_table([], tmp_path)
