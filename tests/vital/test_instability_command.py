"""``vital instability`` as people call it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_lmm import make_model

from tasks.errors import StageError
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
        ([], "--readout is needed"),
        (["--readout", "word", "--temperature", "1"], "--temperature is for a model that is asked: name one with"),
        (["--readout", "word", "--repeats", "3"], "--repeats is for a model that is asked"),
        (["--model", "x", "--sampling", "temperature=1"], "--sampling is about recorded answers"),
    ],
)
def test_options_that_do_not_fit_are_refused(answers: Path, arguments: list[str], says: str):
    done = CliRunner().invoke(instability, [str(answers), *arguments])
    assert done.exit_code == 2
    assert says in done.output


def test_a_folder_without_a_model_is_no_file_of_answers(tmp_path: Path):
    done = CliRunner().invoke(instability, [str(tmp_path), "--readout", "word"])
    assert done.exit_code == 2
    assert "is no file of recorded answers; to ask a model about photos, name it with --model" in done.output


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("first", 0), ("second", 1)):
        make_model(seed).save_pretrained(folder / name)
    return [str(folder / "first"), str(folder / "second")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seven pictures of two sizes, so that batches are not all alike."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    for number in range(7):
        size = (60, 40) if number % 3 else (60, 90)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return str(folder)


def ask(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(instability, [*arguments, "--device", "cpu", "--bootstrap", "20", "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_greedy_answers_are_exactly_stable_in_any_company(models: list[str], photos: str, tmp_path: Path):
    told = []
    for batch in ("1", "8"):
        out = tmp_path / batch
        report = ask("--model", models[0], photos, "--repeats", "3", "--batch", batch, "--out", str(out))
        for shares in report["files"][0]["unstable"]["own_class"].values():
            assert shares["value"] == shares["low"] == shares["high"] == 0.0
        told.append(json.loads((out / "first.answers.json").read_text()))
    assert told[0] == told[1]
    assert len(told[0]) == 7


def test_drawn_answers_are_the_same_in_any_company_and_differ_by_seed(models: list[str], photos: str, tmp_path: Path):
    drawn = ["--model", models[0], photos, "--temperature", "1", "--repeats", "4"]
    for name, more in {"one": ["--batch", "1"], "all": [], "other": ["--seed", "1"]}.items():
        ask(*drawn, *more, "--out", str(tmp_path / name))
    one, together, other = (
        json.loads((tmp_path / name / "first.answers.json").read_text()) for name in ("one", "all", "other")
    )
    assert one == together
    assert one != other
    assert len({text for record in one for text in record["answers"]}) > 1


def test_recorded_answers_give_the_report_that_was_made_when_they_were_drawn(
    models: list[str], photos: str, tmp_path: Path
):
    two = [part for model in models for part in ("--model", model)]
    out = tmp_path / "out"
    live = ask(
        *two, photos, "--temperature", "0.9", "--top-p", "0.8", "--repeats", "3", "--seed", "2", "--out", str(out)
    )
    assert live["sampling"] == {"temperature": "0.9", "top_p": "0.8", "seed": "2", "repeats": "3"}
    assert live["differences"][0]["shared"] == 7
    assert live["files"][0]["images"] == 7
    told = [part for name, value in live["sampling"].items() for part in ("--sampling", f"{name}={value}")]
    files = [str(out / f"{name}.answers.json") for name in ("first", "second")]
    done = CliRunner().invoke(
        instability, [*files, "--readout", "word", "--seed", "2", *told, "--bootstrap", "20", "--json"]
    )
    assert json.loads(done.stdout) == live
    assert json.loads((out / "instability.json").read_text()) == live
    asked = json.loads((out / "instability_asked.json").read_text())
    assert asked["first"]["course"]["way"] == "judge"
    assert asked["first"]["sampling"]["top_p"] == 0.8


def test_a_broken_picture_is_counted_and_too_many_fail(models: list[str], photos: str, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    named = ["--model", models[0], photos, str(tmp_path / "broken.png"), "--repeats", "2"]
    report = ask(*named, "--max-reject-share", "0.2")
    assert report["files"][0]["left_out"] == {"unknown_format": 1}
    done = CliRunner().invoke(instability, [*named, "--device", "cpu"])
    assert isinstance(done.exception, StageError)
    assert "1 of 8 media cannot be asked about (unknown_format 1)" in str(done.exception)
