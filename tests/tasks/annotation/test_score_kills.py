"""The stage ``score`` as its command, killed at moments drawn from a seed: nothing torn is ever to be seen, nothing is
paid twice beyond a batch, and what comes out in the end has the bytes of a run that nobody disturbed.

Moments are drawn by phase, or nearly all would fall into the imports: while the stage starts, computes, writes to the
opinion store, writes its tables, publishes them.
"""

import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
import pytest
import skimage.data
import yaml
from PIL import Image

from infra.object_store import FolderStore
from models.distortions.clips import encode
from tasks.records import CANDIDATES
from tasks.shards import digest, frame_of, write_archive, write_table

CHECKOUT: Final = Path(__file__).resolve().parents[3]
BATCH: Final = 3
IN_HAND: Final = os.cpu_count() or 1
"""Media that the cores may be at beside the batch; they are not in the store either when the kill comes."""
PHASES: Final[tuple[str, ...]] = ("start", "work", "store", "tables", "publish")
SHORTEST_S: Final = 0.0005
SCORER: Final = """
import hashlib
import os

from models.scorers import Sampling


class Counting:
    name, version, sampling = "counting", "1", Sampling.FRAMES

    def raw(self, frames_THWC):
        return float(frames_THWC.mean())

    def score(self, frames_THWC):
        score = self.raw(frames_THWC) / 255
        log = os.open(os.environ["COUNTED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(log, (hashlib.sha256(frames_THWC).hexdigest() + "\\n").encode())
        os.close(log)
        return score
"""


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def _media() -> dict[str, bytes]:
    """Eleven photographs, two clips, a copy of a photograph, and a file that is cut short."""
    photo = skimage.data.astronaut()
    media = {f"photo{i:02d}": _png(photo[20 * i : 20 * i + 120, 20 * i : 20 * i + 160]) for i in range(11)}
    for i in range(2):
        frames = [np.ascontiguousarray(photo[t + 90 * i :][:96, 2 * t :][:, :128]) for t in range(12)]
        media[f"clip{i}"] = encode(frames, 24.0)
    return media | {"copy": media["photo03"], "cut": media["photo05"][:4000]}


def _row(key: str, data: bytes) -> dict[str, object]:
    clip = key.startswith("clip")
    kind = {"modality": "video", "mime": "video/mp4", "frames": 12, "fps": 24.0, "duration_s": 0.5}
    row: dict[str, object] = dict.fromkeys(CANDIDATES.columns) | {
        "id": key, "content_id": key, "split": "train", "modality": "image", "mime": "image/png", "width": 128,
        "height": 96, "frames": 1, "fps": 0.0, "duration_s": 0.0, "source": key, "bytes_sha256": digest(data),
        "severity": 0, "seed": 0,
    }  # fmt: skip
    if clip:
        row |= kind
    return row


