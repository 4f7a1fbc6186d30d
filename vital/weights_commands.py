"""``vital weights``: which published weight files there are, what this machine has of them, and how they get here."""

import difflib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from infra.errors import InfraError

if TYPE_CHECKING:
    from infra.download import Progress
    from infra.weight_files import Finding, Wanted
    from models.weights import WeightRecord

_UNKNOWN: Final = "unknown"


@click.group(short_help="List, fetch or add the weights of official scorers and base models.")
def weights() -> None:
    """Published weights: the official scorers', the motion extractor's, the base models' of the paper profile, CLIP's.

    No run ever downloads them. `fetch` does so when it is told to; `add` puts a file that came by another way into its
    place. Places follow TORCH_HOME and HF_HUB_CACHE.
    """


@weights.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def status(ctx: click.Context, names: tuple[str, ...], *, as_json: bool) -> None:
    """Say of each weight file who needs it, where it comes from and belongs, and whether the right one is there.

    NAME is a file, a hub snapshot or a scorer. Files are read to compare their hashes, where one is published.

    The exit code is 1 unless all that is listed is present.
    """
    found = [(record, _finding(record)) for record in _chosen(names)]
    if as_json:
        click.echo(json.dumps([_described(record, finding) for record, finding in found]))
    else:
        _print_table(found)
    ctx.exit(int(any(finding.state != "present" for _, finding in found)))


@weights.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path), metavar="FILE_OR_FOLDER")
@click.option("--as", "name", metavar="NAME", help="Which file or hub snapshot it is, if its own name does not say.")
def add(file: Path, name: str | None) -> None:
    """Put a weight file, or the folder of a hub snapshot, into its place on this machine.

    It is recognised by its name, compared with the published hash where there is one, and refused if it holds more than
    tensors. The original stays where it is.
    """
    from infra.weight_files import State, place_file, place_snapshot, snapshot_content

    record = _recognised(file, name)
    if record.snapshot:
        _check_all(snapshot_content(file))
        revision = place_snapshot(file, record.path, _wanted(record))
        click.echo(f"{record.name} is in {record.path} as revision {revision}")
        return
    finding = _checked(file, record)
    there = _finding(record)
    if there.state is State.PRESENT and there.sha256 == finding.sha256:
        click.echo(f"{record.name} is in {record.path} already")
        return
    if there.state is State.PRESENT and not record.sha256:
        msg = f"another {record.name} is at {record.path}, and no published hash tells which is right: remove one"
        raise InfraError(msg)
    place_file(file, record.path, finding.sha256)
    told = "as published" if record.sha256 else f"sha256 {finding.sha256}; none is published to compare it with"
    click.echo(f"{record.name} is in {record.path} ({told})")


@weights.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--yes", is_flag=True, help="Accept the licences that are printed, without being asked.")
def fetch(names: tuple[str, ...], *, yes: bool) -> None:
    """Download weight files or hub snapshots that are missing; without NAME, all of them.

    Licences are printed first and must be accepted. An interrupted download is continued by the same command. What is
    there but wrong is downloaded again.
    """
    due = [record for record in _chosen(names) if _finding(record).state != "present"]
    if not due:
        click.echo("nothing to fetch: all of it is here")
        return
    for record in due:
        click.echo(f"{record.name}: about {record.megabytes} MB from {record.origin}, licence: {record.licence}")
    if not yes and not (sys.stdin.isatty() and click.confirm("Accept these licences and download?")):
        msg = "nothing was downloaded: add --yes to accept the licences above"
        raise click.ClickException(msg)
    failed = [record.name for record in due if not _fetched(record)]
    if failed:
        msg = f"{len(failed)} of {len(due)} could not be fetched: {', '.join(failed)}"
        raise click.ClickException(msg)


def _fetched(record: "WeightRecord") -> bool:
    """Fetch one; a failure is told in a line that says what to put where by hand."""
    from infra.download import Download, download_snapshot
    from infra.weight_files import check_blobs, snapshot_content
    from models.errors import ModelError

    try:
        if record.snapshot:
            download_snapshot(record.name, record.path.parent, record.files)
            check_blobs(record.path, _wanted(record))
            _check_all(snapshot_content(record.path))
        else:
            with _progress(record.name) as progress:
                Download(record.origin, record.path, record.sha256).run(_check_of(record), progress)
    except (InfraError, ModelError) as error:
        click.echo(f"vital: {' '.join(str(error).split())}; by hand: {record.instruction}", err=True)
        return False
    click.echo(f"{record.name} is in {record.path}")
    return True


