"""Models that commands ask: records on disk as they come, and the same command goes on."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from lmm_server import Lmm, serving
from PIL import Image
from tiny_lmm import make_model

from tasks.errors import StageError
from tasks.evaluation.subjects.opening import Opened
from tasks.evaluation.subjects.protocol import Answering, Shown
from vital.live_asking import Asking, ask_models
from vital.subject_options import SubjectOptions, need_models, subject_options


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_model().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(np.full((40, 40, 3), 50 * number, np.uint8)).save(folder / f"{number}.png")
    return folder


def asking(asked: list[str], limit: float = 0.5, **settings: Any) -> Asking:
    """Asks nothing of a model, and keeps whom it was shown."""

    def ask(opened: Opened) -> Callable[[Sequence[Shown]], list[Mapping[str, Any]]]:
        def told(media: Sequence[Shown]) -> list[Mapping[str, Any]]:
            asked.extend(medium.path.name for medium in media)
            return [{"word": opened.course.words[0]} for _ in media]

        return told

    return Asking("test", ask, settings, limit)


def test_the_same_command_goes_on_and_another_begins_anew(model: str, photos: Path, tmp_path: Path):
    out, asked = tmp_path / "out", []
    options = SubjectOptions((model,), batch=2, device="cpu")
    (told,) = ask_models(options, [str(photos)], asking(asked), out)
    assert [Path(record["path"]).name for record in told.records] == asked == ["0.png", "1.png", "2.png", "3.png"]
    assert told.name == "tiny"
    lines = (out / "tiny.test.jsonl").read_bytes().splitlines(keepends=True)
    (out / "tiny.test.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:10])  # killed within the third
    asked.clear()
    (again,) = ask_models(options, [str(photos)], asking(asked), out)
    assert asked == ["2.png", "3.png"]
    assert again.records == told.records
    asked.clear()
    ask_models(options, [str(photos)], asking(asked, seed=2), out)
    assert len(asked) == 4
    (worded,) = ask_models(SubjectOptions((model,), levels="fine, bad", device="cpu"), [str(photos)], asking([]), out)
    assert {record["word"] for record in worded.records} == {"fine"}


def test_models_of_one_name_have_files_of_their_own(model: str, photos: Path, tmp_path: Path):
    told = ask_models(SubjectOptions((model, model), device="cpu"), [str(photos)], asking([]), tmp_path / "out")
    assert [one.name for one in told] == ["tiny", "tiny-2"]
    assert (tmp_path / "out" / "tiny-2.test.jsonl").is_file()


def test_rejects_are_counted_by_reason_up_to_a_limit(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (photos / "1.png").write_bytes(b"no picture")
    names = [str(photos), str(tmp_path / "away.jpg")]
    (told,) = ask_models(SubjectOptions((model,), device="cpu"), names, asking([]), None)
    assert told.rejected == {"missing": 1, "unknown_format": 1}
    assert len(told.records) == 3
    assert "away.jpg: there is no such file" in capsys.readouterr().err
    with pytest.raises(StageError, match="2 of 5 media cannot be asked about"):
        ask_models(SubjectOptions((model,), device="cpu"), names, asking([], 0.3), None)


@click.command
@subject_options
@click.option("--other", default=1)
def command(asked: SubjectOptions, other: int) -> None:
    """Print what was understood."""
    need_models(asked, ["photo.jpg"])
    click.echo(json.dumps([asked.models, asked.words, asked.temperature, asked.way, other]))


def test_options_come_as_one_argument():
    words = ["--model", "a", "--model", "b", "--levels", "good, bad", "--temperature", "0.5", "--way", "two_stage"]
    done = CliRunner().invoke(command, [*words, "--other", "3"])
    assert json.loads(done.output) == [["a", "b"], ["good", "bad"], 0.5, "two_stage", 3]
    assert "name a model to ask" in CliRunner().invoke(command, []).output


def test_endpoints_are_asked_by_the_names_that_they_have_there(photos: Path, tmp_path: Path):
    def named(opened: Opened) -> Callable[[Sequence[Shown]], list[Mapping[str, Any]]]:
        def told(media: Sequence[Shown]) -> list[Mapping[str, Any]]:
            asked = [opened.course.verdict_of(medium, "") for medium in media]
            return [{"said": text} for text in opened.subject.answers(asked, Answering(9))]

        return told

    with serving(Lmm(brain=lambda body: f"{body['model']} says good")) as lmm:
        options = SubjectOptions((lmm.address, lmm.address), endpoint_models=("one", "two"), batch=3)
        told = ask_models(options, [str(photos)], Asking("test", named, {}, 0.0), tmp_path)
        assert [one.name for one in told] == ["one", "two"]
        assert {record["said"] for record in told[1].records} == {"two says good"}
        asked = len(lmm.bodies)
        assert asked == 8
        ask_models(options, [str(photos)], Asking("test", named, {}, 0.0), tmp_path)
        assert len(lmm.bodies) == asked, "what is on disk is not asked again"
        with pytest.raises(StageError, match="name the model there with --endpoint-model, once for each"):
            ask_models(SubjectOptions((lmm.address,)), [str(photos)], Asking("test", named, {}, 0.0), None)
