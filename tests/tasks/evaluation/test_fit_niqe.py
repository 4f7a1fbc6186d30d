import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from safetensors import safe_open

from models.niqe import load_pristine, niqe
from tasks.errors import StageError
from tasks.evaluation import fit_niqe


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        Image.fromarray(getattr(skimage.data, name)()).save(folder / f"{name}.png")
    for number in range(6):  # texture of one strength: every patch is a sharp one
        picture = np.clip(rng.normal(128, 30, (400, 400, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"texture{number}.png")
    return folder


def test_a_folder_of_photographs_becomes_a_model_with_its_origin(photographs: Path, tmp_path: Path):
    Image.fromarray(skimage.data.astronaut()[:50, :50]).save(photographs / "small.png")
    (photographs / "torn.png").write_bytes((photographs / "coffee.png").read_bytes()[:2000])
    out = tmp_path / "model.safetensors"
    patches = fit_niqe.fit_folders([photographs], out)
    with safe_open(out, "numpy") as file:
        origin = json.loads(file.metadata()["origin"])
    assert origin["photographs"] == "10"
    assert origin["patches"] == str(patches)
    assert origin["sources"] == "photographs"
    assert np.isfinite(niqe(skimage.data.astronaut(), load_pristine(out)))
    again = tmp_path / "again.safetensors"
    fit_niqe.fit_folders([photographs], again)
    assert out.read_bytes() == again.read_bytes()


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(StageError, match="nowhere is not a folder"):
        fit_niqe.fit_folders([tmp_path / "nowhere"], tmp_path / "x.safetensors")


def test_the_command_ends_with_one_line(tmp_path: Path, checkout: Path):
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "tasks.evaluation.fit_niqe", str(tmp_path / "empty"), "--out", str(tmp_path / "x")]
    found = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "more than 36 sharp patches; these photographs have 0" in found.stderr
    assert "Traceback" not in found.stderr
