"""Versions of the data set: what annotation made, recorded in the registry as models are, on a branch of its own.

A version is one folder ``dataset`` with what every stage of annotation made, ``collect`` to ``validate``. It is a
listing of bytes that DVC's cache holds already, so it costs no second copy, and nothing in the work tree changes: the
DVC file ``dataset.dvc`` that names it exists in the registry's commit alone. The accepted version is in stage ``prod``;
that is the one which the next re-annotation is compared with.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from infra.dvc_store import STORE, Location, cache_folder, push_stages, remote
from infra.dvc_tree import Listing, cached_listing, cached_object, listing_hash, listing_object, object_key
from infra.errors import InfraError, RegistryError
from infra.model_record import DATA_SET, Candidate, Check, ModelFile, content_hash, hash_file
from infra.offer import AGAIN, read_lock, read_yaml, vouched_outputs
from infra.promotion import alone, check_params, writable_repository
from infra.registry import DATA, DEFAULT_STAGE, Found, Registry
from infra.registry_commit import advance, assign, branch_of, build_record, register
from infra.workspace import CHECKOUT

FOLDER: Final = "dataset"
"""Folder that a clone gets by ``dvc pull dataset.dvc`` on the branch, or by ``dvc artifacts get``."""

_PLACE: Final = 8
"""Hex digits by which data sets of workspaces with the same name differ."""


@dataclass(frozen=True)
class DataSet:
    """What annotation has made in a workspace, as DVC's lock vouches for it.

    Attributes:
        stages: that made it, in order.
        outputs: ``artifacts/<stage>`` -> DVC's name of the folder.
        files: all their files, as ``<stage>/<path>``, sorted.
    """

    stages: tuple[str, ...]
    outputs: Mapping[str, str]
    files: tuple[ModelFile, ...]

    @property
    def content(self) -> str:
        """SHA-256 of all of it; equal for equal files."""
        return content_hash(self.files)

    @property
    def listing(self) -> Listing:
        """Path -> MD5, as DVC lists a folder."""
        return {file.path: file.md5 for file in self.files}


@dataclass(frozen=True)
class DataSetEntry:
    """What the registry is to say of a version, beside its files.

    Attributes:
        name: of the data set.
        last: version that it was compared with; None for a first version.
        metrics: counts and drift. gate: the declared limits. sections: of the params file that made it.
        card: Markdown. report: what the card was made of, recorded as JSON.
    """

    name: str
    last: str | None
    metrics: Mapping[str, float | None]
    gate: tuple[Check, ...]
    sections: Sequence[str]
    card: str
    report: Mapping[str, Any]


def data_set_name(workspace: Path, checkout: Path = CHECKOUT) -> str:
    """Name of a workspace's data set: every workspace has a pool, and so a history, of its own.

    That of the checkout, and those of its folder ``workspaces``, are the same in every clone. Others tell their place
    by a hash, because two folders may be called the same.
    """
    if workspace == checkout:
        return DATA
    own = workspace.parent == checkout / "workspaces"
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", workspace.name).strip("-")
    if own and plain == workspace.name:
        return f"{DATA}-{plain}"
    place = os.fsencode(workspace.name if own else str(workspace))
    return f"{DATA}-{plain or 'workspace'}-{hashlib.sha256(place).hexdigest()[:_PLACE]}"


def last_version(name: str, registry: Registry, stage: str = DEFAULT_STAGE) -> Found | None:
    """The accepted version of a data set; None before the first."""
    versions = registry.models.get(name, [])
    return next((Found(name, version) for version in versions if stage in version.stages), None)


def report_path(name: str) -> str:
    """Where the registry's commits keep a data set's report."""
    return f"registry/{name}.report.json"


def read_data_set(workspace: Path, stages: Sequence[str], known: Sequence[ModelFile] = ()) -> DataSet:
    """Read what annotation has made; files that ``known`` lists are not hashed again.

    Raises:
        RegistryError: a stage has not run, rests on something that has changed since, or DVC's cache is damaged.
        InfraError: the lock cannot be read.
    """
    outputs, cache = vouched_outputs(workspace, stages), cache_folder(workspace)
    before = {file.md5: file for file in known}
    files: list[ModelFile] = []
    for folder, made in outputs.items():
        stage = folder.rpartition("/")[2]
        for path, md5 in (cached_listing(cache, made) or {}).items():
            name, old = f"{stage}/{path}", before.get(md5)
            files.append(_cached_file(cache, md5, name) if old is None else ModelFile(name, old.size, old.sha256, md5))
    return DataSet(tuple(stages), outputs, tuple(sorted(files, key=lambda file: file.path)))


def cached_path(workspace: Path, data_set: DataSet, path: str) -> Path:
    """Where DVC's cache keeps a file of a data set: exactly what will be recorded, whatever lies in ``artifacts/``.

    Raises:
        RegistryError: the data set has no such file.
    """
    if path not in data_set.listing:
        msg = f"annotation made no {path}: {AGAIN}"
        raise RegistryError(msg)
    return cached_object(cache_folder(workspace), data_set.listing[path])


def record_data_set(data_set: DataSet, entry: DataSetEntry, workspace: Path, checkout: Path = CHECKOUT) -> str:
    """Make a data set the accepted version: bytes to the store, a commit on its branch, GTO's tags. HEAD does not move.

    Killed at any point and called again, it finishes; a version exists only once all its bytes are in the store.

    Returns:
        What became of it, in one line.

    Raises:
        RegistryError: a limit does not hold, params or the accepted version have changed meanwhile, or git refuses.
        InfraError: the store does not take the bytes.
    """
    if unmet := [str(check) for check in entry.gate if not check.holds]:
        msg = f"{entry.name} may not be recorded: its limits ask for {', '.join(unmet)}"
        raise RegistryError(msg)
    git = writable_repository(checkout, entry.name)
    with alone(git):
        registry = Registry(git, str(checkout), checkout)
        last = last_version(entry.name, registry)
        version = registry.by_content(entry.name, data_set.content)
        if version is None and (None if last is None else str(last)) != entry.last:
            msg = f"{entry.name} was compared with {entry.last or 'nothing'}, and {last} is accepted now: run it again"
            raise RegistryError(msg)
        known = version is not None
        with git.tags_undone_on_failure() as made:
            if version is None:
                check_params(entry.name, workspace, _lock_of(workspace, data_set.stages))
                _push(workspace, data_set)
                record = build_record(_candidate(data_set, entry, workspace), _output(data_set), git)
                version = register(git, record, workspace, made, _more(data_set, entry))
            if DEFAULT_STAGE not in version.stages:
                assign(git, entry.name, version, DEFAULT_STAGE, made)
            advance(git, entry.name, version.commit)
    told = f"{entry.name}@{version.version}"
    if known:
        return f"{told} is {DEFAULT_STAGE}: the same data as before"
    return f"{told} is {DEFAULT_STAGE}: new version, recorded on branch {branch_of(entry.name)}"


def confirm_data_set(found: Found, checkout: Path = CHECKOUT) -> None:
    """Finish what a killed run may have left of an accepted version: its branch contains it.

    Raises:
        RegistryError: git refuses.
    """
    git = writable_repository(checkout, found.name)
    with alone(git):
        advance(git, found.name, found.version.commit)


def _cached_file(cache: Path, md5: str, name: str) -> ModelFile:
    path = cached_object(cache, md5)
    if not path.is_file():
        msg = f"DVC's cache does not hold {name} as dvc.lock says: {AGAIN}"
        raise RegistryError(msg)
    file = hash_file(path, name)
    if file.md5 != md5:
        msg = f"{path} is damaged: remove it, and {AGAIN}"
        raise RegistryError(msg)
    return file


def _lock_of(workspace: Path, stages: Sequence[str]) -> dict[str, Any]:
    return {stage: entry for stage, entry in read_lock(workspace).items() if stage in stages}


def _push(workspace: Path, data_set: DataSet) -> None:
    """The stages' outputs to the store, and the listing that makes one folder of them to store and cache."""
    push_stages(workspace, data_set.stages)
    place = remote(workspace)
    if place is None:
        msg = f"{workspace} has no DVC remote {STORE}: vital store use names one"
        raise InfraError(msg)
    key = object_key(listing_hash(data_set.listing))
    for target in (place, Location(str(cache_folder(workspace)))):
        target.open().put_if_absent(key, listing_object(data_set.listing))


