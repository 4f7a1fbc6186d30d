"""Where the bytes are: DVC's remotes ``seed`` and ``store``, and the object store beside the latter.

``store`` is the default remote: a git-ignored folder at first, S3 once ``vital store use`` has said so. That command
writes ``.dvc/config.local`` only, which git ignores, and never a credential. The opinion and answer stores lie below
the same URL, so one command moves all bytes.
"""

import configparser
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.dvc_tree import object_key
from infra.errors import InfraError, MissingObjectError
from infra.object_store import ObjectStore, open_store
from infra.text_files import replace_text

SEED: Final = "seed"
"""Remote that travels with the repository: pool and base weights; read-only."""

STORE: Final = "store"
"""Remote that a run may write to; the default."""

STORE_VARIABLE: Final = "VITAL_STORE"
"""Environment variable that names the opinion and answer store."""

_OBJECTS: Final = "objects"


@dataclass(frozen=True)
class Location:
    """Where a DVC remote lies.

    Attributes:
        url: absolute folder or ``s3://bucket/prefix``.
        endpoint: S3 server other than AWS.
        chosen: somebody chose it with ``vital store use``; otherwise it is what the repository comes with.
    """

    url: str
    endpoint: str | None = None
    chosen: bool = False

    def open(self) -> ObjectStore:
        """Open it as an object store."""
        return open_store(self.url, self.endpoint)


@dataclass(frozen=True)
class StoreReport:
    """What ``vital store show`` tells."""

    seed: str | None
    store: str | None
    endpoint: str | None
    objects: str
    problem: str | None


def remote(root: Path, name: str = STORE) -> Location | None:
    """Return where a remote of the DVC project at ``root`` lies, or None if it has no such remote."""
    section = _section(name)
    config, local = _read_config(root / ".dvc" / "config"), _read_config(root / ".dvc" / "config.local")
    chosen = local.has_section(section)
    merged = {**_items(config, section), **_items(local, section)}
    url = merged.get("url")
    if url is None:
        return None
    if "://" not in url:
        url = os.path.normpath(root.absolute() / ".dvc" / url)
    return Location(url, merged.get("endpointurl") or None, chosen)


def cache_folder(root: Path) -> Path:
    """Return the folder of the DVC project's cache."""
    folder = "cache"
    for name in ("config", "config.local"):
        folder = _items(_read_config(root / ".dvc" / name), "cache").get("dir", folder)
    return (root / ".dvc" / folder).resolve()


def store_url(root: Path) -> str:
    """Return the URL of the opinion and answer stores of a checkout or workspace.

    It is the environment's VITAL_STORE, else ``objects`` below the default remote, else ``.vital/store``.
    """
    if named := os.environ.get(STORE_VARIABLE):
        return named
    place = remote(root)
    return f"{place.url.rstrip('/')}/{_OBJECTS}" if place else str(root.absolute() / ".vital" / STORE)


def shared_store(root: Path) -> ObjectStore:
    """Open the opinion and answer stores, at the endpoint that ``vital store use`` has recorded."""
    place = remote(root)
    named = os.environ.get(STORE_VARIABLE)
    return open_store(store_url(root), place.endpoint if place and not named else None)


def use_store(root: Path, url: str, endpoint: str | None = None) -> Location:
    """Make ``url`` the remote ``store`` of this clone, after proving that it can be reached.

    Only ``.dvc/config.local`` is written; credentials stay in the environment.

    Args:
        root: the checkout.
        url: ``s3://BUCKET/PREFIX`` or a folder, which is made if need be.
        endpoint: S3 server other than AWS.

    Raises:
        InfraError: this is no DVC project, the URL is of another kind, or the place cannot be reached.
    """
    if not (root / ".dvc").is_dir():
        msg = f"{root} is not a DVC project: run the command in a checkout"
        raise InfraError(msg)
    if not url.strip() or url.rstrip("/") in ("s3:", "file:"):
        msg = f"{url!r} names no place: write s3://BUCKET/PREFIX or a folder"
        raise InfraError(msg)
    if url.startswith("s3://"):
        location = Location(url.rstrip("/"), endpoint, chosen=True)
    elif endpoint is not None:
        msg = f"--endpoint belongs to an S3 store, and {url} is a folder"
        raise InfraError(msg)
    else:
        location = Location(_absolute(url.removeprefix("file://")), chosen=True)
    location.open().check()
    if "://" not in location.url:
        _make_folder(Path(location.url))
    local = root / ".dvc" / "config.local"
    _read_config(local)  # a broken one is told, not written over
    replace_text(local, config_with_store(local.read_text() if local.is_file() else "", location))
    return location


