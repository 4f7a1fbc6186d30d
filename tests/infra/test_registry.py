import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from infra.dvc_store import use_store
from infra.errors import InfraError, RegistryError
from infra.model_record import ENCODER
from infra.promotion import PromotionOptions, promote_model
from infra.registry import Registry, Spec, export, model_cache, resolve, resolve_judge
from tasks.evaluation import register
from tests.infra.conftest import Plant, dvc, sh


@pytest.fixture
def promoted(plant: Plant) -> Plant:
    promote_model("vital-base", plant.root, PromotionOptions(checkout=plant.root))
    return plant


def weights(folder: Path) -> bytes:
    return (folder / "weights.bin").read_bytes()


def made(plant: Plant) -> bytes:
    return weights(plant.root / "artifacts" / "pretrain" / "model")


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("vital-base", Spec("vital-base")),
        ("vital-base@latest", Spec("vital-base")),
        ("vital-base@v1.2.3", Spec("vital-base", "v1.2.3")),
        ("vital-base@1.2.3", Spec("vital-base", "v1.2.3")),
        ("vital-base#prod", Spec("vital-base", stage="prod")),
    ],
)
def test_specs(text: str, spec: Spec):
    assert Spec.parse(text) == spec


@pytest.mark.parametrize("text", ["", "@v1", "#prod", "a b", "../x", "a@", "a#", "a@v1#prod", "-x"])
def test_other_texts_are_no_specs(text: str):
    with pytest.raises(RegistryError, match="write NAME, NAME@VERSION or NAME#STAGE"):
        Spec.parse(text)


def test_an_empty_registry_says_so(plant: Plant):
    assert Registry.open(home=plant.root).models == {}
    with pytest.raises(RegistryError, match="no model has been promoted there"):
        resolve("vital-base", home=plant.root)
    with pytest.raises(
        RegistryError, match=r"vital-base is not promoted to 'prod' .*: nothing else is either; run vital run"
    ):
        resolve(home=plant.root)


def test_what_does_not_exist_is_answered_with_what_does(promoted: Plant):
    for spec, answer in {
        "vital-big": "no model 'vital-big' .* it has vital-base$",
        "vital-base@v9.9.9": r"has no version v9.9.9; its versions are v0.0.1$",
        "vital-base#canary": "no version in stage 'canary'; its stages are prod$",
    }.items():
        with pytest.raises(RegistryError, match=answer):
            resolve(spec, home=promoted.root)


@pytest.mark.parametrize("spec", ["vital-base", "vital-base@v0.0.1", "vital-base#prod", None])
def test_every_way_of_naming_leads_to_the_same_verified_folder(promoted: Plant, spec: str | None):
    folder = resolve(spec, home=promoted.root)
    assert weights(folder) == made(promoted)
    assert (folder / "motion" / "config.json").read_text() == "{}"
    assert folder.parent == model_cache(promoted.root)
    assert folder.name == promoted.candidate().content


def test_another_clone_finds_tags_and_bytes_through_its_origin(promoted: Plant, tmp_path: Path):
    other = promoted.clone(tmp_path / "other")
    assert weights(resolve("vital-base#prod", home=other.root)) == made(promoted)


def test_from_here_into_another_clone_by_its_path(promoted: Plant, plant_template: Path, tmp_path: Path):
    shutil.copytree(plant_template, tmp_path / "here", symlinks=True)
    folder = resolve("vital-base", repo=promoted.root, home=tmp_path / "here")
    assert weights(folder) == made(promoted)
    assert folder.is_relative_to(tmp_path / "here")


