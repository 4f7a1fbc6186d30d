"""``import vital``: costs nothing, offers the plug-in points, and says what is wrong where it cannot work."""

import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

import vital
from models.errors import ModelError
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


def test_a_model_is_loaded_and_asked_as_it_is_told(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch
    from tiny_lmm import make_model

    make_model().save_pretrained(tmp_path / "model")
    monkeypatch.setattr("infra.registry.resolve_judge", lambda *_: tmp_path / "model")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loaded = vital.load()
    assert (next(loaded.parameters()).dtype, next(loaded.parameters()).device.type) == (torch.float32, "cpu")
    assert next(vital.load(precision="bfloat16").parameters()).dtype is torch.bfloat16
    exact = vital.assess(photo)
    lowered = vital.assess(photo, device="cpu", precision="bfloat16")
    (many,) = vital.assess_many([photo], text=False, precision="bfloat16")
    assert isinstance(many, type(exact))
    assert exact.score != lowered.score == pytest.approx(exact.score, abs=0.02)
    assert many.score == lowered.score
    for ask in (
        vital.load,
        lambda **asked: vital.assess(photo, **asked),
        lambda **asked: vital.assess_many([], **asked),
    ):
        with pytest.raises(vital.VitalError, match="this machine shows no GPU"):
            ask(device="cuda")


def test_plug_in_points_come_from_vital():
    from models.judges import Judge
    from models.scorers import Scorer

    assert (vital.Scorer, vital.Judge, vital.VitalError) == (Scorer, Judge, VitalError)
    with pytest.raises(AttributeError, match="no attribute 'scorer'"):
        _ = vital.scorer


def ten_lines(checkout: Path) -> str:
    """The scorer that docs/scorers.md shows."""
    return (checkout / "docs" / "scorers.md").read_text().partition("```python\n")[2].partition("```")[0]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "grey.png"
    Image.new("RGB", (64, 48), (51, 51, 51)).save(path)
    return path


def test_a_scorer_of_ten_lines_is_registered_and_scores(checkout: Path, photo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.scorers.catalogue._registered", {})
    lines = ten_lines(checkout)
    assert len([line for line in lines.splitlines() if line]) <= 10
    exec(compile(lines, "docs/scorers.md", "exec"), {})  # noqa: S102 - what the page tells its readers to run
    result = vital.score(photo, scorers=["brightness"])
    assert result.scores == {"brightness": pytest.approx(0.2)}
    assert (result.mu, result.sigma, result.level) == (pytest.approx(0.2), 0.0, "poor")
    both = vital.score(photo, scorers=["brightness", "ranking"])
    assert list(both.scores) == ["brightness", "ranking"]
    assert both.scores["brightness"] == pytest.approx(0.2)


def test_the_same_class_comes_by_a_real_entry_point(
    checkout: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    site = tmp_path / "site"
    described = site / "my_package-1.0.dist-info"
    described.mkdir(parents=True)
    (site / "my_package.py").write_text(ten_lines(checkout).replace("@vital.register_scorer\n", ""))
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[vital.scorers]\nbrightness = my_package:Brightness\n")
    monkeypatch.setattr("models.scorers.catalogue._registered", {})
    with pytest.raises(ModelError, match="unknown scorer 'brightness'"):
        vital.score(photo, scorers=["brightness"])
    monkeypatch.syspath_prepend(site)
    assert vital.score(photo, scorers=["brightness"]).scores == {"brightness": pytest.approx(0.2)}


def test_a_registered_scorer_has_a_name_of_its_own():
    with pytest.raises(ModelError, match="'ranking' is the name of a scorer that VITAL brings along"):
        vital.register_scorer(type("Ranking", (), {"name": "ranking"}))
    with pytest.raises(ModelError, match="attribute `name` is a text"):
        vital.register_scorer(lambda: None)


def test_a_wheel_without_the_checkout_says_so(checkout: Path, tmp_path: Path):
    package = tmp_path / "vital"
    package.mkdir()
    (package / "__init__.py").write_text((checkout / "vital" / "__init__.py").read_text())
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import vital"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ImportError: vital runs from a checkout" in done.stderr
