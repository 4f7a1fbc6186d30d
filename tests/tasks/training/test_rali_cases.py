"""The cases: what each changes, what they share, and that finished ones are not made again."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rali_ground import CONFIG, write_explained

from models.levels import expectation
from models.quality_lmm import QualityLMM
from models.vision_encoder import prepare_image
from tasks.errors import StageError
from tasks.instructions import ImportedSource
from tasks.media import decode_image
from tasks.pool import load_candidates, read_media
from tasks.records import Split
from tasks.stage import Place
from tasks.training import rali_cases
from tasks.training.rali_cases import CASES, run_cases
from tasks.training.rali_exam import Exam, Teacher


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_pretrained: Callable[[Path], None]) -> Place:
    write_pretrained(line)
    write_explained(line)
    return place_for(line, "rali_cases")


def test_each_case_changes_what_its_name_says():
    settings = {name: dataclasses.asdict(change(CONFIG)) for name, change in CASES.items()}

    def differs(name: str) -> dict[str, Any]:
        def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
            found: dict[str, Any] = {}
            for key, value in values.items():
                found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
            return found

        full, own = flat(settings["full"]), flat(settings[name])
        return {key: own[key] for key in own if own[key] != full[key]}

    assert differs("full") == {}
    assert differs("no_alignment") == {"align.enabled": False}
    assert differs("no_pca") == {"build.compress": False}
    assert differs("no_buckets") == {"build.recipe.grouping": "none"}
    assert differs("no_seed_augmentation") == {"align.texts_per_image": 1}
    assert differs("no_fit") == {"fit.enabled": False}
    assert differs("text_then_opinions") == {"fit.trained": "all"}
    assert differs("opinions_alone") == {"align.enabled": False, "fit.trained": "all", "fit.steps": 4 + 5}


def test_cases_score_every_held_out_medium_and_share_an_alignment(place: Place, monkeypatch: pytest.MonkeyPatch):
    aligned: list[Path] = []
    align = rali_cases.align

    def counted(*given: Any) -> Any:
        aligned.append(given[2].work)
        return align(*given)

    monkeypatch.setattr(rali_cases, "align", counted)
    cases = ("full", "no_pca", "no_alignment", "no_seed_augmentation")
    found = run_cases(CONFIG, place, cases, (0, 1))
    pool = load_candidates(place)
    held_out = set(pool.loc[pool["split"] == Split.HELD_OUT, "id"])
    assert set(found["model"]) == {f"{case}-seed{seed}" for case in cases for seed in (0, 1)}
    for _, rows in found.groupby("model"):
        assert set(rows["id"]) == held_out
    scores = found.pivot_table(index="id", columns="model", values="score")
    assert not scores["full-seed0"].equals(scores["full-seed1"])
    assert not scores["full-seed0"].equals(scores["no_alignment-seed0"])
    assert len(aligned) == 6
    assert len(set(aligned)) == 4  # full and no_pca of a seed have one alignment
    again = run_cases(CONFIG, place, cases, (0, 1))
    pd.testing.assert_frame_equal(again, found)
    assert len(aligned) == 6


def write_rated(root: Path, paths: tuple[str, ...] = ("x_1.png", "x_2.png", "y_1.png"), **columns: Any) -> Path:
    """Grey images with what people say of them."""
    for number, name in enumerate(paths):
        Image.new("RGB", (90, 70), (60 * number + 20,) * 3).save(root / name)
    quality = np.linspace(0.2, 0.8, len(paths))
    frame = pd.DataFrame({"path": paths, "modality": "image", "quality": quality, "text": "{}"} | columns)
    frame.to_parquet(root / "rated.parquet")
    return root


def test_no_case_learns_from_types_that_are_to_be_unseen(place: Place, monkeypatch: pytest.MonkeyPatch):
    shops: list[set[str]] = []
    for name in ("align", "build", "fit"):
        step = getattr(rali_cases, name)

        def seen(*given: Any, step: Any = step) -> Any:
            (shop,) = [one for one in given if isinstance(one, rali_cases.Workshop)]
            shops.append(set(shop.lessons.texts) | set(shop.lessons.scores))
            return step(*given)

        monkeypatch.setattr(rali_cases, name, seen)
    started: list[set[str]] = []
    start = rali_cases.start_tower
    monkeypatch.setattr(
        rali_cases, "start_tower", lambda tower, shop: started.append(set(shop.lessons.media)) or start(tower, shop)
    )
    found = run_cases(CONFIG, place, ("full",), (0,), Exam(("gaussian_blur",)))
    pool = load_candidates(place).set_index("id")
    assert len(shops) == 3
    for names in (*shops, *started):
        assert names
        kinds = {pool.loc[name, "distortion"] for name in names}
        assert "gaussian_blur" not in kinds
        assert {"white_noise", "jpeg"} <= kinds
    held_out = set(pool.index[pool["split"] == Split.HELD_OUT])
    assert set(found["id"]) == held_out  # they are asked about all the same
    plain = run_cases(CONFIG, place, ("full",), (0,))
    both = plain.merge(found, on="id")
    assert (both["score_x"] != both["score_y"]).any()  # neither run took over what the other had finished


def test_people_and_the_teacher_are_asked_about_the_same_media_and_nothing_twice(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = write_rated(tmp_path)
    source = ImportedSource(str(root / "rated.parquet"), str(root))
    exam = Exam(people=(source,), content="^([a-z])_", teacher=Teacher("pretrain"))
    found = run_cases(CONFIG, place, ("full",), (0,), exam)
    rated = found[found["target_kind"] == "mos"]
    assert set(rated["model"]) == {"full-seed0", "teacher"}
    for _, rows in rated.groupby("model"):
        ordered = rows.sort_values("id")
        assert ordered["id"].tolist() == ["0:x_1.png", "0:x_2.png", "0:y_1.png"]
        assert ordered["content_id"].tolist() == ["x", "x", "y"]
        assert ordered["target"].tolist() == pytest.approx([0.2, 0.5, 0.8])
    model = QualityLMM.from_pretrained(place.root / "artifacts" / "pretrain" / "model")
    pool = load_candidates(place)
    row = pool[(pool["split"] == Split.HELD_OUT) & (pool["modality"] == "image")].iloc[0]
    with torch.no_grad():
        shown = [prepare_image(decode_image(data), model.spec) for data in
                 (read_media(place, row), (root / "x_2.png").read_bytes())]  # fmt: skip
        wanted = [expectation(model.level_probabilities([one]).numpy())[0] for one in shown]
    said = found[found["model"] == "teacher"].set_index("id")["score"]
    assert [said[row["id"]], said["0:x_2.png"]] == pytest.approx(wanted, abs=1e-5)
    monkeypatch.setattr(rali_cases, "_student", lambda *_: pytest.fail("a finished case was made again"))
    monkeypatch.setattr(QualityLMM, "from_pretrained", lambda *_: pytest.fail("the teacher was asked again"))
    pd.testing.assert_frame_equal(run_cases(CONFIG, place, ("full",), (0,), exam), found)
    pd.testing.assert_frame_equal(
        run_cases(CONFIG, place, ("full",), (0,)).reset_index(drop=True),
        found[(found["model"] != "teacher") & (found["target_kind"] != "mos")].reset_index(drop=True),
    )


def test_tables_and_types_that_cannot_be_asked_about_are_refused(place: Place, tmp_path: Path):
    def refusal(exam: Exam) -> str:
        with pytest.raises(StageError) as told:
            run_cases(CONFIG, place, ("full",), (0,), exam)
        return str(told.value)

    assert "no held-out medium has the distortion pixelate" in refusal(Exam(("pixelate",)))
    source = ImportedSource(str(tmp_path / "rated.parquet"), str(tmp_path))
    assert "rated.parquet is missing" in refusal(Exam(people=(source,)))
    write_rated(tmp_path, quality=[0.1, 0.2, 1.5])
    assert "a quality in [0, 1] in each" in refusal(Exam(people=(source,)))
    write_rated(tmp_path, path=["x_1.png"] * 3)
    assert "one row for every path" in refusal(Exam(people=(source,)))
    write_rated(tmp_path)
    assert "the pattern of contents finds nothing in 'x_1.png'" in refusal(Exam(people=(source,), content="q(.)"))
    (tmp_path / "x_2.png").unlink()
    assert "1 of 3 media" in refusal(Exam(people=(source,)))
    pd.DataFrame({"path": ["x"]}).to_parquet(tmp_path / "rated.parquet")
    assert "lacks the column modality" in refusal(Exam(people=(source,)))
