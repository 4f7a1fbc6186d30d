"""Promotion: a candidate whose gate holds becomes a version in the registry.

Order: what DVC's lock vouches for (infra/offer.py), gate, bytes to the store, commit, tags, branch. The commit is made
by git plumbing on a branch of its own (``registry/<name>``), from a temporary index: the user's branch, index and files
stay as they are. It is the checkout's HEAD plus what says how the model came to be: dvc.lock, params, metrics, record
and model card. So ``dvc artifacts get`` and ``dvc.api`` resolve the model from any clone. Promoting the same bytes
again makes no new version.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.dvc_store import cache_folder, push_stages
from infra.dvc_tree import cached_listing
from infra.errors import RegistryError
from infra.git import Git
from infra.model_record import Candidate, hash_folder
from infra.offer import AGAIN, Lock, output_of, read_lock, read_yaml, vouched_candidates
from infra.registry import DEFAULT_STAGE, Registry, Spec
from infra.registry_commit import ORIGIN, advance, assign, branch_of, build_record, fetch_registry, push, register
from infra.workspace import CHECKOUT


@dataclass(frozen=True)
class PromotionOptions:
    """How to promote.

    Attributes:
        stage: stage to assign.
        push: also push branch and tags to ``origin``; without it nothing leaves the machine but bytes to the store.
        checkout: checkout whose git repository is the registry.
    """

    stage: str = DEFAULT_STAGE
    push: bool = False
    checkout: Path = CHECKOUT


@dataclass(frozen=True)
class Promotion:
    """What a promotion did.

    Attributes:
        name: the model.
        version: the version that now has the stage.
        stage: the stage.
        new_version: whether these bytes were new to the registry.
        new_stage: whether the version was in another stage, or in none, before.
        pushed: whether branch and tags were pushed to ``origin``.
    """

    name: str
    version: str
    stage: str
    new_version: bool
    new_stage: bool
    pushed: bool

    def __str__(self) -> str:
        told = f"{self.name}@{self.version} is {self.stage}"
        if self.new_version:
            told += f": new version, recorded on branch {branch_of(self.name)}"
        elif self.new_stage:
            told += ": same bytes as before, moved to this stage"
        else:
            told += " already: same bytes, nothing to do"
        return f"{told}; pushed to {ORIGIN}" if self.pushed else told


def promote(workspace: Path, checkout: Path = CHECKOUT) -> str:
    """Promote every candidate of a workspace whose gate holds, and tell in one line per candidate what became of it.

    Raises:
        RegistryError: the lock does not vouch for the candidates, or files have changed since.
        InfraError: the store does not take the bytes.
    """
    told: list[str] = []
    for candidate in vouched_candidates(workspace).values():
        if candidate.holds:
            told.append(str(promote_model(candidate.name, workspace, PromotionOptions(checkout=checkout))))
        else:
            told.append(f"{candidate.name} is not promoted: {_unmet(candidate)}")
    return "\n".join(told)


def promote_model(model: str, workspace: Path = CHECKOUT, options: PromotionOptions | None = None) -> Promotion:
    """Promote one candidate of a workspace, or move a stage to a version that was promoted before.

    Args:
        model: name of a candidate, or ``NAME@VERSION``.
        workspace: folder of the run that offers the candidate.
        options: stage, push, and the checkout whose git repository is the registry.

    Raises:
        RegistryError: there is no such candidate or version, the lock does not vouch for it, its gate does not hold,
            or files have changed since.
        InfraError: the store does not take the bytes.
    """
    options, spec = options or PromotionOptions(), Spec.parse(model)
    candidate = _candidate(model, workspace) if spec.version is None else None
    git = writable_repository(options.checkout, spec.name)
    with alone(git):
        if options.push:
            fetch_registry(git, spec.name)
        registry = Registry(git, str(options.checkout), options.checkout)
        known = registry.by_content(spec.name, candidate.content) if candidate else registry.find(model).version
        version = known
        with git.tags_undone_on_failure() as made:
            if candidate is not None and (version is None or options.push):
                stage, out = _check_unchanged(candidate, workspace)
                push_stages(workspace, [stage])
                version = version or register(git, build_record(candidate, out, git), workspace, made)
            assert version is not None, "a candidate is registered, or its version was known"
            new_stage = options.stage not in version.stages
            if new_stage:
                assign(git, spec.name, version, options.stage, made)
            advance(git, spec.name, version.commit)
        if options.push:
            push(git, spec.name)
    return Promotion(spec.name, version.version, options.stage, known is None, new_stage, options.push)


def writable_repository(checkout: Path, name: str) -> Git:
    """The repository that is the registry, in a state in which a promotion may write to it.

    Raises:
        RegistryError: it is no git repository with a commit, or the branch of ``name`` is checked out.
    """
    git = Git.around(checkout)
    if git is None or git.try_run("rev-parse", "--verify", "--quiet", "HEAD^{commit}") is None:
        msg = f"{checkout} is not a git repository with a commit: the registry lives in git"
        raise RegistryError(msg)
    if f"refs/heads/{branch_of(name)}" in git.branches_in_use():
        msg = f"branch {branch_of(name)} is checked out, and promotion moves it: switch to another branch first"
        raise RegistryError(msg)
    return git


def _candidate(name: str, workspace: Path) -> Candidate:
    candidates = vouched_candidates(workspace)
    if name not in candidates:
        msg = f"no candidate {name!r}; the line offers {', '.join(candidates) or 'none'}"
        raise RegistryError(msg)
    candidate = candidates[name]
    if not candidate.holds:
        msg = f"{name} may not be promoted: {_unmet(candidate)}"
        raise RegistryError(msg)
    return candidate


def _unmet(candidate: Candidate) -> str:
    unmet = ", ".join(str(check) for check in candidate.gate if not check.holds)
    return f"its gate (params.yaml, section register) asks for {unmet}"


def _check_unchanged(candidate: Candidate, workspace: Path) -> tuple[str, dict[str, str]]:
    """Check that disk, DVC's lock and cache, and params still are what was measured.

    Returns:
        The DVC stage that made the model, and its output (path and hash).
    """
    lock = read_lock(workspace)
    stage, out = output_of(candidate.path, lock)
    files = hash_folder(workspace / candidate.path)
    if files != candidate.files:
        msg = f"{candidate.path} has changed since it was measured and registered: {AGAIN}"
        raise RegistryError(msg)
    check_params(candidate.name, workspace, lock)
    prefix = f"{candidate.path}/".removeprefix(f"{out['path']}/")
    cached = cached_listing(cache_folder(workspace), out["md5"]) or {}
    if any(cached.get(prefix + file.path) != file.md5 for file in files):
        msg = f"DVC's cache does not hold {candidate.path} as dvc.lock says: {AGAIN}"
        raise RegistryError(msg)
    return stage, {"path": out["path"], "md5": out["md5"]}


def check_params(name: str, workspace: Path, lock: Lock) -> None:
    """Check that the params file still says what DVC's lock says every stage ran with.

    Raises:
        RegistryError: it does not.
    """
    params = read_yaml(workspace / "params.yaml")
    for stage, entry in lock.items():
        for section, values in entry.get("params", {}).get("params.yaml", {}).items():
            if _param(params, section) != values:
                msg = (
                    f"params.yaml has changed since {name} was made (section {section}, stage {stage}): "
                    f"{AGAIN}, or take the change back"
                )
                raise RegistryError(msg)


def _param(params: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        params = params.get(key) if isinstance(params, dict) else None
    return params


@contextlib.contextmanager
def alone(git: Git) -> Iterator[None]:
    """One promotion at a time in a repository; a killed one leaves no lock behind."""
    path = Path(git.run("rev-parse", "--path-format=absolute", "--git-common-dir")) / "vital-registry.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
