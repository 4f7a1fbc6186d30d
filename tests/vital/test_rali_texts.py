"""``vital rali texts``: texts of local models and of a real endpoint, asked once, with seeds, and as a table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from lmm_server import Lmm, serving, text_of
from PIL import Image
from tiny_lmm import make_model

from models.quality_lmm import QualityLMM
from models.sampling import Draws, Sampling
from tasks.errors import StageError
from tasks.evaluation.subjects.courses import line_course
from tasks.evaluation.subjects.line import LineSubject
from tasks.evaluation.subjects.protocol import Answering
from tasks.instructions import ImportedSource, imported_instructions
from tasks.stage import Place
from vital.rali_texts import texts


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_model().save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(5):
        path = folder / ("trip" if number == 4 else ".") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 40 * number, np.uint8)).save(path)
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


def run(photos: Path, out: Path, *arguments: object) -> Result:
    named = [str(photos), "--out", str(out), "--max-reject-share", "0.2", *map(str, arguments)]
    return CliRunner().invoke(texts, named)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def spoken(body: dict[str, Any]) -> str:
    """An endpoint's answer: the seed that it was given, and a verdict."""
    return f"Edges look soft under seed {body.get('seed', 'none')}. The quality is poor."


def test_an_endpoint_is_asked_several_times_with_seeds_and_never_twice(photos: Path, tmp_path: Path):
    out = tmp_path / "texts.jsonl"
    with serving(Lmm(brain=spoken)) as lmm:
        asked = ("--model", lmm.address, "--endpoint-model", "peer", "--temperature", 0.7, "--batch", 2)
        done = run(photos, out, *asked, "--texts-per-medium", 2)
        assert done.exit_code == 0, done.output
        found = lines(out)
        assert len(found) == len(lmm.bodies) == 10
        assert {line["path"] for line in found} == {"0.png", "1.png", "2.png", "3.png", "trip/4.png"}
        assert all(line["text"] == f"Edges look soft under seed {line['seed']}." for line in found)
        assert len({line["seed"] for line in found}) == 10
        assert {line["source"] for line in found} == {"peer"}
        assert {line["dropped"] for line in found} == {1}
        assert all(line["sampling"] == {"temperature": 0.7, "top_p": 1.0} for line in found)
        assert {text_of(body) for body in lmm.bodies} == {found[0]["question"]}
        (reject,) = lines(tmp_path / "texts.rejects.jsonl")
        assert (reject["path"], reject["reason"]) == ("broken.png", "unknown_format")
        assert "10 texts of peer about 5 media; without a text: unknown_format 1" in done.output
        assert run(photos, out, *asked, "--texts-per-medium", 2).exit_code == 0
        assert len(lmm.bodies) == 10, "nothing is asked again"
        assert run(photos, out, *asked, "--texts-per-medium", 3).exit_code == 0
        assert len(lmm.bodies) == 15, "the third texts alone"
        assert len(lines(tmp_path / "texts.rejects.jsonl")) == 1


def test_a_killed_run_goes_on_where_it_was(photos: Path, tmp_path: Path):
    out, undisturbed = tmp_path / "texts.jsonl", tmp_path / "undisturbed.jsonl"
    with serving(Lmm(brain=spoken)) as lmm:
        asked = ("--model", lmm.address, "--endpoint-model", "peer", "--temperature", 0.7, "--texts-per-medium", 2)
        asked = (*asked, "--batch", 2, "--concurrency", 1)
        run(photos, undisturbed, *asked)
        before = len(lmm.bodies)
        lmm.refuse = lambda _: (401, {"error": {"message": "no key"}}) if len(lmm.bodies) > before + 4 else None
        assert run(photos, out, *asked).exit_code != 0
        kept = len(lines(out))
        assert 0 < kept < 10
        lmm.refuse, before = lambda _: None, len(lmm.bodies)
        assert run(photos, out, *asked).exit_code == 0
        assert len(lmm.bodies) - before == 10 - kept
    told = [{(line["path"], line["number"]): line["text"] for line in lines(path)} for path in (out, undisturbed)]
    assert told[0] == told[1]


