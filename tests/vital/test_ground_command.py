"""``vital ground`` as people call it."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_lmm import make_model

from vital.ground_command import ground


def test_a_model_is_asked_and_what_it_said_gives_the_same_report(tmp_path: Path):
    make_model().save_pretrained(tmp_path / "tiny")
    photos, rng = tmp_path / "photos", np.random.default_rng(1)
    photos.mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(photos / f"{number}.png")
    (tmp_path / "mos.csv").write_text("path,mos,of\n" + "".join(f"{n}.png,{1 + n % 4},c{n % 3}\n" for n in range(6)))
    people = ["--people", str(tmp_path / "mos.csv"), "--polarity", "mos", "--range", "1", "5", "--content", "of"]
    more = ["--folds", "3", "--permutations", "5", "--json"]
    named = ["--model", str(tmp_path / "tiny"), str(photos), "--device", "cpu", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(ground, [*named, *people, *more])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["readout"], report["files"][0]["model"]["contents"]) == ("expectation", 3)
    assert report["files"][0]["people"]["samples"] == 6
    assert json.loads((tmp_path / "out" / "ground.json").read_text()) == report
    recorded = [str(tmp_path / "out" / "tiny.claims.json"), "--scale", "0", "1", "--readout", "expectation"]
    again = CliRunner().invoke(ground, [*recorded, "--polarity", "mos", "--range", "1", "5", *more])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["files"][0]["said"] == report["files"][0]["said"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "recorded scores need --scale"),
        (["--scale", "1", "5", "--batch", "2"], "--batch is for a model that is asked"),
        (["--model", "m", "--scale", "1", "5"], "--scale is about recorded answers"),
        (["--scale", "1", "5"], "is no file of recorded answers"),
    ],
)
def test_asking_and_reading_are_not_mixed(tmp_path: Path, arguments: list[str], says: str):
    done = CliRunner().invoke(ground, [str(tmp_path), *arguments])
    assert done.exit_code == 2
    assert says in done.output
