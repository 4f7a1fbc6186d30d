"""A re-annotation beside the last version: what is recorded, what is not, and what stays as it was."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from infra.data_set import read_report
from infra.errors import RegistryError
from infra.registry import Registry, resolve_judge
from tasks.errors import ConfigError, GateError
from tasks.evaluation.compare import REPORT, SECTION, compare_with_last, foresee, record_version
from tasks.stage import read_params, stage_config
from tests.tasks.evaluation.versioned_plant import VersionedPlant, build, copy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def annotated(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> VersionedPlant:
    """Made once: a plant whose first annotation has run."""
    plant = build(tmp_path_factory.mktemp("annotated") / "plant", checkout)
    plant.annotate()
    return plant


@pytest.fixture(scope="module")
def first(annotated: VersionedPlant, tmp_path_factory: pytest.TempPathFactory) -> VersionedPlant:
    """Made once: the same after its first version has been recorded."""
    plant = copy(annotated, tmp_path_factory.mktemp("first") / "plant")
    reannotate(plant)
    return plant


@pytest.fixture
def plant(annotated: VersionedPlant, tmp_path: Path) -> VersionedPlant:
    """An annotated plant of one's own."""
    return copy(annotated, tmp_path / "plant")


@pytest.fixture
def recorded(first: VersionedPlant, tmp_path: Path) -> VersionedPlant:
    """A plant of one's own that has vital-data@v0.0.1."""
    return copy(first, tmp_path / "plant")


def reannotate(plant: VersionedPlant) -> str:
    return record_version(compare_with_last(plant.root, plant.root), plant.root, plant.root)


def users(plant: VersionedPlant) -> dict[str, str]:
    """What is the user's: files that git sees, the index, HEAD and main."""
    status = plant.git("status", "--porcelain")
    refs = plant.git("rev-parse", "HEAD", "main", "--abbrev-ref", "HEAD")
    tracked = {name: (plant.root / name).read_text() for name in plant.git("ls-files").splitlines()}
    return {**tracked, "status": status, "refs": refs, "index": (plant.root / ".git/index").read_bytes().hex()}


def test_a_first_run_says_so_and_records_version_one(plant: VersionedPlant):
    (plant.root / "staged.txt").write_text("staged\n")
    plant.git("add", "staged.txt")
    (plant.root / "recipe.json").write_text((plant.root / "recipe.json").read_text() + " ")
    before = users(plant)
    found = compare_with_last(plant.root, plant.root)
    assert str(found) == "vital-data has no version yet: nothing to compare with, this is the first"
    config = stage_config(SECTION, read_params(plant.root))
    assert foresee(config, plant.root, plant.root)[1] == "records vital-data@v0.0.1 in stage prod"
    told = record_version(found, plant.root, plant.root)
    assert told == "vital-data@v0.0.1 is prod: new version, recorded on branch registry/vital-data"
    assert users(plant) == before
    assert plant.git("branch", "--format=%(refname:short)").split() == ["main", "registry/vital-data"]
    assert plant.git("tag").split() == ["vital-data#prod#1", "vital-data@v0.0.1"]
    assert plant.git("rev-parse", "registry/vital-data^") == plant.git("rev-parse", "main")
    changed = plant.git("diff", "--name-only", "main", "registry/vital-data").split()
    names = ["dataset.dvc", "dvc.lock", "dvc.yaml"]
    assert changed == [*names, *(f"registry/vital-data.{kind}" for kind in ("json", "md", "report.json"))]
    card = plant.git("show", "registry/vital-data:registry/vital-data.md")
    for line in (
        "Made after: nothing, this is the first version",
        "| collect | truncated | 3 |",
        "| review | no_consensus | 3 |",
        "| spectral | m1 | 1 | cross | 50 | keep 50 |",
        "| scores | 600 | 600 |",
        "| kept | 40 |",
        "There is no earlier version",
    ):
        assert line in card


def test_what_will_be_compared_and_recorded_is_foreseen(recorded: VersionedPlant):
    config = stage_config(SECTION, read_params(recorded.root))
    compared, written = foresee(config, recorded.root, recorded.root)
    assert "compared with vital-data@v0.0.1 by the limits psi 0.1, ks 0.1, " in compared
    assert written.startswith("records vital-data@v0.0.2 in stage prod if they hold")


