"""``vital lens`` and ``vital attention`` as people call them."""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_lmm import make_model

from tasks.errors import StageError
from tests.tasks.evaluation.subjects.tiny_checkpoints import make
from vital.attention_command import attention
from vital.lens_command import lens

COMMANDS = [lens, attention]
USUAL = ["--device", "cpu", "--bootstrap", "20"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("one", "two")):
        make_model(seed).save_pretrained(folder / name)
    return [str(folder / "one"), str(folder / "two")]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def called(command: click.Command, *arguments: object) -> Any:
    done = CliRunner().invoke(command, [*map(str, arguments), *USUAL], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.parametrize("command", COMMANDS, ids=["lens", "attention"])
def test_the_same_command_writes_the_same_bytes(
    command: click.Command, models: list[str], photos: Path, tmp_path: Path
):
    written = []
    for out in (tmp_path / "one", tmp_path / "other"):
        called(command, "--model", models[0], "--model", models[1], photos, "--out", out)
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    name = command.name
    assert {f"{name}.json", f"{name}.md", f"{name}.html", f"one.{name}.jsonl", f"two.{name}.jsonl"} <= set(written[0])
    assert written[0] == written[1]
    called(command, "--model", models[0], "--model", models[1], photos, "--out", out)  # goes on where nothing is left
    assert written[0] == {path.name: path.read_bytes() for path in out.iterdir()}
    report = json.loads(written[0][f"{name}.json"])
    assert report["schema"] == 1
    assert [model["model"] for model in report["models"]] == ["one", "two"]
    assert {model["course"]["opening"] for model in report["models"]} == {"The quality of the {medium} is"}
    assert [one["shared"] for one in report["differences"]] == [5]


@pytest.mark.parametrize("command", COMMANDS, ids=["lens", "attention"])
def test_broken_media_are_counted_and_too_many_are_an_error(command: click.Command, models: list[str], photos: Path):
    (photos / "2.png").write_bytes(b"no picture")
    told = called(command, "--model", models[0], photos, "--json", "--max-reject-share", "0.2")
    (model,) = json.loads(told.stdout)["models"]
    assert (model["media"], model["rejected"]) == (4, {"unknown_format": 1})
    assert "2.png" in told.stderr
    with pytest.raises(StageError, match=r"1 of 5 media cannot be asked about .*raise --max-reject-share"):
        called(command, "--model", models[0], photos)


@pytest.mark.parametrize("command", COMMANDS, ids=["lens", "attention"])
@pytest.mark.parametrize("way", ["one_answer", "two_stage"])
def test_a_course_may_describe_first(command: click.Command, models: list[str], photos: Path, way: str):
    course = ["--way", way, "--describe", "Describe the {medium}.", "--judge-text", "It says: {description}"]
    plain = called(command, "--model", models[0], photos, *course, "--max-tokens", "4")
    assert "Describe the {medium}." in plain.stdout
    assert "one" in plain.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=["lens", "attention"])
def test_what_cannot_be_read_says_what_to_do(command: click.Command, models: list[str], photos: Path):
    with pytest.raises(StageError, match="force an opening with --opening"):
        called(command, "--model", models[0], photos, "--opening", "")
    assert "--model NAME" in CliRunner().invoke(command, [str(photos)]).output
    assert "name photos" in CliRunner().invoke(command, ["--model", models[0]]).output


@pytest.mark.parametrize("command", COMMANDS, ids=["lens", "attention"])
def test_a_checkpoint_of_transformers_is_read_too(command: click.Command, photos: Path, tmp_path: Path):
    folder = make("llava", tmp_path / "llava")
    told = called(command, "--model", folder, photos, "--way", "one_answer", "--max-tokens", "4", "--json")
    (model,) = json.loads(told.stdout)["models"]
    assert model["media"] == 5
    if command is attention:
        assert model["figures"]["groups"]["image"]["tokens"]["value"] > 0
        assert {example["views"] for example in model["examples"]} == {None}, "nobody knows where its tokens lie"


@pytest.mark.parametrize("command", COMMANDS, ids=["lens", "attention"])
@pytest.mark.parametrize("way", ["judge", "two_stage"])
def test_an_endpoint_keeps_its_layers_to_itself(command: click.Command, photos: Path, way: str):
    with pytest.raises(StageError, match=r"m is an endpoint and gives no .*: name a local folder"):
        called(command, "--model", "http://127.0.0.1:9/v1", "--endpoint-model", "m", photos, "--way", way)