def test_a_bare_remote_works_as_path_url_and_git_remote_name(promoted: Plant, tmp_path: Path):
    use_store(promoted.root, str(tmp_path / "shared"))
    promoted.train(2)
    promote_model("vital-base", promoted.root, PromotionOptions(checkout=promoted.root))
    bare = tmp_path / "origin.git"
    sh(tmp_path, "git", "clone", "--quiet", "--bare", str(promoted.root), str(bare))
    other = Plant(tmp_path / "other")
    sh(tmp_path, "git", "clone", "--quiet", "--no-tags", str(bare), str(other.root))
    for repo in (bare, f"file://{bare}", "origin"):
        shutil.rmtree(other.root / ".vital" / "models", ignore_errors=True)
        assert weights(resolve("vital-base@v0.0.2", repo=repo, home=other.root)) == made(promoted)
    assert Registry.open(home=other.root).models == {}


def test_a_clone_that_knows_nothing_of_the_store_reads_its_place_from_the_record(
    plant: Plant, bucket: str, s3_endpoint: str, tmp_path: Path
):
    use_store(plant.root, f"s3://{bucket}/store", s3_endpoint)
    promote_model("vital-base", plant.root, PromotionOptions(checkout=plant.root))
    content = made(plant)
    bare = tmp_path / "origin.git"
    sh(tmp_path, "git", "clone", "--quiet", "--bare", str(plant.root), str(bare))
    shutil.rmtree(plant.root)
    sh(tmp_path, "git", "clone", "--quiet", str(bare), str(tmp_path / "other"))
    assert weights(resolve("vital-base#prod", home=tmp_path / "other")) == content
    dvc(tmp_path, "artifacts", "get", f"file://{bare}", "vital-base", "--stage", "prod", "--out", "got")
    assert weights(tmp_path / "got") == content


def test_a_mirror_follows_its_remote(promoted: Plant, tmp_path: Path):
    use_store(promoted.root, str(tmp_path / "shared"))
    url, other = f"file://{promoted.root}", promoted.clone(tmp_path / "other")
    assert list(Registry.open(url, other.root).models) == ["vital-base"]
    promoted.train(2)
    promote_model("vital-base", promoted.root, PromotionOptions(checkout=promoted.root))
    assert Registry.open(url, other.root).find("vital-base#prod").version.version == "v0.0.2"
    promoted.git("tag", "--delete", "vital-base@v0.0.2", "vital-base#prod#2")
    assert Registry.open(url, other.root).find("vital-base#prod").version.version == "v0.0.1"


@pytest.mark.parametrize("repo", ["/nowhere/at/all", "file:///nowhere/at/all", "nosuchremote"])
def test_repositories_that_are_not_there(plant: Plant, repo: str):
    with pytest.raises(RegistryError, match=r"nowhere/at/all|neither a folder"):
        Registry.open(repo, plant.root)


