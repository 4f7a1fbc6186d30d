"""``vital rali`` and ``vital score --scorer rali``: a student of a folder or of the registry, and clear refusals."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import skimage.data
import torch
from PIL import Image

import vital as face
from models.distortions import IMAGE_TYPES
from models.errors import ModelError
from models.rali.head import BasisHead
from models.rali.image_towers import CompactTower
from models.rali.runtime import RaliScorer
from models.rali.student import RaliStudent
from models.rali.views import TileView
from tasks.media import decode_image
from vital.rali_ablation import USUAL_UNSEEN, wished

Vital = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(4)
    view, head = TileView("fragments", 56, 28, 1), BasisHead(8, 4, 6, 0.1)
    for value in (head.vectors, head.get_buffer("components")):
        torch.nn.init.normal_(value)
    torch.nn.init.uniform_(head.scores)
    folder = tmp_path_factory.mktemp("student")
    RaliStudent(CompactTower(view, 8, 12).eval(), head, view, 4).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "cat.png"
    Image.fromarray(skimage.data.chelsea()).save(path)
    return path


def test_a_students_folder_scores_on_the_command_line_and_in_python(vital: Vital, student: Path, photo: Path):
    wanted = RaliScorer(student).score(decode_image(photo.read_bytes())[None])
    done = vital("score", "--json", "--scorer", f"rali:{student}", "--scorer", "ranking", photo)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["scores"]
    assert told["rali"] == wanted
    assert set(told) == {"rali", "ranking"}
    assert face.score(photo, [f"rali:{student}"]).scores == {"rali": wanted}


def test_what_is_no_student_is_one_line(vital: Vital, photo: Path, tmp_path: Path):
    done = vital("score", "--scorer", f"rali:{tmp_path}", photo)
    assert done.returncode == 1
    assert f"{tmp_path} is no student (it has no rali.json)" in done.stderr
    assert done.stderr.count("\n") == 1
    with pytest.raises(ModelError, match="is no student"):
        face.score(photo, [f"rali:{tmp_path}"])
    done = vital("score", "--scorer", "rali:nobody", photo)
    assert done.returncode == 1
    assert "nobody" in done.stderr


def test_what_is_asked_for_is_checked_and_the_usual_unseen_types_exist():
    assert set(USUAL_UNSEEN) <= set(IMAGE_TYPES)
    table = {"people": (Path("a.parquet"),), "roots": (Path(),)}
    with pytest.raises(click.UsageError, match="needs a group"):
        wished((), "0", (), **table, content="a.")
    with pytest.raises(click.UsageError, match="no regular expression"):
        wished((), "0", (), **table, content="(")
    wish = wished(("full",), "0", ("usual", "jpeg", "darken"), people=(), roots=(), content=None)
    assert wish.unseen == (*USUAL_UNSEEN, "jpeg")


def test_cases_and_photos_are_checked_before_any_work(vital: Vital, tmp_path: Path):
    done = vital("rali", "ablate", "--case", "no_colours")
    assert done.returncode == 2
    assert "unknown case 'no_colours'; the cases are full, no_alignment," in done.stderr
    done = vital("rali", "ablate", "--unseen", "fog")
    assert done.returncode == 2
    assert "unknown distortion 'fog'; the distortions are gaussian_blur," in done.stderr
    (tmp_path / "rated.parquet").write_bytes(b"")
    done = vital("rali", "ablate", "--human", tmp_path / "rated.parquet")
    assert done.returncode == 2
    assert "every --human needs a --root" in done.stderr
    assert "--content is for --human" in vital("rali", "ablate", "--content", "(.)").stderr
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    done = vital("rali", "bench", tmp_path)
    assert done.returncode == 2
    assert "broken.jpg" in done.stderr
    assert "there is no photo to time" in done.stderr
