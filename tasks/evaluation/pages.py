"""A report in the three forms that people ask for: JSON, Markdown, and a page that loads nothing."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tasks.shards import atomic, write_json

Report = Mapping[str, Any]
Telling = Callable[[Report], str]


def write_report(folder: Path, name: str, report: Report, markdown: Telling, page: Telling) -> list[Path]:
    """Write ``name.json``, ``name.md`` and ``name.html``; equal reports give equal bytes.

    Returns:
        The files, each whole or absent.
    """
    paths = [folder / f"{name}.{suffix}" for suffix in ("json", "md", "html")]
    write_json(paths[0], report)
    for path, tell in zip(paths[1:], (markdown, page), strict=True):
        with atomic(path) as file:
            file.write(tell(report).encode())
    return paths
