import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.dvc_store import run_dvc, use_store
from infra.errors import InfraError, RegistryError
from infra.promotion import PromotionOptions, promote_model
from infra.promotion import promote as promote_passing
from infra.registry import Registry, resolve
from tests.infra.conftest import Plant, dvc, sh


def promote(plant: Plant, name: str = "vital-base", *, stage: str = "prod", push: bool = False):
    return promote_model(name, plant.root, PromotionOptions(stage=stage, push=push, checkout=plant.root))


def state_of(root: Path) -> dict[str, str]:
    """All that is the user's: every file but those of .git, DVC's cache and the store; index bytes, HEAD, branch."""
    ours = {".git", ".store"}
    files = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] not in ours]
    state = {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if not str(path.relative_to(root)).startswith((".dvc/tmp", ".dvc/cache"))
    }
    for name in ("index", "HEAD", "refs/heads/main"):
        state[f".git/{name}"] = hashlib.sha256((root / ".git" / name).read_bytes()).hexdigest()
    return state


def test_promotion_leaves_a_dirty_checkout_exactly_as_it_was(plant: Plant):
    (plant.root / "staged.txt").write_text("staged\n")
    plant.git("add", "staged.txt")
    (plant.root / "staged.txt").write_text("staged and changed again\n")
    (plant.root / "make.py").write_text((plant.root / "make.py").read_text() + "# changed\n")
    (plant.root / "untracked.txt").write_text("untracked\n")
    status = plant.git("status", "--porcelain")  # may refresh the index itself, so it comes first
    before = state_of(plant.root)
    done = promote(plant)
    assert (done.version, done.new_version, done.new_stage, done.pushed) == ("v0.0.1", True, True, False)
    assert state_of(plant.root) == before
    assert plant.git("status", "--porcelain") == status
    assert plant.git("branch", "--show-current") == "main"


def test_the_commit_is_head_plus_the_record(plant: Plant):
    (plant.root / "untracked.txt").write_text("not to be recorded\n")
    plant.train(2)  # dvc.lock and params.yaml differ from HEAD now
    promote(plant)
    changed = plant.git("diff", "--name-only", "HEAD", "registry/vital-base").split()
    assert changed == ["dvc.lock", "params.yaml", "registry/vital-base.json", "registry/vital-base.md"]
    assert plant.git("show", "registry/vital-base:dvc.lock") == (plant.root / "dvc.lock").read_text().strip()
    assert plant.git("show", "registry/vital-base:metrics/pretrain.json") == '{"loss": 0.5}'
    record = json.loads(plant.git("show", "registry/vital-base:registry/vital-base.json"))
    assert record["content"] == plant.candidate().content
    assert record["metrics"] == {"srcc": 0.62, "gain": 0.07}
    assert record["code"] == {"commit": plant.git("rev-parse", "HEAD"), "modified": ["dvc.lock", "params.yaml"]}
    assert record["out"]["path"] == "artifacts/pretrain"
    assert plant.git("rev-parse", "registry/vital-base^") == plant.git("rev-parse", "HEAD")


def test_tags_are_annotated_gto_tags_on_the_commit(plant: Plant):
    promote(plant)
    tip = plant.git("rev-parse", "registry/vital-base")
    assert plant.git("tag").split() == ["vital-base#prod#1", "vital-base@v0.0.1"]
    for tag in plant.git("tag").split():
        assert plant.git("cat-file", "-t", tag) == "tag"
        assert plant.git("rev-parse", f"{tag}^{{commit}}") == tip
    assert "VITAL registry <registry@vital.invalid>" in plant.git("cat-file", "tag", "vital-base@v0.0.1")
    shown = sh(plant.root, shutil.which("gto") or "gto", "show", "vital-base#prod", "--json")
    assert json.loads(shown)[0]["version"] == "v0.0.1"


def test_a_configured_identity_signs(plant: Plant):
    plant.git("config", "user.name", "Bob Builder")
    plant.git("config", "user.email", "bob@example.org")
    promote(plant)
    assert (
        plant.git("log", "-1", "--format=%an %ae %cn", "registry/vital-base")
        == "Bob Builder bob@example.org Bob Builder"
    )
    assert Registry.open(home=plant.root).models["vital-base"][0].author == "Bob Builder"


def test_the_same_bytes_make_no_new_version_and_no_new_commit(plant: Plant):
    promote(plant)
    refs = plant.git("for-each-ref")
    again = promote(plant)
    assert (again.new_version, again.new_stage) == (False, False)
    assert "already" in str(again)
    assert plant.git("for-each-ref") == refs


