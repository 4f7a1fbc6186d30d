"""Small files that are replaced whole: who reads meanwhile, or after a kill, sees one text or the other."""

import os
import tempfile
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write ``text`` in the place of a file, or leave that as it is.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def settle_text(path: Path, text: str) -> None:
    """Write a file unless it already says so.

    Raises:
        OSError: as :func:`replace_text`.
    """
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        replace_text(path, text)
