"""What a run offers to the registry, read only after DVC's lock has vouched for it.

``artifacts/register/candidates.json`` is a file that anybody can write, and a line can be run in parts. So candidates
count only if the folder is what the lock says ``register`` made, and if every stage on the way to it read what the
stages before it made last: then the measures are those of the models that lie there now.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from infra.dvc_store import cache_folder
from infra.dvc_tree import Listing, below, cached_listing, folder_listing, listing_hash
from infra.errors import InfraError, RegistryError
from infra.model_record import CANDIDATES_FILE, Candidate, read_candidates

AGAIN: Final = "run the line again (vital run, or dvc repro)"

_MAKER: Final = "register"
_FOLDER: Final = str(PurePosixPath(CANDIDATES_FILE).parent)

Lock = dict[str, dict[str, Any]]
"""Stage -> its entry in dvc.lock."""


def vouched_candidates(workspace: Path) -> dict[str, Candidate]:
    """Read what the stage ``register`` offers, and check it against the lock.

    Raises:
        RegistryError: it has not run, its folder is not what it made, or it rests on something that has changed since.
        InfraError: the lock cannot be read.
    """
    candidates = read_candidates(workspace)
    lock = read_lock(workspace)
    made = _outs(lock).get(_FOLDER)
    if made is None or made[0] != _MAKER or listing_hash(folder_listing(workspace / _FOLDER)) != made[1]:
        msg = f"{_FOLDER} is not what dvc.lock says that {_MAKER} made: {AGAIN}"
        raise RegistryError(msg)
    _check_outdated(lock, cache_folder(workspace), _MAKER)
    return candidates


def vouched_outputs(workspace: Path, stages: Sequence[str]) -> dict[str, str]:
    """Hashes of what stages made last, ``artifacts/<stage>`` -> DVC's name of the folder.

    Args:
        workspace: folder of the run.
        stages: in the line's order; the last one and all on the way to it must have read what was made last.

    Raises:
        RegistryError: a stage has not run, or rests on something that has changed since.
        InfraError: the lock cannot be read.
    """
    lock = read_lock(workspace)
    outs = _outs(lock)
    found = {folder: outs.get(folder) for folder in (f"artifacts/{stage}" for stage in stages)}
    for folder, made in found.items():
        if made is None or cached_listing(cache_folder(workspace), made[1]) in (None, {}):
            msg = f"{folder} is not in DVC's cache as dvc.lock says: {AGAIN}"
            raise RegistryError(msg)
    _check_outdated(lock, cache_folder(workspace), stages[-1])
    return {folder: made[1] for folder, made in found.items() if made is not None}


def read_lock(workspace: Path) -> Lock:
    """Read the stages of a workspace's dvc.lock.

    DVC writes YAML 1.2, in which ``1e-06`` is a number; PyYAML reads 1.1, in which it is a text.

    Raises:
        InfraError: it cannot be read.
    """
    return _read_mapping(workspace / "dvc.lock", YAML(typ="safe", pure=True).load).get("stages", {})


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        InfraError: it cannot be read, or holds something else.
    """
    return _read_mapping(path, yaml.safe_load)


def _read_mapping(path: Path, load: Callable[[str], Any]) -> dict[str, Any]:
    try:
        values = load(path.read_text()) or {}
    except (OSError, yaml.YAMLError, YAMLError) as error:
        msg = f"cannot read {path}: {' '.join(str(error).split())}"
        raise InfraError(msg) from error
    if not isinstance(values, dict):
        msg = f"{path} is no mapping: take it back (git checkout, or make the workspace anew)"
        raise InfraError(msg)
    return values


def output_of(path: str, lock: Lock) -> tuple[str, dict[str, Any]]:
    """Find the DVC stage, and its output in the lock, that hold a path.

    Raises:
        RegistryError: no output does.
    """
    for stage, entry in lock.items():
        for out in entry.get("outs", []):
            if f"{path}/".startswith(f"{out['path']}/"):
                return stage, out
    msg = f"dvc.lock names no output that holds {path}: run the line first (vital run, or dvc repro)"
    raise RegistryError(msg)


def _outs(lock: Lock) -> dict[str, tuple[str, str]]:
    """Output -> the stage that makes it, and the hash of what it made last."""
    return {out["path"]: (stage, out["md5"]) for stage, entry in lock.items() for out in entry.get("outs", [])}


def _check_outdated(lock: Lock, cache: Path, last: str) -> None:
    for stage, path in _outdated(lock, cache, last):
        msg = f"{stage} was made from another {path} than the one that dvc.lock names now: {AGAIN}"
        raise RegistryError(msg)


def _outdated(lock: Lock, cache: Path, last: str) -> Iterator[tuple[str, str]]:
    """Stages on the way to ``last``, itself included, that read something else than was made last, and what."""
    outs, waiting, seen = _outs(lock), [last], set[str]()
    while waiting:
        stage = waiting.pop()
        if stage in seen:
            continue
        seen.add(stage)
        for dependency in lock.get(stage, {}).get("deps", []):
            holder = _holder(dependency["path"], outs)
            if holder is None:
                continue  # code, or an input of the line
            maker, made = outs[holder]
            waiting.append(maker)
            inner = dependency["path"].removeprefix(holder).lstrip("/")
            if (below(_listing(holder, made, cache), inner) if inner else made) != dependency.get("md5"):
                yield stage, dependency["path"]


def _holder(path: str, outs: dict[str, tuple[str, str]]) -> str | None:
    return next((out for out in outs if f"{path}/".startswith(f"{out}/")), None)


def _listing(out: str, made: str, cache: Path) -> Listing:
    listing = cached_listing(cache, made)
    if listing is None:
        msg = f"DVC's cache does not hold {out} as dvc.lock says: {AGAIN}"
        raise RegistryError(msg)
    return listing
