"""``vital instability`` as people call it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from vital.instability_command import instability


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps([{"image": f"{n}", "answers": ["good", "good" if n % 2 else "bad"]} for n in range(10)]))
    return path


def test_it_prints_markdown_or_json_or_writes_files(answers: Path, tmp_path: Path):
    words = ["--readout", "word", "--levels", "good, bad", "--sampling", "temperature=0.7", "--bootstrap", "20"]
    plain = CliRunner().invoke(instability, [str(answers), *words])
    assert plain.exit_code == 0, plain.output
    assert "temperature 0.7" in plain.output
    report = json.loads(CliRunner().invoke(instability, [str(answers), *words, "--json"]).stdout)
    assert report["files"][0]["unstable"]["own_class"]["any_change"]["value"] == 0.5
    done = CliRunner().invoke(instability, [str(answers), *words, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".md", ".html"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--readout", "number"], "needs --scale"),
        (["--readout", "word", "--scale", "1", "5"], "--readout word has none"),
        (["--readout", "word", "--sampling", "temperature"], "NAME=VALUE"),
    ],
)
def test_options_that_do_not_fit_are_refused(answers: Path, arguments: list[str], says: str):
    done = CliRunner().invoke(instability, [str(answers), *arguments])
    assert done.exit_code == 2
    assert says in done.output
