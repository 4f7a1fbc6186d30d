"""The lens on whole models: one that changes its mind at a known layer, and readings whose figures are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_lmm import make_model

from models.levels import LEVELS
from models.sampling import GREEDY, Sampling
from tasks.errors import StageError
from tasks.evaluation.lens import lens_questions, measure
from tasks.evaluation.recorded import Comparing
from tasks.evaluation.subjects.asking import ask_each
from tasks.evaluation.subjects.course import Course, without_opening
from tasks.evaluation.subjects.line import LineSubject
from tasks.evaluation.subjects.protocol import Answering
from tests.tasks.evaluation.planted_minds import COURSE, Said, changes_its_mind

GREEDILY = Sampling()
COMPARING = Comparing(n_bootstrap=50, examples=2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    return paths


def read(subject: LineSubject, paths: list[Path], course: Course = COURSE) -> list[dict[str, Any]]:
    found = ask_each(subject, paths, lens_questions(subject, course, GREEDILY, 0), 2)
    return [{"path": str(path), **record} for path, record in zip(paths, found, strict=True)]  # type: ignore[dict-item]


@pytest.mark.parametrize(("layers", "at", "late"), [(20, 13, False), (20, 18, False), (20, 19, True), (5, 5, True)])
def test_a_model_that_changes_its_mind_once_commits_where_it_does(
    photos: list[Path],
    layers: int,
    at: int,
    late: bool,  # noqa: FBT001
):
    records = read(LineSubject("planted", changes_its_mind(layers, at)), photos)
    (model,) = measure([Said("planted", records)], GREEDILY, COMPARING)["models"]
    for name, value in {"commit_layer": at, "switches": 1, "late_switch": float(late), "distinct_top": 2}.items():
        figure = model["figures"][name]
        assert (figure["value"], figure["low"], figure["high"], figure["samples"]) == (value, value, value, 3), name
    assert model["figures"]["commit_depth"]["value"] == pytest.approx(at / layers)
    assert model["late_layers"] == (2 if layers == 20 else 1)
    best = [max(row["levels"], key=lambda word: row["levels"][word]["value"]) for row in model["by_layer"]]
    assert best == ["good"] * (at - 1) + ["poor"] * (layers - at + 1)
    assert [row["most_probable"][0] for row in model["by_layer"]] == [
        {"token": f" {word}", "share": 1.0} for word in best
    ]
    assert {row["effective_candidates"] for row in model["by_layer"]} == {1.0}
    assert [one["medium"] for one in model["examples"]] == [str(path) for path in photos[:2]]
    assert [row["top"][0][0] for row in model["examples"][0]["layers"]] == [f" {word}" for word in best]
    assert {one["level"] for one in model["read"]} == {"poor"}


def test_the_last_layer_says_what_the_model_does(photos: list[Path]):
    model = make_model(layers=4)
    subject = LineSubject("tiny", model)
    records = read(subject, photos)
    expected = model.level_probabilities([subject.open(path).content for path in photos]).numpy()
    assert np.allclose([record["levels"][-1] for record in records], expected, atol=1e-4)
    for record in records:
        assert np.allclose(np.sum(record["levels"], axis=1), 1.0, atol=1e-5)
        assert np.array(record["top_ids"]).shape == (4, 4)
        assert (np.diff(record["top_probs"], axis=1) <= 0).all()
        assert len(record["levels"][0]) == len(LEVELS)


@pytest.mark.parametrize("way", ["one_answer", "two_stage"])
def test_a_course_with_a_description_is_read_after_the_models_own_words(photos: list[Path], way: Any):
    subject = LineSubject("tiny", make_model())
    course = Course(way, "Describe.", "Rate.", "It says: {description} Rate.", description_tokens=6)
    records = read(subject, photos, course)
    for path, record in zip(photos, records, strict=True):
        medium = subject.open(path)
        (said,) = subject.answers([course.description_of(medium)], Answering(6, GREEDY))
        assert (
            record["description"] == said.split("The quality of the image is")[0].strip()
            if way == "one_answer"
            else said
        )
        asked = course.verdict_of(medium, record["description"])
        assert (asked.medium is None) == (way == "two_stage")
        assert np.allclose(record["levels"][-1], subject.word_probabilities([asked], LEVELS)[0], atol=1e-4)


def test_free_answers_have_no_place_to_read(photos: list[Path]):
    with pytest.raises(StageError, match="force an opening with --opening"):
        read(LineSubject("tiny", make_model()), photos[:1], without_opening(COURSE))


def record(path: str, best: list[int], late: bool, **changes: Any) -> dict[str, Any]:  # noqa: FBT001
    """A reading of two layers and two levels, with what is told of it."""
    levels = [[0.9, 0.1] if level == 0 else [0.2, 0.8] for level in best]
    return {
        "path": path, "description": "", "levels": levels, "other": [0.5, 0.1],
        "top_ids": [[7 + level, 1] for level in best], "top_probs": [[0.6, 0.2]] * 2,
        "top_words": [[f"w{level}", "x"] for level in best], "late_switch": late, "switches": int(best[0] != best[1]),
        "commit_depth": 1.0 if best[0] != best[1] else 0.5, "commit_layer": 2 if best[0] != best[1] else 1,
        "margin": 0.6, "distinct_top": len(set(best)), **changes,
    }  # fmt: skip


TWO = Course("judge", "", "", "{description}", words=("good", "bad"))


def test_means_have_intervals_over_media():
    records = [record(f"{n}", [0, int(n % 4 == 0)], n % 4 == 0) for n in range(40)]
    (model,) = measure([Said("one", records, TWO, {"truncated": 2})], GREEDILY, COMPARING)["models"]
    late = model["figures"]["late_switch"]
    assert late["value"] == pytest.approx(0.25)
    assert late["low"] < 0.25 < late["high"]
    last = model["by_layer"][1]
    assert last["levels"]["good"]["value"] == pytest.approx(0.75 * 0.9 + 0.25 * 0.2)
    assert last["levels"]["good"]["low"] < last["levels"]["good"]["value"] < last["levels"]["good"]["high"]
    assert last["other"]["value"] == pytest.approx(0.1)
    shares = np.array([0.75, 0.25])
    assert last["effective_candidates"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), abs=1e-6)
    assert last["most_probable"] == [{"token": "w0", "share": 0.75}, {"token": "w1", "share": 0.25}]
    assert (model["media"], model["contents"], model["rejected"]) == (40, 40, {"truncated": 2})
    assert model["course"]["words"] == ["good", "bad"]


def test_models_are_paired_on_the_media_of_both():
    ours = [record(f"{n}", [0, 1], True) for n in range(10)]
    theirs = [record(f"{n}", [1, 1], False) for n in reversed(range(5, 15))]
    report = measure([Said("a", ours, TWO), Said("b", theirs, TWO), Said("c", ours, TWO)], GREEDILY, COMPARING)
    first, second = report["differences"]
    assert (first["first"], first["second"], first["shared"]) == ("a", "b", 5)
    assert first["figures"]["late_switch"] == {"value": 1.0, "low": 1.0, "high": 1.0, "samples": 5}
    assert first["figures"]["switches"]["value"] == 1.0
    assert first["figures"]["commit_depth"]["value"] == 0.5
    assert second["figures"]["late_switch"]["value"] == 0.0
    apart = measure([Said("a", ours[:2], TWO), Said("b", theirs[:2], TWO)], GREEDILY, COMPARING)
    assert apart["differences"] == [{"first": "a", "second": "b", "shared": 0, "figures": None}]


def test_examples_settle_last_and_least_surely():
    records = [
        record("d", [0, 0], False),
        record("c", [0, 1], True, margin=0.5),
        record("b", [0, 1], True, margin=0.1),
        record("a", [0, 1], True, margin=0.5),
    ]
    comparing = Comparing(n_bootstrap=10, examples=3)
    (model,) = measure([Said("one", records, TWO)], GREEDILY, comparing)["models"]
    assert [one["medium"] for one in model["examples"]] == ["b", "a", "c"]
    assert [one["medium"] for one in model["read"]] == ["d", "c", "b", "a"]
