import dataclasses
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from skimage import data

from models.distortions import GENERATOR, IMAGE_CELLS, IMAGE_TYPES, VIDEO_CELLS, distort_image
from models.distortions.clips import encode
from tasks import media
from tasks.annotation import collect, distort
from tasks.annotation.distort import Config, draw_cells, pattern_seed, plan, run
from tasks.errors import StageError
from tasks.media import Limits, decode_image, decode_video, probe
from tasks.pool import decoded, load_candidates, read_media
from tasks.records import CANDIDATES, REJECTS
from tasks.shards import digest, read_table
from tasks.stage import Place
from tasks.video import Reading

CHECKOUT = Path(__file__).resolve().parents[3]
CONFIG = Config(
    seed=11, children_per_image=5, children_per_clip=3, image_types_per_clip=1, max_side=1024, parents_per_archive=2
)
PHOTOS = {
    "astronaut": data.astronaut()[:160, :200],
    "coffee": data.coffee()[:160, :200],
    "chelsea": data.chelsea()[:160, :200],
    "grey": np.repeat(data.camera()[:160, :200, None], 3, axis=2),
}


def write_pool(folder: Path) -> None:
    folder.mkdir()
    for name, pixels in PHOTOS.items():
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{name}.png")
    frames = [np.ascontiguousarray(np.roll(PHOTOS["coffee"], 2 * t, axis=1)) for t in range(12)]
    (folder / "clip.mp4").write_bytes(encode(frames, 24.0))


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("collected")
    write_pool(root / "pool")
    place = Place(root, root / "work", root / "artifacts" / "collect")
    collect.run(collect.Config("pool", None, collect.Fractions(0.6, 0.2, 0.2), 1, 64, Limits()), place)
    return root


@pytest.fixture
def place(collected: Path, tmp_path: Path) -> Place:
    shutil.copytree(collected / "artifacts", tmp_path / "artifacts")
    return Place(tmp_path, tmp_path / "work", tmp_path / "artifacts" / "distort")


def originals_of(place: Place) -> pd.DataFrame:
    return read_table(place.root / "artifacts" / "collect" / "candidates.parquet", CANDIDATES)


def test_children_carry_exactly_the_distorted_pixels(place: Place):
    report = run(CONFIG, place)
    pool = load_candidates(place)
    parents = pool[pool["stage"] == "collect"].set_index("id")
    children = pool[pool["stage"] == "distort"]
    assert report.planned == report.children + report.rejects == 4 * 5 + 4
    assert len(children) == report.children
    for row in children.itertuples():
        content = read_media(place, row)
        assert hashlib.sha256(content).hexdigest() == row.bytes_sha256
        assert dataclasses.asdict(probe(content)).items() <= row._asdict().items()
        parent = parents.loc[row.parent_id]
        assert (row.content_id, row.split, row.source) == (parent["content_id"], parent["split"], parent["source"])
        assert row.id == digest(row.parent_id, row.distortion, row.severity, row.seed, GENERATOR)
        if row.modality == "image":
            original = decode_image(read_media(place, parent))
            assert np.array_equal(
                decode_image(content), distort_image(original, row.distortion, row.severity, row.seed)
            )
        else:
            clip = decode_video(content, 3)
            assert (clip.info.frames, clip.info.fps) == (12, 24.0)
            assert clip.frames_THWC.shape == (3, 160, 200, 3)
    assert set(children["mime"]) == {"image/webp", "video/mp4"}


def test_only_parents_are_decoded(place: Place, monkeypatch: pytest.MonkeyPatch):
    decoded_images, original = [], media._decode_image
    monkeypatch.setattr(media, "_decode_image", lambda *a: (decoded_images.append(1), original(*a))[1])
    passes, frames = [], Reading._decoded
    monkeypatch.setattr(Reading, "_decoded", lambda reading: (passes.append(1), frames(reading))[1])
    run(CONFIG, place)
    assert len(decoded_images) == 4
    assert len(passes) == 4  # the clip, once for each of its children


def test_whole_pool_in_one_frame(place: Place):
    run(CONFIG, place)
    pool = load_candidates(place)
    assert list(pool.columns) == [*CANDIDATES.columns, "stage"]
    assert pool["id"].is_monotonic_increasing
    assert Counter(pool["stage"])["collect"] == 5
    photo = pool[(pool["modality"] == "image")].iloc[0]
    assert decoded(place, photo, 1).shape == (160, 200, 3)
    assert decoded(place, dict(pool[pool["modality"] == "video"].iloc[0]), 4).frames_THWC.shape == (4, 160, 200, 3)


