"""Results as they come: table, JSON lines or CSV on stdout, or a file that a later run of the command continues."""

import csv
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, Self

import click

from vital.media_files import Named, printable, tell_problem

Record = Mapping[str, Any]
"""What is told of one file: a JSON object without its path."""

LEVEL_COLUMNS: Final = ("high", "good", "fair", "poor", "low")
_AFTER: Final = ("reason", "error", "size", "mtime_ns", "run")
_COMMANDS: Final = ("=", "+", "-", "@", "\t", "\r", "'")
"""A cell that begins so is a formula to a spreadsheet; the apostrophe itself is among them so that it can be undone."""
OUTSIDE: Final = frozenset({"missing", "unreadable", "empty_folder", "failed"})
"""Reasons that say nothing about a file's bytes: what they stopped is tried again by every run."""


@dataclass(frozen=True)
class Shape:
    """How a record becomes a row.

    Attributes:
        columns: between ``path`` and those that every file has.
        row: cells of a record by column.
    """

    columns: tuple[str, ...]
    row: Callable[[Record], Mapping[str, Any]]

    @property
    def header(self) -> list[str]:
        """All columns of a CSV file."""
        return ["path", *self.columns, *_AFTER]


@dataclass(frozen=True)
class FileState:
    """A file as it was when it was looked at; without size and time if it was not there."""

    path: str
    size: int | None
    mtime_ns: int | None

    @classmethod
    def of(cls, path: Path) -> "FileState":
        """Look at a file."""
        try:
            found = path.stat()
        except (OSError, ValueError):
            return cls(str(path), None, None)
        return cls(str(path), found.st_size, found.st_mtime_ns)


class Output(Protocol):
    """Where results go."""

    def known(self, state: FileState) -> bool | None:
        """Whether a file in this state was told before: True, or False if rejected then; None if it is to be done."""
        ...

    def result(self, state: FileState, record: Record) -> None:
        """Tell a result."""
        ...

    def problem(self, state: FileState, error: Exception) -> None:
        """Tell why there is none."""
        ...


def run_name(*parts: object) -> str:
    """Name of all that decides results: twelve digits of a hash."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:12]


def cell(value: object) -> object:
    """A value as a CSV cell; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_COMMANDS) else value


def uncell(text: str) -> str:
    """The text of a cell that :func:`cell` made."""
    return text.removeprefix("'")


def left_of(found: Sequence[Named], output: Output) -> tuple[list[tuple[Named, FileState]], bool]:
    """What is still to be done, and whether something that was told before is a reject."""
    left, rejected = [], False
    for named in found:
        state = FileState.of(named.path)
        known = output.known(state)
        if known is None:
            left.append((named, state))
        rejected = rejected or known is False
    return left, rejected


class Lines:
    """JSON objects on stdout, a line each."""

    def known(self, state: FileState) -> bool | None:
        """See :class:`Output`."""
        del state

    def result(self, state: FileState, record: Record) -> None:
        """See :class:`Output`."""
        click.echo(json.dumps({"path": state.path, **record}))

    def problem(self, state: FileState, error: Exception) -> None:
        """See :class:`Output`."""
        tell_problem(Path(state.path), error, as_json=True)


