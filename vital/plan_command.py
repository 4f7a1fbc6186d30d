"""`vital plan`: what a profile's training would take, before any of it runs: memory, FLOPs, time and cost."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from tasks.training.plan import Comparison, Plan, StagePlan

_GIB: Final = 2**30
_TERA: Final = 1e12
_MILLION: Final = 1e6
_SHOWN: Final = {
    "image_encoder": "image encoder",
    "motion_extractor": "motion extractor",
    "projectors": "projectors",
    "decoder": "decoder",
    "head": "head",
}
_WAYS: Final = ("none", "image_encoder", "decoder", "both")
_WEIGHTS: Final = ("float32", "frozen-bfloat16", "bfloat16")


@click.command(short_help="What training would take: memory, FLOPs, time and cost; nothing runs.")
@click.option("--profile", metavar="NAME", help="embedded (default), or a file of infra/profiles.")
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a parameter.")
@click.option("--gpus", "devices", type=click.IntRange(min=1), metavar="N", help="How many devices.")
@click.option("--gpu", "device", metavar="NAME", help="Which: a name of infra/planning.yaml, such as h200 or a100.")
@click.option("--zero", type=click.IntRange(0, 3), help="ZeRO stage, instead of the one that the engine names.")
@click.option("--mfu", type=click.FloatRange(0, 1, min_open=True), help="Share of the peak that training reaches.")
@click.option("--price", type=click.FloatRange(min=0), metavar="DOLLARS", help="What you pay for a device and hour.")
@click.option("--checkpointing", type=click.Choice(_WAYS), help="Of activations, instead of the least that fits.")
@click.option("--weights", type=click.Choice(_WEIGHTS), default="float32", help="How bfloat16 training holds weights.")
@click.option("--assume", multiple=True, metavar="KEY=VALUE", help="Change a value of infra/planning.yaml.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    profile: str | None, settings: tuple[str, ...], assume: tuple[str, ...], *, as_json: bool, **told: Any
) -> None:
    """Tell what pre-training, warm-up and benchmark scoring of a profile would take; needs no weights, GPU or network.

    Parameters are counted on models without numbers; memory and FLOPs follow from shapes; time is FLOPs divided by a
    stated share of the device's peak. What media are like, the MFU and the price are assumptions of infra/planning.yaml
    that you can replace: --assume workloads.internvl3.media.clip.seconds=8. See docs/planning.md.
    """
    from infra.params import parse_settings
    from infra.workspace import CHECKOUT, WorkspaceSpec, workspace_params
    from tasks.training.plan import Choices, make_plan
    from tasks.training.planning import read_planning

    spec = WorkspaceSpec(settings=parse_settings(settings))
    spec = spec if profile is None else dataclasses.replace(spec, profile=profile)
    planning = read_planning(CHECKOUT, parse_settings(assume))
    made = make_plan(workspace_params(spec), spec.profile, planning, Choices(**told), CHECKOUT)
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
        f"profile {made.profile} on {made.devices} x {made.device}: MFU {made.mfu:g} and "
        f"{made.dollars_per_hour:.2f} dollars a device hour are assumptions (infra/planning.yaml; --mfu, --price)"
    )
    _table("Parameters, millions (* trained)", [*_SHOWN.values(), "trained", "frozen"], made.stages, _parameters)
    _table("FLOPs of an average example, 1e12", [*_SHOWN.values(), "again", "all", "by task"], made.stages, _flops)
    memory = ["ZeRO", "weights", "gradients", "optimizer", "buffers", "activations", "peak", "of"]
    choices = ["checkpointing", "micro batch", "micro_batches"]
    _table("Memory of one device, GiB, for the largest examples", memory + choices, made.stages, _memory)
    time = ["examples", "a second", "hours", "device hours", "dollars"]
    _table("Time and cost", time, made.stages, _time)
    if made.published is not None:
        _print_comparison(made.published, made)
    for stage in made.stages:
        for note in stage.notes:
            click.echo(f"{stage.stage} {stage.decoder}: {note}")


def _table(
    title: str, columns: Sequence[str], stages: "Iterable[StagePlan]", row: "Callable[[StagePlan], list[str]]"
) -> None:
    from rich import box
    from rich.table import Table

    from vital.tables import print_table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    table.add_column("stage", no_wrap=True)
    table.add_column("decoder", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="left" if name == "by task" else "right")
    for stage in stages:
        table.add_row(stage.stage, stage.decoder, *row(stage))
    print_table(table)


def _parameters(stage: "StagePlan") -> list[str]:
    cells = []
    for part in _SHOWN:
        found = stage.parts.get(part)
        mark = "*" if found and found.flow == "trained" else ""
        cells.append(f"{found.parameters / _MILLION:,.2f}{mark}" if found else "-")
    return [*cells, f"{_trained(stage) / _MILLION:,.2f}", f"{_frozen(stage) / _MILLION:,.2f}"]


def _flops(stage: "StagePlan") -> list[str]:
    cells = []
    for part in _SHOWN:
        found = stage.parts.get(part)
        told = f"{_short(found.forward)}+{_short(found.backward)}" if found and found.forward else "-"
        cells.append(told)
    again = sum(part.again for part in stage.parts.values())
    tasks = ", ".join(f"{name} {_short(value)}" for name, value in stage.tasks.items())
    return [*cells, _short(again) if again else "-", _short(stage.flops), tasks]


def _short(flops: float) -> str:
    return f"{flops / _TERA:.3g}"


def _memory(stage: "StagePlan") -> list[str]:
    memory = stage.memory
    held = (memory.weights, memory.gradients, memory.optimizer, memory.buffers, memory.activations, memory.peak)
    micro_batches = stage.devices * stage.accumulation
    return [
        str(stage.zero),
        *(f"{value / _GIB:,.2f}" for value in held),
        f"{stage.capacity / _GIB:,.1f}",
        stage.checkpointing,
        str(stage.micro_batch) if stage.micro_batch else "none fits",
        str(micro_batches),
    ]


def _time(stage: "StagePlan") -> list[str]:
    figures = (f"{stage.per_second:,.2f}", f"{stage.hours:,.2f}", f"{stage.device_hours:,.2f}", f"{stage.cost:,.2f}")
    return [f"{stage.examples:,}", *figures]


def _print_comparison(told: "Comparison", made: "Plan") -> None:
    click.echo(
        f"The paper's pre-training took {told.published_hours:,.0f} GPU-hours: {told.per_second:.3f} samples a second and "
        f"GPU, {told.implied_mfu:.1%} of the peak of {made.device} by this count. This plan: {told.planned_hours:,.0f} "
        f"for as many samples; half of the paper's takes an MFU of {told.half_mfu:.2f}, a quarter {told.quarter_mfu:.2f}."
    )