def _candidate(data_set: DataSet, entry: DataSetEntry, workspace: Path) -> Candidate:
    params = read_yaml(workspace / "params.yaml")
    return Candidate(
        name=entry.name,
        kind=DATA_SET,
        path=FOLDER,
        files=data_set.files,
        metrics=entry.metrics,
        gate=entry.gate,
        params={section: params.get(section) for section in entry.sections},
        made_from=data_set.outputs,
        parents=() if entry.last is None else (entry.last,),
        card=entry.card,
    )


def _output(data_set: DataSet) -> dict[str, str]:
    return {"path": FOLDER, "md5": listing_hash(data_set.listing)}


def _more(data_set: DataSet, entry: DataSetEntry) -> dict[str, bytes]:
    """The DVC file of the folder, and the report."""
    size, count = sum(file.size for file in data_set.files), len(data_set.files)
    out = {"md5": listing_hash(data_set.listing), "size": size, "nfiles": count, "hash": "md5", "path": FOLDER}
    report = json.dumps(entry.report, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return {
        f"{FOLDER}.dvc": yaml.safe_dump({"outs": [out]}, sort_keys=False).encode(),
        report_path(entry.name): report.encode(),
    }


def read_report(registry: Registry, found: Found) -> dict[str, Any]:
    """The report that was recorded with a version.

    Raises:
        RegistryError: it carries none.
    """
    content = registry.attached(found, report_path(found.name))
    if content is None:
        msg = f"{found} carries no report of drift: it is no data set"
        raise RegistryError(msg)
    return json.loads(content)
