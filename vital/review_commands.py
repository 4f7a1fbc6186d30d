"""``vital review``: what a review by endpoints would ask and cost, and one sample's whole story."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vital.run_command import workspace_options

if TYPE_CHECKING:
    from tasks.annotation.forecast import Forecast
    from tasks.annotation.story import AssertionTold, BallotTold, Story


@click.group(short_help="What a review would cost; one sample's whole story.")
def review() -> None:
    """Judges vote on every assertion; this group tells what they would cost, and what they have said."""


@review.command()
@workspace_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    pool: str | None, profile: str | None, workspace: Path | None, settings: tuple[str, ...], *, as_json: bool
) -> None:
    """Count the calls that a review would make, with tokens and cost; makes none and needs no key.

    Needs the assertions that the stage describe makes: vital run --stage describe.
    """
    from infra.workspace import locate_workspace, workspace_params
    from tasks.annotation.forecast import forecast
    from tasks.annotation.review import Config
    from tasks.errors import StageError
    from tasks.stage import Place, build_config
    from vital.run_command import spec_of

    spec = spec_of(pool, profile, workspace, settings)
    root = locate_workspace(spec, workspace)
    config = build_config(Config, "review", workspace_params(spec)["review"])
    if config.endpoints is None:
        click.echo(json.dumps([]) if as_json else "review is done by measurement: it makes no calls")
        return
    if not (root / "artifacts" / "describe").is_dir():
        stages = " ".join(f"--stage {stage}" for stage in ("collect", "distort", "describe"))
        msg = (
            f"describe has not run in {root}, and makes what is planned: "
            f"vital run --workspace {shlex.quote(str(root))} {stages} "
            "(a new workspace also needs the --profile, --pool and --set of this command)"
        )
        raise StageError(msg)
    found = forecast(config.endpoints, Place(root, root, root), config.rounds, config.max_revisions)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found]))
        return
    _print_forecast(found)
    budget = config.endpoints.budget
    limits = {"max_cost": budget.max_cost, "max_calls": budget.max_calls}
    told = ", ".join(f"{name} {value:g}" for name, value in limits.items() if value is not None)
    click.echo(f"budget: {told or 'none'}; mode: {config.endpoints.mode}; nothing was asked")


@review.command()
@click.argument("wanted", metavar="ID")
@click.option("--workspace", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(wanted: str, workspace: Path | None, *, as_json: bool) -> None:
    """Tell one sample's whole story: assertions, votes, revisions, self-review, outcome, and what the calls took.

    ID is a sample's or an assertion's id, or its beginning, or a path in the pool. A path means the photo or clip
    itself; its distorted children have ids of their own (artifacts/distort/candidates.parquet, column id).
    """
    from infra.workspace import CHECKOUT
    from tasks.annotation.story import tell
    from tasks.stage import Place

    root = CHECKOUT if workspace is None else workspace.resolve()
    story = tell(Place(root, root, root), wanted)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(story), default=_plain))
        return
    _print_story(story)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _print_forecast(found: list["Forecast"]) -> None:
    from rich import box
    from rich.table import Table

    from vital.tables import print_table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("role", "model"):
        table.add_column(name, no_wrap=True)
    for name in ("calls", "calls at most", "tokens in", "tokens out", "cost", "cost at most"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in [*found, _total(found)]:
        counts = [f"{value:,}" for value in (one.least, one.most, one.tokens_in, one.tokens_out)]
        table.add_row(one.role, one.model, *counts, f"{one.cost:,.2f}", f"{one.most_cost:,.2f}")
    print_table(table)


def _total(found: list["Forecast"]) -> "Forecast":
    from tasks.annotation.forecast import Forecast

    names = ("least", "most", "tokens_in", "tokens_out", "cost", "most_cost")
    return Forecast("total", "", **{name: sum(getattr(one, name) for one in found) for name in names})


def _print_story(story: "Story") -> None:
    made = f", {story.distortion} {story.severity}" if story.distortion else ""
    click.echo(f"{story.modality} {story.id}  ({story.source}{made})")
    for assertion in story.assertions:
        _print_assertion(assertion)
    if story.calls:
        click.echo(f"\n{story.calls} paid calls, cost {story.cost:.4f}")


def _print_assertion(assertion: "AssertionTold") -> None:
    truth = (
        "" if assertion.planted_truth is None else f", planted {'truth' if assertion.planted_truth else 'falsehood'}"
    )
    click.echo(f"\n{assertion.text}  [{assertion.origin}{truth}, {assertion.assertion_id[:12]}]")
    for ballot in assertion.ballots:
        _print_ballot(ballot)
    final = f": {assertion.final_text}" if assertion.final_text != assertion.text else ""
    click.echo(f"  => {'kept' if assertion.kept else 'rejected'} ({assertion.outcome}){final}")


def _print_ballot(ballot: "BallotTold") -> None:
    name = (
        "self-review" if ballot.phase == "self" else "ballot" if ballot.attempt == 0 else f"revision {ballot.attempt}"
    )
    click.echo(f"  {name}: {ballot.text}")
    for vote in ballot.votes:
        took = (
            ""
            if vote["cost"] is None
            else f"  [{vote['tokens_in']}+{vote['tokens_out']} tokens, {vote['latency_s']:.2f} s]"
        )
        revision = f" -> {vote['revision']}" if isinstance(vote["revision"], str) else ""
        who = f"{vote['judge']} ({vote['model']}) round {vote['round']}"
        click.echo(f"    {who}: {vote['verdict']}{revision}  {vote['reason']}{took}")
