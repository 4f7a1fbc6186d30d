"""The edge corpus as a user has it, a folder of files: `collect` and `vital score` end as its table says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from media_corpus import CASES, content, pool_name

from tasks.annotation.collect import Config, Fractions, run
from tasks.media import Limits
from tasks.records import CANDIDATES, REJECTS
from tasks.shards import digest, read_table
from tasks.stage import Place

SCORED = (
    "CMYK JPEG", "16-bit grey PNG", "transparent WebP", "1-bit PNG", "EXIF orientation 6", "HEIC named .jpg",
    "MP4 named .png", "MP4, H.264 of 10 bits", "video of one frame", "video turned by 90 degrees",
)  # fmt: skip
"""Of the files that are read: what is scored here, because scoring all takes a minute."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("edges")
    (root / "pool").mkdir()
    for name in CASES:
        (root / "pool" / pool_name(name)).write_bytes(content(name))
    return root


def test_collect_keeps_what_is_read_and_refuses_the_rest_with_its_reason(root: Path):
    place = Place(root, root / "work", root / "work" / "out")
    report = run(Config("pool", None, Fractions(0.6, 0.12, 0.28), 2, 16, Limits()), place)
    candidates = read_table(place.out / "candidates.parquet", CANDIDATES).set_index("id")
    rejects = read_table(place.out / "rejects.parquet", REJECTS).set_index("id")
    assert report.files == report.candidates + report.rejects == len(CASES)
    for name, case in CASES.items():
        if case.outcome in {"image", "video"}:
            row = candidates.loc[digest(content(name))]
            assert case.shows is not None
            assert (row.modality, row.frames, row.height, row.width) == (
                case.outcome, case.frames, *case.shows.shape[:2]
            )  # fmt: skip
        else:
            assert rejects.loc[pool_name(name)].reason in {case.outcome, _unnamed(name)}, name


def _unnamed(name: str) -> str:
    """What `collect` calls a file that neither its name nor its content calls a medium."""
    nameless = CASES[name].outcome == "unknown_format" and "." not in pool_name(name)
    return "not_media" if nameless else CASES[name].outcome


def test_scoring_the_folder_scores_or_says_why_not(root: Path, checkout: Path):
    names = [name for name, case in CASES.items() if case.outcome not in {"image", "video"} or name in SCORED]
    code = "from vital.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "score", "--json", *(pool_name(name) for name in names)],
        cwd=root / "pool",
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1
    told = {record["path"]: record for record in map(json.loads, done.stdout.splitlines())}
    assert set(told) == {pool_name(name) for name in names}
    for name in names:
        record = told[pool_name(name)]
        assert ("mu" in record) == (name in SCORED), name
        assert ("error" in record) == (name not in SCORED), name
        assert record.get("error", "one line").count("\n") == 0
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
