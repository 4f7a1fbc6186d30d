"""The student's scores of candidates are those of its folder, whatever else is there."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from models.errors import MissingWeightsError
from models.rali.student import RaliStudent
from tasks.errors import StageError
from tasks.evaluation.student import student_scores
from tasks.pool import load_candidates, read_media
from tasks.stage import Place
from tasks.tiles import frames_of


def test_candidates_are_scored_by_the_students_folder(
    line: Path, place_for: Callable[[Path, str], Place], write_student: Callable[[Path], RaliStudent]
):
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
