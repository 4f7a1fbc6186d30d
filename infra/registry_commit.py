"""What the registry writes into git: the commit that records a model, GTO's tags on it, its branch, and its push."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from infra.dvc_store import Location, config_with_store, remote
from infra.errors import RegistryError
from infra.git import Git, local_path
from infra.model_record import DATA_SET, Candidate, Record
from infra.pool_view import IGNORED, LINK, POOL
from infra.registry import record_path
from infra.tags import Version, order, read_tags

ORIGIN: Final = "origin"
"""Git remote that a promotion may be pushed to."""

_NOTHING: Final = "0" * 40
_FIRST: Final = "v0.0.1"
_RECORDED: Final = ("dvc.lock", "params.yaml")


def build_record(candidate: Candidate, out: Mapping[str, str], git: Git) -> Record:
    """Add to a candidate what only the checkout knows: the code's commit and where the bytes go."""
    place, origin = remote(git.folder), git.remotes().get(ORIGIN)
    # a folder that nobody chose is named only to clones that see the same disk
    reachable = place is not None and (place.chosen or (origin is not None and local_path(origin) is not None))
    code = {"commit": git.run("rev-parse", "HEAD"), "modified": git.modified()}
    store = {"url": place.url, "endpoint": place.endpoint} if place is not None and reachable else None
    return Record(candidate, out, store, code)


def register(
    git: Git, record: Record, workspace: Path, made: list[str], more: Mapping[str, bytes] | None = None
) -> Version:
    """Commit the record and let GTO tag it as the next version of the model or data set.

    Args:
        git: the checkout's repository.
        record: what is promoted.
        workspace: folder of the run: its dvc.lock, params and metrics are recorded.
        made: receives the tag's name before the tag is made.
        more: further files of the commit, path -> content.
    """
    from gto import api  # noqa: PLC0415 - seconds to import, needed only when something is promoted

    name, head, identity = record.candidate.name, git.run("rev-parse", "HEAD"), git.identity()
    tip, version = git.tip(branch_of(name)), next_version(git, name)
    tree = git.tree_with(head, _files(git, record, workspace) | dict(more or {}))
    message = f"Register {name} {version}\n\n{_summary(record)}\n"
    commit = git.commit(tree, [tip, head] if tip else [head], message, identity)
    made.append(f"{name}@{version}")
    signer: dict[str, Any] = {"author": identity.name, "author_email": identity.email}
    with _gto_errors("register"):
        api.register(git.folder, name, commit, version=version, message=message, **signer)
    return Version(version, commit, 0, identity.name, ())


def assign(git: Git, name: str, version: Version, stage: str, made: list[str]) -> None:
    """Let GTO tag a version as the one that is in a stage now; ``made`` receives the tag's name."""
    from gto import api  # noqa: PLC0415 - see register

    identity = git.identity()
    signer: dict[str, Any] = {"author": identity.name, "author_email": identity.email}
    with _gto_errors("assign"):
        # force: a version may come back to a stage that another one has held in between
        event = api.assign(git.folder, name, stage, version=version.version, force=True, **signer)
    made.append(event.tag)


def branch_of(name: str) -> str:
    """Branch that holds a model's records."""
    return f"registry/{name}"


@contextlib.contextmanager
def _gto_errors(action: str) -> Iterator[None]:
    from gto.exceptions import GTOException  # noqa: PLC0415 - see _register
    from scmrepo.exceptions import SCMError  # noqa: PLC0415

    try:
        yield
    except (GTOException, SCMError) as error:
        msg = f"gto {action} failed: {' '.join(str(error).split())}"
        raise RegistryError(msg) from error