def test_versions_follow_the_bytes_and_a_stage_can_go_back(plant: Plant):
    promote(plant)
    plant.train(2)
    second = promote(plant)
    assert second.version == "v0.0.2"
    assert plant.git("log", "--format=%s", "--first-parent", "registry/vital-base").splitlines()[:2] == [
        "Register vital-base v0.0.2",
        "Register vital-base v0.0.1",
    ]
    plant.train(1)
    back = promote(plant)
    assert (back.version, back.new_version, back.new_stage) == ("v0.0.1", False, True)
    assert Registry.open(home=plant.root).find("vital-base#prod").version.version == "v0.0.1"
    assert Registry.open(home=plant.root).find("vital-base").version.version == "v0.0.2"
    assert promote(plant, stage="canary").new_stage
    assert Registry.open(home=plant.root).find("vital-base#canary").version.version == "v0.0.1"
    assert (
        str(promote(plant, "vital-base@v0.0.2"))
        == "vital-base@v0.0.2 is prod: same bytes as before, moved to this stage"
    )
    assert Registry.open(home=plant.root).find("vital-base#prod").version.version == "v0.0.2"
    with pytest.raises(RegistryError, match=r"no version v7.0.0; its versions are v0.0.2, v0.0.1"):
        promote(plant, "vital-base@v7.0.0")


def test_the_gate_refuses_with_its_numbers(plant: Plant):
    plant.offer(plant.candidate(srcc=0.5))
    with pytest.raises(
        RegistryError, match=r"vital-base may not be promoted: its gate .*srcc >= 0.55 \(found 0.5000\)$"
    ):
        promote(plant)
    assert plant.git("tag") == ""
    assert plant.git("branch", "--format=%(refname:short)") == "main"
    assert not (plant.root / ".store").exists()


def test_the_flow_promotes_what_passed_and_tells_of_the_rest(plant: Plant):
    plant.offer(plant.candidate(), plant.candidate(name="vital-encoder", path="encoder", srcc=0.5))
    first, second = promote_passing(plant.root, plant.root).splitlines()
    assert first == "vital-base@v0.0.1 is prod: new version, recorded on branch registry/vital-base"
    assert second.startswith("vital-encoder is not promoted: its gate")
    assert plant.git("tag").split() == ["vital-base#prod#1", "vital-base@v0.0.1"]


def test_a_workspace_is_promoted_into_the_checkouts_registry(plant: Plant, tmp_path: Path):
    workspace = Plant(tmp_path / "workspace")
    workspace.root.mkdir()
    dvc(workspace.root, "init", "--no-scm", "--quiet")
    (workspace.root / ".dvc" / "config").write_text(
        f"[core]\n    no_scm = true\n    remote = store\n[cache]\n    dir = {plant.root}/.dvc/cache\n"
        f"['remote \"store\"']\n    url = {plant.root}/.store\n"
    )
    pipeline = (plant.root / "dvc.yaml").read_text()
    for name in ("make.py", "- make.py"):  # the workspace names the checkout's code by absolute path
        pipeline = pipeline.replace(name, name.replace("make.py", f"{plant.root}/make.py"), 1)
    (workspace.root / "dvc.yaml").write_text(pipeline)
    workspace.train(9)
    before = state_of(plant.root)
    done = promote_model("vital-base", workspace.root, PromotionOptions(checkout=plant.root))
    assert done.new_version
    assert state_of(plant.root) == before
    recorded = plant.git("show", "registry/vital-base:dvc.lock")
    assert str(plant.root) not in recorded
    assert [dep["path"] for dep in yaml.safe_load(recorded)["stages"]["pretrain"]["deps"]] == ["make.py"]
    assert plant.git("show", "registry/vital-base:params.yaml") == "pretrain:\n  seed: 9"
    assert (resolve("vital-base", home=plant.root) / "weights.bin").read_bytes()[0] == 9


def test_unknown_candidates_and_missing_runs_are_named(plant: Plant):
    with pytest.raises(RegistryError, match="no candidate 'vital-big'; the line offers vital-base"):
        promote(plant, "vital-big")
    shutil.rmtree(plant.root / "artifacts" / "register")
    with pytest.raises(RegistryError, match="run the line first"):
        promote(plant)


