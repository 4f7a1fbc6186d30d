"""``vital store``: where the bytes are kept."""

import dataclasses
import json

import click


@click.group(short_help="Say or choose where the bytes are kept.")
def store() -> None:
    """The store holds what stages make: artifacts, opinions, answers and promoted models.

    It is the folder .store at first. Credentials for S3 are taken from the environment (AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION) and never written down.
    """


@store.command()
@click.argument("place", metavar="S3_URL_OR_FOLDER")
@click.option("--endpoint", metavar="URL", help="S3 server other than AWS, for example http://127.0.0.1:9000.")
def use(place: str, endpoint: str | None) -> None:
    """Keep this clone's bytes at s3://BUCKET/PREFIX or in a folder, after checking that it can be reached.

    Writes .dvc/config.local only, which git ignores. What is in the old store stays there; run dvc push --run-cache to
    copy what this clone has made to the new one.
    """
    from infra.dvc_store import use_store
    from infra.workspace import CHECKOUT

    chosen = use_store(CHECKOUT, place, endpoint)
    click.echo(f"the store of this clone is now {chosen.url}{f' at {chosen.endpoint}' if chosen.endpoint else ''}")
    click.echo("dvc push --run-cache copies what this clone has made; dvc pull --run-cache brings what others have")


@store.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(ctx: click.Context, *, as_json: bool) -> None:
    """Say where this clone's bytes are kept, and whether that place can be reached (exit code 1 if not)."""
    from infra.dvc_store import describe_store
    from infra.workspace import CHECKOUT

    report = describe_store(CHECKOUT)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
    else:
        click.echo(f"seed      {report.seed or 'not configured'}  (read-only, travels with the repository)")
        click.echo(f"store     {report.store or 'not configured'}{f' at {report.endpoint}' if report.endpoint else ''}")
        click.echo(f"opinions  {report.objects}")
        click.echo(f"state     {report.problem or 'reachable'}")
    ctx.exit(int(report.problem is not None))
