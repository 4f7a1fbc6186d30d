"""`vital plan`: what a profile's training would take, before any of it runs: memory, FLOPs, time and cost."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from tasks.training.plan import Comparison, Plan, StagePlan

_GIB: Final = 2**30
_MILLION: Final = 1e6
_TERA: Final = 1e12
_GIGA: Final = 1e9
_SMALL: Final = 0.1
"""In units of 1e12 FLOPs: examples below that are told in 1e9."""
_PARTS: Final = ("image_encoder", "motion_extractor", "projectors", "decoder", "head")
_WAYS: Final = ("none", "encoder", "decoder", "both")
_WEIGHTS: Final = ("float32", "frozen-bfloat16", "bfloat16")


@click.command(short_help="What training would take: memory, FLOPs, time and cost; nothing runs.")
@click.option("--profile", metavar="NAME", help="embedded (default), or a file of infra/profiles.")
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a parameter.")
@click.option("--gpus", "devices", type=click.IntRange(min=1), metavar="N", help="How many devices.")
@click.option("--gpu", "device", metavar="NAME", help="Which: a device of infra/planning.yaml, such as h200 or a100.")
@click.option("--zero", type=click.IntRange(0, 3), help="ZeRO stage, instead of that of the engine.")
@click.option("--mfu", type=click.FloatRange(0, 1, min_open=True), help="Share of the peak that training reaches.")
@click.option("--price", type=click.FloatRange(min=0), metavar="DOLLARS", help="What you pay for a device and hour.")
@click.option("--checkpointing", type=click.Choice(_WAYS), help="Of activations, instead of the least that fits.")
@click.option("--weights", type=click.Choice(_WEIGHTS), help="How bfloat16 training holds weights.")
@click.option("--assume", multiple=True, metavar="KEY=VALUE", help="Change a value of infra/planning.yaml.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    profile: str | None, settings: tuple[str, ...], assume: tuple[str, ...], *, as_json: bool, **told: Any
) -> None:
    """Tell what training and benchmark scoring of a profile would take; needs no weights, GPU or network.

    Parameters are counted on models without numbers; memory and FLOPs follow from shapes; time is FLOPs divided by a
    stated share (MFU) of the device's peak. What media are like, the MFU and the price are assumptions of
    infra/planning.yaml that you can replace: --assume workloads.internvl3.media.clip.seconds=8. See docs/planning.md.
    """
    from infra.params import parse_settings
    from infra.workspace import CHECKOUT, WorkspaceSpec, workspace_params
    from vital.quiet import quiet_libraries

    changes = parse_settings(assume)
    spec = WorkspaceSpec(settings=parse_settings(settings))
    spec = spec if profile is None else dataclasses.replace(spec, profile=profile)
    params = workspace_params(spec)
    with quiet_libraries():
        from tasks.training.plan import Choices, make_plan
        from tasks.training.planning import read_planning

        made = make_plan(params, spec.profile, read_planning(CHECKOUT, changes), Choices(**told), CHECKOUT)
    if as_json:
        click.echo(json.dumps(_described(made), indent=2))
        return
    _print(made)


def _described(made: "Plan") -> dict[str, Any]:
    """The plan as JSON, with the sums that people look for."""
    stages = [
        dataclasses.asdict(stage) | {"trained": _trained(stage), "frozen": _frozen(stage), "peak": stage.memory.peak}
        for stage in made.stages
    ]
    return dataclasses.asdict(made) | {"stages": stages}


def _trained(stage: "StagePlan") -> int:
    return sum(part.parameters for part in stage.parts.values() if part.flow == "trained")


def _frozen(stage: "StagePlan") -> int:
    return sum(part.parameters for part in stage.parts.values()) - _trained(stage)


def _print(made: "Plan") -> None:
    click.echo(
        f"Profile {made.profile} on {made.devices} x {made.device}. Assumed: an MFU of {made.mfu:g} (--mfu), "
        f"{made.dollars_per_hour:.2f} dollars for a device and hour (--price), media of infra/planning.yaml (--assume)."
    )
    small = max(stage.flops for stage in made.stages) < _SMALL * _TERA
    unit = _GIGA if small else _TERA
    parts = [part.replace("_", " ") for part in _PARTS]
    _table("Parameters, millions (* trained)", [*parts, "trained", "frozen"], made, _parameters)
    title = f"FLOPs of an average example, 1e{9 if small else 12}: forward+backward"
    _table(title, [*parts, "again", "all", "by task"], made, lambda stage: _flops(stage, unit))
    memory = ["ZeRO", "weights", "gradients", "optimizer", "buffers", "activations", "peak", "of"]
    choices = ["recompute", "micro batch", "micro_batches"]
    _table("Memory of one device for the largest examples, GiB", memory + choices, made, _memory)
    _table("Time and cost", ["examples", "a second", "and device", "time", "device hours", "dollars"], made, _time)
    if made.published is not None:
        _print_comparison(made.published, made)
    for stage in made.stages:
        for note in stage.notes:
            click.echo(f"{stage.stage} {stage.decoder}: {note}")
    for note in made.notes:
        click.echo(note)


def _table(title: str, columns: Sequence[str], made: "Plan", row: "Callable[[StagePlan], list[str]]") -> None:
    from rich import box
    from rich.table import Table

    from vital.tables import print_table

    click.echo(f"\n{title}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("decoder", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="left" if name == "by task" else "right")
    for stage in made.stages:
        table.add_row(stage.stage, stage.decoder, *row(stage))
    print_table(table)


def _parameters(stage: "StagePlan") -> list[str]:
    cells = []
    for part in _PARTS:
        found = stage.parts.get(part)
        mark = "*" if found and found.flow == "trained" else ""
        cells.append(f"{found.parameters / _MILLION:,.2f}{mark}" if found else "-")
    return [*cells, f"{_trained(stage) / _MILLION:,.2f}", f"{_frozen(stage) / _MILLION:,.2f}"]


def _flops(stage: "StagePlan", unit: float) -> list[str]:
    cells = []
    for part in _PARTS:
        found = stage.parts.get(part)
        told = f"{found.forward / unit:.3g}" if found and found.forward else "-"
        cells.append(f"{told}+{found.backward / unit:.3g}" if found and found.backward else told)
    again = sum(part.again for part in stage.parts.values())
    tasks = ", ".join(f"{name} {value / unit:.3g}" for name, value in stage.tasks.items())
    return [*cells, f"{again / unit:.3g}" if again else "-", f"{stage.flops / unit:.3g}", tasks]


def _memory(stage: "StagePlan") -> list[str]:
    memory = stage.memory
    held = (memory.weights, memory.gradients, memory.optimizer, memory.buffers, memory.activations, memory.peak)
    return [
        str(stage.zero),
        *(f"{value / _GIB:,.2f}" for value in held),
        f"{stage.capacity / _GIB:,.1f}",
        stage.checkpointing,
        str(stage.micro_batch) if stage.micro_batch else "none fits",
        str(stage.devices * stage.accumulation) if _trained(stage) else "-",
    ]


def _time(stage: "StagePlan") -> list[str]:
    speed = (stage.per_second, stage.per_second / stage.devices)
    spent = (stage.device_hours, stage.cost)
    return [
        f"{stage.examples:,}",
        *(f"{value:,.3f}" for value in speed),
        _duration(stage.hours),
        *(f"{value:,.2f}" for value in spent),
    ]


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"


def _print_comparison(told: "Comparison", made: "Plan") -> None:
    click.echo(
        f"The paper's pre-training took {told.published_hours:,.0f} GPU-hours: {told.per_second:.3f} samples a second "
        f"and GPU, {told.implied_mfu:.1%} of the peak of {made.device} by this count. As many samples take "
        f"{told.planned_hours:,.0f} device hours by this plan; half of the paper's hours need an MFU of "
        f"{told.half_mfu:.2f}, a quarter {told.quarter_mfu:.2f}."
    )
