"""The stage: its student, what it learns from, its switches, and a kill in the middle."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rali_ground import CONFIG, TRAINING, write_explained

from models.quality_lmm import QualityLMM
from models.rali.runtime import RaliScorer
from models.rali.student import RaliStudent, TowerSpec
from models.rali.views import TileView
from tasks.errors import StageError
from tasks.pool import load_candidates, read_media
from tasks.records import EXPLANATIONS, TAUGHT, Split
from tasks.shards import digest, read_table, write_table
from tasks.stage import Place
from tasks.tiles import frames_of
from tasks.training import rali
from tasks.training.rali_course import AlignConfig
from tests.tasks.killed import Course, assert_kill_changes_no_byte


def changed(**values: Any) -> rali.Config:
    return dataclasses.replace(CONFIG, **values)


@pytest.fixture
def place(line: Path, place_for: Callable[[Path, str], Place], write_pretrained: Callable[[Path], None]) -> Place:
    write_pretrained(line)
    write_explained(line)
    return place_for(line, "rali")


def again(place: Place, name: str) -> Place:
    return Place(place.root, place.work / name, place.work / name / "out")


def test_a_student_comes_out_that_onnxruntime_runs(place: Place):
    report = rali.run(CONFIG, place)
    pool = load_candidates(place)
    shown = pd.DataFrame(pool[pool["split"] != Split.HELD_OUT])
    said = read_table(place.root / "artifacts" / "explain" / "explanations.parquet", EXPLANATIONS)
    assert (report.media, report.explained) == (len(shown), said["id"].nunique())
    assert report.texts == said["text"].nunique()
    assert report.onnx_difference < 1e-4
    assert report.align["steps"] == 4
    assert report.fit["steps"] == 5
    assert report.lengths is not None
    assert report.lengths.limit == 64
    student = RaliStudent.from_pretrained(place.out / "student")
    scorer = RaliScorer(place.out / "student")
    assert report.parameters["student"] == sum(value.numel() for value in student.state_dict().values())
    teacher = QualityLMM.from_pretrained(place.root / "artifacts" / "pretrain" / "model")
    assert report.parameters["teacher"] == sum(value.numel() for value in teacher.parameters())
    bounds = student.head.scores.min().item(), student.head.scores.max().item()
    for row in pd.DataFrame(pool[pool["split"] == Split.HELD_OUT]).head(3).to_dict("records"):
        frames = frames_of(read_media(place, row), row["modality"], 4)
        assert bounds[0] - 1e-5 <= scorer.raw(frames) <= bounds[1] + 1e-5
    assert {path.name for path in place.out.iterdir()} == {"student", "align.json", "fit.json", "rejects.parquet"}
    assert len(json.loads((place.out / "align.json").read_text())) == 4


def test_the_target_is_the_teachers_score_or_machine_opinion(place: Place):
    settled = changed(fit=dataclasses.replace(CONFIG.fit, enabled=False), align=_without_alignment())
    teacher = rali.run(settled, place)
    opinion = rali.run(dataclasses.replace(settled, scores="opinion"), again(place, "opinion"))
    scores = [
        RaliStudent.from_pretrained(folder / "student").head.scores
        for folder in (place.out, place.work / "opinion/out")
    ]
    assert torch.allclose(scores[0].mean() + scores[1].mean(), torch.tensor(1.0), atol=0.2)
    assert teacher.before["srcc"] != opinion.before["srcc"]


def _without_alignment() -> AlignConfig:
    return dataclasses.replace(CONFIG.align, enabled=False)


def test_without_alignment_no_text_is_read(place: Place):
    report = rali.run(changed(align=_without_alignment()), place)
    assert report.align == {}
    assert report.lengths is None
    assert not (place.out / "align.json").exists()


def test_one_text_an_image_is_one_text_an_image(place: Place):
    few = changed(align=dataclasses.replace(CONFIG.align, texts_per_image=1))
    lessons = rali.gather_lessons(place, few.texts, few.align.texts_per_image, "teacher")
    assert {len(own) for own in lessons.texts.values()} == {1}
    every = rali.gather_lessons(place, (), None, "teacher")
    assert {len(own) for own in every.texts.values()} == {2}
    assert all(
        own == [min(every.texts[name], key=lambda text: digest("rali", text))] for name, own in lessons.texts.items()
    )


def test_sources_of_texts_can_be_named(place: Place):
    lessons = rali.gather_lessons(place, ("reviewed",), None, "teacher")
    assert {text for own in lessons.texts.values() for text in own} == {"It looks soft"}


def test_without_scores_there_is_nothing_to_learn(place: Place):
    folder = place.root / "artifacts" / "explain"
    taught = read_table(folder / "taught.parquet", TAUGHT)
    write_table(folder / "taught.parquet", TAUGHT, taught.assign(opinion=None))
    with pytest.raises(StageError, match="no medium has a score"):
        rali.run(changed(scores="opinion"), place)


def test_what_a_machine_lacks_is_told(tmp_path: Path):
    clip = changed(
        tower=TowerSpec("clip", weights="weights/clip"), text=rali.TextSpec("clip", "weights/clip", 1, "error")
    )
    assert rali.missing(clip, tmp_path) == ["a CLIP model in weights/clip"]
    assert rali.missing(CONFIG, tmp_path) == []


def test_clip_is_aligned_as_the_compact_tower_is(place: Place, clip_folder: Path):
    tower = TowerSpec("clip", weights=str(clip_folder), pooling="cls")
    text = rali.TextSpec("clip", str(clip_folder), 1, "chunks")
    view = TileView("clip", 28)
    trained = dataclasses.replace(CONFIG.align, text_trained=True, learn_temperature=True)
    report = rali.run(changed(tower=tower, text=text, view=view, align=trained), place)
    assert report.lengths is not None
    assert report.lengths.limit == 20
    assert report.onnx_difference < 1e-4
    assert (place.out / "student" / "tower" / "model.safetensors").is_file()


@pytest.mark.long
def test_a_run_killed_in_alignment_ends_with_the_same_bytes(place: Place, tmp_path: Path):
    values = dataclasses.asdict(changed(training=dataclasses.replace(TRAINING, steps=40)))
    deps = ("collect", "distort", "pretrain", "explain")
    course = Course("rali", values, deps, "align/checkpoint.safetensors", "student/head.safetensors")
    assert_kill_changes_no_byte(place.root, tmp_path / "whole", course)
