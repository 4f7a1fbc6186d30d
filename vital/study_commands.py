"""``vital study``: ablations and sweeps of training as resumable queues of small trials, and their tables."""

from pathlib import Path

import click

from infra.text_files import settle_text
from infra.workspace import CHECKOUT


@click.group(short_help="Compare ways to train: ablations, sizes, the decoder zoo.")
def study() -> None:
    """Compare ways to train: each variant of a study is trained and measured once per seed."""


@study.command(name="list")
@click.argument("name", required=False)
def list_studies(name: str | None) -> None:
    """Say which studies there are and how far they are; with NAME, what each trial of that study waits for."""
    from flows.server import keep_prefect_in

    keep_prefect_in(CHECKOUT)
    from flows.study import queue
    from infra.study_files import read_study, study_names
    from infra.trials import conditions, has_other_code, missing_inputs, read_result
    from tasks.targets import held_out_targets

    now = None if missing_inputs(CHECKOUT) else conditions(CHECKOUT, held_out_targets)
    if now is None:
        click.echo("no finished line in this checkout: whether its data have changed since is not known", err=True)
    for each in [name] if name else study_names(CHECKOUT):
        chosen = read_study(CHECKOUT, each)
        told = queue(chosen, chosen.trials(), CHECKOUT, now)
        due = [one for one in told if one.reason]
        click.echo(f"{each:<15} {len(told) - len(due)} of {len(told)} trials done  {chosen.purpose}")
        for one in told if name else []:
            result = read_result(one.trial, CHECKOUT)
            state = one.reason or "done"
            if result is not None and not one.reason and has_other_code(result, now):
                state = "done, by other code"
            click.echo(f"  {one.trial.name:<32} {state}")


@study.command()
@click.argument("name")
@click.option("--only", multiple=True, metavar="VARIANT", help="Run this variant alone (repeat for more).")
@click.option("--seeds", metavar="0,1,2", help="Of the study's seeds; all if left out.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Run N trials at most.")
@click.option("--new-code", is_flag=True, help="Also run trials whose results other code has made.")
@click.option("--dry-run", is_flag=True, help="Print which trials would run, and why; run nothing.")
def run(
    name: str, only: tuple[str, ...], seeds: str | None, limit: int | None, *, new_code: bool, dry_run: bool
) -> None:
    """Run the trials of study NAME that have no result, or a stale one.

    They build on what the line of this checkout has made. A run that was killed continues where it was.
    """
    from flows.server import keep_prefect_in, use_prefect_server
    from infra.study_files import read_study
    from infra.trials import conditions
    from tasks.targets import held_out_targets
    from vital.run_command import show_lines
    from vital.seeds import parse_seeds

    chosen, numbers = read_study(CHECKOUT, name), [] if seeds is None else parse_seeds(seeds)
    trials, now = chosen.trials(only, numbers), conditions(CHECKOUT, held_out_targets)
    if dry_run:
        keep_prefect_in(CHECKOUT)
        from flows.study import queue

        due = [one for one in queue(chosen, trials, CHECKOUT, now, new_code=new_code) if one.reason]
        for one in due if limit is None else due[:limit]:
            click.echo(f"{one.trial.name:<32} {', '.join(one.trial.variant.stages):<20} {one.reason}")
        click.echo(f"{len(due)} of {len(trials)} trials would run")
        return
    show_lines()
    use_prefect_server(CHECKOUT)
    from flows.study import study as flow

    outcomes = flow(name, list(only) or None, numbers or None, limit, new_code=new_code)
    counts = {state: list(outcomes.values()).count(state) for state in ("done", "unchanged", "waiting")}
    click.echo(", ".join(f"{count} trials {state}" for state, count in counts.items()))
    click.echo(f"The table: vital study table {name}")


@study.command()
@click.argument("name")
@click.option("--write", is_flag=True, help="Write it, and the curve of a study over sizes, into docs/.")
def table(name: str, *, write: bool) -> None:
    """Print the table of study NAME in Markdown, of the trials that have run; say which are missing or stale."""
    from infra.study_files import read_study
    from infra.trials import conditions, missing_inputs
    from tasks.evaluation.study_table import PAGE, curve, make_table, markdown, picture_name, updated
    from tasks.targets import held_out_targets

    chosen = read_study(CHECKOUT, name)
    now = (
        None if write or missing_inputs(CHECKOUT) else conditions(CHECKOUT, held_out_targets)
    )  # the page is for every clone
    made = make_table(chosen, CHECKOUT, now)
    click.echo(markdown(made))
    if write:
        page = CHECKOUT / PAGE
        settle_text(page, updated(page.read_text(), made))
        drawn, picture = curve(made), CHECKOUT / Path(PAGE).parent / picture_name(name)
        if drawn is not None:
            settle_text(picture, f"{drawn}\n")
        click.echo(f"written: {page}", err=True)