def test_what_changed_since_it_was_measured_is_refused(plant: Plant):
    weights = plant.root / "artifacts" / "pretrain" / "model" / "weights.bin"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(b"tampered")
    with pytest.raises(RegistryError, match="artifacts/pretrain/model has changed since it was measured"):
        promote(plant)
    plant.offer(plant.candidate())  # offered again, but the lock says that pretrain made something else
    with pytest.raises(RegistryError, match="register was made from another artifacts/pretrain than the one"):
        promote(plant)
    weights.write_bytes(content)
    plant.offer(plant.candidate())
    (name,) = [
        out["md5"]
        for out in yaml.safe_load((plant.root / "dvc.lock").read_text())["stages"]["pretrain"]["outs"]
        if out["path"] == "artifacts/pretrain"
    ]
    listing = plant.root / ".dvc" / "cache" / "files" / "md5" / name[:2] / name[2:]
    kept = listing.read_bytes()
    listing.chmod(0o644)
    listing.write_bytes(b"[]")
    with pytest.raises(RegistryError, match="DVC's cache does not hold artifacts/pretrain as dvc"):
        promote(plant)
    listing.write_bytes(kept)
    (plant.root / "params.yaml").write_text("pretrain:\n  seed: 77\n")
    with pytest.raises(RegistryError, match=r"params.yaml has changed since vital-base was made \(section pretrain,"):
        promote(plant)
    assert plant.git("tag") == ""


def test_candidates_that_register_did_not_make_are_refused(plant: Plant):
    file = plant.root / "artifacts" / "register" / "candidates.json"
    offered = json.loads(file.read_text())
    forged = {**offered["candidates"]["vital-base"], "gate": [], "metrics": {"srcc": 0.99}}
    file.unlink()  # it may be linked to DVC's cache
    file.write_text(json.dumps({"candidates": {"vital-base": forged}}))
    for attempt in (lambda: promote(plant), lambda: promote_passing(plant.root, plant.root)):
        with pytest.raises(
            RegistryError, match=r"artifacts/register is not what dvc.lock says that register made: run"
        ):
            attempt()
    assert plant.git("tag") == ""


def test_measures_of_an_older_model_are_refused(plant: Plant):
    (plant.root / "params.yaml").write_text("pretrain:\n  seed: 4\n")
    dvc(plant.root, "repro", "--quiet", "--single-item", "pretrain")  # and no correlate after it
    with pytest.raises(RegistryError, match=r"register was made from another artifacts/pretrain than .*: run the line"):
        promote(plant)
    plant.offer(plant.candidate())  # now register knows the new model, but correlate measured the old one
    with pytest.raises(RegistryError, match="correlate was made from another artifacts/pretrain/model than"):
        promote(plant)
    plant.train(4)
    assert promote(plant).new_version


@pytest.mark.parametrize("content", ['{"candidates": 3}', "[]", "{", '{"candidates": {"vital-base": 1}}'])
def test_a_file_that_lists_no_candidates_is_one_line(plant: Plant, content: str):
    file = plant.root / "artifacts" / "register" / "candidates.json"
    file.unlink()
    file.write_text(content)
    with pytest.raises(RegistryError, match="is not a list of candidates") as caught:
        promote(plant)
    assert "\n" not in str(caught.value)


def test_a_store_that_takes_nothing_leaves_no_half_state(plant: Plant):
    (plant.root / ".dvc" / "config.local").write_text("['remote \"store\"']\n    url = /proc/nowhere\n")
    with pytest.raises(InfraError, match="dvc push failed"):
        promote(plant)
    assert plant.git("tag") == ""
    assert plant.git("branch", "--format=%(refname:short)") == "main"


