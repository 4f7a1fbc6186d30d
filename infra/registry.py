"""Lookups in the model registry: tags say what exists, a record per version says what it is, stores hold the bytes.

A registry is any git repository with GTO tags: this checkout, another clone on this machine, a bare one or a URL.
Models come back as local folders, kept by content hash: the second lookup of the same bytes reads no store.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.dvc_store import ByteSources, Location, byte_places
from infra.errors import RegistryError
from infra.git import Git, local_path, mirror_tags
from infra.model_record import DATA_SET, ENCODER, STUDENT, ModelFile, Record, hash_file
from infra.tags import Version, models_of, read_tags
from infra.workspace import CHECKOUT

CACHE_VARIABLE: Final = "VITAL_CACHE"
"""Environment variable that names the folder for fetched models."""

DEFAULT_STAGE: Final = "prod"
"""Stage that promotion assigns."""

DEFAULT_MODEL: Final = "vital-base"
"""Model that is meant where nobody names one."""

DATA: Final = "vital-data"
"""Name of the checkout's data set; those of workspaces begin with it."""

_UNFIT: Final = {
    ENCODER: "an encoder without a decoder",
    DATA_SET: "a data set",
    STUDENT: "a student without levels and words (vital score --scorer rali)",
}
"""Kinds of entry that cannot assess, and why."""

_SPEC: Final = re.compile(r"^(?P<name>[A-Za-z0-9][\w/-]*)(?:@(?P<version>[\w.]+)|#(?P<stage>[\w/-]+))?$", re.ASCII)


@dataclass(frozen=True)
class Spec:
    """``NAME``, ``NAME@VERSION`` or ``NAME#STAGE``; a name alone means its newest version."""

    name: str
    version: str | None = None
    stage: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """Read a spec; ``@latest`` is the newest version, ``@1.2.3`` is ``@v1.2.3``.

        Raises:
            RegistryError: the text has another form.
        """
        match = _SPEC.match(text)
        if match is None:
            msg = f"{text!r} does not name a model: write NAME, NAME@VERSION or NAME#STAGE"
            raise RegistryError(msg)
        version = match["version"]
        if version == "latest":
            version = None
        return cls(match["name"], f"v{version.removeprefix('v')}" if version else None, match["stage"])


@dataclass(frozen=True)
class Found:
    """A version of a model."""

    name: str
    version: Version

    def __str__(self) -> str:
        return f"{self.name}@{self.version.version}"