def test_what_changes_nothing_is_a_reject_and_no_child(place: Place):
    # the grey photograph has no saturation to lose
    report = run(
        dataclasses.replace(CONFIG, children_per_image=123, children_per_clip=0, image_types_per_clip=0), place
    )
    rejects = read_table(place.out / "rejects.parquet", REJECTS)
    assert set(report.reasons) == {"no_change"}
    assert report.planned == report.children + report.rejects
    assert rejects["detail"].str.contains("grey.png").all()
    assert rejects["detail"].str.contains("saturation|diffusion|color_shift").all()
    assert (report.cells, report.cells_covered) == (143, 123)


def test_parents_that_cannot_be_used_are_rejects_with_a_reason(tmp_path: Path):
    (tmp_path / "pool").mkdir()
    Image.fromarray(np.ascontiguousarray(data.coffee()[:40, :60])).save(tmp_path / "pool" / "small.png")
    place = Place(tmp_path, tmp_path / "work", tmp_path / "artifacts" / "collect")
    collect.run(collect.Config("pool", None, collect.Fractions(1, 0, 0), 1, 64, Limits()), place)
    here = Place(tmp_path, tmp_path / "work2", tmp_path / "artifacts" / "distort")
    report = run(dataclasses.replace(CONFIG, children_per_image=123), here)
    needy = sum(5 for kind in IMAGE_TYPES.values() if kind.min_side > 40)
    assert report.reasons["too_small"] == needy
    assert set(report.reasons) <= {
        "too_small",
        "no_change",
    }  # a shift of one pixel may miss every edge of so small a picture
    archive = next((tmp_path / "artifacts" / "collect" / "media").iterdir())
    archive.write_bytes(archive.read_bytes().replace(b"\x89PNG", b"\x89PNX"))
    broken = Place(tmp_path, tmp_path / "work3", tmp_path / "artifacts" / "distort3")
    assert run(CONFIG, broken).reasons == {"unknown_format": 5}


def test_distort_needs_collect(tmp_path: Path):
    with pytest.raises(StageError, match="artifacts/collect is missing"):
        run(CONFIG, Place(tmp_path, tmp_path / "work", tmp_path / "out"))


def originals(images: int, videos: int) -> pd.DataFrame:
    rows = [{"id": digest("photo", i), "modality": "image"} for i in range(images)]
    rows += [{"id": digest("clip", i), "modality": "video"} for i in range(videos)]
    return pd.DataFrame(rows).assign(width=448, height=336)


def test_large_parents_are_scaled_before_they_are_distorted(place: Place):
    report = run(dataclasses.replace(CONFIG, max_side=100), place)
    children = read_table(place.out / "candidates.parquet", CANDIDATES)
    assert report.children == len(children)
    assert set(zip(children["width"], children["height"], strict=True)) == {(100, 80)}
    assert set(children["generator"]) == {f"{GENERATOR}@100"}
    usual = {child.id for children in plan(originals_of(place), CONFIG).values() for child in children}
    assert usual.isdisjoint(children["id"])


def test_a_growing_pool_changes_no_child_of_known_media():
    config = dataclasses.replace(CONFIG, children_per_image=8, children_per_clip=8)
    generator, everything = np.random.default_rng(0), originals(300, 30)
    order = generator.permutation(len(everything))
    pools = [everything.iloc[np.sort(order[:size])] for size in (1, 2, 16, 17, 40, 41, 75, 150, 215, 330)]
    plans = [plan(pool, config) for pool in pools]
    for before, after in itertools.pairwise(plans):
        assert {parent: after[parent] for parent in before} == before
    for pool, planned in zip(pools, plans, strict=True):
        assert list(planned) == list(pool["id"])
        assert {parent: plan(pool[pool["id"] == parent], config)[parent] for parent in pool["id"][:3]}.items() <= (
            planned.items()
        )


def test_a_pool_of_some_size_has_every_cell():
    config = dataclasses.replace(CONFIG, children_per_image=8, children_per_clip=8)
    drawn = {
        size: {
            (child.kind, child.severity) for children in plan(originals(size, 0), config).values() for child in children
        }
        for size in (40, 250)
    }
    assert len(drawn[40]) > 0.85 * len(IMAGE_CELLS)
    assert drawn[250] == set(IMAGE_CELLS)
    videos = plan(originals(0, 30), dataclasses.replace(config, image_types_per_clip=0))
    assert {(child.kind, child.severity) for children in videos.values() for child in children} == set(VIDEO_CELLS)


