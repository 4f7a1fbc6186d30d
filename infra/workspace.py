"""Workspaces: folders with a run of their own (dvc.yaml, dvc.lock, params.yaml and artifacts) of the checkout's code.

The checkout is the default workspace. A run on another pool, profile or setting gets a folder below ``workspaces/``, so
that the sample run stays what it was. Such a workspace shares the checkout's code (its stages depend on the checkout's
files by absolute path), base weights, stores and DVC cache: what one workspace has computed, another takes from the
run cache.
"""

import configparser
import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from infra.dvc_store import cache_folder
from infra.errors import InfraError
from infra.params import EMBEDDED, Params, apply_settings, profile_params
from infra.pool_view import IGNORED, LINK, POOL, link_pool
from infra.text_files import settle_text

CHECKOUT: Final = Path(__file__).resolve().parents[1]
"""The checkout that this code belongs to."""

_MARKS: Final = ("flows/line.py", "dvc.yaml", "params.yaml", "prefect.yaml")
"""Files by which a checkout of this project is known."""

_SPEC: Final = "workspace.json"
_LINKED: Final = ("artifacts/base", "data", ".store")
"""What a workspace sees of the checkout through links, because stages name it relative to their workspace."""


@dataclass(frozen=True)
class WorkspaceSpec:
    """What a workspace runs.

    Attributes:
        profile: name of a profile.
        pool: folder, manifest or S3 prefix of media; None means the profile's own.
        settings: params sections with the values that replace the profile's.
    """

    profile: str = EMBEDDED
    pool: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def default(self) -> bool:
        """Whether this is what the checkout itself runs."""
        return self == WorkspaceSpec()

    @property
    def name(self) -> str:
        """Folder name: readable, and different for different specs."""
        parts = [] if self.profile == EMBEDDED and self.pool else [self.profile]
        if self.pool:
            parts.insert(0, re.sub(r"[^\w-]+", "-", Path(self.pool).name).strip("-") or "pool")
        if self.pool or self.settings:
            digest = hashlib.sha256(json.dumps([self.pool, self.settings], sort_keys=True).encode()).hexdigest()
            parts.append(digest[:6])
        return "-".join(parts)


def checkout_around(folder: Path) -> Path | None:
    """The checkout of this project that a folder lies in, workspaces included; None outside of any."""
    for place in (folder, *folder.parents):
        if all((place / mark).is_file() for mark in _MARKS):
            return place
    return None


def workspace_around(folder: Path) -> Path | None:
    """The workspace that a folder lies in, beside the checkout; None outside of any."""
    return next(
        (place for place in (folder, *folder.parents) if all((place / mark).is_file() for mark in (_SPEC, "dvc.yaml"))),
        None,
    )


def absolute_pool(pool: str) -> str:
    """Check a pool named by a user and make it independent of the working directory.

    Raises:
        InfraError: there is no such folder or manifest, the folder holds no file, or a URL names no bucket.
    """
    ways = "name a folder of photos and clips, a manifest, or s3://BUCKET/PREFIX"
    if "://" in pool:
        parts = urlsplit(pool)
        if parts.scheme != "s3" or not parts.netloc:
            msg = f"{pool} is no pool: {ways}"
            raise InfraError(msg)
        return pool
    if not pool.strip():
        msg = f"the pool has no name: {ways}"
        raise InfraError(msg)
    try:
        path = Path(pool).expanduser().resolve()
        missing = not path.exists()
        empty = path.is_dir() and not any(files for _, _, files in os.walk(path))
    except (OSError, RuntimeError) as error:  # the latter: no such user, links in a circle
        msg = f"cannot read the pool {pool} ({error.strerror if isinstance(error, OSError) else error}): {ways}"
        raise InfraError(msg) from error
    if missing:
        msg = f"there is no pool {pool}: {ways}"
        raise InfraError(msg)
    if empty:
        msg = f"the pool {pool} is empty: put photos or clips into it"
        raise InfraError(msg)
    return str(path)