def _files(git: Git, record: Record, workspace: Path) -> dict[str, bytes]:
    """What the commit adds to HEAD's tree."""
    name = record.candidate.name
    files = {path: (workspace / path).read_bytes() for path in _RECORDED}
    if workspace != git.folder:
        files["dvc.lock"] = _located_lock(files["dvc.lock"], git.folder)
    files |= {f"metrics/{path.name}": path.read_bytes() for path in sorted((workspace / "metrics").glob("*.json"))}
    text = json.dumps(record.to_json(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    files[record_path(name)] = text.encode()
    files[f"registry/{name}.md"] = record.candidate.card.encode()
    files["dvc.yaml"] = _pipeline(git.folder / "dvc.yaml", record.candidate)
    config = git.show("HEAD", ".dvc/config")
    if record.store is not None and config is not None:
        place = Location(str(record.store["url"]), record.store["endpoint"])
        files[".dvc/config"] = config_with_store(config.decode(), place).encode()
    return files


def _located_lock(content: bytes, checkout: Path) -> bytes:
    """A workspace's dvc.lock as of the checkout, in whose commit it lies: the same code and pool by other paths."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {strip(key): strip(item) for key, item in value.items()}
        if isinstance(value, list):
            return [strip(item) for item in value]
        return value.replace(f"{checkout}/", "") if isinstance(value, str) else value

    lock = strip(yaml.safe_load(content))
    for stage in lock.get("stages", {}).values():
        if deps := stage.get("deps"):
            stage["deps"] = [
                dep | {"path": POOL if dep["path"] == LINK else dep["path"]} for dep in deps if dep["path"] != IGNORED
            ]
    return yaml.safe_dump(lock, sort_keys=False, allow_unicode=True).encode()


def _pipeline(path: Path, candidate: Candidate) -> bytes:
    """The checkout's dvc.yaml, which declares the model as a DVC artifact; a decoder it does not know is added."""
    content = path.read_bytes()
    pipeline: dict[str, Any] = yaml.safe_load(content)
    declared = pipeline.setdefault("artifacts", {})
    if declared.get(candidate.name, {}).get("path") == candidate.path:
        return content
    declared[candidate.name] = {"path": candidate.path, "type": "dataset" if candidate.kind == DATA_SET else "model"}
    return yaml.safe_dump(pipeline, sort_keys=False, allow_unicode=True).encode()


def _summary(record: Record) -> str:
    measures = ", ".join(f"{key} {value:.4f}" for key, value in record.candidate.metrics.items() if value is not None)
    return f"content {record.candidate.content[:16]}; {measures}"


def next_version(git: Git, name: str) -> str:
    """The version that would be registered next."""
    taken = [tag.version for tag in read_tags(git) if tag.name == name and tag.version is not None]
    if not taken:
        return _FIRST
    major, minor, patch = max(order(version) for version in taken)
    return f"v{major}.{minor}.{patch + 1}"


def advance(git: Git, name: str, commit: str) -> None:
    """Let the model's branch contain the commit; where it does already it stays."""
    tip = git.tip(branch_of(name))
    if tip is None or git.try_run("merge-base", "--is-ancestor", commit, tip) is None:
        message = "vital registry promote"
        git.run("update-ref", "-m", message, f"refs/heads/{branch_of(name)}", commit, tip or _NOTHING)


def fetch_registry(git: Git, name: str) -> None:
    """Bring what others have pushed of this model, so that the next version and the branch continue theirs.

    Raises:
        RegistryError: there is no ``origin``, it cannot be reached, or it and this clone contradict each other.
    """
    _require_origin(git)
    _explained_fetch(git, name, [f"refs/tags/{name}@*:refs/tags/{name}@*", f"refs/tags/{name}#*:refs/tags/{name}#*"])
    branch = f"refs/heads/{branch_of(name)}"
    if git.run("ls-remote", ORIGIN, branch):
        _explained_fetch(git, name, [f"{branch}:{branch}"])


def _explained_fetch(git: Git, name: str, specs: Sequence[str]) -> None:
    try:
        git.run("fetch", "--no-tags", ORIGIN, *specs)
    except RegistryError as error:
        if "clobber" not in str(error) and "non-fast-forward" not in str(error):
            raise
        msg = (
            f"{ORIGIN} and this clone have both registered {name} since they last met: delete the local tags and "
            f"branch (git tag -d $(git tag -l '{name}@*' '{name}#*'); git branch -D {branch_of(name)}), promote again"
        )
        raise RegistryError(msg) from error


def _require_origin(git: Git) -> None:
    if ORIGIN not in git.remotes():
        msg = f"{git.folder} has no git remote {ORIGIN} to push to: add one, or leave --push out"
        raise RegistryError(msg)


def push(git: Git, name: str) -> None:
    """Push a model's branch and tags to ``origin``, all or none."""
    tags = [tag.tag for tag in read_tags(git) if tag.name == name]
    refs = [f"refs/heads/{branch_of(name)}", *(f"refs/tags/{tag}" for tag in tags)]
    git.run("push", "--quiet", "--atomic", ORIGIN, *(f"{ref}:{ref}" for ref in refs))
