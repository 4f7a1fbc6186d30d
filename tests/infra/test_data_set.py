"""Data sets in the registry; tests/tasks/evaluation/test_compare.py records and kills them, with tables."""

import json
from pathlib import Path

import pytest

from infra.data_set import cached_path, data_set_name, last_version, read_data_set, read_report
from infra.dvc_tree import folder_listing, listing_hash, listing_object
from infra.errors import RegistryError
from infra.promotion import promote
from infra.registry import Registry, Spec
from tests.infra.conftest import Plant, dvc

MADE = ("pretrain", "correlate")
"""Any stages will do: a data set is what a row of stages has made."""


def test_every_workspace_has_a_data_set_of_its_own(tmp_path: Path):
    assert data_set_name(tmp_path, tmp_path) == "vital-data"
    assert data_set_name(tmp_path / "workspaces" / "photos-1f", tmp_path) == "vital-data-photos-1f"
    names = (
        "a/my photos (1)",
        "b/my photos (1)",
        "a/my-photos-1",
        "a/照片",
        "a/фото",
        "workspaces/照片",
        "workspaces/x y",
    )
    found = [data_set_name(tmp_path / name, tmp_path) for name in names]
    assert len(set(found)) == len(names)
    assert found[0].startswith("vital-data-my-photos-1-")
    assert all(Spec.parse(f"{name}#prod") == Spec(name, stage="prod") for name in found)


def test_a_data_set_has_the_same_name_in_every_clone(tmp_path: Path):
    for name in ("photos-1f", "照片-1f"):
        one, other = (data_set_name(tmp_path / clone / "workspaces" / name, tmp_path / clone) for clone in "ab")
        assert one == other


def test_what_dvc_vouches_for_is_read_from_its_cache(plant: Plant):
    found = read_data_set(plant.root, MADE)
    here = {
        f"{stage}/{path}": md5
        for stage in MADE
        for path, md5 in folder_listing(plant.root / "artifacts" / stage).items()
    }
    assert found.listing == here
    assert json.loads(listing_object(here)) == [{"md5": md5, "relpath": path} for path, md5 in sorted(here.items())]
    assert listing_hash(here).endswith(".dir")
    inside = cached_path(plant.root, found, "pretrain/model/weights.bin")
    assert inside.read_bytes() == (plant.root / "artifacts/pretrain/model/weights.bin").read_bytes()
    with pytest.raises(RegistryError, match=r"annotation made no pretrain/x: run the line again"):
        cached_path(plant.root, found, "pretrain/x")


def test_what_is_known_is_not_read_again(plant: Plant):
    first = read_data_set(plant.root, MADE)
    for path in (plant.root / ".dvc/cache/files/md5").rglob("*"):
        if path.is_file() and path.suffix != ".dir":
            path.unlink()  # only the listings are left
    assert read_data_set(plant.root, MADE, first.files) == first
    with pytest.raises(RegistryError, match="DVC's cache does not hold"):
        read_data_set(plant.root, MADE)


def test_what_was_made_from_something_older_is_no_data_set(plant: Plant):
    (plant.root / "params.yaml").write_text("pretrain:\n  seed: 2\n")
    dvc(plant.root, "repro", "--quiet", "--single-item", "pretrain")
    with pytest.raises(RegistryError, match="correlate was made from another artifacts/pretrain"):
        read_data_set(plant.root, MADE)


def test_a_model_has_no_report_and_there_is_no_last_version_yet(plant: Plant):
    promote(plant.root, plant.root)
    registry = Registry.open(plant.root, plant.root)
    assert last_version("vital-data", registry) is None
    with pytest.raises(RegistryError, match="carries no report of drift"):
        read_report(registry, registry.find("vital-base"))