class Collected:
    """Results for a table at the end; problems on stderr at once."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Record]] = []

    def known(self, state: FileState) -> bool | None:
        """See :class:`Output`."""
        del state

    def result(self, state: FileState, record: Record) -> None:
        """See :class:`Output`."""
        self.records.append((state.path, record))

    def problem(self, state: FileState, error: Exception) -> None:
        """See :class:`Output`."""
        tell_problem(Path(state.path), error, as_json=False)


class Rows:
    """CSV rows in a stream of bytes."""

    def __init__(self, stream: BinaryIO, shape: Shape, run: str, *, header: bool = True) -> None:
        self._stream, self._shape, self._run = stream, shape, run
        if header:
            self._write(shape.header)

    def known(self, state: FileState) -> bool | None:
        """See :class:`Output`."""
        del state

    def result(self, state: FileState, record: Record) -> None:
        """See :class:`Output`."""
        self._row(state, self._shape.row(record))

    def problem(self, state: FileState, error: Exception) -> None:
        """See :class:`Output`."""
        self._row(state, _told(error))

    def _row(self, state: FileState, values: Mapping[str, Any]) -> None:
        known = {"path": state.path, "size": state.size, "mtime_ns": state.mtime_ns, "run": self._run, **values}
        self._write([cell(known.get(name)) for name in self._shape.header])

    def _write(self, cells: Sequence[object]) -> None:
        text = io.StringIO(newline="")
        # every text is quoted: the writer of Python 3.11 leaves a carriage return bare where lines end otherwise
        csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerow(cells)
        self._stream.write(text.getvalue().encode("utf-8", "surrogateescape"))
        self._stream.flush()


class ResultFile:
    """A file of results, ``.csv`` or ``.jsonl``, continued if it exists; a last line that was cut by a kill is dropped.

    Use it as a context; every result is in the file before the next one is computed. A reject is told again only if it
    has another reason now.

    Args:
        retry: take no reject for known; without it those alone are tried again whose reason lies outside the file's
            bytes (:data:`OUTSIDE`).

    Raises:
        click.ClickException: the name has another ending, the file is of another kind, or it cannot be written.
    """

    def __init__(self, path: Path, shape: Shape, run: str, *, retry: bool = False) -> None:
        self.path, self._run, self._retry, self.told, self.kept = path, run, retry, {True: 0, False: 0}, 0
        self._as_csv = path.suffix.lower() == ".csv"
        if not self._as_csv and path.suffix.lower() != ".jsonl":
            msg = f"--out {printable(str(path))}: name a file that ends in .csv or .jsonl"
            raise click.ClickException(msg)
        try:
            whole = _whole_part(path.read_bytes() if path.exists() else b"", quoted=self._as_csv)
            self._known = self._read(whole, shape, path)
            self._file = path.open("r+b" if path.exists() else "wb")
        except OSError as error:
            msg = f"--out {printable(str(path))}: {error.strerror}"
            raise click.ClickException(msg) from error
        self._file.truncate(len(whole))
        self._file.seek(len(whole))
        self._rows = Rows(self._file, shape, run, header=not whole) if self._as_csv else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self, whole: bytes, shape: Shape, path: Path) -> dict[FileState, dict[str, str] | None]:
        """State of every file that was told by the same run -> why it was rejected, None of a result."""
        text = whole.decode("utf-8", "surrogateescape")
        try:
            lines = _table(text, shape.header) if self._as_csv else _objects(text)
            return {_state(line, self._as_csv): _why(line, self._as_csv) for line in lines if line["run"] == self._run}
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            msg = f"--out {printable(str(path))} holds no results of this command ({error}): name another file"
            raise click.ClickException(msg) from error

    def known(self, state: FileState) -> bool | None:
        """See :class:`Output`."""
        if state not in self._known:
            return None
        why = self._known[state]
        if why is not None and (self._retry or why["reason"] in OUTSIDE):
            return None
        self.kept += 1
        return why is None

    def lines(self, states: Sequence[FileState]) -> list[dict[str, Any]]:
        """What a ``.jsonl`` file says of files in these states: results and rejects of this run, the last line counts.

        States are told once each, in the order in which they are given; those that are not in the file are left out.
        """
        text = self.path.read_bytes().decode("utf-8", "surrogateescape")
        told = {_state(line, False): line for line in _objects(text) if line["run"] == self._run}
        return [told[state] for state in dict.fromkeys(states) if state in told]

    def result(self, state: FileState, record: Record) -> None:
        """See :class:`Output`."""
        self.told[True] += 1
        if self._rows is not None:
            self._rows.result(state, record)
        else:
            self._line(state, record)

    def problem(self, state: FileState, error: Exception) -> None:
        """See :class:`Output`."""
        if self._known.get(state) == _told(error):
            self.kept += 1
            return
        self.told[False] += 1
        if self._rows is not None:
            self._rows.problem(state, error)
        else:
            self._line(state, _told(error))

    def _line(self, state: FileState, values: Record) -> None:
        known = {"path": state.path, **values, "size": state.size, "mtime_ns": state.mtime_ns, "run": self._run}
        self._file.write(json.dumps(known).encode() + b"\n")
        self._file.flush()


def _told(error: Exception) -> dict[str, str]:
    return {"reason": str(getattr(error, "reason", "failed")), "error": str(error)}


def _table(text: str, header: Sequence[str]) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if text and list(reader.fieldnames or ()) != list(header):
        msg = f"its columns are not {', '.join(header)}"
        raise ValueError(msg)
    return list(reader)


def _objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]


def _state(line: Mapping[str, Any], as_csv: bool) -> FileState:  # noqa: FBT001 - private, one caller
    if not as_csv:
        return FileState(line["path"], line["size"], line["mtime_ns"])
    size, time = (int(line[name]) if line[name] else None for name in ("size", "mtime_ns"))
    return FileState(uncell(line["path"]), size, time)


def _why(line: Mapping[str, Any], as_csv: bool) -> dict[str, str] | None:  # noqa: FBT001 - private, one caller
    """What :func:`_told` told of a reject; None of a result."""
    if not line.get("error"):
        return None
    return {name: uncell(line[name]) if as_csv else line[name] for name in ("reason", "error")}


def _whole_part(content: bytes, *, quoted: bool) -> bytes:
    """The content up to its last whole record; a line's end between quotes is none of a record's."""
    end = quotes = place = 0
    while (found := content.find(b"\n", place)) >= 0:
        quotes += content.count(b'"', place, found) if quoted else 0
        place = found + 1
        end = place if quotes % 2 == 0 else end
    return content[:end]


def result_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options ``--json``, ``--csv``, ``--out`` and ``--retry-rejects`` of a command."""
    command = click.option(
        "--retry-rejects",
        is_flag=True,
        help="With --out: try all rejected files again, not only those that have changed or could not be read.",
    )(command)
    command = click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE.csv|FILE.jsonl",
        help="Write into this file instead, as results come; an existing one is continued.",
    )(command)
    command = click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead of a table.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, no table.")(command)


@contextmanager
def open_output(
    out: Path | None, shape: Shape, run: str, *, as_json: bool, as_csv: bool, retry_rejects: bool
) -> Iterator["Lines | Rows | Collected | ResultFile"]:
    """Where the options of :func:`result_options` let results go; of a file, the end is told on stderr.

    Raises:
        click.UsageError: more than one place is named, or rejects are to be tried again without a file of them.
    """
    if sum((as_json, as_csv, out is not None)) > 1:
        raise click.UsageError("--json, --csv and --out exclude each other: the ending of --out says what it holds")
    if retry_rejects and out is None:
        raise click.UsageError("--retry-rejects goes with --out: name the file that holds the rejects")
    if out is None:
        yield Lines() if as_json else Rows(sys.stdout.buffer, shape, run) if as_csv else Collected()
        return
    with ResultFile(out, shape, run, retry=retry_rejects) as file:
        yield file
    told = f"{file.told[True]} results and {file.told[False]} rejects written"
    click.echo(f"vital: {told} to {printable(str(out))}; {file.kept} files were there unchanged", err=True)
