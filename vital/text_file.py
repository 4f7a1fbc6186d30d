"""Reasoning texts of models in a file of JSON lines that a later run continues, and what has no text beside it.

A line is one text; what decided it is told by its ``run``, and the medium that it is about by size and time. Lines
about a medium that has changed since are taken out when the file is opened; those of other settings stay.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self

import click

from vital.media_files import printable
from vital.result_files import OUTSIDE, FileState

if TYPE_CHECKING:
    from models.sampling import Sampling
    from tasks.errors import MediaError
    from tasks.evaluation.said_texts import SaidText

_KEYS: Final = frozenset({"path", "number", "size", "mtime_ns", "run"})
Line = dict[str, Any]


def rejects_path(out: Path) -> Path:
    """Where the rejects of a file of texts stand."""
    return out.with_suffix(".rejects.jsonl")


class TextFile:
    """Texts of one model by one set of settings, as :class:`tasks.evaluation.said_texts.TextLog`.

    Use it as a context; every text is in the file before the next ones are asked for.

    Args:
        names: what each medium is called in the file. run: name of all that decides a text.
        source: who says it. sampling: how.

    Raises:
        click.ClickException: a file is of another kind, or cannot be written.
    """

    def __init__(self, out: Path, names: Mapping[Path, str], run: str, source: str, sampling: "Sampling") -> None:
        self._names, self._run, self._source, self._sampling = dict(names), run, source, asdict(sampling)
        self._states = {path: FileState.of(path) for path in names}
        current = {name: self._states[path] for path, name in names.items()}
        self._texts, texts = _opened(out, current)
        self._rejects, rejects = _opened(rejects_path(out), current)
        lasting = [line for line in rejects if line.get("reason") not in OUTSIDE]
        self._known = {(line["path"], line["number"]) for line in (*texts, *lasting) if line["run"] == run}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._texts.close()
        self._rejects.close()

    def known(self, path: Path, number: int) -> bool:
        """See :class:`tasks.evaluation.said_texts.TextLog`."""
        name = self._names[path]
        return not {(name, number), (name, None)}.isdisjoint(self._known)

    def said(self, text: "SaidText") -> None:
        """See :class:`tasks.evaluation.said_texts.TextLog`."""
        told = {"modality": text.modality, "text": text.text, "source": self._source, "number": text.number}
        how = {"seed": text.seed, "sampling": self._sampling, "dropped": text.dropped, "question": text.question}
        self._write(self._texts, text.path, text.number, told | how)

    def lost(self, path: Path, number: int | None, error: "MediaError") -> None:
        """See :class:`tasks.evaluation.said_texts.TextLog`."""
        told = {"source": self._source, "number": number, "reason": error.reason, "error": str(error)}
        self._write(self._rejects, path, number, told)

    def _write(self, file: BinaryIO, path: Path, number: int | None, told: Line) -> None:
        state, name = self._states[path], self._names[path]
        line = {"path": name, **told, "size": state.size, "mtime_ns": state.mtime_ns, "run": self._run}
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        self._known.add((name, number))


def lines_of(path: Path) -> list[Line]:
    """All lines of a file; none if it is not there."""
    return _lines(path.read_bytes(), path) if path.exists() else []


def _opened(path: Path, current: Mapping[str, FileState]) -> tuple[BinaryIO, list[Line]]:
    """A file opened at its end, and its lines: a last one that a kill has cut, and what is out of date, are dropped."""
    try:
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        lines = _lines(whole, path)
        kept = [line for line in lines if _is_current(line, current)]
        if len(kept) < len(lines):
            _replace(path, kept)
        elif len(whole) < len(content):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        return path.open("ab"), kept
    except OSError as error:
        msg = f"--out {printable(str(path))}: {error.strerror}"
        raise click.ClickException(msg) from error


def _is_current(line: Line, current: Mapping[str, FileState]) -> bool:
    """Whether a line is about a file as it is, or about one that is not asked about."""
    state = current.get(line["path"])
    return state is None or (line["size"], line["mtime_ns"]) == (state.size, state.mtime_ns)


def _replace(path: Path, lines: Iterable[Line]) -> None:
    from tasks.shards import atomic

    with atomic(path) as file:
        file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def _lines(content: bytes, path: Path) -> list[Line]:
    try:
        lines = [json.loads(line) for line in content.split(b"\n") if line.strip()]
        if all(isinstance(line, dict) and line.keys() >= _KEYS for line in lines):
            return lines
    except ValueError:
        pass
    msg = f"--out {printable(str(path))} holds no texts of this command: name another file"
    raise click.ClickException(msg)
