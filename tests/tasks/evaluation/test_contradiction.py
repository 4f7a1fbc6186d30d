"""Recorded answers: figures against ones computed here, what cannot be compared, and the reference on real files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from tasks.errors import StageError
from tasks.evaluation.contradiction import Keys, Options, compare_recorded, read_file
from tasks.evaluation.contradiction_pages import markdown, page
from tasks.evaluation.recorded import Comparing
from tasks.human_scale import Meaning, Polarity

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "reasoning"
DMOS = Meaning(Polarity.DMOS, 0, 1)
OPTIONS = Options(1, 5, DMOS, comparing=Comparing(n_bootstrap=50))


def record(number: int, **changes: Any) -> dict[str, Any]:
    image = 1 + (number * 7 % 41) / 10
    values = {
        "image": f"{number}.png",
        "gt_score": str((number * 3 % 10) / 10),
        "overall_score": image,
        "reasoning_score": min(5.0, image + (number % 3) / 2),
        "perception_text": "The image is blurry and noisy.",
        "reasoning_text": "The image is sharp.",
    }
    return values | changes


def write(path: Path, records: object) -> Path:
    path.write_text(json.dumps(records))
    return path


def test_a_report_holds_what_the_records_say(tmp_path: Path):
    records = [record(number) for number in range(40)]
    report = compare_recorded([write(tmp_path / "a.json", records)], Keys(), OPTIONS)
    (file,) = report["files"]
    image, text = (np.array([r[k] for r in records]) for k in ("overall_score", "reasoning_score"))
    level_i, level_t = (np.minimum(4, np.floor(np.round((s - 1) / 0.8, 9))) for s in (image, text))
    assert file["difference_on_scale"] == pytest.approx(np.abs(image - text).mean(), abs=1e-6)
    assert file["gaps"]["mean_abs_difference"]["value"] == pytest.approx(np.abs(image - text).mean() / 4, abs=1e-6)
    assert file["gaps"]["level_flip"]["value"] == pytest.approx((level_i != level_t).mean(), abs=1e-6)
    assert file["gaps"]["two_level_flip"]["value"] == pytest.approx((abs(level_i - level_t) > 1).mean(), abs=1e-6)
    human = np.array([float(r["gt_score"]) for r in records])
    assert file["people"]["image"]["srcc"] == pytest.approx(-spearmanr(image, human).statistic, abs=1e-6)
    assert file["people"]["text"]["plcc"] == pytest.approx(-pearsonr(text, human).statistic, abs=1e-6)
    quality = (image - 1) / 4
    assert file["words"]["image"] == {
        "agrees": int((quality < 0.4).sum()),
        "contradicts": int((quality >= 0.6).sum()),
        "open": int(((quality >= 0.4) & (quality < 0.6)).sum()),
        "no_text": 0,
    }
    widest = max(range(40), key=lambda n: (abs(image[n] - text[n]), -ord(str(n)[0])))
    assert file["examples"][0]["text"] - file["examples"][0]["image"] == pytest.approx(abs(image - text)[widest] / 4)
    again = compare_recorded([tmp_path / "a.json"], Keys(), OPTIONS)
    assert json.dumps(again) == json.dumps(report)


def test_what_cannot_be_compared_is_counted_by_its_reason(tmp_path: Path):
    bad: list[Any] = [
        record(1, overall_score="much"),
        record(2, reasoning_score=None),
        record(3, overall_score=5.2),
        record(4, gt_score="nan"),
        record(5, gt_score=1.5),
        {"overall_score": 3},
        "text",
        record(0),
        record(6, overall_score=True),
        record(7, overall_score=10**400),
    ]
    path = write(tmp_path / "a.json", [*(record(number + 100) for number in range(30)), record(0), *bad])
    answers, reasons = read_file(path, Keys(), Options(1, 5, DMOS, comparing=Comparing(max_reject_share=0.5)))
    assert len(answers) == 31
    assert reasons == {
        "no_number:overall_score": 3,
        "no_number:reasoning_score": 1,
        "out_of_scale:overall_score": 1,
        "no_number:gt_score": 1,
        "out_of_scale:gt_score": 1,
        "no_medium": 2,
        "repeated": 1,
    }
    with pytest.raises(StageError, match="10 of 41 records cannot be compared"):
        read_file(path, Keys(), OPTIONS)


@pytest.mark.parametrize("text", ["{", "{}", "[]", "[1]"])
def test_what_is_no_list_of_records_is_refused(text: str, tmp_path: Path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(StageError, match=r"a\.json"):
        read_file(tmp_path / "a.json", Keys(), OPTIONS)


def test_without_a_declared_polarity_people_are_left_out(tmp_path: Path):
    path = write(tmp_path / "a.json", [record(number, gt_score="?") for number in range(20)])
    (file,) = compare_recorded([path], Keys(), Options(1, 5, None, comparing=Comparing(n_bootstrap=9)))["files"]
    assert file["people"] is None
    assert file["human"] is None


def test_two_files_are_paired_image_by_image(tmp_path: Path):
    first = [record(number) for number in range(30)]
    steady = [r | {"reasoning_score": r["overall_score"]} for r in first[10:]]
    paths = [write(tmp_path / "a.json", first), write(tmp_path / "b.json", steady[::-1])]
    report = compare_recorded(paths, Keys(), OPTIONS)
    (difference,) = report["differences"]
    assert difference["shared"] == 20
    gaps = [abs(r["overall_score"] - r["reasoning_score"]) / 4 for r in first[10:]]
    assert difference["gaps"]["mean_abs_difference"]["value"] == pytest.approx(np.mean(gaps), abs=1e-6)
    other = [record(number, image=f"other{number}") for number in range(5)]
    alone = compare_recorded([paths[0], write(tmp_path / "c.json", other)], Keys(), OPTIONS)["differences"]
    assert alone == [{"first": "a.json", "second": "c.json", "shared": 0, "gaps": None}]


def test_markdown_and_page_say_the_same_and_nothing_hostile(tmp_path: Path):
    records = [record(number, perception_text="<script>alert(1)</script> | blurry") for number in range(20)]
    report = compare_recorded([write(tmp_path / "a.json", records)], Keys(), OPTIONS)
    told, drawn = markdown(report), page(report)
    share = report["files"][0]["gaps"]["level_flip"]["value"]
    assert f"{share:.3f}" in told
    assert f"{share:.3f}" in drawn
    assert "<script>" not in drawn


@pytest.mark.skipif(not REAL.is_dir(), reason="shared/data is not on this machine")
def test_figures_of_the_real_files_are_the_published_ones():
    paths = [REAL / "csiq_baseline.json", REAL / "csiq_self_consistent.json"]
    report = compare_recorded(paths, Keys(), Options(1, 5, DMOS, comparing=Comparing(n_bootstrap=20)))
    published = [(0.687, 0.634, 0.582, 0.535, 0.212, 0.284), (0.704, 0.647, 0.672, 0.620, 0.097, 0.112)]
    for file, wanted in zip(report["files"], published, strict=True):
        people = file["people"]
        found = [people[who][name] for who in ("image", "text") for name in ("plcc", "srcc")]
        found += [file["difference_on_scale"], file["gaps"]["level_flip"]["value"]]
        assert [round(value, 3) for value in found] == list(wanted)
