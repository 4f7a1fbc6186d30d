"""``vital opinions drift``: what moved between two versions of the data set."""

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("version", required=False)
@click.option("--now", is_flag=True, help="Compare what lies here with the accepted version now; nothing is recorded.")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Workspace of the re-annotation, instead of the checkout.",
)
@click.option("--repo", metavar="PATH_OR_URL", help="Look VERSION up in another clone, repository or git remote.")
@click.option(
    "--out",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write drift.json, drift.md and drift.html there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of Markdown.")
def drift(
    version: str | None, workspace: Path | None, repo: str | None, out: Path | None, *, now: bool, as_json: bool
) -> None:
    """Show how opinions moved: PSI and KS of every scorer, shifts of mu and sigma, moves between levels with examples.

    Without VERSION it is the last re-annotation of this checkout (vital run --reannotate), whether its limits held or
    not. With VERSION, such as vital-data@v0.0.2, what was recorded with that version of the data set.

    \b
    vital opinions drift --out FOLDER
    vital opinions drift vital-data@v0.0.2
    vital opinions drift --now --json
    """  # noqa: D301 - the mark is click's for lines that stay as they are
    if version is None and repo is not None:
        raise click.UsageError("--repo says where VERSION is looked up, and no VERSION is named")
    if version is not None and (now or workspace is not None):
        raise click.UsageError("VERSION is what was recorded: leave --now and --workspace out")
    from infra.workspace import CHECKOUT
    from tasks.evaluation.drift_pages import markdown, write_pages

    root = (workspace or CHECKOUT).resolve()
    report = _compared(root) if now else _recorded(version, repo) if version is not None else _last(root)
    if out is not None:
        paths = write_pages(out, report)
        click.echo(f"written: {', '.join(map(str, paths))}", err=True)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    elif out is None:
        click.echo(markdown(report), nl=False)


def _compared(root: Path) -> dict[str, Any]:
    from infra.workspace import CHECKOUT
    from tasks.errors import StageError
    from tasks.evaluation.compare import compare_with_last

    found = compare_with_last(root, CHECKOUT)
    if found.unchanged:
        raise StageError(str(found))
    return found.report


def _recorded(version: str, repo: str | None) -> dict[str, Any]:
    from infra.data_set import read_report
    from infra.registry import Registry
    from infra.workspace import CHECKOUT

    registry = Registry.open(repo, CHECKOUT)
    return read_report(registry, registry.find(version))


def _last(root: Path) -> dict[str, Any]:
    """What the last re-annotation left here; in a clone that has made none, what is accepted."""
    from infra.data_set import data_set_name, last_version, read_report
    from infra.registry import Registry
    from infra.workspace import CHECKOUT
    from tasks.errors import StageError
    from tasks.evaluation.compare import REPORT

    path = root / REPORT / "drift.json"
    if path.is_file():
        return json.loads(path.read_text())
    registry, name = Registry.open(None, CHECKOUT), data_set_name(root, CHECKOUT)
    found = last_version(name, registry)
    if found is None:
        msg = f"nothing has been compared here yet, and {name} has no version: vital run --reannotate makes one"
        raise StageError(msg)
    return read_report(registry, found)
