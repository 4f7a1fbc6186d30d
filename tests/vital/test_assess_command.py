"""``vital assess`` as its users call it: the registry's answer is a model made here, all else is real."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import skimage.data
import warm
from PIL import Image
from tiny_lmm import make_model

from models.probe_head import QualityProbe

CALL = (
    "import sys; from pathlib import Path; import infra.registry\n"
    "folder = Path(sys.argv.pop(1))\n"
    "infra.registry.resolve_judge = lambda *_: folder\n"
    "from vital.cli import main; main()"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny quality LMM, ``whole``, and a probe on its encoder, ``probe``."""
    folder, model = tmp_path_factory.mktemp("models"), make_model()
    model.save_pretrained(folder / "whole")
    QualityProbe(model.image_encoder, model.motion_extractor, model.spec, (1, 2), 8).save_pretrained(folder / "probe")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine photographs, one of them with a name that a spreadsheet would compute, and a broken file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(9):
        crop = skimage.data.coffee()[20 * number : 20 * number + 90, :120]
        Image.fromarray(crop).save(folder / (f"{number}.png" if number else "=1+1.png"))
    (folder / "5broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    return folder


def command(model: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-c", CALL, str(model), "assess", *map(str, arguments)]


def call(model: Path, *arguments: object, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return warm.call(CALL, [str(model), "assess", *map(str, arguments)], environment(), cwd)


def environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": root, "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}


def test_csv_and_json_tell_the_same_of_a_folder(models: Path, photos: Path):
    as_csv, as_json = (call(models / "whole", kind, "--batch", 4, ".", cwd=photos) for kind in ("--csv", "--json"))
    assert (as_csv.returncode, as_json.returncode) == (1, 1), as_csv.stderr  # one file is broken
    rows = list(csv.DictReader(io.StringIO(as_csv.stdout, newline="")))
    lines = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert list(rows[0]) == [
        "path", "score", "level", "high", "good", "fair", "poor", "low", "distortion", "description", "answer",
        "reason", "error", "size", "mtime_ns", "run",
    ]  # fmt: skip
    assert len(rows) == len(lines) == 10
    for row, line in zip(rows, lines, strict=True):
        assert row["path"].removeprefix("'") == line["path"]
        if "error" in line:
            assert (row["reason"], row["error"], row["score"]) == (line["reason"], line["error"], "")
            continue
        levels = [float(row[name]) for name in ("high", "good", "fair", "poor", "low")]
        assert (float(row["score"]), levels) == (line["score"], line["level_probs"])
        assert (row["level"], row["distortion"], row["description"]) == (
            line["level"], line["distortion"], line["description"],
        )  # fmt: skip
    assert rows[-1]["path"] == "'=1+1.png"


def test_a_table_has_texts_only_where_there_are_any(models: Path, photos: Path):
    whole = call(models / "whole", photos / "1.png")
    assert "distortion" in whole.stdout
    assert "distortion" not in call(models / "whole", "--no-text", photos / "1.png").stdout
    probe = call(models / "probe", photos / "1.png")
    assert probe.returncode == 0, probe.stderr
    assert "distortion" not in probe.stdout
    asked = call(models / "probe", "--ask", "Is it blurry?", photos / "1.png")
    assert asked.returncode != 0
    assert asked.stderr.splitlines() == [
        "vital: a probe tells score and level and has no words: ask no question, or name a whole model"
    ]


def test_a_gpu_that_is_not_there_is_one_line_and_leaves_no_file(models: Path, photos: Path, tmp_path: Path):
    out = tmp_path / "out.csv"
    refused = call(models / "whole", "--device", "cuda", "--out", out, photos)
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        "vital: the device cuda is asked for, and this machine shows no GPU: ask for cpu"
    ]
    assert not out.exists()


def test_results_of_another_precision_are_results_of_another_run(models: Path, photos: Path, tmp_path: Path):
    out, runs = tmp_path / "out.jsonl", []
    for arguments in ((), ("--device", "cpu", "--precision", "float32"), ("--precision", "bfloat16")):
        done = call(models / "whole", "--no-text", "--out", out, *arguments, photos / "1.png", photos / "2.png")
        assert done.returncode == 0, done.stderr
        runs.append(done.stderr.split(" written")[0])
    assert runs == [f"vital: {count} results and 0 rejects" for count in (2, 0, 2)]
    first, _, third, _ = (json.loads(line) for line in out.read_text().splitlines())
    assert first["run"] != third["run"]
    assert first["score"] == pytest.approx(third["score"], abs=0.02)
    assert first["score"] != third["score"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", [pytest.param("csv", marks=pytest.mark.long), "jsonl"])
def test_a_run_that_was_killed_goes_on_and_a_finished_one_does_nothing(
    models: Path, photos: Path, ending: str, tmp_path: Path
):
    for number in range(20):
        shutil.copy(photos / "1.png", photos / f"copy{number:02d}.png")
    out, whole = tmp_path / f"out.{ending}", tmp_path / f"whole.{ending}"
    arguments = (models / "whole", "--no-text", "--batch", 1, "--out")  # a run that goes on cuts batches elsewhere
    process = subprocess.Popen(command(*arguments, out, photos), env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out.exists() and out.read_bytes().count(b"\n") > 3) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = out.read_bytes()
    assert found.count(b"\n") < 30
    out.write_bytes(found[:-20])  # a line that was cut
    assert call(*arguments, out, photos).returncode == 1
    assert call(*arguments, whole, photos).returncode == 1
    assert out.read_bytes() == whole.read_bytes()
    again = call(*arguments, out, photos)
    assert again.returncode == 1  # the reject is still there
    assert "0 results and 0 rejects written" in again.stderr
    assert "30 files were there unchanged" in again.stderr
    assert out.read_bytes() == whole.read_bytes()
    (photos / "5broken.jpg").unlink()
    Image.fromarray(skimage.data.coffee()[:80, :80]).save(photos / "7.png")
    repaired = call(*arguments, out, photos)
    assert repaired.returncode == 0
    assert "1 results and 0 rejects written" in repaired.stderr
