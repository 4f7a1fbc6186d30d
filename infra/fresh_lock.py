"""``python -m infra.fresh_lock``: write the ``dvc.lock`` that a fresh clone starts from.

A committed ``dvc.lock`` may only name bytes that travel with the repository, and plain ``dvc pull`` fails while an
output has no entry at all. So the committed file says of every stage that nothing was made yet: its folder is empty.
The empty folder's two-byte object is tracked in the default store, so that it can be pulled like any other.

With ``--check`` it writes nothing and says whether a clone of HEAD can pull what HEAD's lock names. The project's own
commits must pass that; whoever commits a run of theirs moves the store first (``vital store use``) and pushes to it.
"""

import argparse
import hashlib
import json
import logging
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from infra.dvc_store import remote
from infra.errors import InfraError
from infra.git import Git
from infra.workspace import CHECKOUT

EMPTY_FOLDER: Final = b"[]"
"""What DVC hashes for a folder without files: its listing, as JSON."""

_STORE: Final = ".store/files/md5"
_SEED: Final = "infra/seed/files/md5"

log = logging.getLogger(__name__)


def fresh_lock(pipeline: dict[str, Any]) -> dict[str, Any]:
    """The lock of a pipeline none of whose stages has run."""
    empty = f"{_md5(EMPTY_FOLDER)}.dir"
    return {
        "schema": "2.0",
        "stages": {
            name: {
                "cmd": "not run yet",
                "outs": [
                    {"path": out, "hash": "md5", "md5": empty, "size": 0, "nfiles": 0} for out in stage.get("outs", [])
                ],
            }
            for name, stage in pipeline["stages"].items()
        },
    }


def write_fresh_lock(root: Path) -> None:
    """Write ``dvc.lock`` and the empty folder's object below ``root``."""
    lock = fresh_lock(yaml.safe_load((root / "dvc.yaml").read_text()))
    (root / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    name = f"{_md5(EMPTY_FOLDER)}.dir"
    thing = root / _STORE / name[:2] / name[2:]
    thing.parent.mkdir(parents=True, exist_ok=True)
    thing.write_bytes(EMPTY_FOLDER)


def left_behind(root: Path, commit: str = "HEAD") -> list[str]:
    """Outputs that a clone of a commit cannot pull: its ``dvc.lock`` has no entry for them, or names absent bytes.

    Bytes travel with the repository in the seed remote and in what is tracked of the default store. A store that
    somebody chose (``vital store use``) is taken to hold what was pushed to it: it may be out of reach now.

    Raises:
        InfraError: there is no such commit, or it has no ``dvc.lock``.
    """
    git, place = Git(root), remote(root)
    content = git.show(commit, "dvc.lock")
    if content is None:
        msg = f"{root} has no commit {commit} with a dvc.lock: run this in a git checkout"
        raise InfraError(msg)
    if place is not None and place.chosen:
        return []
    tracked = set(git.run("ls-tree", "-r", "--name-only", commit).splitlines())
    outs = [out for stage in yaml.safe_load(content)["stages"].values() for out in stage.get("outs", [])]
    entered = {out["path"] for out in outs}
    pipeline = yaml.safe_load(git.show(commit, "dvc.yaml") or "stages: {}")["stages"]
    missing = [out for stage in pipeline.values() for out in stage.get("outs", []) if out not in entered]
    return missing + [
        out["path"] for out in outs if out["path"] not in tracked and not _travels(out["md5"], git, commit, tracked)
    ]


def _travels(md5: str, git: Git, commit: str, tracked: set[str]) -> bool:
    """Whether an object is tracked, and if it is a folder's listing, everything that it lists."""
    names = [name for folder in (_STORE, _SEED) if (name := f"{folder}/{md5[:2]}/{md5[2:]}") in tracked]
    if not names:
        return False
    listing = json.loads(git.show(commit, names[0]) or EMPTY_FOLDER) if md5.endswith(".dir") else []
    return all(_travels(item["md5"], git, commit, tracked) for item in listing)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def main() -> int:
    """Reset the checkout's lock (the run cache keeps what was made), or check HEAD's; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the dvc.lock that a fresh clone starts from.")
    parser.add_argument("--check", action="store_true", help="only say whether a clone of HEAD can pull what it names")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if not parser.parse_args().check:
        write_fresh_lock(CHECKOUT)
        log.info("dvc.lock says of every stage that nothing was made yet")
        return 0
    try:
        lost = left_behind(CHECKOUT)
    except InfraError as error:
        log.error("%s", error)  # noqa: TRY400 - one line for the person at the terminal
        return 1
    if lost:
        log.error(
            "a clone of HEAD cannot pull %d outputs (%s ...): dvc.lock does not know them, or their bytes are not in "
            "the repository; move the store and push (vital store use, dvc push), or commit the lock of a fresh clone "
            "(python -m infra.fresh_lock)",
            len(lost),
            lost[0],
        )
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
