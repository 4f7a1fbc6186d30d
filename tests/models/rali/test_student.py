"""A student's folder: read again, run by onnxruntime alone, refused where it is broken."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import MissingWeightsError, ModelError
from models.rali.head import BasisHead
from models.rali.image_towers import ClipTower, CompactTower
from models.rali.runtime import RaliScorer, is_student
from models.rali.student import RaliStudent, TowerSpec
from models.rali.views import TileView
from models.scorers.protocol import Sampling, Scorer

VIEW = TileView("fragments", 56, 28, 1)
CLIP_VIEW = TileView("clip", 28)


def _frames(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 90, 120, 3), dtype=np.uint8)


def _student(tower: CompactTower | ClipTower, view: TileView) -> RaliStudent:
    head = BasisHead(tower.width, 5, 7, 0.2)
    torch.manual_seed(1)
    for value in (head.vectors, head.get_buffer("components")):
        torch.nn.init.normal_(value)
    torch.nn.init.uniform_(head.scores)
    return RaliStudent(tower, head, view, 4).eval()


@pytest.fixture(scope="module")
def folders(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[RaliStudent, Path]]:
    torch.manual_seed(0)
    compact = CompactTower(VIEW, 8, 12).eval()
    compact.fit_to(torch.from_numpy(VIEW.of(_frames(3))))
    students = {
        "compact": _student(compact, VIEW),
        "clip": _student(ClipTower.from_pretrained(clip_folder, "mixed"), CLIP_VIEW),
    }
    made = {}
    for name, student in students.items():
        student.made_from = {"teacher": "nobody"}
        folder = tmp_path_factory.mktemp(name)
        student.save_pretrained(folder)
        made[name] = student, folder
    return made


@pytest.mark.parametrize("kind", ["compact", "clip"])
def test_a_folder_gives_the_same_student(folders: dict[str, tuple[RaliStudent, Path]], kind: str):
    student, folder = folders[kind]
    again = RaliStudent.from_pretrained(folder)
    tiles = torch.from_numpy(student.view.of(_frames(2)))[None]
    with torch.no_grad():
        assert torch.equal(again(tiles), student(tiles))
    assert (again.view, again.frames, again.made_from) == (student.view, 4, {"teacher": "nobody"})
    assert not [path for path in folder.rglob("*") if path.suffix in {".pt", ".bin", ".pkl"}]


@pytest.mark.parametrize("kind", ["compact", "clip"])
@pytest.mark.parametrize("count", [1, 3])
def test_onnx_gives_the_same_score(folders: dict[str, tuple[RaliStudent, Path]], kind: str, count: int):
    student, folder = folders[kind]
    scorer = RaliScorer(folder)
    frames = _frames(count)
    with torch.no_grad():
        wanted = student(torch.from_numpy(student.view.of(frames))[None]).item()
    assert scorer.raw(frames) == pytest.approx(wanted, abs=1e-4)
    assert scorer.score(frames) == round(scorer.raw(frames), 6)


def test_a_student_is_a_scorer(folders: dict[str, tuple[RaliStudent, Path]]):
    scorer = RaliScorer(folders["compact"][1])
    assert isinstance(scorer, Scorer)
    assert scorer.name == "rali"
    assert scorer.sampling is Sampling.FRAMES
    assert scorer.version != RaliScorer(folders["clip"][1]).version
    assert scorer.layout["parameters"] == sum(v.numel() for v in folders["compact"][0].state_dict().values())


def test_scoring_loads_no_torch_and_reads_no_other_file(folders: dict[str, tuple[RaliStudent, Path]], checkout: Path):
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from models.rali.runtime import RaliScorer\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == 'open' else None)\n"
        "scorer = RaliScorer(Path(sys.argv[1]))\n"
        "scorer.score(np.zeros((1, 60, 60, 3), dtype=np.uint8))\n"
        "heavy = {'torch', 'transformers', 'pandas', 'sklearn'} & set(sys.modules)\n"
        "print(sorted(heavy), sorted({Path(name).name for name in opened if name.startswith(sys.argv[1])}))\n"
    )
    command = [sys.executable, "-c", code, str(folders["compact"][1])]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] ['rali.json', 'student.onnx']"


def test_a_broken_folder_says_what_is_wrong(folders: dict[str, tuple[RaliStudent, Path]], tmp_path: Path):
    assert not is_student(tmp_path)
    with pytest.raises(MissingWeightsError, match=r"rali\.json is missing"):
        RaliScorer(tmp_path)
    with pytest.raises(MissingWeightsError, match=r"rali\.json is missing"):
        RaliStudent.from_pretrained(tmp_path)
    folder = folders["compact"][1]
    for name in ("rali.json", "head.safetensors", "tower.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert is_student(tmp_path)
    (tmp_path / "student.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match="does not load as an ONNX network"):
        RaliScorer(tmp_path)
    layout = json.loads((tmp_path / "rali.json").read_text())
    (tmp_path / "rali.json").write_text(json.dumps(layout | {"head": layout["head"] | {"bases": 8}}))
    with pytest.raises(ModelError, match="does not fit its student"):
        RaliStudent.from_pretrained(tmp_path)
    (tmp_path / "rali.json").write_text("[1")
    with pytest.raises(ModelError, match="is not JSON"):
        RaliScorer(tmp_path)


def test_a_tower_is_made_by_its_spec(clip_folder: Path):
    assert isinstance(TowerSpec("compact", 16, 24).built(VIEW, Path()), CompactTower)
    clip = TowerSpec("clip", weights=clip_folder.name).built(CLIP_VIEW, clip_folder.parent)
    assert isinstance(clip, ClipTower)
    with pytest.raises(ModelError, match="tiles of 56 px, CLIP's vision model takes 28"):
        TowerSpec("clip", weights=clip_folder.name).built(VIEW, clip_folder.parent)
    with pytest.raises(ValueError, match=r"needs tower\.weights"):
        TowerSpec("clip")
