import json
from pathlib import Path

import pytest

from tests.infra import conftest as infra_fixtures
from tests.infra.conftest import Plant
from tests.vital import test_registry_commands
from tests.vital.test_registry_commands import Run

plant_template = infra_fixtures.plant_template
plant = infra_fixtures.plant
s3_endpoint = infra_fixtures.s3_endpoint
bucket = infra_fixtures.bucket
run = test_registry_commands.run


def test_the_store_moves_to_s3_and_says_so(run: Run, plant: Plant, bucket: str, s3_endpoint: str):
    used = run("store", "use", f"s3://{bucket}/p", "--endpoint", s3_endpoint)
    assert used.code == 0, used.err
    assert used.out.startswith(f"the store of this clone is now s3://{bucket}/p at {s3_endpoint}\n")
    shown = json.loads(run("store", "show", "--json").out)
    assert shown == {
        "seed": None,
        "store": f"s3://{bucket}/p",
        "endpoint": s3_endpoint,
        "objects": f"s3://{bucket}/p/objects",
        "problem": None,
    }
    assert "test" not in (plant.root / ".dvc" / "config.local").read_text()  # the secret in the environment


@pytest.mark.usefixtures("bucket")  # credentials are there; the bucket asked for is not
def test_a_bucket_that_does_not_exist_is_one_line(run: Run, plant: Plant, s3_endpoint: str):
    said = run("store", "use", "s3://no-such-bucket", "--endpoint", s3_endpoint)
    assert said.code == 1
    assert said.err.startswith("vital: there is no bucket 'no-such-bucket'")
    assert said.err.count("\n") == 1
    assert not (plant.root / ".dvc" / "config.local").exists()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("", "'' names no place: write s3://BUCKET/PREFIX or a folder"),
        (" ", "names no place"),
        ("s3://", "'s3://' names no place"),
        ("file://", "names no place"),
        ("/proc/xx", "/proc/xx"),
        ("x" * 300, "cannot be a store: File name too long"),
        ("~nobody-of-that-name/x", "cannot be a store"),
    ],
)
def test_a_place_that_is_none_is_one_line(place: str, told: str, run: Run, plant: Plant):
    said = run("store", "use", place)
    assert (said.code, said.out) == (1, "")
    assert told in said.err
    assert said.err.count("\n") == 1
    assert not (plant.root / ".dvc" / "config.local").exists()


def test_show_of_a_store_that_cannot_be_written_fails(run: Run, tmp_path: Path):
    assert run("store", "show").code == 0
    assert run("store", "use", tmp_path / "folder").code == 0
    (tmp_path / "folder").rmdir()
    (tmp_path / "folder").write_text("")
    shown = run("store", "show")
    assert shown.code == 1
    assert "cannot be written" in shown.out


@pytest.mark.parametrize("command", ["use", "show"])
def test_every_command_has_help(run: Run, command: str):
    assert "Usage: vital store" in run("store", command, "--help").out
