"""``vital contradiction`` as people call it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from vital.contradiction_command import contradiction


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.json"
    records = [
        {"image": f"{n}.png", "overall_score": 1 + n % 5, "reasoning_score": 1 + n % 4, "mos": 20 * (n % 5)}
        for n in range(20)
    ]
    path.write_text(json.dumps(records))
    return path


def test_it_prints_markdown_or_json_or_writes_files(answers: Path, tmp_path: Path):
    plain = CliRunner().invoke(contradiction, [str(answers), "--scale", "1", "5", "--bootstrap", "20"])
    assert plain.exit_code == 0, plain.output
    assert "on another level" in plain.output
    people = ["--polarity", "mos", "--range", "0", "100", "--human", "mos"]
    done = CliRunner().invoke(contradiction, [str(answers), "--scale", "1", "5", "--json", *people])
    report = json.loads(done.stdout)
    assert report["files"][0]["people"]["image"]["srcc"] == 1.0
    assert report["files"][0]["words"]["image"]["no_text"] == 20
    out = tmp_path / "out"
    done = CliRunner().invoke(contradiction, [str(answers), str(answers), "--scale", "1", "5", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.iterdir()} == {f"contradiction.{end}" for end in ("json", "md", "html")}


def test_a_polarity_without_a_scale_is_refused(answers: Path):
    done = CliRunner().invoke(contradiction, [str(answers), "--scale", "1", "5", "--polarity", "dmos"])
    assert done.exit_code == 2
    assert "belong together" in done.output
