"""What the steps of ``vital rali`` on a folder of one's own share: the media, the settings, the scores, the report."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from tasks.human_scale import Meaning
    from tasks.own_media import OwnMedia
    from tasks.training.rali import Config
    from tasks.training.rali_folder import Own, Step

F = TypeVar("F", bound=Callable[..., Any])
_SECTION = "rali"
_UNIT = (0.0, 1.0)

_STEP = (
    click.argument("photos", metavar="PHOTOS", type=click.Path(exists=True, file_okay=False, path_type=Path)),
    click.option(
        "--work",
        required=True,
        type=click.Path(path_type=Path, file_okay=False),
        metavar="WORK",
        help="Folder that keeps what the steps hand on; a step that was killed goes on there.",
    ),
    click.option("--profile", metavar="NAME", help="Settings of this profile: embedded (default), or another."),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="rali.KEY=VALUE",
        help="Change a setting of the section rali (repeat for more); later steps keep it.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON, not a table."),
)
_SCORES = (
    click.option(
        "--scores",
        required=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE.csv",
        help="Columns path and score.",
    ),
    click.option(
        "--range",
        "ends",
        nargs=2,
        type=float,
        metavar="LOW HIGH",
        help="Ends of the scale of the scores. Default: 0 1, which a score outside refuses; of fit, as build was told.",
    ),
    click.option("--lower-is-better", is_flag=True, help="The lower number is the better one, as of DMOS."),
)


def step_options(command: F) -> F:
    """Give a command the folder, the work folder, the settings and the kind of report."""
    return _with(command, _STEP)


def score_options(command: F) -> F:
    """Give a command the table of scores and what its numbers mean."""
    return _with(command, _SCORES)


def _with(command: F, options: tuple[Callable[[F], F], ...]) -> F:
    for option in reversed(options):
        command = option(command)
    return command


def step_config(step: "Step", work: Path, profile: str | None, settings: tuple[str, ...]) -> "Config":
    """The section ``rali`` as this step uses it: of the step before, else of the profile, with ``--set`` on top.

    Raises:
        click.UsageError: a profile is named after the first step, or another section is set.
        InfraError, ConfigError, StageError: a setting is unknown, a step is missing, or it decided otherwise.
    """
    import dataclasses

    from infra.params import EMBEDDED, apply_settings, parse_settings, profile_params
    from infra.workspace import CHECKOUT
    from tasks.stage import build_config
    from tasks.training.rali import Config
    from tasks.training.rali_folder import begun_config, check_step

    changes = parse_settings(settings)
    if other := sorted(set(changes) - {_SECTION}):
        msg = f"--set {other[0]}: this command has the section rali alone"
        raise click.UsageError(msg)

    def usual() -> "Config":
        return build_config(Config, _SECTION, profile_params(CHECKOUT, profile or EMBEDDED)[_SECTION])

    begun = begun_config(step, work, usual)
    values = apply_settings({_SECTION: dataclasses.asdict(begun)}, changes)[_SECTION]
    config = build_config(Config, _SECTION, values)
    if profile is not None and begun != usual():
        msg = f"--profile belongs to the first step: {work} has begun with other settings"
        raise click.UsageError(msg)
    check_step(step, work, config)
    _check_machine(config)
    return config


def _check_machine(config: "Config") -> None:
    """Refuse what this machine, or one process, cannot do.

    Raises:
        StageError: something is missing, or several processes are asked for.
    """
    from infra.workspace import CHECKOUT
    from tasks.errors import StageError
    from tasks.training.rali import missing, processes

    if lacking := missing(config, CHECKOUT):
        msg = f"this machine lacks {'; '.join(lacking)}"
        raise StageError(msg)
    if processes(config) > 1:
        raise StageError("the steps run in one process: leave rali.training.processes at 1, or run the stage rali")


def own_media(photos: Path) -> "OwnMedia":
    """The media of the folder; folders in it that cannot be listed are told.

    Raises:
        StageError: there are none.
    """
    from tasks.own_media import OwnMedia
    from vital.media_files import find_media, tell_problem

    found = find_media([str(photos)])
    for named in found:
        if named.problem is not None and named.path != photos:
            tell_problem(named.path, named.problem, as_json=False)
    return OwnMedia.of(photos, [named.path for named in found if named.problem is None])


def own(photos: Path, work: Path) -> "Own":
    """Whose student is made."""
    from infra.workspace import CHECKOUT
    from tasks.training.rali_folder import Own

    return Own(own_media(photos), work, CHECKOUT)


def declared(
    ends: tuple[float, float] | None, before: "Mapping[str, Any] | None" = None, *, lower_is_better: bool
) -> "Meaning":
    """What the numbers of a table mean.

    Args:
        before: what an earlier step was told, which counts where nothing is declared.

    Raises:
        click.UsageError: the earlier step was told otherwise. StageError: the scale is empty.
    """
    from tasks.human_scale import Meaning, Polarity

    if before is not None and ends is None and not lower_is_better:
        return Meaning(Polarity(before["polarity"]), before["low"], before["high"])
    meaning = Meaning(Polarity.DMOS if lower_is_better else Polarity.MOS, *(ends or _UNIT))
    if before is not None and told(meaning) != dict(before):
        msg = f"vital rali build was told {before['low']:g} to {before['high']:g} ({before['polarity']}): say the same"
        raise click.UsageError(msg)
    return meaning


def told(meaning: "Meaning") -> dict[str, Any]:
    """A declaration as the work folder keeps it."""
    return {"polarity": str(meaning.polarity), "low": meaning.low, "high": meaning.high}


def show(report: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a step's report: JSON, or a table of its figures and one of its rejects."""
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
        return
    from rich import box
    from rich.table import Table

    from vital.tables import print_table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    table.add_column("", justify="right")
    for name, value in _flat(report):
        table.add_row(name, value)
    print_table(table)


def _flat(report: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Names with dots and plain values."""
    rows: list[tuple[str, str]] = []
    for name, value in report.items():
        if isinstance(value, Mapping):
            rows += _flat(cast("Mapping[str, Any]", value), f"{before}{name}.")
        else:
            rows.append((f"{before}{name}", f"{value:.4g}" if isinstance(value, float) else str(value)))
    return rows
