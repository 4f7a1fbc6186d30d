import dataclasses
import errno
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from infra.errors import InfraError
from infra.object_store import open_store
from infra.s3_store import S3Store
from models.distortions.clips import encode
from tasks.annotation import collect
from tasks.annotation.collect import Config, Fractions, Report, missing, run, split_of
from tasks.annotation.sources import FolderPool, ManifestPool, StorePool, open_pool
from tasks.errors import ConfigError, MediaError, StageError
from tasks.media import Limits, MediaInfo, probe
from tasks.records import CANDIDATES, REJECTS, Split
from tasks.shards import Placed, digest, read_placed, read_table
from tasks.stage import Place, build_config

CHECKOUT = Path(__file__).resolve().parents[3]
CONFIG = Config("pool", None, Fractions(0.6, 0.12, 0.28), 2, 4, Limits())


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


PHOTO = np.ascontiguousarray(data.astronaut()[:120, :160])
MP4 = encode([np.roll(PHOTO, t, axis=1) for t in range(8)], 25.0)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    pool = tmp_path / "pool"
    (pool / "deep" / "er").mkdir(parents=True)
    for i in range(7):
        (pool / f"photo{i}.jpg").write_bytes(jpeg(np.roll(PHOTO, 5 * i, axis=0)))
    (pool / "deep" / "er" / "clip.mp4").write_bytes(MP4)
    (pool / "deep" / "wrong name.png").write_bytes(jpeg(PHOTO[:, ::-1].copy()))
    (pool / "deep" / "nameless").write_bytes(jpeg(PHOTO[::-1].copy()))
    (pool / "copy of photo3.jpeg").write_bytes((pool / "photo3.jpg").read_bytes())
    (pool / "half.jpg").write_bytes(jpeg(PHOTO)[:1500])
    (pool / "empty.png").write_bytes(b"")
    (pool / "text.jpg").write_bytes(b"not a picture")
    (pool / "firmware.bin").write_bytes(b"\x7fELF" + bytes(64))
    (pool / "SOURCES.csv").write_text("file,author\n")
    (pool / "notes.md").write_text("# notes\n")
    (pool / ".hidden.jpg").write_bytes(jpeg(PHOTO))
    return Place(tmp_path, tmp_path / "work", tmp_path / "work" / "out")


def tables(place: Place) -> tuple[pd.DataFrame, pd.DataFrame]:
    return (
        read_table(place.out / "candidates.parquet", CANDIDATES),
        read_table(place.out / "rejects.parquet", REJECTS),
    )


def test_every_file_is_ignored_a_candidate_or_a_reject_with_a_reason(place: Place):
    report = run(CONFIG, place)
    candidates, rejects = tables(place)
    assert report == Report(
        files=17,
        ignored=2,
        candidates=10,
        rejects=5,
        megabytes=report.megabytes,
        reasons={"duplicate": 1, "empty": 1, "not_media": 1, "truncated": 1, "unknown_format": 1},
        contents=report.contents,
    )
    assert report.files == report.ignored + report.candidates + report.rejects
    assert sum(report.contents.values()) == report.candidates
    assert dict(zip(rejects["id"], rejects["reason"], strict=True)) == {
        "photo3.jpg": "duplicate",  # the copy comes first in the order of names
        "half.jpg": "truncated",
        "empty.png": "empty",
        "text.jpg": "unknown_format",
        "firmware.bin": "not_media",
    }
    assert set(candidates["source"]) >= {"deep/er/clip.mp4", "deep/wrong name.png", "deep/nameless"}


