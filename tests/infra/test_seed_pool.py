import csv
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from PIL import Image
from skimage import data

from infra.errors import InfraError
from infra.seed_pool import CLIP_SIDE, PHOTO_SIDE, cut_clip, make_pool, resource_files, scaled_photo

FREE = {"public domain", "CC0-1.0", "GPL-2.0-or-later", "LGPL-3.0"}


def rcc(files: dict[str, bytes], *, compressed: bool = False) -> bytes:
    """Write a Qt resource archive of version 2 with one folder, ``pictures``, as Qt's rcc lays it out."""
    names, content, tree = b"", b"", b""
    places = []
    for name in ("pictures", *files):
        places.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    tree += struct.pack(">IHII", 0, 2, 1, 1) + bytes(8)
    tree += struct.pack(">IHII", places[0], 2, len(files), 2) + bytes(8)
    for place, raw in zip(places[1:], files.values(), strict=True):
        body = struct.pack(">I", len(raw)) + zlib.compress(raw) if compressed else raw
        tree += struct.pack(">IHHHI", place, int(compressed), 0, 0, len(content)) + bytes(8)
        content += struct.pack(">I", len(body)) + body
    start = 20
    header = struct.pack(">4sIIII", b"qres", 2, start, start + len(tree), start + len(tree) + len(content))
    return header + tree + content + names


@pytest.mark.parametrize("compressed", [False, True])
def test_resource_archives_are_read_whole(*, compressed: bool):
    files = {"a.webp": b"first", "bee.webp": bytes(range(200)), "c": b""}
    found = dict(resource_files(rcc(files, compressed=compressed)))
    assert found == {f"/pictures/{name}": raw for name, raw in files.items()}
    with pytest.raises(InfraError, match="not a Qt resource archive"):
        dict(resource_files(b"zip!" + bytes(40)))


def test_photographs_are_scaled_and_clips_are_cut():
    buffer = io.BytesIO()
    Image.fromarray(data.coffee()).resize((1200, 800)).save(buffer, "PNG")
    photo, changes = scaled_photo(buffer.getvalue(), {})
    with Image.open(io.BytesIO(photo)) as image:
        assert (image.format, image.size) == ("JPEG", (PHOTO_SIDE, 299))
    assert "1200x800 to 448x299" in changes
    film = io.BytesIO()
    with av.open(film, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        still = np.asarray(Image.fromarray(data.coffee()).resize((640, 360)))
        for t in range(96):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(still, 4 * t, axis=1), format="rgb24")))
        container.mux(stream.encode())
    clip, _ = cut_clip(film.getvalue(), {"start_s": 1.0, "seconds": 2.0})
    with av.open(io.BytesIO(clip)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 48
    assert frames[0].shape == (234, CLIP_SIDE, 3)
    expected = np.asarray(Image.fromarray(np.roll(still, 4 * 24, axis=1)).resize((CLIP_SIDE, 234)))
    assert np.abs(frames[0].astype(int) - expected).mean() < 6


def test_a_pool_is_made_from_folders_and_missing_sources_are_named(tmp_path: Path):
    buffer = io.BytesIO()
    Image.fromarray(data.chelsea()).save(buffer, "WEBP")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "a.rcc").write_bytes(rcc({"cat.webp": buffer.getvalue()}))
    entry = {"file": "photos/cat.jpg", "title": "Cat", "author": "A", "licence": "CC0-1.0", "package": "p"}
    wanted = {"photos": [{**entry, "path": "a.rcc", "member": "/pictures/cat.webp"}], "clips": []}
    make_pool(wanted, [tmp_path / "nothing", tmp_path / "package"], tmp_path / "pool")
    with (tmp_path / "pool" / "SOURCES.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["author"], row["member"]) for row in rows] == [
        ("photos/cat.jpg", "A", "/pictures/cat.webp")
    ]
    assert (tmp_path / "pool" / "photos" / "cat.jpg").is_file()
    for change, message in (({"path": "b.rcc"}, "in none of the folders"), ({"member": "/x"}, "holds no /x")):
        wanted["photos"][0] |= change
        with pytest.raises(InfraError, match=message):
            make_pool(wanted, [tmp_path / "package"], tmp_path / "pool2")
        wanted["photos"][0] |= {"path": "a.rcc"}


def tracked(checkout: Path) -> dict[str, bytes]:
    """Files that data.dvc names, from the seed remote's folder, each checked against its hash."""
    (pointer,) = yaml.safe_load((checkout / "data.dvc").read_text())["outs"]
    assert (pointer["path"], pointer["remote"]) == ("data", "seed")
    store = checkout / "infra" / "seed" / "files" / "md5"
    listing = json.loads((store / pointer["md5"][:2] / pointer["md5"][2:]).read_text())
    files = {}
    for entry in listing:
        content = (store / entry["md5"][:2] / entry["md5"][2:]).read_bytes()
        assert hashlib.md5(content, usedforsecurity=False).hexdigest() == entry["md5"]
        files[entry["relpath"]] = content
    return files


def test_the_pool_that_travels_is_small_whole_and_has_a_licence_for_every_file(checkout: Path):
    files = tracked(checkout)
    assert sum(map(len, files.values())) <= 8_000_000
    rows = list(csv.DictReader(io.StringIO(files.pop("pool/SOURCES.csv").decode())))
    assert {f"pool/{row['file']}" for row in rows} == set(files)
    assert len({hashlib.sha256(content).hexdigest() for content in files.values()}) == len(files) >= 70
    assert all(row["title"] and row["author"] and row["package"] and row["changes"] for row in rows)
    assert all(row["licence"] in FREE or row["licence"].startswith("CC-BY-") for row in rows)
    assert not any("NC" in row["licence"] or "ND" in row["licence"] for row in rows)
    wanted = yaml.safe_load((checkout / "infra" / "seed_pool.yaml").read_text())
    listed = {entry["file"]: entry for kind in wanted.values() for entry in kind}
    assert {row["file"]: (row["author"], row["licence"]) for row in rows} == {
        name: (entry["author"], entry["licence"]) for name, entry in listed.items()
    }


@pytest.mark.slow
def test_dvc_pull_gets_the_pool_on_a_machine_that_has_nothing_configured(checkout: Path, tmp_path: Path):
    clone, home = tmp_path / "clone", tmp_path / "home"
    home.mkdir()
    for name in ("data.dvc", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(checkout / name, clone / name)
    shutil.copytree(checkout / "infra" / "seed", clone / "infra" / "seed")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "DVC_NO_ANALYTICS": "1"}
    subprocess.run(["git", "init", "-q"], cwd=clone, env=environment, check=True)
    pulled = subprocess.run(
        [sys.executable, "-m", "dvc", "pull"], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert pulled.returncode == 0, pulled.stderr
    files = {str(p.relative_to(clone / "data")): p.read_bytes() for p in (clone / "data").rglob("*") if p.is_file()}
    assert files == tracked(checkout)
