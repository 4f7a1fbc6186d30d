"""``import vital``: costs nothing, offers the plug-in points, and says what is wrong where it cannot work."""

import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

import vital
from tasks.errors import MediaError, VitalError


def test_scoring_a_photo(tmp_path: Path):
    photo = tmp_path / "coffee.png"
    Image.fromarray(skimage.data.coffee()).save(photo)
    result = vital.score(photo)
    assert len(result.scores) == 6
    assert 0.0 <= result.mu <= 1.0
    assert sum(result.pmod) == pytest.approx(1.0, abs=1e-6)


def test_scoring_imports_nothing_heavy(checkout: Path, tmp_path: Path):
    photo = tmp_path / "coffee.png"
    Image.fromarray(skimage.data.coffee()).save(photo)
    script = (
        f"import sys, vital\nresult = vital.score({str(photo)!r})\nassert len(result.scores) == 6\n"
        "print(sorted({'torch', 'prefect', 'dvc', 'pandas', 'pyarrow', 'transformers', 'boto3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_missing_file_is_a_media_error(tmp_path: Path):
    with pytest.raises(vital.VitalError, match=r"nope\.jpg: no such file"):
        vital.score(tmp_path / "nope.jpg")
    with pytest.raises(MediaError):
        vital.score(tmp_path / "none.jpg")


def test_plug_in_points_come_from_vital():
    from models.judges import Judge
    from models.scorers import Scorer

    assert (vital.Scorer, vital.Judge, vital.VitalError) == (Scorer, Judge, VitalError)
    with pytest.raises(AttributeError, match="no attribute 'scorer'"):
        _ = vital.scorer


def test_a_wheel_without_the_checkout_says_so(checkout: Path, tmp_path: Path):
    package = tmp_path / "vital"
    package.mkdir()
    (package / "__init__.py").write_text((checkout / "vital" / "__init__.py").read_text())
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import vital"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ImportError: vital runs from a checkout" in done.stderr
