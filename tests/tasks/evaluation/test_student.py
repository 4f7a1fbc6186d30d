"""The student's scores of candidates are those of its folder, whatever else is there."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from models.errors import MissingWeightsError
from models.rali.head import BasisHead
from models.rali.image_towers import CompactTower
from models.rali.student import RaliStudent
from models.rali.views import TileView
from tasks.errors import StageError
from tasks.evaluation.student import student_scores
from tasks.pool import load_candidates, read_media
from tasks.stage import Place
from tasks.tiles import frames_of


def write_student(root: Path) -> RaliStudent:
    """A student with random weights, in ``artifacts/rali``."""
    torch.manual_seed(4)
    view = TileView("fragments", 56, 28, 1)
    head = BasisHead(8, 4, 6, 0.1)
    for value in (head.vectors, head.get_buffer("components")):
        torch.nn.init.normal_(value)
    torch.nn.init.uniform_(head.scores)
    student = RaliStudent(CompactTower(view, 8, 12).eval(), head, view, 4).eval()
    student.save_pretrained(root / "artifacts" / "rali" / "student")
    return student


def test_candidates_are_scored_by_the_students_folder(line: Path, place_for: Callable[[Path, str], Place]):
    place = place_for(line, "predict")
    rows = load_candidates(place)
    rows = pd.concat([rows[rows["modality"] == "video"].head(1), rows[rows["modality"] == "image"].head(2)])
    with pytest.raises(StageError, match="dvc repro rali"):
        student_scores(place, rows, 1)
    student = write_student(line)
    found = student_scores(place, rows, 1)
    for score, row in zip(found, rows.to_dict("records"), strict=True):
        tiles = torch.from_numpy(student.view.of(frames_of(read_media(place, row), row["modality"], 4)))
        with torch.no_grad():
            assert score == pytest.approx(student(tiles[None]).item(), abs=1e-4)
    (line / "artifacts/rali/student/student.onnx").unlink()
    with pytest.raises(MissingWeightsError, match=r"student\.onnx is missing"):
        student_scores(place, rows, 1)
