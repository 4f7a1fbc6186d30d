"""``vital readout`` as people call it."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_lmm import make_model

from models.levels import expectation
from models.quality_lmm import QualityLMM
from tasks.prepared import decode_medium, prepare_medium
from tasks.records import Modality
from vital.readout_command import readout


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def test_the_expectation_is_that_of_the_model(model: Path, photos: Path, tmp_path: Path):
    scores = tmp_path / "scores.csv"
    scores.write_text("path,mos\n" + "".join(f"{n}.png,{1 + n % 4}\n" for n in range(5)))
    named = ["--model", str(model), str(photos), "--people", str(scores), "--polarity", "mos", "--range", "1", "5"]
    done = CliRunner().invoke(readout, [*named, "--scale", "1", "5", "--device", "cpu", "--bootstrap", "20", "--json"])
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)["models"]
    assert [row["readout"] for row in told["readouts"]] == ["word", "expectation", "number"]
    assert told["readouts"][1]["people"]["samples"] == 5
    network = QualityLMM.from_pretrained(model)
    for example in told["examples"]:
        data = Path(example["medium"]).read_bytes()
        medium = prepare_medium(decode_medium(data, Modality.IMAGE, network.spec), network.spec)
        by_hand = float(expectation(network.level_probabilities([medium]).numpy())[0])
        assert example["qualities"]["expectation"] == pytest.approx(by_hand, abs=1e-5)
        number = int(Path(example["medium"]).stem)
        assert example["human"] == pytest.approx(number % 4 / 4)
        assert example["verdict"].startswith("The quality of the image is")


def test_pages_are_written_and_readouts_are_chosen(model: Path, photos: Path, tmp_path: Path):
    asked = ["--model", str(model), str(photos), "--readout", "expectation", "--device", "cpu", "--out", str(tmp_path)]
    done = CliRunner().invoke(readout, asked)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "readout.json").read_text())
    assert [row["readout"] for row in report["models"][0]["readouts"]] == ["expectation"]
    assert {"readout.json", "readout.md", "readout.html", "tiny.readout.jsonl", "readout_asked.json"} == {
        path.name for path in tmp_path.iterdir()
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name a model to ask"),
        (["--model", "m", "--readout", "number"], "--readout number needs --scale"),
        (["--model", "m", "--readout", "word", "--scale", "1", "5"], "--scale is for it alone"),
        (["--model", "m", "--polarity", "mos", "--range", "1", "5"], "--people goes with --polarity and --range"),
    ],
)
def test_options_that_do_not_fit_are_refused(photos: Path, arguments: list[str], says: str):
    done = CliRunner().invoke(readout, [str(photos), *arguments])
    assert done.exit_code == 2
    assert says in done.output
