"""``vital registry``: look models up, and promote what passed its gate."""

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from infra.model_record import Record
    from infra.registry import Found, Registry
    from infra.tags import Version


def _lookup_options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
    return click.option(
        "--repo",
        metavar="PATH_OR_URL",
        help="Look in another clone, a bare repository, a URL or a git remote instead of this checkout.",
    )(command)


@click.group(short_help="Look models up, and promote what passed its gate.")
def registry() -> None:
    """Models that passed their quality gate, by name, version and stage.

    A MODEL is NAME (its newest version), NAME@VERSION or NAME#STAGE, for example vital-base#prod.
    """


@registry.command("list")
@_lookup_options
def list_models(repo: str | None, *, as_json: bool) -> None:
    """List the registered models with their versions and stages."""
    opened = _open(repo)
    if as_json:
        models = [_model_json(name, versions) for name, versions in opened.models.items()]
        click.echo(json.dumps(models, indent=2))
        return
    if not opened.models:
        click.echo("no model is registered yet: run the line, then vital registry promote NAME", err=True)
        return
    rows = [
        [f"{name}@{version.version}", ", ".join(version.stages) or "-", _date(version), version.author]
        for name, versions in opened.models.items()
        for version in versions
    ]
    _print_table(("model", "stages", "registered", "by"), rows)


@registry.command()
@click.argument("model")
@_lookup_options
def show(model: str, repo: str | None, *, as_json: bool) -> None:
    """Show what MODEL is: measures, gate, parameters, lineage, files."""
    opened = _open(repo)
    found = opened.find(model)
    record = opened.record(found)
    if as_json:
        click.echo(json.dumps({**_version_json(found.version), **record.to_json()}, indent=2, ensure_ascii=False))
        return
    _print_record(found, record)


@registry.command()
@click.argument("model")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to copy the model's files to; new or empty.",
)
@_lookup_options
def get(model: str, out: Path, repo: str | None, *, as_json: bool) -> None:
    """Copy the files of MODEL to a folder."""
    from infra.registry import export

    opened = _open(repo)
    found = opened.find(model)
    export(opened.fetch(found), out)
    if as_json:
        content = opened.record(found).candidate.content
        told = {"name": found.name, "version": found.version.version, "content": content, "path": str(out.absolute())}
        click.echo(json.dumps(told))
    else:
        click.echo(f"{found} is in {out}")


@registry.command()
@click.argument("model")
@click.option("--stage", default="prod", show_default=True, help="Stage that the version gets.")
@click.option("--push", is_flag=True, help="Also push the record's branch and the tags to the git remote origin.")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Workspace whose run is promoted, instead of the checkout.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def promote(model: str, stage: str, workspace: Path | None, *, push: bool, as_json: bool) -> None:
    """Make the candidate NAME a version in the registry, if its quality gate holds (MODEL is NAME).

    With MODEL as NAME@VERSION, give the stage to a version that was promoted before, for instance to go back.

    The model's bytes go to the store; dvc.lock, measures and lineage are recorded in a commit on the branch
    registry/NAME; GTO's tags NAME@VERSION and NAME#STAGE name that commit. Your branch, index and files stay as they
    are. Without --push neither branch nor tags leave this machine.
    """
    from infra.promotion import PromotionOptions, promote_model
    from infra.workspace import CHECKOUT

    options = PromotionOptions(stage=stage, push=push, checkout=CHECKOUT)
    done = promote_model(model, (workspace or CHECKOUT).resolve(), options)
    click.echo(json.dumps(dataclasses.asdict(done)) if as_json else str(done))


def _open(repo: str | None) -> "Registry":
    from infra.registry import Registry
    from infra.workspace import CHECKOUT

    return Registry.open(repo, CHECKOUT)


def _date(version: "Version") -> str:
    return datetime.fromtimestamp(version.created, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _version_json(version: "Version") -> dict[str, Any]:
    return {**dataclasses.asdict(version), "created": datetime.fromtimestamp(version.created, UTC).isoformat()}


def _model_json(name: str, versions: "list[Version]") -> dict[str, Any]:
    stages = {stage: version.version for version in versions for stage in version.stages}
    return {"name": name, "stages": stages, "versions": [_version_json(version) for version in versions]}


def _print_table(head: tuple[str, ...], rows: list[list[str]]) -> None:
    from rich import box
    from rich.table import Table

    from vital.tables import print_table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    print_table(table)


def _print_record(found: "Found", record: "Record") -> None:
    import yaml

    candidate = record.candidate
    size = sum(file.size for file in candidate.files)
    parents = ", ".join(candidate.parents) or "none"
    changed = record.code.get("changed") or []
    lines = [
        f"{found}  ({candidate.kind})",
        f"stages      {', '.join(found.version.stages) or '-'}",
        f"registered  {_date(found.version)} by {found.version.author}",
        f"content     {candidate.content}",
        f"files       {len(candidate.files)}, {size / 1e6:.1f} MB",
        f"made from   {parents}",
        *(f"            {path}  {content[:12]}" for path, content in candidate.made_from.items()),
        f"code        {record.code.get('commit', '')[:12]}{f', {len(changed)} files changed' if changed else ''}",
        f"commit      {found.version.commit}",
        "parameters",
        *(f"  {line}" for line in yaml.safe_dump(dict(candidate.params), sort_keys=True).splitlines()),
        "",
        candidate.card,
    ]
    click.echo("\n".join(lines))