def _chosen(names: Sequence[str]) -> "list[WeightRecord]":
    """Records by name of the file, the snapshot or the owner."""
    from models.weights import weight_records

    records = weight_records()
    chosen: dict[str, WeightRecord] = {} if names else records
    for name in names:
        found = {key: record for key, record in records.items() if name == key or name in record.owners}
        if not found:
            known = [*records, *dict.fromkeys(owner for record in records.values() for owner in record.owners)]
            msg = f"no weights are called {name!r}; there are {', '.join(known)}"
            raise click.ClickException(msg)
        chosen |= found
    return list(chosen.values())


def _recognised(file: Path, name: str | None) -> "WeightRecord":
    """The record that a file or folder belongs to."""
    from models.weights import weight_records

    records = {key: record for key, record in weight_records().items() if record.snapshot == file.is_dir()}
    if name is not None:
        if name in records:
            return records[name]
        msg = f"--as {name!r} is none of {', '.join(records)}"
        raise click.ClickException(msg)
    own = {_plain(part) for part in (file.absolute().parts if file.is_dir() else (file.name,))}
    fits = [key for key in records if own & {_plain(key), _plain(f"models--{key.replace('/', '--')}")}]
    fits = fits or [key for key in records if file.is_dir() and own & {_plain(key.rpartition("/")[2])}]
    if len(fits) == 1:
        return records[fits[0]]
    near = difflib.get_close_matches(file.name, list(records), n=3, cutoff=0.4) or list(records)
    msg = f"{file.name} is not recognised by its name: say --as NAME, which could be {' or '.join(near)}"
    raise click.ClickException(msg)


def _plain(name: str) -> str:
    """A name without the marks that file systems and browsers change."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower())


def _finding(record: "WeightRecord") -> "Finding":
    from infra.weight_files import file_state, snapshot_state

    if record.snapshot:
        return snapshot_state(record.path, _wanted(record))
    return file_state(record.path, record.sha256)


def _wanted(record: "WeightRecord") -> "Wanted":
    from infra.weight_files import Wanted

    return Wanted(record.files, record.shapes)


def _checked(file: Path, record: "WeightRecord") -> "Finding":
    """Look at a file that is to be added.

    Raises:
        InfraError: it is cut, damaged, or not what was published.
        ModelError: it holds code.
    """
    from infra.weight_files import State, file_state

    finding = file_state(file, record.sha256)
    if finding.state is not State.PRESENT:
        msg = f"{file} is not {record.name} as published: {finding.state} ({finding.detail})"
        raise InfraError(msg)
    _check_of(record)(file)
    return finding


def _check_all(folder: Path) -> None:
    from models.weights import check_plain

    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        check_plain(path)


def _check_of(record: "WeightRecord") -> "_Check":
    return _Check(whole_hash=len(record.sha256) == 64)


class _Check:
    """Refuses code, except TorchScript whose whole published hash has been compared (OpenAI's CLIP)."""

    def __init__(self, *, whole_hash: bool) -> None:
        self._whole_hash = whole_hash

    def __call__(self, path: Path) -> None:
        from models.weights import check_plain, is_torchscript

        if not (self._whole_hash and is_torchscript(path)):
            check_plain(path)


@contextmanager
def _progress(name: str) -> "Iterator[Progress]":
    """A bar on stderr if a person is watching."""
    from tqdm import tqdm

    with tqdm(desc=name, unit="B", unit_scale=True, disable=not sys.stderr.isatty(), leave=False) as bar:

        def tell(have: int, total: int | None) -> None:
            bar.total = total
            bar.update(have - bar.n)

        yield tell


def _described(record: "WeightRecord", finding: "Finding") -> dict[str, object]:
    return {
        "name": record.name,
        "owners": list(record.owners),
        "origin": record.origin,
        "licence": record.licence,
        "sha256": record.sha256 or None,
        "found_sha256": finding.sha256 or None,
        "megabytes": record.megabytes,
        "path": str(record.path),
        "state": str(finding.state),
        "detail": finding.detail,
    }


def _print_table(found: "Sequence[tuple[WeightRecord, Finding]]") -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from vital.tables import print_table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("file", "for", "state", "MB", "sha256", "licence"):
        table.add_column(name, overflow="fold", no_wrap=name == "state", justify="right" if name == "MB" else "left")
    for record, finding in found:
        sha256 = _shortened(record)
        table.add_row(
            *map(escape, (record.name, ", ".join(record.owners), finding.state, str(record.megabytes), sha256)),
            escape(record.licence),
        )
    print_table(table)
    for record, finding in found:
        if finding.state == "present":
            click.echo(f"{record.name}: {record.path}")
        else:
            click.echo(f"{finding.state}{f', {finding.detail}' if finding.detail else ''}: {record.instruction}")


def _shortened(record: "WeightRecord") -> str:
    if record.snapshot:
        return "the hub's"
    return f"{record.sha256[:8]}..." if record.sha256 else _UNKNOWN