def test_the_same_data_again_is_no_new_version(recorded: VersionedPlant):
    refs = recorded.git("for-each-ref")
    report = (recorded.root / REPORT / "drift.json").read_text()
    assert reannotate(recorded) == "vital-data@v0.0.1 has the same data already: nothing to record"
    assert recorded.git("for-each-ref") == refs
    assert (recorded.root / REPORT / "drift.json").read_text() == report


def test_new_media_and_a_better_scorer_within_limits_make_a_version(recorded: VersionedPlant):
    recorded.annotate(photos=202, off=("noisy", "2", 0.004))
    found = compare_with_last(recorded.root, recorded.root)
    assert found.report["facts"]["paid"] == {
        "media": {"total": 202, "new": 2},
        "scores": {"total": 606, "new": 202 + 2 * 2},
        "answers": {"total": 51, "new": 1},
    }
    assert record_version(found, recorded.root, recorded.root).startswith("vital-data@v0.0.2 is prod: new version")
    registry = Registry.open(recorded.root, recorded.root)
    second = registry.find("vital-data#prod")
    record = registry.record(second).candidate
    assert (str(second), record.parents, record.kind) == ("vital-data@v0.0.2", ("vital-data@v0.0.1",), "data_set")
    assert record.metrics["opinions"] == 202
    assert 0 < (record.metrics["psi"] or 0) < 0.1
    assert [check.holds for check in record.gate] == [True] * 7
    kept = read_report(registry, second)
    assert kept == json.loads((recorded.root / REPORT / "drift.json").read_text())
    assert kept["drift"]["samples"] == {"before": 200, "after": 202, "shared": 200, "new": 2, "gone": 0}


def test_a_limit_that_does_not_hold_leaves_the_last_version(recorded: VersionedPlant):
    refs = recorded.git("for-each-ref")
    recorded.annotate(off=("noisy", "2", 0.12))
    with pytest.raises(GateError, match=r"drifted from vital-data@v0.0.1 .*mu_shift <= 0.02 \(found 0.0400\)") as told:
        reannotate(recorded)
    assert len(str(told.value).splitlines()) == 1
    assert recorded.git("for-each-ref") == refs
    page = (recorded.root / REPORT / "drift.html").read_text()
    assert "mu_shift &lt;= 0.02 (found 0.0400)" in page
    assert "DOES NOT HOLD: mu_shift" in (recorded.root / REPORT / "drift.md").read_text()
    recorded.limit(psi=9.0, ks=1.0, mu_shift=0.05, sigma_shift=0.05, migrated=0.5)  # somebody has looked and decided
    assert reannotate(recorded).startswith("vital-data@v0.0.2 is prod: new version")