def test_a_local_models_texts_can_be_drawn_again_by_their_seeds(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    answers = LineSubject.answers
    monkeypatch.setattr(LineSubject, "answers", lambda *given: [f"It shows {one}" for one in answers(*given)])
    for number in range(3):
        (photos / f"{number}.png").unlink()
    named = ("--model", model, "--device", "cpu", "--temperature", 1, "--max-tokens", 5, "--leaks", "keep")
    drawn = (*named, "--texts-per-medium", 2, "--source", "me", "--max-reject-share", 0.5)
    assert run(photos, tmp_path / "texts.jsonl", *drawn).exit_code == 0
    found = lines(tmp_path / "texts.jsonl")
    assert len({line["seed"] for line in found}) == len(found) == 4
    assert {line["source"] for line in found} == {"me"}
    subject = LineSubject("again", QualityLMM.from_pretrained(model))
    one = next(line for line in found if line["number"] == 1)
    question = line_course(subject.model).description_of(subject.open(photos / one["path"]))
    (answer,) = subject.answers([question], Answering(5, Draws(Sampling(1.0), [one["seed"]])))
    assert one["text"] == answer.strip()
    moved = photos.rename(tmp_path / "elsewhere")
    assert run(moved, tmp_path / "again.jsonl", *drawn, "--batch", 1).exit_code == 0
    told = [
        sorted((line["path"], line["number"], line["seed"], line["text"]) for line in one)
        for one in (found, lines(tmp_path / "again.jsonl"))
    ]
    assert told[0] == told[1], "seeds hang on names below the folder, neither on its place nor on the batch"


def test_the_same_texts_become_a_table_that_explain_imports(photos: Path, tmp_path: Path):
    table = tmp_path / "texts.parquet"
    with serving(Lmm(brain=spoken)) as lmm:
        named = [part for name in ("one", "two") for part in ("--model", lmm.address, "--endpoint-model", name)]
        done = run(photos, tmp_path / "texts.jsonl", *named, "--table", table)
    assert done.exit_code == 0, done.output
    assert f"{table}: 10 instructions" in done.output
    source = ImportedSource("texts.parquet", "photos")
    told, _ = imported_instructions(Place(tmp_path, tmp_path, tmp_path), [source])
    assert {(one.source, one.answers) for one in told} == {
        (name, ("Edges look soft under seed none.",)) for name in ("one", "two")
    }
    assert len(told) == 10
    assert {line["seed"] for line in lines(tmp_path / "texts.jsonl")} == {None}


def test_what_says_nothing_but_a_verdict_is_a_reject_and_too_many_fail(photos: Path, tmp_path: Path):
    out = tmp_path / "texts.jsonl"
    with serving(Lmm(brain=lambda _: "The quality is poor.")) as lmm:
        asked = ("--model", lmm.address, "--endpoint-model", "peer")
        done = run(photos, out, *asked)
        assert isinstance(done.exception, StageError)
        assert "6 of 6 media cannot be asked about (nothing_left 5, unknown_format 1)" in str(done.exception)
        count = len(lmm.bodies)
        run(photos, out, *asked)
        assert len(lmm.bodies) == count == 5, "rejects are not asked again"
        assert run(photos, out, *asked, "--leaks", "keep").exit_code == 0
    assert {line["text"] for line in lines(out)} == {"The quality is poor."}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name a model to ask"),
        (("--model", "x", "--table", "texts.csv"), "--table a .parquet file"),
        (("--model", "x", "--source", "a", "--source", "b"), "--source names each model once"),
    ],
)
def test_options_that_do_not_fit_are_refused(photos: Path, tmp_path: Path, arguments: tuple[str, ...], says: str):
    done = run(photos, tmp_path / "texts.jsonl", *arguments)
    assert done.exit_code == 2
    assert says in done.output


def test_several_greedy_texts_are_refused(photos: Path, tmp_path: Path):
    done = run(photos, tmp_path / "texts.jsonl", "--model", "x", "--texts-per-medium", 2)
    assert "greedy answers are all the same" in str(done.exception)
