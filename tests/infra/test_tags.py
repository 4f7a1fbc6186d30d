"""Our reader of GTO's tags against GTO itself."""

import time
from pathlib import Path

import pytest
from gto import api

from infra.git import Git
from infra.tags import models_of, order, read_tags
from tests.infra.conftest import sh

SIGNER = {"author": "Ann", "author_email": "ann@example.org"}


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with six commits."""
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ann")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ann@example.org")
    sh(tmp_path, "git", "init", "--quiet")
    for number in range(6):
        sh(tmp_path, "git", "commit", "--quiet", "--allow-empty", "--message", str(number))
    return tmp_path


def ours(repo: Path) -> dict[str, list[tuple[str, str, tuple[str, ...]]]]:
    found = models_of(read_tags(Git(repo)))
    return {name: [(v.version, v.commit, v.stages) for v in versions] for name, versions in found.items()}


def gtos(repo: Path) -> dict[str, list[tuple[str, str, tuple[str, ...]]]]:
    """The same from ``gto show``: a stage belongs to the version that was assigned last."""
    found = {}
    for name, summary in api.show(repo).items():
        stages = {stage: version for stage, version in summary["stage"].items() if version != "-"}
        versions = api.show(repo, name)
        rows = [
            (v["version"], v["commit_hexsha"], tuple(sorted(s for s, at in stages.items() if at == v["version"])))
            for v in versions
        ]
        if rows:
            found[name] = sorted(rows, key=lambda row: order(row[0]), reverse=True)
    return found


def test_agrees_with_gto_on_registrations_assignments_and_their_undoing(repo: Path):
    commits = sh(repo, "git", "rev-list", "HEAD").split()

    def act(action, *arguments, **options):  # noqa: ANN001, ANN002, ANN003, ANN202
        time.sleep(1.05)  # GTO orders tags by their whole seconds, and a tie by chance
        action(repo, *arguments, **options)

    for number, commit in enumerate(commits[:3]):
        act(api.register, "vital-base", commit, version=f"v0.0.{number + 8}", **SIGNER)
    act(api.register, "vital-encoder", commits[0], version="v1.2.3", **SIGNER)
    act(api.assign, "vital-base", "prod", version="v0.0.8", **SIGNER)
    act(api.assign, "vital-base", "prod", version="v0.0.10", **SIGNER)
    act(api.assign, "vital-base", "canary", version="v0.0.9", **SIGNER)
    assert ours(repo) == gtos(repo)
    assert [version for version, *_ in ours(repo)["vital-base"]] == ["v0.0.10", "v0.0.9", "v0.0.8"]
    act(api.assign, "vital-base", "prod", version="v0.0.8", force=True, **SIGNER)
    assert ours(repo) == gtos(repo)
    assert ours(repo)["vital-base"][2][2] == ("prod",)
    act(api.unassign, "vital-base", stage="canary", version="v0.0.9", **SIGNER)
    assert ours(repo) == gtos(repo)
    assert ours(repo)["vital-base"][1][2] == ()
    act(api.deregister, "vital-base", version="v0.0.9", **SIGNER)
    assert [version for version, *_ in ours(repo)["vital-base"]] == ["v0.0.10", "v0.0.8"]
    assert ours(repo) == gtos(repo)


def test_tags_that_are_not_gtos_do_not_count(repo: Path):
    for tag in ("v1.0", "release@2024", "vital-base@v0.0.1", "x@v1.2", "#prod#1"):
        sh(repo, "git", "tag", tag)  # lightweight
    sh(repo, "git", "tag", "--annotate", "--message", "m", "notes@today")
    sh(repo, "git", "tag", "--annotate", "--message", "m", "lonely#prod#1")
    assert models_of(read_tags(Git(repo))) == {}


def test_versions_sort_as_numbers():
    assert sorted(["v0.0.10", "v0.0.9", "v1.0.0"], key=order) == ["v0.0.9", "v0.0.10", "v1.0.0"]