def test_other_clones_get_the_folder_from_the_registry_and_from_dvc(recorded: VersionedPlant, tmp_path: Path):
    registry = Registry.open(recorded.root, recorded.root)
    folder = registry.fetch(registry.find("vital-data"))
    table = pd.read_parquet(folder / "score" / "opinions.parquet")
    assert len(table) == 200
    command = [sys.executable, "-m", "dvc", "artifacts", "get", str(recorded.root), "vital-data", "--stage", "prod"]
    subprocess.run([*command, "--out", "got"], cwd=tmp_path, check=True, capture_output=True)
    assert {path.name for path in (tmp_path / "got").iterdir()} == {path.name for path in folder.iterdir()}
    assert (tmp_path / "got/score/opinions.parquet").read_bytes() == (folder / "score/opinions.parquet").read_bytes()
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "-b", "registry/vital-data", recorded.root, clone], check=True)
    store = ["remote", "add", "--local", "--force", "store", str(recorded.root / ".store")]
    for arguments in (store, ["pull", "--quiet", "dataset.dvc"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=clone, check=True)
    assert (clone / "dataset" / "collect" / "media" / "0.tar").stat().st_size == 1000


def test_a_data_set_is_no_model(recorded: VersionedPlant):
    with pytest.raises(RegistryError, match=r"is a data set and cannot assess: name a whole model \(vital-base, once"):
        resolve_judge("vital-data", recorded.root)
    with pytest.raises(RegistryError, match="nothing else is either"):
        resolve_judge(None, recorded.root)


def test_what_is_not_made_or_not_up_to_date_is_not_compared(plant: VersionedPlant, checkout: Path, tmp_path: Path):
    plant.write(photos=190)
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-s", "score", "--quiet"], cwd=plant.root, check=True)
    with pytest.raises(RegistryError, match="describe was made from another artifacts/score"):
        compare_with_last(plant.root, plant.root)
    fresh = build(tmp_path / "fresh", checkout)
    (fresh.root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    with pytest.raises(RegistryError, match="artifacts/collect is not in DVC's cache"):
        compare_with_last(fresh.root, fresh.root)


def test_params_that_have_changed_since_are_not_recorded(plant: VersionedPlant):
    params = yaml.safe_load((plant.root / "params.yaml").read_text())
    (plant.root / "params.yaml").write_text(yaml.safe_dump(params | {"score": {"number": 2}}))
    with pytest.raises(RegistryError, match="section score"):
        reannotate(plant)
    assert plant.git("tag") == ""


def test_a_version_that_came_in_between_is_not_skipped(plant: VersionedPlant):
    found = compare_with_last(plant.root, plant.root)
    plant.annotate(photos=201)
    reannotate(plant)
    with pytest.raises(RegistryError, match=r"was compared with nothing, and vital-data@v0.0.1 is accepted now"):
        record_version(found, plant.root, plant.root)


def test_going_back_makes_the_earlier_version_the_one_to_compare_with(recorded: VersionedPlant):
    recorded.annotate(photos=202)
    reannotate(recorded)
    recorded.annotate(photos=200)
    assert reannotate(recorded) == "vital-data@v0.0.1 is prod: the same data as before"
    recorded.annotate(photos=201)
    assert compare_with_last(recorded.root, recorded.root).report["last"] == "vital-data@v0.0.1"


KILLED = """
import os, signal, sys
from pathlib import Path
import infra.data_set as target
from tasks.evaluation.compare import compare_with_last, record_version
name, root = sys.argv[1], Path(sys.argv[2])
original = getattr(target, name)
def dies(*arguments, **named):
    if sys.argv[3] == "after":
        original(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(target, name, dies)
record_version(compare_with_last(root, root), root, root)
"""


@pytest.mark.parametrize(("where", "when"), [("_push", "after"), ("register", "after"), ("assign", "after")])
def test_killed_anywhere_and_run_again_is_one_whole_version(
    recorded: VersionedPlant, checkout: Path, where: str, when: str
):
    recorded.annotate(photos=202)
    command = [sys.executable, "-c", KILLED, where, str(recorded.root), when]
    done = subprocess.run(command, cwd=checkout, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    report = json.loads((recorded.root / REPORT / "drift.json").read_text())
    told = reannotate(recorded)
    assert told.startswith("vital-data@v0.0.2 ")
    assert recorded.git("tag").split() == [
        "vital-data#prod#1", "vital-data#prod#2", "vital-data@v0.0.1", "vital-data@v0.0.2",
    ]  # fmt: skip
    registry = Registry.open(recorded.root, recorded.root)
    second = registry.find("vital-data#prod")
    assert str(second) == "vital-data@v0.0.2"
    assert recorded.git("rev-parse", "registry/vital-data") == second.version.commit
    assert len(list(registry.fetch(second).iterdir())) == 7
    lies = json.loads((recorded.root / REPORT / "drift.json").read_text())
    assert read_report(registry, second)["drift"] == report["drift"] == lies["drift"]
    assert reannotate(recorded) == "vital-data@v0.0.2 has the same data already: nothing to record"


def test_a_damaged_cache_is_told(plant: VersionedPlant):
    for path in (plant.root / ".dvc/cache/files/md5").rglob("*"):
        if path.is_file() and path.read_bytes().startswith(b"mediamedia"):
            path.chmod(0o644)
            path.write_bytes(b"other")
    with pytest.raises(RegistryError, match="is damaged"):
        compare_with_last(plant.root, plant.root)


@pytest.mark.parametrize(
    ("change", "says"), [({"bins": 1}, "bins must be at least 2"), ({"psi": 1}, "unknown key 'psi'")]
)
def test_the_section_is_checked(change: dict[str, int], says: str, checkout: Path):
    section = yaml.safe_load((checkout / "params.yaml").read_text())["compare"]
    with pytest.raises(ConfigError, match=says):
        stage_config("compare", {"compare": section | change})


def test_only_what_is_new_is_hashed(recorded: VersionedPlant, monkeypatch: pytest.MonkeyPatch):
    recorded.annotate(off=("noisy", "2", 0.004))
    hashed: list[str] = []
    from infra import data_set

    original: Callable[..., object] = data_set.hash_file
    monkeypatch.setattr(data_set, "hash_file", lambda path, name: (hashed.append(name), original(path, name))[1])
    compare_with_last(recorded.root, recorded.root)
    assert hashed == ["score/opinions.parquet"]
