"""Repeated answers in files: shares against chances that are known, and what is left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.instruments.readout import NumberReadout, WordReadout
from tasks.errors import StageError
from tasks.evaluation.instability import Keys, Options, measure_recorded, read_file
from tasks.evaluation.instability_pages import markdown, page
from tasks.evaluation.recorded import Comparing

WORDS = Options(WordReadout(), {"temperature": "1"}, comparing=Comparing(n_bootstrap=50))
NUMBERS = Options(NumberReadout(1, 5), {}, comparing=Comparing(n_bootstrap=50))


def write(path: Path, records: list[Any]) -> Path:
    path.write_text(json.dumps(records))
    return path


def drawn(words: list[str], chances: list[float], images: int, answers: int) -> list[dict[str, Any]]:
    table = np.random.default_rng(0).choice(words, p=chances, size=(images, answers))
    return [
        {"image": f"{n:04}", "answers": [f"The quality of the image is {word}." for word in row], "of": f"c{n % 20}"}
        for n, row in enumerate(table)
    ]


def test_a_sampler_with_known_chances_is_measured_right(tmp_path: Path):
    path = write(tmp_path / "a.json", drawn(["good", "poor", "fine"], [0.8, 0.1, 0.1], 1000, 5))
    report = measure_recorded([path], Keys(content="of"), WORDS)
    (file,) = report["files"]
    assert (file["images"], file["contents"], file["answers"]) == (1000, 20, 5)
    assert file["unstable"]["own_class"]["pairwise"]["value"] == pytest.approx(1 - 0.64 - 0.02, abs=0.02)
    left = (0.8 / 0.9) ** 2 + (0.1 / 0.9) ** 2
    assert file["unstable"]["left_out"]["pairwise"]["value"] == pytest.approx(1 - left, abs=0.02)
    assert file["failed"] == pytest.approx(500, abs=80), "fine is no level"
    assert report["sampling"] == {"temperature": "1"}
    first = file["examples"][0]
    counts = np.unique([-1 if c is None else c for c in first["classes"]], return_counts=True)[1]
    assert first["pairwise"] == pytest.approx(1 - (counts * (counts - 1)).sum() / 20)


def test_greedy_answers_are_exactly_stable(tmp_path: Path):
    path = write(tmp_path / "a.json", drawn(["fair"], [1.0], 20, 4))
    (file,) = measure_recorded([path], Keys(), WORDS)["files"]
    for shares in file["unstable"].values():
        assert all(share["value"] == share["high"] == 0.0 for share in shares.values())


def test_numbers_have_a_gap_beside_their_levels(tmp_path: Path):
    records = [{"image": str(n), "answers": ['{"rating": 3.0}', '{"rating": 3.2}', "4.9"]} for n in range(10)]
    (file,) = measure_recorded([write(tmp_path / "a.json", records)], Keys(), NUMBERS)["files"]
    assert file["score_gap"]["value"] == pytest.approx((0.2 + 1.9 + 1.7) / 3 / 4, abs=1e-6)
    assert file["unstable"]["own_class"]["pairwise"]["value"] == pytest.approx(2 / 3, abs=1e-6)


def test_two_models_are_paired_image_by_image(tmp_path: Path):
    shaky = write(tmp_path / "a.json", drawn(["good", "poor"], [0.5, 0.5], 200, 4))
    steady = write(tmp_path / "b.json", drawn(["good"], [1.0], 100, 6))
    report = measure_recorded([shaky, steady], Keys(), WORDS)
    (difference,) = report["differences"]
    assert difference["shared"] == 100
    assert difference["unstable"]["own_class"]["pairwise"]["value"] == pytest.approx(0.5, abs=0.06)
    other = write(tmp_path / "c.json", [{"image": "x", "answers": ["good", "good"]}])
    assert measure_recorded([shaky, other], Keys(), WORDS)["differences"][0] == {
        "first": "a.json",
        "second": "c.json",
        "shared": 0,
        "unstable": None,
    }


def test_what_cannot_be_compared_is_counted_by_its_reason(tmp_path: Path):
    good = drawn(["good"], [1.0], 10, 3)
    bad = [7, {"answers": ["good"] * 3}, {"image": "a"}, {"image": "b", "answers": ["good", 3, "good"]}]
    bad += [{"image": "c", "answers": ["good"]}, {"image": "d", "answers": ["good"] * 2}, good[0]]
    path = write(tmp_path / "a.json", [*good, *bad])
    asked, reasons = read_file(path, Keys(), Options(WordReadout(), {}, comparing=Comparing(max_reject_share=0.9)))
    assert len(asked) == 10
    assert reasons == {"no_medium": 2, "no_answers": 2, "one_answer": 1, "other_number_of_answers": 1, "repeated": 1}
    with pytest.raises(StageError, match="7 of 17 records cannot be compared"):
        read_file(path, Keys(), WORDS)
    with pytest.raises(StageError, match="no_content 10"):
        read_file(write(tmp_path / "b.json", good), Keys(content="photo"), WORDS)


def test_markdown_and_page_tell_the_conditions_and_the_shares(tmp_path: Path):
    paths = [write(tmp_path / f"{name}.json", drawn(["good", "poor"], [0.7, 0.3], 40, 3)) for name in "ab"]
    report = measure_recorded(paths, Keys(), WORDS)
    value = f"{report['files'][0]['unstable']['own_class']['pairwise']['value']:.3f}"
    for text in (markdown(report), page(report)):
        assert value in text
        assert "temperature 1" in text
        assert "a.json minus b.json" in text
    numbers = measure_recorded([write(tmp_path / "n.json", [{"image": "x", "answers": ["3", "4"]}])], Keys(), NUMBERS)
    assert "sampling: not told" in markdown(numbers)
    assert "mean absolute difference" in markdown(numbers)
