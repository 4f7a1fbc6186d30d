"""``vital opinions drift``: options that make sense, and one line where there is nothing to show.

Reports are shown in tests/pipeline/test_reannotation.py, where there are versions.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.infra import conftest as infra_fixtures
from tests.infra.conftest import Plant
from vital.cli import main

Said = Callable[..., tuple[int, str]]

plant_template = infra_fixtures.plant_template
plant = infra_fixtures.plant


@pytest.fixture
def said(plant: Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    monkeypatch.setattr("infra.workspace.CHECKOUT", plant.root)
    monkeypatch.chdir(plant.root)

    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as exit_info:
            main(["opinions", "drift", *map(str, arguments)])
        return int(exit_info.value.code or 0), capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--repo", "x"], 2, "no VERSION is named"),
        (["vital-data", "--now"], 2, "leave --now and --workspace out"),
        ([], 1, "nothing has been compared here yet, and vital-data has no version: vital run --reannotate makes one"),
        (["vital-data@v0.0.9"], 1, "no model 'vital-data'"),
        (["--now"], 1, "has no section 'compare'"),
    ],
)
def test_what_cannot_be_shown_is_one_line(arguments: list[str], code: int, says: str, said: Said):
    found, text = said(*arguments)
    assert found == code
    assert says in text
    assert len(text.splitlines()) == 1


def test_a_report_that_lies_here_is_written(plant: Plant, said: Said, tmp_path: Path):
    facts = {name: {} for name in ("counts", "originals", "examples", "scorers", "rejects", "paid", "costs")}
    report = {"name": "vital-data", "last": None, "drift": None, "measures": None, "checks": []}
    from tasks.shards import write_json

    write_json(plant.root / ".work/drift/drift.json", report | {"facts": facts | {"judges": []}})
    assert said("--out", tmp_path / "out") == (
        0,
        f"written: {', '.join(str(tmp_path / 'out' / f'drift.{kind}') for kind in ('json', 'md', 'html'))}\n",
    )
    assert "nothing was compared" in (tmp_path / "out/drift.md").read_text()
