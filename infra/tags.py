"""GTO's tags: what a registry's git tags say, read in a few milliseconds and without importing GTO.

The registry *writes* tags with GTO. Reading them has to be cheap, because every ``vital assess`` does it; GTO's own
reader takes seconds to import. A test holds the two readers against each other.

Grammar: ``NAME@vX.Y.Z`` registers a version, ``NAME#STAGE#N`` assigns a stage to the version at that commit, a ``!``
before the counter takes either back, ``NAME@deprecated`` retires a name. Lightweight tags do not count.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from infra.git import Git

_TAG: Final = re.compile(
    r"^(?P<name>[A-Za-z0-9][\w/-]*)"
    r"(?:@(?P<version>v\d+\.\d+\.\d+)|#(?P<stage>[A-Za-z0-9][\w/-]*)|@(?P<deprecated>deprecated))"
    r"(?P<undo>!)?(?:#(?P<counter>\d+))?$",
    re.ASCII,
)
_FIELDS: Final = "%(refname:strip=2)%09%(objecttype)%09%(*objectname)%09%(taggerdate:unix)%09%(taggername)"


@dataclass(frozen=True)
class Version:
    """A registered version.

    Attributes:
        version: ``vX.Y.Z``.
        commit: commit that carries the model's record.
        created: when it was registered, seconds since 1970.
        author: who registered it.
        stages: stages whose current version this is, sorted.
    """

    version: str
    commit: str
    created: int
    author: str
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Tag:
    """One annotated tag of GTO's."""

    name: str
    version: str | None
    stage: str | None
    undo: bool
    commit: str
    time: int
    counter: int
    author: str
    tag: str


def read_tags(git: Git) -> list[Tag]:
    """Read all tags that follow the grammar, oldest first."""
    tags: list[Tag] = []
    for line in git.run("for-each-ref", f"--format={_FIELDS}", "refs/tags").splitlines():
        text, kind, commit, time, author = line.split("\t")
        match = _TAG.match(text)
        if match is None or kind != "tag":
            continue
        undo = bool(match["undo"] or match["deprecated"])
        counter = int(match["counter"] or 0)
        tags.append(
            Tag(match["name"], match["version"], match["stage"], undo, commit, int(time), counter, author, text)
        )
    return sorted(tags, key=lambda tag: (tag.time, tag.counter))


def models_of(tags: Iterable[Tag]) -> dict[str, list[Version]]:
    """Work out what is registered: name -> versions, newest first; names without a version are left out."""
    by_name: dict[str, list[Tag]] = {}
    for tag in tags:
        by_name.setdefault(tag.name, []).append(tag)
    models = {name: _versions(by_name[name]) for name in sorted(by_name)}
    return {name: versions for name, versions in models.items() if versions}


def _versions(tags: list[Tag]) -> list[Version]:
    registered: dict[str, Tag] = {}
    assigned: dict[str, list[str]] = {}
    for tag in tags:
        if tag.version is not None:
            registered.pop(tag.version, None)
            if not tag.undo:
                registered[tag.version] = tag
        elif tag.stage is not None:
            commits = assigned.setdefault(tag.stage, [])
            if tag.commit in commits:
                commits.remove(tag.commit)
            if not tag.undo:
                commits.append(tag.commit)
        else:
            registered.clear()
    at_commit = {tag.commit: version for version, tag in registered.items()}
    current = {
        stage: at_commit[valid[-1]]
        for stage, commits in assigned.items()
        if (valid := [commit for commit in commits if commit in at_commit])
    }
    return [
        Version(version, tag.commit, tag.time, tag.author, tuple(sorted(s for s, v in current.items() if v == version)))
        for version, tag in sorted(registered.items(), key=lambda item: order(item[0]), reverse=True)
    ]


def order(version: str) -> tuple[int, ...]:
    """Sort key of ``vX.Y.Z``."""
    return tuple(int(number) for number in version.removeprefix("v").split("."))