def test_a_folder_that_is_no_repository(plant: Plant, tmp_path: Path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(RegistryError, match="not a git repository"):
        Registry.open(tmp_path / "plain", plant.root)


def test_a_damaged_cache_is_passed_over_for_the_store(promoted: Plant):
    for path in (promoted.root / ".dvc" / "cache" / "files" / "md5").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(b"damaged")
    expected = bytes(1 + i & 255 for i in range(5000))
    assert weights(resolve("vital-base", home=promoted.root)) == expected


def test_bytes_that_nobody_holds_are_an_error_that_names_the_places(promoted: Plant):
    shutil.rmtree(promoted.root / ".dvc" / "cache")
    shutil.rmtree(promoted.root / ".store" / "files")
    with pytest.raises(
        InfraError, match=r"no store that this clone can reach holds .*\.dvc/cache.*\.store.*vital store use"
    ):
        resolve("vital-base", home=promoted.root)
    assert not model_cache(promoted.root).exists() or not list(model_cache(promoted.root).iterdir())


def test_without_a_name_the_default_model_is_meant_and_no_other(plant: Plant):
    options = PromotionOptions(checkout=plant.root)
    encoder = replace(plant.candidate(name="vital-encoder", path="encoder"), kind=ENCODER)
    plant.offer(plant.candidate(), encoder)
    promote_model("vital-encoder", plant.root, options)
    with pytest.raises(
        RegistryError, match=r"vital-base is not promoted to 'prod' .*: promoted are vital-encoder@v0.0.1"
    ):
        Registry.open(home=plant.root).promoted()
    promote_model("vital-base", plant.root, options)
    assert str(Registry.open(home=plant.root).promoted()) == "vital-base@v0.0.1"
    assert resolve_judge(home=plant.root) == resolve("vital-base#prod", home=plant.root)
    with pytest.raises(
        RegistryError, match=r"vital-encoder@v0.0.1 is an encoder .* cannot assess: name a whole model \(vital-base\)"
    ):
        resolve_judge("vital-encoder#prod", plant.root)


def test_the_kind_that_cannot_assess_is_called_as_register_calls_it():
    assert register.ENCODER == ENCODER


def test_export_copies_writable_files_and_never_overwrites(promoted: Plant, tmp_path: Path):
    folder = resolve("vital-base", home=promoted.root)
    export(folder, tmp_path / "out")
    (tmp_path / "out" / "weights.bin").write_bytes(b"changed by its user")
    assert weights(folder) == made(promoted)
    with pytest.raises(RegistryError, match="is not empty"):
        export(folder, tmp_path / "out")


def test_a_record_cannot_write_outside_its_folder(promoted: Plant, tmp_path: Path):
    registry = Registry.open(home=promoted.root)
    found = registry.find("vital-base")
    record = json.loads(promoted.git("show", f"{found.version.commit}:registry/vital-base.json"))
    record["files"][0]["path"] = "../../../../escaped"
    (tmp_path / "record.json").write_text(json.dumps(record))
    blob = promoted.git("hash-object", "-w", str(tmp_path / "record.json"))
    entries = promoted.git("ls-tree", "HEAD")
    subtree = subprocess.run(
        ["git", "mktree"], cwd=promoted.root, input=f"100644 blob {blob}\tvital-base.json\n", text=True,
        capture_output=True, check=True,
    ).stdout.strip()  # fmt: skip
    tree = subprocess.run(
        ["git", "mktree"], cwd=promoted.root, input=f"{entries}\n040000 tree {subtree}\tregistry\n", text=True,
        capture_output=True, check=True,
    ).stdout.strip()  # fmt: skip
    identity = ("-c", "user.name=M", "-c", "user.email=m@example.org")
    commit = promoted.git(*identity, "commit-tree", tree, "-m", "evil")
    promoted.git(*identity, "tag", "--annotate", "--message", "m", "vital-base@v6.6.6", commit)
    with pytest.raises(RegistryError, match="names a file outside its folder"):
        resolve("vital-base@v6.6.6", home=promoted.root)
    assert not (tmp_path / "escaped").exists()


LOOKUP = """
import sys
from pathlib import Path
from infra.registry import resolve
print(resolve("vital-base#prod", home=Path(sys.argv[1])))
assert "gto" not in sys.modules and "dvc" not in sys.modules and "boto3" not in sys.modules
"""


def test_a_lookup_loads_no_dvc_and_a_cached_one_needs_no_store(promoted: Plant, checkout: Path):
    command = [sys.executable, "-c", LOOKUP, str(promoted.root)]
    first = subprocess.check_output(command, cwd=checkout, text=True)
    shutil.rmtree(promoted.root / ".store")
    shutil.rmtree(promoted.root / ".dvc" / "cache", ignore_errors=True)
    assert subprocess.check_output(command, cwd=checkout, text=True) == first


def test_simultaneous_fetches_agree(promoted: Plant, checkout: Path):
    command = [sys.executable, "-c", LOOKUP, str(promoted.root)]
    running = [subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE) for _ in range(4)]
    deadline = time.monotonic() + 60
    assert [process.wait(timeout=deadline - time.monotonic()) for process in running] == [0] * 4
    assert [path.name for path in model_cache(promoted.root).iterdir()] == [promoted.candidate().content]
