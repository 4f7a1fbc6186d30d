import json
from pathlib import Path

import pytest

from tasks.errors import StageError
from tasks.exchange.export import export_text
from tasks.exchange.formats import Options, files_of, format_of, import_file, survey
from tasks.exchange.json_text import cut
from tasks.exchange.tables import DESCRIPTIONS, HUMAN_SCORES, QUESTIONS, SAMPLES, TABLES
from tasks.human_scale import Meaning, Polarity
from tasks.records import EXAMPLES
from tasks.shards import frame_of, write_table

STARS = Options(Meaning(Polarity.MOS, 1, 5))
TALK = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "Noise is strong."}]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([{"image": "a.jpg", "mos": 1}], HUMAN_SCORES),
        ([{"image": "a.jpg", "mos": 1, "conversations": TALK}], HUMAN_SCORES),
        ([{"image": "a.jpg", "id": "a.jpg->1", "conversations": TALK}], HUMAN_SCORES),
        ([{"image": "a.jpg", "id": "a", "conversations": TALK}], DESCRIPTIONS),
        ([[{"image": "a.jpg", "conversations": TALK}]], SAMPLES),
        ([{"video": "a.mp4", "question": "?", "answers": []}], QUESTIONS),
    ],
)
def test_a_format_is_told_by_its_records(value: list, kind: object):
    assert format_of(cut(json.dumps(value), "x")) is kind


def test_every_table_keeps_the_text_of_its_records_last():
    assert all(
        table.columns[0] == "row" and table.columns[-3:] == ["before", "text", "after"] for table in TABLES.values()
    )


def test_a_table_that_was_imported_can_be_imported_again_but_not_declared_again(tmp_path: Path):
    (tmp_path / "x.json").write_text('[{"image": "a.jpg", "mos": 3}]')
    found = import_file(tmp_path / "x.json", STARS)
    write_table(tmp_path / "x.parquet", found.table, found.frame)
    again = import_file(tmp_path / "x.parquet", Options())
    assert export_text(again.table, again.frame) == ('[{"image": "a.jpg", "mos": 3}]', 0)
    with pytest.raises(StageError, match="with a meaning declared then"):
        import_file(tmp_path / "x.parquet", STARS)


def test_examples_of_the_line_have_no_file_of_their_own():
    with pytest.raises(StageError, match="no file that it came from"):
        export_text(EXAMPLES, frame_of(EXAMPLES, []))


def test_a_survey_tells_what_an_import_would_refuse(tmp_path: Path):
    (tmp_path / "b.json").write_text('[{"image": "a.jpg", "mos": 2}, {"image": "b.jpg", "mos": 3}]')
    (tmp_path / "A.jsonl").write_text("{")
    (tmp_path / "notes.txt").write_text("x")
    files = files_of([tmp_path])
    assert [path.name for path in files] == ["A.jsonl", "b.json"]
    assert "is not a JSON list" in survey(files[0], Options()).problem
    undeclared = survey(files[1], Options())
    assert "nobody says what" in undeclared.problem
    assert (undeclared.kind, undeclared.rows, undeclared.media, undeclared.scores) == (
        "human_scores",
        2,
        "image",
        "mos",
    )
    assert (undeclared.low, undeclared.high, undeclared.mean, undeclared.meaning) == (2, 3, 2.5, None)
    told = survey(files[1], STARS)
    assert (told.rows, told.low, told.high, told.mean, told.known, told.problem) == (2, 2, 3, 2.5, "", "")
    with pytest.raises(StageError, match="holds no"):
        files_of([tmp_path / "notes.txt", *(tmp_path / "empty" for _ in [(tmp_path / "empty").mkdir()])])
