"""``vital contradiction`` as people call it."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_lmm import make_model

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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_model().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "photos", np.random.default_rng(1)
    folder.mkdir()
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def test_a_model_is_asked_and_what_it_said_gives_the_same_report(model: str, photos: Path, tmp_path: Path):
    scores = tmp_path / "scores.csv"
    scores.write_text("path,dmos\n" + "".join(f"set/{n}.png,{80 - 10 * n}\n" for n in range(5)))
    meaning = ["--polarity", "dmos", "--range", "0", "100", "--bootstrap", "20", "--json"]
    out = tmp_path / "out"
    named = ["--model", model, str(photos), "--people", str(scores), "--mos", "dmos", "--out", str(out)]
    live = CliRunner().invoke(contradiction, [*named, "--device", "cpu", *meaning])
    assert live.exit_code == 0, live.output
    report = json.loads(live.stdout)
    (file,) = report["files"]
    assert (file["compared"], file["readout"], file["scale"]) == (5, "expectation", [0, 1])
    assert file["people"]["image"]["srcc"] is not None
    records = json.loads((out / "tiny.scores.json").read_text())
    apart = [abs(record["overall_score"] - record["reasoning_score"]) for record in records]
    assert file["gaps"]["mean_abs_difference"]["value"] == pytest.approx(sum(apart) / 5, abs=1e-6)
    assert max(apart) > 0
    assert [record["gt_score"] for record in records] == [80, 70, 60, 50, 40]
    recorded = ["--scale", "0", "1", "--readout", "expectation", *meaning]
    again = CliRunner().invoke(contradiction, [str(out / "tiny.scores.json"), *recorded])
    assert json.loads(again.stdout) == report


def test_what_a_model_writes_can_be_read_instead(model: str, photos: Path):
    asked = ["--model", model, str(photos), "--device", "cpu", "--readout", "word", "--max-reject-share", "1"]
    done = CliRunner().invoke(contradiction, asked)
    assert "5 of 5 records cannot be compared (no_number:" in str(done.exception)  # random weights say no level word


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "m", "--way", "two_stage"], "there would be no score with the image"),
        (["--model", "m", "--scale", "1", "5"], "--scale is about recorded answers"),
        (["--model", "m", "--readout", "number"], "is read by --readout expectation or word"),
        ([], "recorded scores need --scale"),
        (["--scale", "1", "5", "--temperature", "1"], "--temperature is for a model that is asked"),
        (["--model", "m", "--people", __file__], "--people goes with --polarity and --range"),
    ],
)
def test_asking_and_reading_are_not_mixed(tmp_path: Path, arguments: list[str], says: str):
    done = CliRunner().invoke(contradiction, [str(tmp_path), *arguments])
    assert done.exit_code == 2
    assert says in done.output