def _absolute(folder: str) -> str:
    if "://" in folder:
        return folder
    try:
        return str(Path(folder).expanduser().absolute())
    except RuntimeError as error:  # no such user
        msg = f"{folder} cannot be a store: {error}"
        raise InfraError(msg) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot make the folder {folder}: {error.strerror}"
        raise InfraError(msg) from error


def config_with_store(text: str, place: Location) -> str:
    """Return a DVC configuration whose remote ``store`` is at ``place``; all else stays as in ``text``."""
    config, section = configparser.RawConfigParser(), _section(STORE)
    config.read_string(text)
    config.remove_section(section)
    config.add_section(section)
    config.set(section, "url", place.url)
    if place.endpoint is not None:
        config.set(section, "endpointurl", place.endpoint)
    return "".join(
        f"[{section}]\n" + "".join(f"    {key} = {value}\n" for key, value in config.items(section))
        for section in config.sections()
    )


def describe_store(root: Path) -> StoreReport:
    """Say where this clone's bytes are, and whether the store answers."""
    seed, store = remote(root, SEED), remote(root)
    problem = None
    try:
        shared_store(root).check()
        if store is not None:
            store.open().check()
    except InfraError as error:
        problem = str(error)
    return StoreReport(
        seed.url if seed else None,
        store.url if store else None,
        store.endpoint if store else None,
        store_url(root),
        problem,
    )


def push_stages(workspace: Path, stages: Sequence[str]) -> None:
    """Push the outputs of whole stages to the remote ``store``.

    Never a part of an output folder: DVC notes a pushed folder as complete and would leave out the rest of it for ever
    (seen with DVC 3.67).

    Raises:
        InfraError: DVC could not push; the message is its own.
    """
    run_dvc(workspace, "push", "--quiet", "--remote", STORE, *stages)


def run_dvc(root: Path, *arguments: str) -> str:
    """Run a DVC command and return what it printed.

    Raises:
        InfraError: it failed; the message is the last line of what it said.
    """
    environment = {**os.environ, "DVC_NO_ANALYTICS": "true"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = next(
            (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no message"
        )
        msg = f"dvc {arguments[0]} failed: {said.removeprefix('ERROR: ')}"
        raise InfraError(msg)
    return done.stdout


class ByteSources:
    """Places that may hold DVC's objects, asked one after the other: caches first, then remotes."""

    def __init__(self, places: Sequence[Location]) -> None:
        self._places = list(dict.fromkeys(places))

    def fetch(self, md5: str, path: Path, accept: Callable[[Path], bool]) -> None:
        """Write the object with this MD5 (of DVC's cache layout) to ``path``.

        Args:
            md5: the object's name.
            path: file to write; its folder must exist.
            accept: says whether a fetched file is what was asked for; if not, the next place is asked.

        Raises:
            InfraError: no place holds it undamaged; the message names the places, or why one could not be asked.
        """
        key, troubles = object_key(md5), []
        for place in self._places:
            try:
                place.open().fetch(key, path)
            except MissingObjectError:
                continue
            except InfraError as error:
                troubles.append(str(error))
                continue
            if accept(path):
                return
            troubles.append(f"{key} in {place.url} is damaged")
        searched = ", ".join(place.url for place in self._places) or "nowhere"
        msg = (
            f"no store that this clone can reach holds {key} (looked in {searched}"
            f"{''.join(f'; {trouble}' for trouble in troubles)}): whoever promoted it has to push it to a shared "
            "store (vital store use, then promote again with --push), and this clone has to use the same"
        )
        raise MissingObjectError(msg)


def byte_places(root: Path) -> Iterator[Location]:
    """Yield where the DVC project at ``root`` keeps bytes: its cache and its remotes."""
    if (root / ".dvc").is_dir():
        yield Location(str(cache_folder(root)))
        for name in (STORE, SEED):
            place = remote(root, name)
            if place is not None:
                yield Location(place.url, place.endpoint)


def _read_config(path: Path) -> configparser.RawConfigParser:
    config = configparser.RawConfigParser()
    try:
        config.read(path)
    except configparser.Error as error:
        msg = f"{path} is not a DVC configuration: {' '.join(str(error).split())}"
        raise InfraError(msg) from error
    return config


def _items(config: configparser.RawConfigParser, section: str) -> dict[str, str]:
    return dict(config.items(section)) if config.has_section(section) else {}


def _section(name: str) -> str:
    return f"'remote \"{name}\"'"
