"""The register of batches: what is on its way survives, and is forgotten only when every question is settled."""

from pathlib import Path

import pytest

from infra.lmm_batches import Line
from tasks.annotation.batch_register import BatchRegister, Entry, Expected
from tasks.errors import StageError

ENTRY = Entry("vital-1", "gpt", "api.example", {"q1": Expected(100, 0.5), "q2": Expected(90, 0.25)})


def test_an_entry_survives_with_what_its_batch_has_brought(tmp_path: Path):
    register = BatchRegister(tmp_path / "batches")
    assert register.holding("q1") is None
    register.add(ENTRY)
    again = BatchRegister(tmp_path / "batches")
    assert again.holding("q1") == again.holding("q2") == ENTRY
    assert again.lines(ENTRY) is None
    again.keep(ENTRY, {"q1": Line(200, {"choices": []}), "q2": Line(400, {}, filtered=True)})
    assert BatchRegister(tmp_path / "batches").lines(ENTRY) == {
        "q1": Line(200, {"choices": []}),
        "q2": Line(400, {}, filtered=True),
    }


def test_a_batch_is_settled_with_the_last_of_its_questions(tmp_path: Path):
    register = BatchRegister(tmp_path)
    register.add(ENTRY)
    register.keep(ENTRY, {})
    register.forget(ENTRY, ["q1", "of another batch"])
    assert register.holding("q1") is None
    assert register.holding("q2") == ENTRY
    assert not register.is_settled("vital-1")
    register.forget(ENTRY, ["q2"])
    assert register.holding("q2") is None
    for one in (register, BatchRegister(tmp_path)):
        assert one.is_settled("vital-1")
        assert one.holding("q2") is None
    assert [path.name for path in tmp_path.iterdir()] == ["settled.jsonl"]


def test_a_damaged_entry_stops_and_names_the_file(tmp_path: Path):
    (tmp_path / "vital-1.json").write_text("{")
    with pytest.raises(StageError, match=r"vital-1\.json is no entry of a batch"):
        BatchRegister(tmp_path)