def test_rows_describe_the_bytes_that_the_archives_hold(place: Place):
    run(CONFIG, place)
    candidates, _ = tables(place)
    for row in candidates.itertuples():
        content = read_placed(place.out / "media", Placed(row.shard, row.offset, row.length))
        assert content == (place.root / "pool" / row.source).read_bytes()
        assert row.id == row.content_id == digest(content)
        assert row.bytes_sha256 == hashlib.sha256(content).hexdigest()
        assert row.split == split_of(row.id, CONFIG.split_seed, CONFIG.fractions)
        assert (row.width, row.height) == (160, 120)
    clip = candidates[candidates["modality"] == "video"].iloc[0]
    assert (clip["frames"], clip["fps"], clip["mime"]) == (8, 25.0, "video/mp4")
    assert candidates["parent_id"].isna().all()
    assert sorted(p.name for p in (place.out / "media").iterdir()) == sorted(set(candidates["shard"]))


def test_a_growing_pool_changes_no_split(place: Place):
    run(CONFIG, place)
    before, _ = tables(place)
    for i in range(5):
        (place.root / "pool" / f"a new one {i}.jpg").write_bytes(jpeg(np.roll(PHOTO, 7 * i + 3, axis=1)))
    later = dataclasses.replace(place, work=place.root / "work2", out=place.root / "work2" / "out")
    run(CONFIG, later)
    after, _ = tables(later)
    assert len(after) == len(before) + 5
    merged = before.merge(after, on="id", suffixes=("_before", "_after"))
    assert len(merged) == len(before)
    assert (merged["split_before"] == merged["split_after"]).all()


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(place: Place):
    params = {"collect": dataclasses.asdict(CONFIG)}
    params["collect"]["archive_items"] = 1
    pipeline = {"stages": {"collect": {"cmd": "", "deps": ["pool"]}}}
    for name in ("quiet", "killed"):
        (place.root / name).mkdir()
        (place.root / name / "params.yaml").write_text(yaml.safe_dump(params))
        (place.root / name / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
        shutil.copytree(place.root / "pool", place.root / name / "pool")
    command = [sys.executable, "-m", "tasks", "collect"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    subprocess.run(command, cwd=place.root / "quiet", env=environment, check=True, capture_output=True)
    kills = 0
    for delay in (0, 0.02, 0.05):
        process = subprocess.Popen(
            command, cwd=place.root / "killed", env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while process.poll() is None and not list((place.root / "killed").glob(".work/collect/*/kept/*.parquet")):
            time.sleep(0.005)
        time.sleep(delay)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
    assert kills >= 1
    subprocess.run(command, cwd=place.root / "killed", env=environment, check=True, capture_output=True)
    assert published(place.root / "killed") == published(place.root / "quiet")
    assert not list((place.root / "killed").rglob("*.tmp"))


def published(root: Path) -> dict[str, bytes]:
    files = [*(root / "artifacts").rglob("*"), *(root / "metrics").rglob("*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in files if path.is_file()}


def test_an_empty_or_useless_pool_is_one_clear_line(place: Place):
    with pytest.raises(StageError, match="the pool nowhere does not exist"):
        run(dataclasses.replace(CONFIG, pool="nowhere"), place)
    (place.root / "bare").mkdir()
    with pytest.raises(StageError, match="the pool bare holds no image or video"):
        run(dataclasses.replace(CONFIG, pool="bare"), place)
    (place.root / "bare" / "a.jpg").write_bytes(b"x")
    with pytest.raises(
        StageError, match=r"none of the 1 files of the pool bare can be used; the first: a\.jpg: not an"
    ):
        run(dataclasses.replace(CONFIG, pool="bare"), place)


def test_what_a_machine_lacks_is_said_beforehand(place: Place, monkeypatch: pytest.MonkeyPatch):
    assert missing(CONFIG, place.root) == []
    assert "the pool nowhere does not exist" in missing(dataclasses.replace(CONFIG, pool="nowhere"), place.root)[0]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    assert missing(dataclasses.replace(CONFIG, pool="s3://b/p"), place.root)[0].startswith("credentials for s3://b/p")
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert missing(dataclasses.replace(CONFIG, pool="s3://b/p"), place.root) == []


def test_a_manifest_names_media_and_missing_ones_are_rejects(place: Place):
    lines = ["# two that exist", "pool/photo1.jpg", "", "pool/deep/er/clip.mp4", "pool/gone.jpg"]
    (place.root / "manifest.txt").write_text("\n".join(lines))
    report = run(dataclasses.replace(CONFIG, pool="manifest.txt"), place)
    assert (report.candidates, report.reasons) == (2, {"missing": 1})
    pool = open_pool("manifest.txt", None, place.root)
    assert isinstance(pool, ManifestPool)
    with pytest.raises(MediaError, match="no such file"):
        pool.read("pool/gone.jpg")


def test_what_cannot_be_read_is_a_reject_and_the_rest_is_collected(place: Place, monkeypatch: pytest.MonkeyPatch):
    pool = place.root / "pool"
    os.mkfifo(pool / "pipe.jpg")
    (pool / "dead link.jpg").symlink_to("nowhere.jpg")
    (pool / "loop.jpg").symlink_to("loop.jpg")
    (pool / "locked").mkdir()
    (pool / os.fsdecode(b"no text \xff.jpg")).write_bytes(jpeg(PHOTO[:, :, ::-1].copy()))
    read_bytes, scandir = Path.read_bytes, os.scandir

    def refuse_file(path: Path) -> bytes:
        if path.name == "photo0.jpg":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_bytes(path)

    def refuse_folder(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(Path, "read_bytes", refuse_file)
    monkeypatch.setattr(os, "scandir", refuse_folder)
    report = run(CONFIG, place)
    candidates, rejects = tables(place)
    assert report.files == report.ignored + report.candidates + report.rejects == 17 + 5
    told = rejects.set_index("id")[["reason", "detail"]].agg(": ".join, axis=1)
    assert told["photo0.jpg"] == "unreadable: cannot be read: Permission denied"
    assert told["locked"] == "unreadable: the folder cannot be listed"
    assert told["pipe.jpg"] == "unreadable: cannot be read: is no regular file"
    assert told["dead link.jpg"] == "missing: no such file"
    assert told["loop.jpg"].startswith("unreadable: ")
    assert "no text \\xff.jpg" in set(candidates["source"])


def test_a_pool_folder_that_cannot_be_listed_is_one_line(place: Place, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: object) -> object:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StageError, match="pool cannot be listed: Permission denied"):
        run(CONFIG, place)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("photo\n".encode("utf-16"), "is no UTF-8 text: write one path"),
        ("caf\u00e9.jpg\n".encode("latin-1"), "is no UTF-8 text"),
        (b"a\0.jpg\n", "is no UTF-8 text"),
        (b"a.jpg\nhttps://example.org/b.jpg\n", r"line 2: 'https://example\.org/b\.jpg' is neither s3://BUCKET/KEY"),
    ],
)
def test_a_bad_manifest_is_one_line(place: Place, content: bytes, said: str):
    (place.root / "manifest.txt").write_bytes(content)
    with pytest.raises(StageError, match=said) as caught:
        run(dataclasses.replace(CONFIG, pool="manifest.txt"), place)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_begins_with_a_byte_order_mark_names_its_first_medium(place: Place):
    (place.root / "manifest.txt").write_text("pool/photo1.jpg\n", encoding="utf-8-sig")
    assert run(dataclasses.replace(CONFIG, pool="manifest.txt"), place).candidates == 1


def test_folders_are_read_in_the_order_of_names_whatever_the_disk_says(place: Place):
    keys = FolderPool(place.root / "pool").names()
    assert keys == sorted(keys)
    assert ".hidden.jpg" not in keys


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"pool-{digest(request.node.nodeid)[:12]}"
    boto3.client("s3", endpoint_url=s3).create_bucket(Bucket=name)
    return name


def test_a_manifest_line_that_names_no_object_is_a_reject(place: Place, s3: str, bucket: str):
    store = open_store(f"s3://{bucket}", endpoint=s3)
    store.put_if_absent("a/photo.jpg", jpeg(PHOTO))
    lines = [f"s3://{bucket}/a/photo.jpg", f"s3://{bucket}/a/gone.jpg", f"s3://{bucket}/../up.jpg", "pool/photo1.jpg"]
    (place.root / "manifest.lst").write_text("\n".join(lines))
    report = run(dataclasses.replace(CONFIG, pool="manifest.lst", endpoint=s3), place)
    assert (report.candidates, report.reasons) == (2, {"missing": 1, "unreadable": 1})
    _, rejects = tables(place)
    assert rejects.set_index("reason")["detail"]["missing"] == f"the store s3://{bucket} holds no object 'a/gone.jpg'"


def test_an_object_that_goes_while_it_is_collected_is_a_reject_and_a_lost_bucket_stops(
    place: Place, s3: str, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    store = open_store(f"s3://{bucket}", endpoint=s3)
    store.put_if_absent("photo.jpg", jpeg(PHOTO))
    listed = StorePool.names
    monkeypatch.setattr(StorePool, "names", lambda pool: [*listed(pool), "zz.jpg"])
    report = run(dataclasses.replace(CONFIG, pool=f"s3://{bucket}", endpoint=s3), place)
    assert (report.candidates, report.reasons) == (1, {"missing": 1})
    (place.root / "manifest.txt").write_text("s3://no-such-bucket-here/a.jpg")
    elsewhere = dataclasses.replace(place, work=place.root / "work4", out=place.root / "work4" / "out")
    with pytest.raises(InfraError, match="there is no bucket 'no-such-bucket-here'"):
        run(dataclasses.replace(CONFIG, pool="manifest.txt", endpoint=s3), elsewhere)


def test_all_objects_of_a_pool_share_one_client(place: Place, s3: str, bucket: str, monkeypatch: pytest.MonkeyPatch):
    from boto3.session import Session

    store = open_store(f"s3://{bucket}", endpoint=s3)
    for i in range(3):
        store.put_if_absent(f"photo{i}.jpg", jpeg(np.roll(PHOTO, i, axis=0)))
    made, client = [], Session.client
    monkeypatch.setattr(Session, "client", lambda *a, **k: (made.append(1), client(*a, **k))[1])
    (place.root / "m.txt").write_text("\n".join(f"s3://{bucket}/photo{i}.jpg" for i in range(3)))
    for name in (f"s3://{bucket}", "m.txt"):
        made.clear()
        pool = open_pool(name, s3, place.root)
        assert len({pool.read(key) for key in pool.names()}) == 3
        assert len(made) == 1


def test_an_s3_prefix_is_a_pool_with_the_same_ids(place: Place, s3: str, bucket: str):
    store = open_store(f"s3://{bucket}/some/prefix", endpoint=s3)
    folder = FolderPool(place.root / "pool")
    for key in folder.names():
        store.put_if_absent(key, folder.read(key))
    run(CONFIG, place)
    local, _ = tables(place)
    remote_place = dataclasses.replace(place, work=place.root / "work3", out=place.root / "work3" / "out")
    report = run(dataclasses.replace(CONFIG, pool=f"s3://{bucket}/some/prefix", endpoint=s3), remote_place)
    remote, rejects = tables(remote_place)
    assert remote["id"].tolist() == local["id"].tolist()
    assert remote["split"].tolist() == local["split"].tolist()
    assert report.rejects == 5
    assert set(remote["source"]) == {f"s3://{bucket}/some/prefix/{source}" for source in local["source"]}
    assert rejects["id"].str.startswith(f"s3://{bucket}/some/prefix/").all()


def grown(place: Place, config: Config, add: Callable[[str, bytes], object]) -> tuple[Place, Place]:
    """Collect, add a medium, and collect once more, beside a collection from nothing."""
    run(config, place)
    add("new.jpg", jpeg(PHOTO[::-1, ::-1].copy()))
    later, fresh = (place.root / name for name in ("later", "fresh"))
    run(config, Place(place.root, later, later / "out", before=place.work))
    run(config, Place(place.root, fresh, fresh / "out"))
    for file in sorted(path for path in (fresh / "out").rglob("*") if path.is_file()):
        assert (later / "out" / file.relative_to(fresh / "out")).read_bytes() == file.read_bytes()
    return Place(place.root, later, later / "out"), Place(place.root, fresh, fresh / "out")


def test_a_pool_that_has_grown_is_probed_where_it_is_new(place: Place, monkeypatch: pytest.MonkeyPatch):
    probed: list[int] = []

    def counted(data: bytes, limits: Limits) -> MediaInfo:
        probed.append(len(data))
        return probe(data, limits)

    monkeypatch.setattr(collect, "probe", counted)
    grown(place, CONFIG, lambda name, data: (place.root / "pool" / name).write_bytes(data))
    # from nothing 15 and 16; in between the new one, and the four that were refused for what they are
    assert len(probed) == 15 + 1 + 4 + 16


def test_an_s3_prefix_that_has_grown_is_fetched_where_it_is_new(
    place: Place, s3: str, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    url = f"s3://{bucket}/grown"
    store, folder, fetched = open_store(url, endpoint=s3), FolderPool(place.root / "pool"), []
    for key in folder.names():
        store.put_if_absent(key, folder.read(key))
    original = S3Store.get

    def counted(self: S3Store, key: str) -> bytes:
        fetched.append(key)
        return original(self, key)

    monkeypatch.setattr(S3Store, "get", counted)
    config = dataclasses.replace(CONFIG, pool=url, endpoint=s3)
    grown(place, config, store.put_if_absent)
    once = Counter(fetched)
    candidates, _ = tables(place)
    names = {source.removeprefix(f"{url}/") for source in candidates["source"]}
    assert {once[name] for name in names} == {2}  # never in the run that knew them
    assert once["new.jpg"] == 2


@given(st.text("0123456789abcdef", min_size=32, max_size=32), st.integers(0, 1000))
def test_the_split_is_a_function_of_the_id(content: str, seed: int):
    whole = Fractions(0.5, 0.2, 0.3)
    assert split_of(content, seed, whole) == split_of(content, seed, whole)
    assert split_of(content, seed, Fractions(1, 0, 0)) == Split.TRAIN
    assert split_of(content, seed, Fractions(0, 0, 1)) == Split.HELD_OUT


def test_splits_have_the_declared_shares():
    counts = pd.Series([split_of(digest(i), 7, CONFIG.fractions) for i in range(4000)]).value_counts(normalize=True)
    assert counts[Split.TRAIN] == pytest.approx(0.60, abs=0.03)
    assert counts[Split.WARM_UP] == pytest.approx(0.12, abs=0.02)
    assert counts[Split.HELD_OUT] == pytest.approx(0.28, abs=0.03)


def test_fractions_that_are_no_shares_are_refused():
    section = {**dataclasses.asdict(CONFIG), "fractions": {"train": 0.9, "warm_up": 0.2, "held_out": 0.1}}
    with pytest.raises(ConfigError, match="sum to 1"):
        build_config(Config, "collect", section)


def test_the_sample_pool_has_photographs_and_clips_in_every_split(checkout: Path):
    """Of the pool that data.dvc tracks, read from the seed remote's folder, which travels with the repository."""
    pool = checkout / "data" / "pool"
    if not pool.is_dir():
        pytest.skip("the sample pool is not here: run dvc pull")
    section = yaml.safe_load((checkout / "params.yaml").read_text())["collect"]
    config = build_config(Config, "collect", section)
    found = set()
    for path in sorted(pool.rglob("*.*")):
        if path.suffix in {".jpg", ".mp4"}:
            found.add((split_of(digest(path.read_bytes()), config.split_seed, config.fractions), path.suffix))
    assert found == {(split, suffix) for split in Split for suffix in (".jpg", ".mp4")}


def test_the_limits_of_vital_score_are_those_of_collect(checkout: Path):
    section = yaml.safe_load((checkout / "params.yaml").read_text())["collect"]
    assert build_config(Config, "collect", section).limits == Limits()