class Registry:
    """The registry in one git repository.

    Args:
        git: repository on this machine that has the tags (for a URL: its mirror).
        origin: what the user called it.
        home: checkout whose stores and model cache are used as well.
    """

    def __init__(self, git: Git, origin: str, home: Path) -> None:
        self._git, self._origin, self._home = git, origin, home
        self._models = models_of(read_tags(git))

    @classmethod
    def open(cls, repo: str | Path | None = None, home: Path = CHECKOUT) -> "Registry":
        """Open the registry of ``home`` or of ``repo``: a clone, a bare repository, a URL, or a git remote's name.

        Raises:
            RegistryError: there is no repository.
        """
        if repo is None:
            return cls(_repository(home), str(home), home)
        text = str(repo)
        remote_url = Git(home).remotes().get(text)
        if remote_url is None and (folder := _folder(text)) is not None:
            return cls(_repository(folder), text, home)
        if remote_url is None and "://" not in text and ":" not in text:
            msg = f"{text} is neither a folder, nor the URL of a git repository, nor a git remote of {home}"
            raise RegistryError(msg)
        url = remote_url or text
        mirror = _cache(home) / "registries" / hashlib.sha256(url.encode()).hexdigest()[:16]
        return cls(mirror_tags(url, mirror), url, home)

    @property
    def models(self) -> dict[str, list[Version]]:
        """What is registered: name -> versions, newest first."""
        return self._models

    def find(self, spec: str) -> Found:
        """Find a version.

        Raises:
            RegistryError: there is no such model, version or stage; the message lists what exists.
        """
        wanted = Spec.parse(spec)
        versions = self._models.get(wanted.name)
        if versions is None:
            known = f"it has {', '.join(self._models)}" if self._models else "no model has been promoted there"
            msg = f"no model {wanted.name!r} in the registry of {self._origin}: {known}"
            raise RegistryError(msg)
        if wanted.stage is not None:
            for version in versions:
                if wanted.stage in version.stages:
                    return Found(wanted.name, version)
            stages = sorted({stage for version in versions for stage in version.stages})
            msg = (
                f"{wanted.name} has no version in stage {wanted.stage!r}; its stages are {', '.join(stages) or 'none'}"
            )
            raise RegistryError(msg)
        for version in versions:
            if wanted.version in (None, version.version):
                return Found(wanted.name, version)
        existing = ", ".join(version.version for version in versions)
        msg = f"{wanted.name} has no version {wanted.version}; its versions are {existing}"
        raise RegistryError(msg)

    def promoted(self, stage: str = DEFAULT_STAGE) -> Found:
        """Find the model that is meant where nobody names one: the default model's promoted version, never another.

        Raises:
            RegistryError: it has not been promoted to the stage; the message lists what has.
        """
        current = [
            Found(name, version)
            for name, versions in self._models.items()
            for version in versions
            if stage in version.stages and not name.startswith(DATA)
        ]
        for found in current:
            if found.name == DEFAULT_MODEL:
                return found
        others = f"promoted are {', '.join(map(str, current))}; name one, or" if current else "nothing else is either;"
        msg = (
            f"{DEFAULT_MODEL} is not promoted to {stage!r} in the registry of {self._origin}: {others} "
            f"run vital run, then vital registry promote {DEFAULT_MODEL}"
        )
        raise RegistryError(msg)

    def record(self, found: Found) -> Record:
        """Read what was recorded when the version was promoted.

        Raises:
            RegistryError: the tag's commit carries no record.
        """
        content = self._git.show(found.version.commit, record_path(found.name))
        if content is None:
            msg = (
                f"the commit of {found} carries no {record_path(found.name)}: it was not made by vital registry promote"
            )
            raise RegistryError(msg)
        try:
            return Record.from_json(json.loads(content))
        except (ValueError, KeyError, TypeError) as error:
            msg = f"the record of {found} cannot be read ({error}): it was made by another version of this project"
            raise RegistryError(msg) from error

    def by_content(self, name: str, content: str) -> Version | None:
        """Find the version of a model that consists of exactly these bytes."""
        for version in self._models.get(name, []):
            data = self._git.show(version.commit, record_path(name))
            if data is not None and json.loads(data).get("content") == content:
                return version
        return None

    def fetch(self, found: Found) -> Path:
        """Return a local folder with the version's files; they are fetched and verified once, then kept.

        Raises:
            RegistryError: no store that can be reached has the bytes, or they are not what was promoted.
        """
        record = self.record(found)
        folder = model_cache(self._home) / record.candidate.content
        if folder.is_dir():
            return folder
        sources = ByteSources(list(self._places(record)))
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".fetch-"))
        try:
            _fetch_files(record.candidate.files, sources, fresh, str(found))
            fresh.chmod(0o755)
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():  # somebody else fetched the same bytes at the same time
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return folder

    def fetch_part(self, found: Found, paths: Collection[str], folder: Path) -> None:
        """Write some files of a version, named by their paths in it, below ``folder``; nothing is kept beside them.

        Raises:
            RegistryError: the version has no such file.
            InfraError: no store that can be reached has the bytes, or they are not what was recorded.
        """
        record = self.record(found)
        wanted = [file for file in record.candidate.files if file.path in paths]
        if missing := set(paths) - {file.path for file in wanted}:
            msg = f"{found} has no file {min(missing)}"
            raise RegistryError(msg)
        _fetch_files(wanted, ByteSources(list(self._places(record))), folder, str(found))

    def attached(self, found: Found, path: str) -> bytes | None:
        """Content of a file of the version's commit, or None if it has none."""
        return self._git.show(found.version.commit, path)

    def _places(self, record: Record) -> Iterator[Location]:
        """Where the bytes may lie, nearest first: here, the registry's clone, where they were pushed, origins."""
        yield from byte_places(self._home)
        yield from byte_places(self._git.folder)
        if record.store is not None and record.store["url"]:
            yield Location(record.store["url"], record.store["endpoint"])
        for url in [self._origin, *self._git.remotes().values(), *Git(self._home).remotes().values()]:
            folder = local_path(url)
            if folder is not None:
                yield from byte_places(folder)