def test_a_failure_between_the_tags_takes_the_first_one_back(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RegistryError("no space left on device")

    monkeypatch.setattr("infra.promotion.assign", fail)
    with pytest.raises(RegistryError, match="no space"):
        promote(plant)
    assert plant.git("tag") == ""
    assert plant.git("branch", "--format=%(refname:short)") == "main"


def test_a_promotion_killed_between_the_tags_is_finished_by_the_next(plant: Plant, checkout: Path):
    code = (
        "import os, signal, sys; from pathlib import Path; import infra.promotion as p\n"
        "p.assign = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "root = Path(sys.argv[1]); p.promote_model('vital-base', root, p.PromotionOptions(checkout=root))"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(plant.root)], cwd=checkout, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert plant.git("tag") == "vital-base@v0.0.1"
    done = promote(plant)
    assert (done.version, done.new_version, done.new_stage) == ("v0.0.1", False, True)
    assert plant.git("tag").split() == ["vital-base#prod#1", "vital-base@v0.0.1"]
    assert plant.git("rev-parse", "registry/vital-base") == plant.git("rev-parse", "vital-base@v0.0.1^{commit}")


def test_a_checked_out_registry_branch_is_not_moved(plant: Plant):
    promote(plant)
    plant.git("switch", "--quiet", "--force", "registry/vital-base")
    plant.git("checkout", "--quiet", "main", "--", "params.yaml")
    with pytest.raises(RegistryError, match="branch registry/vital-base is checked out"):
        promote(plant)


def test_any_clone_resolves_the_model_with_dvc_alone(plant: Plant, tmp_path: Path):
    (tmp_path / "shared").mkdir()
    use_store(plant.root, str(tmp_path / "shared"))
    promote(plant)
    bare = tmp_path / "origin.git"
    sh(tmp_path, "git", "clone", "--quiet", "--bare", str(plant.root), str(bare))
    dvc(tmp_path, "artifacts", "get", f"file://{bare}", "vital-base", "--stage", "prod", "--out", "got")
    model = plant.root / "artifacts" / "pretrain" / "model"
    for path in ("weights.bin", "motion/config.json"):
        assert (tmp_path / "got" / path).read_bytes() == (model / path).read_bytes()


def test_the_whole_output_is_pushed_because_dvc_would_never_push_the_rest(plant: Plant):
    promote(plant)
    assert "up to date" in run_dvc(plant.root, "push", "pretrain")
    stored = sum(1 for path in (plant.root / ".store" / "files" / "md5").rglob("*") if path.is_file())
    assert stored == 4  # weights, config, encoder, and the folder's listing


def test_push_takes_branch_and_tags_along_and_nothing_else_does(plant: Plant, tmp_path: Path):
    with pytest.raises(RegistryError, match="has no git remote origin"):
        promote(plant, push=True)
    bare = tmp_path / "origin.git"
    sh(tmp_path, "git", "clone", "--quiet", "--bare", str(plant.root), str(bare))
    plant.git("remote", "add", "origin", f"file://{bare}")
    promote(plant)
    assert sh(bare, "git", "tag") == ""
    assert promote(plant, push=True).pushed
    assert sh(bare, "git", "tag").split() == ["vital-base#prod#1", "vital-base@v0.0.1"]
    assert sh(bare, "git", "rev-parse", "registry/vital-base").strip() == plant.git("rev-parse", "registry/vital-base")
    assert promote(plant, push=True).new_version is False


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--depth", "1", "--no-tags"), ("--no-tags",)])
def test_shallow_clones_and_clones_without_tags_continue_the_versions(
    plant: Plant, tmp_path: Path, options: tuple[str, ...]
):
    plant.git("config", "receive.denyCurrentBranch", "ignore")
    use_store(plant.root, str(tmp_path / "shared"))
    promote(plant)
    other = plant.clone(tmp_path / "other", *options)
    use_store(other.root, str(tmp_path / "shared"))
    other.train(5)
    done = promote(other, push=True)
    assert done.version == "v0.0.2"
    assert set(plant.git("tag").split()) == {
        "vital-base@v0.0.1",
        "vital-base@v0.0.2",
        "vital-base#prod#1",
        "vital-base#prod#2",
    }
    assert plant.git("log", "--format=%s", "--first-parent", "-2", "registry/vital-base").splitlines() == [
        "Register vital-base v0.0.2",
        "Register vital-base v0.0.1",
    ]
    assert (resolve("vital-base#prod", home=plant.root) / "weights.bin").read_bytes()[0] == 5


def test_two_clones_that_registered_different_bytes_are_told_what_to_do(plant: Plant, tmp_path: Path):
    use_store(plant.root, str(tmp_path / "shared"))
    other = plant.clone(tmp_path / "other")
    use_store(other.root, str(tmp_path / "shared"))
    other.train(5)
    promote(other)
    promote(plant)
    with pytest.raises(RegistryError, match=r"have both registered vital-base .*git tag -d"):
        promote(other, push=True)
    sh(
        other.root,
        "bash",
        "-c",
        "git tag -d $(git tag -l 'vital-base@*' 'vital-base#*'); git branch -D registry/vital-base",
    )
    assert promote(other, push=True).version == "v0.0.2"


def test_a_decoder_that_dvc_yaml_does_not_declare_is_declared_in_the_commit(plant: Plant):
    plant.offer(plant.candidate(name="vital-encoder", path="encoder"))
    promote(plant, "vital-encoder")
    recorded = yaml.safe_load(plant.git("show", "registry/vital-encoder:dvc.yaml"))
    assert recorded["artifacts"]["vital-encoder"] == {"path": "artifacts/pretrain/encoder", "type": "model"}
    assert recorded["artifacts"]["vital-base"]["path"] == "artifacts/pretrain/model"
    assert "vital-encoder" not in (plant.root / "dvc.yaml").read_text()


def test_git_hooks_environment_does_not_mislead(plant: Plant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    sh(tmp_path, "git", "init", "--quiet", "elsewhere")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere" / "index"))
    promote(plant)
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_INDEX_FILE")
    assert plant.git("tag").split() == ["vital-base#prod#1", "vital-base@v0.0.1"]
    assert not list((tmp_path / "elsewhere" / ".git" / "refs" / "tags").iterdir())