def locate_workspace(spec: WorkspaceSpec, folder: Path | None = None, checkout: Path = CHECKOUT) -> Path:
    """Where a spec runs: in the folder that was named, else in the checkout or one of its workspaces.

    Raises:
        InfraError: the name leads nowhere.
    """
    if folder is None:
        folder = checkout if spec.default else checkout / "workspaces" / spec.name
    try:
        return folder.expanduser().resolve()
    except RuntimeError as error:  # no such user, links in a circle
        msg = f"{folder} cannot be a workspace: {error}"
        raise InfraError(msg) from error


def read_spec(root: Path) -> WorkspaceSpec:
    """What the workspace at ``root`` was prepared for; the default spec if it is the checkout or new.

    Raises:
        InfraError: the workspace's description cannot be read.
    """
    path = root / _SPEC
    try:
        if not path.is_file():
            return WorkspaceSpec()
        spec = WorkspaceSpec(**json.loads(path.read_text()))
    except OSError as error:
        msg = f"cannot read the workspace {root}: {error.strerror}"
        raise InfraError(msg) from error
    except (ValueError, TypeError) as error:
        msg = f"{path} does not describe a workspace ({error}): mend the file, or name another --workspace"
        raise InfraError(msg) from error
    typed = isinstance(spec.profile, str) and isinstance(spec.pool, str | None) and isinstance(spec.settings, dict)
    if not typed:
        msg = f"{path} does not describe a workspace (a value has a wrong type): mend it, or name another --workspace"
        raise InfraError(msg)
    return spec


def check_workspace(root: Path, spec: WorkspaceSpec, checkout: Path = CHECKOUT) -> None:
    """Refuse to run ``spec`` in a folder that is not for it; nothing is written.

    Raises:
        InfraError: it is the checkout, which runs its own, or holds somebody's files, or cannot be read.
    """
    if root == checkout and not spec.default:
        msg = "the checkout runs the embedded profile on its own pool: name another --workspace"
        raise InfraError(msg)
    try:
        foreign = root != checkout and root.is_dir() and any(root.iterdir()) and not (root / _SPEC).is_file()
    except OSError as error:
        msg = f"cannot read the workspace {root}: {error.strerror}"
        raise InfraError(msg) from error
    if foreign:
        msg = f"{root} is not empty and is no workspace: name a new or empty folder"
        raise InfraError(msg)


def prepare_workspace(root: Path, spec: WorkspaceSpec, checkout: Path = CHECKOUT) -> Path:
    """Make ``root`` a workspace for ``spec``, or bring it up to date; files that need not change are left alone.

    Returns:
        The absolute path of the workspace.

    Raises:
        InfraError: the profile, pool or a setting is unknown, or the folder cannot be written.
    """
    root = locate_workspace(spec, root)
    check_workspace(root, spec, checkout)
    if root == checkout:
        return root
    params = workspace_params(spec, checkout)
    pipeline = _located_pipeline(checkout, params["collect"]["pool"])
    try:
        root.mkdir(parents=True, exist_ok=True)
        settle_text(root / _SPEC, json.dumps(dataclasses.asdict(spec), indent=2, sort_keys=True) + "\n")
        settle_text(
            root / "params.yaml",
            _yaml(params, f"profile {spec.profile}, made by vital run --profile, --pool and --set"),
        )
        settle_text(
            root / "dvc.yaml", _yaml(pipeline, "the checkout's line with its code by absolute path; made by vital run")
        )
        _link_shared(root, checkout)
        link_pool(root, _pool_folder(checkout, params["collect"]["pool"]))
        _init_dvc(root, checkout, _pool_remote(params["collect"]))
    except OSError as error:
        msg = f"cannot write the workspace {root}: {error.strerror or error}"
        raise InfraError(msg) from error
    return root


def workspace_params(spec: WorkspaceSpec, checkout: Path = CHECKOUT) -> Params:
    """All params of a workspace: profile, then settings, then the pool.

    Raises:
        InfraError: the profile, a section or a key is unknown.
    """
    params = apply_settings(profile_params(checkout, spec.profile), spec.settings)
    if spec.pool is not None:
        params = apply_settings(params, {"collect": {"pool": spec.pool}})
    return params