def resolve_judge(spec: str | None = None, home: Path = CHECKOUT) -> Path:
    """Look up a model that can assess; see :func:`resolve`.

    Raises:
        RegistryError: there is no such model, or it is an encoder alone.
        InfraError: its bytes cannot be reached.
    """
    registry = Registry.open(None, home)
    found = registry.promoted() if spec is None else registry.find(spec)
    unfit = _UNFIT.get(registry.record(found).candidate.kind)
    if unfit is not None:
        models = [name for name in registry.models if name != found.name and not name.startswith(DATA)]
        whole = ", ".join(models) or f"{DEFAULT_MODEL}, once promoted"
        msg = f"{found} is {unfit} and cannot assess: name a whole model ({whole})"
        raise RegistryError(msg)
    return registry.fetch(found)


def resolve(spec: str | None = None, repo: str | Path | None = None, home: Path = CHECKOUT) -> Path:
    """Look a model up and return a local folder with its files.

    Args:
        spec: ``NAME``, ``NAME@VERSION`` or ``NAME#STAGE``; None is the promoted ``vital-base``.
        repo: another clone, bare repository, URL or git remote; None is ``home``.
        home: checkout whose stores and model cache are used.

    Raises:
        RegistryError: there is no such model; the message lists what exists.
        InfraError: its bytes cannot be reached.
    """
    registry = Registry.open(repo, home)
    return registry.fetch(registry.promoted() if spec is None else registry.find(spec))


def export(folder: Path, out: Path) -> None:
    """Copy a fetched model to a folder of the user's, which must be new or empty.

    Raises:
        RegistryError: there is something in it, or it cannot be written.
    """
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            msg = f"{out} is not empty: name a new folder"
            raise RegistryError(msg)
        shutil.copytree(folder, out, dirs_exist_ok=True, copy_function=shutil.copyfile)
    except OSError as error:
        msg = f"cannot write {out}: {error.strerror or error}"
        raise RegistryError(msg) from error


def record_path(name: str) -> str:
    """Where the registry's commits keep a model's record."""
    return f"registry/{name}.json"


def model_cache(home: Path) -> Path:
    """Folder for fetched models, by content hash."""
    return _cache(home) / "models"


def _cache(home: Path) -> Path:
    return Path(os.environ.get(CACHE_VARIABLE) or home / ".vital")


def _folder(text: str) -> Path | None:
    """The folder that a text names, if it names one; a text that no file system takes as a name does not."""
    try:
        folder = Path(text).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # too long a name; no such user
        return None


def _repository(folder: Path) -> Git:
    git = Git.around(folder)
    if git is None:
        try:
            Git(folder).run("rev-parse", "--git-dir")  # git may have another reason, such as an owner it does not trust
        except RegistryError as error:
            if "not a git repository" not in str(error):
                raise
        msg = f"{folder} is not a git repository"
        raise RegistryError(msg)
    return git


def _fetch_files(files: Iterable[ModelFile], sources: ByteSources, folder: Path, name: str) -> None:
    for file in files:
        path = folder / file.path
        if not path.resolve().is_relative_to(folder.resolve()):
            msg = f"the record of {name} names a file outside its folder: {file.path}"
            raise RegistryError(msg)
        path.parent.mkdir(parents=True, exist_ok=True)
        sources.fetch(file.md5, path, accept=lambda fetched, file=file: hash_file(fetched, file.path) == file)
