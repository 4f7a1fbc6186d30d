"""DVC's names of folders, held against DVC itself."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

from infra.dvc_tree import below, cached_listing, folder_listing, listing_hash


def test_names_are_those_that_dvc_gives(tmp_path: Path):
    folder = tmp_path / "data"
    for path, content in {"b.txt": "b", "a/c d.txt": "c", "a/é.txt": "e", "a/b/x": "", "a.txt": "a"}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    for command in (["init", "--no-scm", "--quiet"], ["add", "--quiet", "data"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)
    name = yaml.safe_load((tmp_path / "data.dvc").read_text())["outs"][0]["md5"]
    listing = folder_listing(folder)
    assert listing_hash(listing) == name
    cache = tmp_path / ".dvc" / "cache"
    assert cached_listing(cache, name) == listing
    assert below(listing, "a/b/x") == listing["a/b/x"]
    assert below(listing, "a") == listing_hash(
        {"c d.txt": listing["a/c d.txt"], "é.txt": listing["a/é.txt"], "b/x": listing["a/b/x"]}
    )
    assert below(listing, "nowhere") is None


def test_a_damaged_listing_is_none(tmp_path: Path):
    name = listing_hash({"x": "0" * 32})
    file = tmp_path / "files" / "md5" / name[:2] / name[2:]
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps([{"md5": "1" * 32, "relpath": "x"}], sort_keys=True))
    assert cached_listing(tmp_path, name) is None
    file.write_text(json.dumps([{"md5": "0" * 32, "relpath": "x"}], sort_keys=True))
    assert cached_listing(tmp_path, name) == {"x": "0" * 32}