def _located_pipeline(checkout: Path, pool: str) -> dict[str, Any]:
    """The checkout's dvc.yaml for use elsewhere: what no stage makes is named by its absolute path."""
    elsewhere = ["remote://pool/" if "://" in pool else str(checkout / pool)]
    located_pool = [LINK, IGNORED] if _pool_folder(checkout, pool) else elsewhere
    pipeline = yaml.safe_load((checkout / "dvc.yaml").read_text())
    made = {out for stage in pipeline["stages"].values() for out in made_by(stage)}

    def locate(dependency: str) -> list[str]:
        if dependency == POOL:
            return located_pool
        if "${" in dependency or any(dependency == out or dependency.startswith(f"{out}/") for out in made):
            return [dependency]  # of a stage, which params may name
        return _files_of_code(checkout / dependency)

    for stage in pipeline["stages"].values():
        stage["deps"] = [path for dependency in stage.get("deps", []) for path in locate(dependency)]
        stage["cmd"] = stage["cmd"].replace("$PWD/.venv", f"{checkout}/.venv")
    return pipeline


def _pool_folder(checkout: Path, pool: str) -> Path | None:
    """The folder that a pool is; None if it lies behind a URL or is a manifest."""
    return None if "://" in pool or (checkout / pool).is_file() else checkout / pool


def _files_of_code(path: Path) -> list[str]:
    """A folder that holds code, as its files: DVC reads folders elsewhere without .dvcignore, bytecode and all."""
    if path.is_dir() and any(path.rglob("*.py")):
        return [str(file) for file in sorted(path.rglob("*")) if file.is_file() and "__pycache__" not in file.parts]
    return [str(path)]


def made_by(stage: Mapping[str, Any]) -> list[str]:
    """Paths that a stage of a dvc.yaml makes: its outs, metrics and plots."""
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def _link_shared(root: Path, checkout: Path) -> None:
    for name in _LINKED:
        link = root / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(checkout / name)


def _pool_remote(collect: Params) -> dict[str, dict[str, str]]:
    """Section of DVC's config that names a pool which lies behind a URL; none if it is a folder."""
    if "://" not in collect["pool"]:
        return {}
    endpoint = collect.get("endpoint")
    return {"'remote \"pool\"'": {"url": collect["pool"], **({"endpointurl": endpoint} if endpoint else {})}}


def _init_dvc(root: Path, checkout: Path, remote: Mapping[str, Mapping[str, str]]) -> None:
    """Make the workspace a DVC project without git that uses the checkout's cache and remotes."""
    if not (root / ".dvc").is_dir():
        command = [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            msg = f"dvc init failed in {root}: {done.stderr.strip()}"
            raise InfraError(msg)
    settle_text(root / ".dvc" / "config", _located_config(checkout, "config", {"core": {"no_scm": "True"}, **remote}))
    settle_text(root / ".dvc" / "config.local", _located_config(checkout, "config.local", {}))


def _located_config(checkout: Path, name: str, more: Mapping[str, Mapping[str, str]]) -> str:
    """A DVC config file of the checkout for use elsewhere: relative remotes become absolute, the cache is shared."""
    config = configparser.RawConfigParser()
    config.read(checkout / ".dvc" / name)
    for section in config.sections():
        url = config.get(section, "url", fallback=None)
        if url is not None and "://" not in url:
            config.set(section, "url", os.path.normpath(checkout / ".dvc" / url))
    if more or config.has_section("cache"):
        config.read_dict({**more, "cache": {"dir": str(cache_folder(checkout))}})
    text = io.StringIO()
    config.write(text)
    return text.getvalue()


def _yaml(values: dict[str, Any], comment: str) -> str:
    return f"# {comment}\n{yaml.safe_dump(values, sort_keys=False, width=120, allow_unicode=True)}"
