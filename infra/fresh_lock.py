"""``python -m infra.fresh_lock``: write the ``dvc.lock`` that a fresh clone starts from.

A committed ``dvc.lock`` may only name bytes that travel with the repository, and plain ``dvc pull`` fails while an
output has no entry at all. So the committed file says of every stage that nothing was made yet: its folder is empty.
The empty folder's two-byte object is tracked in the default store, so that it can be pulled like any other.
"""

import hashlib
import logging
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from infra.workspace import CHECKOUT

EMPTY_FOLDER: Final = b"[]"
"""What DVC hashes for a folder without files: its listing, as JSON."""

_STORE: Final = ".store/files/md5"


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


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def main() -> int:
    """Reset the checkout's lock; the run cache keeps what was made."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    write_fresh_lock(CHECKOUT)
    logging.getLogger(__name__).info("dvc.lock says of every stage that nothing was made yet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
