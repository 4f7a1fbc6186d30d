"""Steps a to c on a folder of one's own: the stage's student, work that is kept between steps, and kills."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rali_ground import CONFIG, TRAINING
from tiny_lmm import make_model

from models.errors import ModelError
from models.quality_lmm import QualityLMM
from models.rali.runtime import RaliScorer
from models.rali.student import RaliStudent
from tasks import tiles
from tasks.errors import StageError
from tasks.own_media import OwnMedia
from tasks.records import REJECTS
from tasks.shards import read_table
from tasks.stage import Place
from tasks.tiles import Tiles, frames_of
from tasks.training import rali_folder
from tasks.training.own_lessons import OwnScores, OwnTexts
from tasks.training.rali import Config, text_tower
from tasks.training.rali_course import AlignObjective, Workshop, align, build, fit, start_tower
from tasks.training.rali_folder import Own, align_own, begun_config, build_own, check_step, finished, fit_own
from tasks.training.rali_lessons import Lessons, Seen

COUNT = 20
NAMES = tuple(f"{number:02}.png" for number in range(COUNT))
LOOSE = dataclasses.replace(CONFIG, max_reject_share=0.1)
MEANING = {"polarity": "mos", "low": 1.0, "high": 5.0}
TEXTS = OwnTexts(
    {name: [f"Grain of strength {int(name[:2]) // 5}."] for name in NAMES[:15]}, {"sources": {"me": 15}}, []
)
SCORES = OwnScores({name: 1 - int(name[:2]) / COUNT for name in NAMES}, [])


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    make_model().save_pretrained(folder)
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """Grey noise of rising strength, and a photo that does not decode."""
    folder, rng = tmp_path / "photos", np.random.default_rng(3)
    folder.mkdir()
    for number, name in enumerate(NAMES):
        noise = rng.normal(128, 2 + 4 * number, (90, 120, 3))
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    return Own(OwnMedia(folder, (*NAMES, "broken.png")), tmp_path / "work", tmp_path)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Modality of every medium that is decoded."""
    found: list[str] = []

    def counted(data: bytes, modality: str, frames: int) -> Any:
        found.append(modality)
        return frames_of(data, modality, frames)

    monkeypatch.setattr(tiles, "frames_of", counted)
    return found


def student_of(own: Own, reader: Path, config: Config = LOOSE) -> tuple[Path, list[dict[str, Any]]]:
    """All three steps; the student's folder and what each told."""
    out = own.work.parent / "student"
    told = [align_own(own, config, TEXTS, reader), build_own(own, config, SCORES, MEANING)]
    return out, [*told, fit_own(own, config, SCORES, out)]


def test_the_steps_make_the_student_that_the_stages_steps_make(own: Own, reader: Path, tmp_path: Path):
    out, (aligned, built, fitted) = student_of(own, reader)
    place, work = Place(own.root, tmp_path / "w", tmp_path / "o"), tmp_path / "w"
    kept = Tiles(sorted((own.work / "tiles").rglob("*.safetensors")), CONFIG.views)
    torch.manual_seed(TRAINING.seed)
    tower = CONFIG.tower.built(CONFIG.view, own.root)
    shop = Workshop(work / "a", work / "t", Seen(kept, tower), Lessons(TEXTS.texts, {}, 0), TRAINING)
    start_tower(tower, shop)
    model = QualityLMM.from_pretrained(reader)
    found = align(tower, text_tower(CONFIG, place, model, tower), shop, CONFIG.align, place.out)
    shop = Workshop(work / "b", work / "t", Seen(kept, tower), Lessons({}, SCORES.scores, 0), TRAINING)
    head, _ = build(tower, shop, CONFIG.build, CONFIG.fit.tau)
    student = RaliStudent(tower, head, CONFIG.view, CONFIG.frames)
    tuned = fit(student, shop, CONFIG.fit, place.out)
    stored = RaliStudent.from_pretrained(out)
    for name, value in student.state_dict().items():
        assert torch.equal(stored.state_dict()[name], value), name
    assert aligned["recall_at_1"] == pytest.approx(found["recall_at_1"])
    assert built["before"] == fitted["before"] == tuned["before"]
    assert fitted["after"] == tuned["after"]
    assert fitted["onnx_difference"] < 1e-4
    assert stored.made_from == {"texts": {"me": 15}, "scores": "rali", "media": COUNT}
    assert 0.0 <= RaliScorer(out).score(np.zeros((1, 90, 120, 3), dtype=np.uint8)) <= 1.0


def test_what_is_told_is_counted_by_hand(own: Own, reader: Path):
    _, (aligned, built, fitted) = student_of(own, reader)
    for told in (aligned, built, fitted):
        assert (told["media"], told["decoded"]) == (COUNT + 1, COUNT)
        assert sum(told["rejected"].values()) == 1
    assert (aligned["explained"], aligned["texts"]) == (15, 3)
    assert aligned["false_negatives"] == pytest.approx(3 * 5 * 4 / (15 * 14), abs=1e-6)
    assert aligned["lengths"]["over"] == 0
    assert {"std_ratio", "rmse", "srcc"} == built["before"].keys() == fitted["after"].keys()
    assert built["scored"] == fitted["scored"] == COUNT
    for step in rali_folder.STEPS:
        rejects = read_table(own.work / f"{step}_rejects.parquet", REJECTS)
        assert rejects["id"].tolist() == ["broken.png"]
    assert len(json.loads((own.work / "curves/align.json").read_text())) == TRAINING.steps


