"""``vital opinions``: it reports on what people have, and says in one line what it cannot use."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.opinion_spread import SPREADS
from vital.opinions_commands import SIGMAS

Vital = Callable[..., "subprocess.CompletedProcess[str]"]

USE = ["--scorers", "one:three"]
PEOPLE = ["--mos", "stars", "--polarity", "mos", "--range", "1", "5"]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    quality = rng.uniform(0.1, 0.9, 40)
    frame = {"name": [f"{i}.png" for i in range(40)]}
    frame |= {name: np.clip(quality + rng.normal(0, 0.05, 40), 0, 1) for name in ("one", "two", "three")}
    frame |= {"stars": 1 + 4 * quality, "spread": quality * (1 - quality), "flat": np.ones(40)}
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    pd.DataFrame(frame).to_csv(path, index=False)
    return path


def test_the_names_of_sigmas_are_those_of_the_models():
    assert tuple(SPREADS) == SIGMAS


@pytest.mark.parametrize("command", ["opinions", "opinions report"])
def test_commands_have_help(command: str, vital: Vital):
    done = vital(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: vital opinions")


def test_a_report_in_every_form(labels: Path, vital: Vital, tmp_path: Path):
    common = ["opinions", "report", "--opinions", labels, *USE, *PEOPLE, "--sd", "spread", "--bootstrap", "20"]
    done = vital(*common, "--json", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == json.loads((tmp_path / "out/opinions.json").read_text())
    assert told["human"]["mu_mos"]["value"] > 0.9
    assert done.stderr.startswith("written: ")
    plain = vital(*common)
    assert plain.stdout == (tmp_path / "out/opinions.md").read_text()
    assert plain.stderr == ""
    turned = vital(*[{"mos": "dmos"}.get(str(part), part) for part in common], "--sigma", "sos")
    assert "vital: mu falls where human scores rise" in turned.stderr
    assert "sigma sos" in turned.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--opinions", "nowhere.csv"], "nowhere.csv is missing"),
        (["--opinions", "tests"], "artifacts/score/opinions.parquet is missing"),
        (["--opinions", "x" * 300], "File name too long"),
        ([*USE, "--scorers", "one,four"], "has no column 'four'"),
        ([], "name them by --scorers"),
        ([*USE, "--scorers", "one,flat"], "flat: the same score for every sample"),
        ([*USE, "--scorers", "one,stars"], "outside [0, 1]"),
        ([*USE, "--mos", "stars"], "--mos needs --polarity and --range"),
        ([*USE, "--human", "people.csv", "--polarity", "mos"], "--human needs --range"),
        ([*USE, "--polarity", "mos"], "--polarity is about human scores, and none are named"),
        ([*USE, *PEOPLE, "--sd-range", "0", "1"], "--sd-range is about standard deviations"),
        ([*USE, *PEOPLE, "--polarity", "better"], "'better' is not one of 'mos', 'dmos'"),
        ([*USE, *PEOPLE, "--range", "5", "1"], "the range 5 to 1 is empty"),
        ([*USE, *PEOPLE, "--range", "1", "3"], "outside its range 1 to 3"),
        ([*USE, *PEOPLE, "--mos", "flat"], "every human score in 'flat' is the same"),
        ([*USE, *PEOPLE, "--human", "README.md"], "README.md is of no known kind"),
        ([*USE, *PEOPLE, "--sigma", "variance_function"], "human standard deviations, which were not given"),
        ([*USE, "--sigma", "sums"], "'sums' is not one of"),
        ([*USE, "--content", "scene"], "no table has the column of 'scene'"),
    ],
)
def test_a_wrong_input_is_one_line(arguments: list[str], told: str, labels: Path, vital: Vital):
    done = vital("opinions", "report", "--bootstrap", "2", "--opinions", labels, *arguments)
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("vital: ")
    assert told in line


def test_a_folder_that_cannot_be_is_told_before_the_work(labels: Path, vital: Vital):
    done = vital("opinions", "report", "--opinions", labels, *USE, "--out", labels / "below-a-file")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"vital: Not a directory: {labels / 'below-a-file'}\n"


def test_people_of_other_pictures_are_told(labels: Path, vital: Vital, tmp_path: Path):
    pd.read_csv(labels).assign(name="other").head(1).to_csv(tmp_path / "people.csv", index=False)
    done = vital("opinions", "report", "--opinions", labels, *USE, *PEOPLE, "--human", tmp_path / "people.csv")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "no sample of the opinions has a human score in" in line