@dataclass
class Plant:
    """One workspace and the command that scores it."""

    root: Path
    site: Path
    runs: int = 0
    seen: set[str] = field(default_factory=set)

    @classmethod
    def build(cls, root: Path, site: Path) -> "Plant":
        """Publish a pool, without children, below ``root``."""
        media = _media()
        placed = write_archive(root / "artifacts" / "collect" / "media" / "a.tar", media.items())
        rows = [_row(key, data) | vars(placed[key]) for key, data in media.items()]
        for stage, records in (("collect", rows), ("distort", [])):
            write_table(root / "artifacts" / stage / "candidates.parquet", CANDIDATES, frame_of(CANDIDATES, records))
        section = yaml.safe_load((CHECKOUT / "params.yaml").read_text())["score"]
        section |= {"scorers": ["fragments", "ranking", "counting"], "frames": 2, "clips": 1, "max_reject_share": 0.5}
        section |= {"batch": BATCH, **({"ahead": 1} if "ahead" in section else {})}
        (root / "params.yaml").write_text(yaml.safe_dump({"score": section}))
        pipeline = {"stages": {"score": {"cmd": "", "deps": ["artifacts/collect", "artifacts/distort"]}}}
        (root / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
        return cls(root, site)

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the command; what its scorer is asked is counted anew."""
        self.runs += 1
        environment = {key: value for key, value in os.environ.items() if key != "VITAL_STORE"}
        environment |= {"PYTHONPATH": f"{CHECKOUT}{os.pathsep}{self.site}", "COUNTED": str(self.counted)}
        environment |= {"OMP_NUM_THREADS": "1"}
        with (self.root / "log.txt").open("ab") as log:
            command = [sys.executable, "-m", "tasks", "score"]
            return subprocess.Popen(command, cwd=self.root, env=environment, stderr=log, start_new_session=True)

    def finish(self) -> None:
        """Run the command to its end."""
        code = self.start().wait()
        assert code == 0, (self.root / "log.txt").read_text()

    @property
    def counted(self) -> Path:
        """Where this run's scorer counts."""
        return self.root / f"counted{self.runs}.txt"

    def asked(self) -> list[str]:
        """What the scorer that counts was asked in this run."""
        return self.counted.read_text().splitlines() if self.counted.is_file() else []

    def shards(self) -> list[str]:
        """Keys of the opinion store."""
        return FolderStore(self.root / ".vital" / "store").list("opinions/")

    def opinions(self) -> dict[tuple[str, str], float]:
        """All opinions of the store by scorer version and content; each shard is whole, and none repeats another."""
        found: dict[tuple[str, str], float] = {}
        for key in self.shards():
            rows = list(self._read(key).items())
            assert digest(rows) == Path(key).stem, f"{key} is not what its name says"
            for content, score in rows:
                assert found.setdefault((Path(key).parent.as_posix(), content), score) is score, f"{key} repeats"
        return found

    def _read(self, key: str) -> dict[str, float]:
        columns = pq.read_table(self.root / ".vital" / "store" / key).to_pydict()
        return dict(zip(columns["content"], columns["score"], strict=True))

    def published(self) -> dict[str, bytes]:
        """Every file that others may read: the stage's folder and its metrics."""
        paths = [*(self.root / "artifacts" / "score").rglob("*"), *(self.root / "metrics").rglob("*")]
        return {p.relative_to(self.root).as_posix(): p.read_bytes() for p in paths if p.is_file() and _visible(p)}

    def look(self, expected: dict[str, bytes]) -> None:
        """What can be seen while the command runs: each new shard is whole, the published folder is whole or absent."""
        for key in set(self.shards()) - self.seen:
            assert self._read(key)
            self.seen.add(key)
        folder = self.root / "artifacts" / "score"
        with suppress(FileNotFoundError):
            before = folder.stat().st_ino
            names = {path.relative_to(self.root).as_posix() for path in folder.iterdir()}
            if before == folder.stat().st_ino:  # else the listing is that of a folder which was on its way out
                assert names == {name for name in expected if name.startswith("artifacts/")}


def _visible(path: Path) -> bool:
    return not path.name.startswith(".")


def _moment(plant: Plant, phase: str, draw: np.random.Generator, start_s: float) -> tuple[Callable[[], bool], float]:
    """When to kill: what must have happened, and seconds after that."""
    if phase == "start":
        return (lambda: True), draw.uniform(0, start_s)
    more = len(plant.shards()) + int(draw.integers(7))
    if phase == "work":
        return (lambda: len(plant.shards()) >= more and bool(plant.asked())), draw.uniform(0, 0.1)
    if phase == "store":
        writing = _news(plant.root, ".vital/store/.incoming/*")
        return (lambda: len(plant.shards()) >= more and writing()), draw.uniform(0, 0.004)
    pattern = ".work/score/*/out/{}*" if phase == "tables" else "artifacts/{}score*"
    news = [_news(plant.root, pattern.format(dot)) for dot in (".", "")]
    return (lambda: any(seen() for seen in news)), draw.uniform(0, 0.008)


def _news(root: Path, pattern: str) -> Callable[[], bool]:
    """Whether there is a file or folder of that name which was not there when this function was called."""

    def found() -> set[tuple[str, int]]:
        paths = set()
        for path in root.glob(pattern):
            with suppress(FileNotFoundError):
                paths.add((path.name, path.stat().st_ino))
        return paths

    old = found()
    return lambda: bool(found() - old)


def _kill(plant: Plant, moment: tuple[Callable[[], bool], float], expected: dict[str, bytes]) -> bool:
    """Run the command until the moment; False if it ended before that."""
    due, delay = moment
    process = plant.start()
    try:
        while process.poll() is None and not due():
            plant.look(expected)
            time.sleep(SHORTEST_S)
        end = time.monotonic() + delay
        while process.poll() is None and time.monotonic() < end:
            plant.look(expected)
            time.sleep(SHORTEST_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    assert code in {0, -signal.SIGKILL}, (plant.root / "log.txt").read_text()
    return code != 0


def _check(plant: Plant, known: dict[tuple[str, str], float], quiet: Plant, expected: dict[str, bytes]) -> None:
    """What must hold after every kill.

    Args:
        known: opinions in the store before the run.
    """
    opinions, asked = plant.opinions(), plant.asked()
    assert opinions.items() <= quiet.opinions().items()
    assert known.items() <= opinions.items()
    stored = [key for key in opinions if key not in known and "-counting/" in key[0]]
    assert len(asked) == len(set(asked))
    assert 0 <= len(asked) - len(stored) <= BATCH + IN_HAND
    found = plant.published()
    assert found.items() <= expected.items()
    assert {name for name in found if name.startswith("artifacts/")} in (set(), set(expected) - {"metrics/score.json"})


def _disturb(root: Path, quiet: Plant, phases: Iterator[str], kills: int, draw: np.random.Generator) -> Counter[str]:
    """Kill, start again, and when all is done start with a new workspace, until enough was killed; kills by phase."""
    expected, start_s = quiet.published(), _start_seconds(quiet)
    done: Counter[str] = Counter()
    for generation in range(kills + 1):
        plant = Plant.build(root / f"killed{generation}", quiet.site)
        while done.total() < kills:
            phase, known = next(phases), plant.opinions()
            if not _kill(plant, _moment(plant, phase, draw, start_s), expected):
                break
            done[phase] += 1
            _check(plant, known, quiet, expected)
        plant.finish()
        assert plant.published() == expected
        assert plant.opinions() == quiet.opinions()
        assert not list((plant.root / ".work").rglob("*.tmp"))
        assert not [path for path in (plant.root / "artifacts").iterdir() if not _visible(path)]
        if done.total() >= kills:
            plant.finish()
            assert plant.asked() == []
            return done
    raise AssertionError("runs end before they can be killed")


def _start_seconds(quiet: Plant) -> float:
    """Seconds from the start of the undisturbed run to its first opinion."""
    began = (quiet.root / "began").stat().st_mtime
    return min((quiet.root / ".vital" / "store" / key).stat().st_mtime for key in quiet.shards()) - began


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    """A workspace that was scored without disturbance, by two built-in scorers and one that counts."""
    site = tmp_path_factory.mktemp("site")
    (site / "counting_scorer.py").write_text(SCORER)
    (site / "counting-1.dist-info").mkdir()
    (site / "counting-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1\n")
    entry = "[vital.scorers]\ncounting = counting_scorer:Counting\n"
    (site / "counting-1.dist-info" / "entry_points.txt").write_text(entry)
    plant = Plant.build(tmp_path_factory.mktemp("quiet"), site)
    (plant.root / "began").touch()
    plant.finish()
    assert len(plant.asked()) == 13
    assert set(plant.published()) == {
        "artifacts/score/opinions.parquet",
        "artifacts/score/rejects.parquet",
        "metrics/score.json",
    }
    return plant


@pytest.mark.slow
def test_a_score_stage_that_is_killed_ends_with_the_bytes_of_one_that_is_not(quiet: Plant, tmp_path: Path) -> None:
    phases = ("work", "store", "tables", "publish")
    done = _disturb(tmp_path, quiet, cycle(phases), len(phases), np.random.default_rng(7))
    assert done.total() == len(phases)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_sixty_kills_of_the_score_stage_tear_nothing_and_cost_a_batch_each(quiet: Plant, tmp_path: Path) -> None:
    draw = np.random.default_rng(20)
    done = _disturb(tmp_path, quiet, _drawn(draw, PHASES), 60, draw)
    assert min(done[phase] for phase in PHASES) >= 3, done


def _drawn(draw: np.random.Generator, phases: Sequence[str]) -> Iterator[str]:
    while True:
        yield str(draw.choice(phases))