def test_types_repeat_as_late_as_possible_and_patterns_are_shared_by_severities():
    drawn = draw_cells(digest("a"), IMAGE_CELLS, 25, 3)
    assert len({kind for kind, _ in drawn}) == 25
    assert draw_cells(digest("a"), IMAGE_CELLS, 8, 3) == drawn[:8]
    assert draw_cells(digest("b"), IMAGE_CELLS, 8, 3) != drawn[:8]
    assert len(set(draw_cells(digest("a"), IMAGE_CELLS, 500, 3))) == len(IMAGE_CELLS)
    assert pattern_seed("p", "jpeg", 1) == pattern_seed("p", "jpeg", 1) != pattern_seed("p", "jpeg", 2)
    severities = Counter(severity for i in range(400) for _, severity in draw_cells(digest(i), IMAGE_CELLS, 8, 3))
    assert max(severities.values()) < 1.25 * min(severities[s] for s in (1, 2, 4, 5))


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(collected: Path, tmp_path: Path):
    section = {**dataclasses.asdict(CONFIG), "parents_per_archive": 1}
    pipeline = {"stages": {"distort": {"cmd": "", "deps": ["artifacts/collect"]}}}
    for name in ("quiet", "killed"):
        root = tmp_path / name
        shutil.copytree(collected / "artifacts" / "collect", root / "artifacts" / "collect")
        (root / "params.yaml").write_text(yaml.safe_dump({"distort": section}))
        (root / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    command = [sys.executable, "-m", "tasks", "distort"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    subprocess.run(command, cwd=tmp_path / "quiet", env=environment, check=True, capture_output=True)
    kills = 0
    for parts in (0, 1, 3):
        process = subprocess.Popen(
            command, cwd=tmp_path / "killed", env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while process.poll() is None and len(list(tmp_path.glob("killed/.work/distort/*/made/*.parquet"))) < parts:
            time.sleep(0.005)
        time.sleep(0.8 if parts == 0 else 0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
    assert kills >= 2
    subprocess.run(command, cwd=tmp_path / "killed", env=environment, check=True, capture_output=True)
    assert published(tmp_path / "killed") == published(tmp_path / "quiet")


def published(root: Path) -> dict[str, bytes]:
    files = [*(root / "artifacts" / "distort").rglob("*"), *(root / "metrics").rglob("*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in files if path.is_file()}


def test_the_number_of_threads_changes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch):
    run(CONFIG, place)
    alone = dataclasses.replace(place, work=place.root / "alone", out=place.root / "alone" / "out")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    run(CONFIG, alone)
    for path in sorted(place.out.rglob("*.*")):
        assert path.read_bytes() == (alone.out / path.relative_to(place.out)).read_bytes()


def test_a_pool_that_has_grown_makes_the_new_children_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_pool(tmp_path / "pool")
    settings = collect.Config("pool", None, collect.Fractions(0.6, 0.2, 0.2), 1, 64, Limits())

    def attempt(name: str, before: str | None = None) -> Path:
        work = tmp_path / name
        run(CONFIG, Place(tmp_path, work, work / "out", None if before is None else tmp_path / before))
        return work

    collect.run(settings, Place(tmp_path, tmp_path / "c1", tmp_path / "artifacts" / "collect"))
    attempt("first")
    Image.fromarray(np.ascontiguousarray(data.rocket()[:160, :200])).save(tmp_path / "pool" / "rocket.png")
    shutil.rmtree(tmp_path / "artifacts")
    collect.run(settings, Place(tmp_path, tmp_path / "c2", tmp_path / "artifacts" / "collect"))
    made: list[str] = []

    def counted(*arguments: object) -> np.ndarray:
        made.append(str(arguments[1]))
        return distort_image(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(distort, "distort_image", counted)
    monkeypatch.setattr(distort, "distort_clip", lambda *_: pytest.fail("clips were known"))
    later = attempt("later", before="first")
    monkeypatch.undo()
    rejected = read_table(later / "out" / "rejects.parquet", REJECTS)
    assert CONFIG.children_per_image <= len(made) <= CONFIG.children_per_image + len(rejected)
    fresh = attempt("fresh")
    for file in sorted(path for path in (fresh / "out").rglob("*") if path.is_file()):
        assert (later / "out" / file.relative_to(fresh / "out")).read_bytes() == file.read_bytes()


def test_damaged_children_of_an_earlier_run_are_made_again(tmp_path: Path, collected: Path):
    def attempt(name: str, before: Path | None = None) -> Path:
        work = tmp_path / name
        run(CONFIG, Place(collected, work, work / "out", before))
        return work

    first = attempt("first")
    victim = min((first / "out" / "media").glob("*.tar"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[:600] + bytes(200) + whole[800:])
    again = attempt("again", first)
    assert (again / "out" / "media" / victim.name).read_bytes() == whole