def test_media_are_decoded_once_for_all_steps_and_again_when_one_changes(own: Own, reader: Path, decoded: list[str]):
    student_of(own, reader)
    assert len(decoded) == COUNT + 1
    fit_own(own, LOOSE, SCORES, own.work.parent / "other")
    assert len(decoded) == COUNT + 1
    Image.fromarray(np.zeros((90, 120, 3), dtype=np.uint8)).save(own.media.root / NAMES[0])
    changed = dataclasses.replace(own, media=OwnMedia(own.media.root, own.media.names))
    build_own(changed, LOOSE, SCORES, MEANING)
    assert len(decoded) == 2 * (COUNT + 1)
    assert len(list((own.work / "tiles").iterdir())) == 1, "tiles of the former state are gone"


def test_a_killed_alignment_goes_on_and_ends_as_if_nothing_had_been(
    own: Own, reader: Path, monkeypatch: pytest.MonkeyPatch
):
    undisturbed = dataclasses.replace(own, work=own.work.parent / "undisturbed")
    align_own(undisturbed, LOOSE, TEXTS, reader)
    losses, calls = AlignObjective.losses, list[int]()

    def killed(self: AlignObjective, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return losses(self, batch)

    monkeypatch.setattr(AlignObjective, "losses", killed)
    with pytest.raises(KeyboardInterrupt):
        align_own(own, LOOSE, TEXTS, reader)
    assert finished(own.work, "align") is None
    align_own(own, LOOSE, TEXTS, reader)
    assert len(calls) < 4 + TRAINING.steps, "it went on at its checkpoint"
    again = align_own(own, LOOSE, TEXTS, reader)
    assert len(calls) < 4 + TRAINING.steps, "what is finished is not done again"
    done = [finished(one.work, "align") for one in (own, undisturbed)]
    assert done[0] is not None
    assert done[1] is not None
    assert again == done[0].told == done[1].told
    weights = [next((one.work / "align").rglob("module.safetensors")).read_bytes() for one in (own, undisturbed)]
    assert weights[0] == weights[1]


def test_a_step_says_which_one_is_missing(own: Own, reader: Path):
    with pytest.raises(StageError, match="has no finished step align: run vital rali align with this --work first"):
        build_own(own, LOOSE, SCORES, MEANING)
    with pytest.raises(StageError, match="has no finished step build: run vital rali build"):
        fit_own(own, LOOSE, SCORES, own.work / "student")
    student_of(own, reader)
    other = OwnTexts({name: ["Another text."] for name in NAMES[:4]}, TEXTS.told, [])
    align_own(own, LOOSE, other, reader)
    with pytest.raises(StageError, match="rests on another alignment than the last one: run vital rali build again"):
        fit_own(own, LOOSE, SCORES, own.work / "student")


def test_later_steps_keep_the_settings_of_earlier_ones(own: Own, reader: Path):
    def usual() -> Config:
        raise AssertionError

    align_own(own, LOOSE, TEXTS, reader)
    assert begun_config("build", own.work, usual) == LOOSE
    check_step("build", own.work, dataclasses.replace(LOOSE, build=dataclasses.replace(LOOSE.build, dims=5)))
    with pytest.raises(StageError, match=r"rali\.frames was decided by an earlier step"):
        check_step("build", own.work, dataclasses.replace(LOOSE, frames=2))
    build_own(own, LOOSE, SCORES, MEANING)
    check_step("fit", own.work, dataclasses.replace(LOOSE, fit=dataclasses.replace(LOOSE.fit, steps=3)))
    with pytest.raises(StageError, match=r"rali\.build was decided by an earlier step"):
        check_step("fit", own.work, dataclasses.replace(LOOSE, build=dataclasses.replace(LOOSE.build, dims=5)))
    (own.work / "build.json").write_text("{}")
    with pytest.raises(StageError, match="is no step of this version"):
        begun_config("fit", own.work, usual)


def test_without_alignment_the_basis_is_built_of_the_tower_as_it_begins(own: Own):
    bare = dataclasses.replace(LOOSE, align=dataclasses.replace(LOOSE.align, enabled=False))
    with pytest.raises(StageError, match=r"rali\.align\.enabled is false"):
        align_own(own, bare, TEXTS, None)
    build_own(own, bare, SCORES, MEANING)
    fit_own(own, bare, SCORES, own.work.parent / "student")
    stored = RaliStudent.from_pretrained(own.work.parent / "student")
    torch.manual_seed(TRAINING.seed)
    begun = CONFIG.tower.built(CONFIG.view, own.root)
    learnt = dict(begun.named_parameters())
    assert learnt
    assert all(torch.equal(stored.tower.state_dict()[name], value) for name, value in learnt.items())
    assert stored.made_from["texts"] == {}


def test_what_cannot_be_learnt_from_is_refused_in_words(own: Own, reader: Path):
    with pytest.raises(StageError, match="1 of 21 media do not decode"):
        align_own(own, CONFIG, TEXTS, reader)
    align_own(own, LOOSE, TEXTS, reader)
    few = OwnScores(dict.fromkeys(NAMES[:3], 0.5), [])
    with pytest.raises(ModelError, match="need as many samples"):
        build_own(own, LOOSE, few, MEANING)
    with pytest.raises(StageError, match="no medium with a score decodes"):
        build_own(own, LOOSE, OwnScores({"broken.png": 0.5}, []), MEANING)
    with pytest.raises(StageError, match=r"text\.kind decoder needs a model whose decoder reads the texts"):
        align_own(dataclasses.replace(own, work=own.work / "other"), LOOSE, TEXTS, None)
    assert isinstance(own.media.frame, pd.DataFrame)
