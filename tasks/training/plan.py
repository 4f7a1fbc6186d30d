"""The plan of a profile's training before any of it runs: sizes, memory, FLOPs, time and cost of each stage.

Throughput is arithmetic: FLOPs of the model, divided by a stated share (MFU) of the device's peak. Whatever keeps a
device from its peak, communication, waiting for data, padding and recomputation among them, has to be in that share,
as it is in the MFU that runs print.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, get_args

from models.decoders import build_internvl_config, decoder_record
from models.footprint import Cost, Flow, Step, footprint
from models.model_size import PARTS, ModelSize, measure_model
from tasks.errors import ConfigError
from tasks.stage import stage_config
from tasks.training.freezing import Part
from tasks.training.memory import CHECKPOINTING, DeviceMemory, Fit, Load, fit, numerics_of, read_sharding
from tasks.training.planning import (
    FAMILIES,
    Conversations,
    Device,
    Mixture,
    Planning,
    Workload,
    conversation_mixture,
    scoring_mixture,
    training_mixture,
)
from tasks.training.teaching_mixtures import Passage, answers_mixture, label_passage, teaching_passages
from tasks.training.trainer import TrainingConfig

_ENCODERS: Final[tuple[Part, ...]] = ("image_encoder", "motion_extractor")
_PROJECTORS: Final[tuple[Part, ...]] = ("projector", "motion_projector")
_ZERO: Final = "zero"
_PUBLISHED_FAMILY: Final = "internvl3"
_HOUR: Final = 3600.0
_TERA: Final = 1e12
_FLOAT32: Final = 4


@dataclass(frozen=True)
class Choices:
    """What a user says instead of the files; None leaves it to them."""

    device: str | None = None
    devices: int | None = None
    zero: int | None = None
    mfu: float | None = None
    price: float | None = None
    checkpointing: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class PartPlan:
    """One part in one stage: parameters, what it does for a gradient, FLOPs of an average example."""

    parameters: int
    flow: Flow
    forward: float
    backward: float
    again: float


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        parts: part that runs -> its plan.
        tasks: task, or kind of media, -> FLOPs of an average example of it.
        flops: of an average example, what checkpointing runs again included; ``model_flops`` without it.
        precision: of products. zero: ZeRO stage. devices: how many have work. mfu: that is planned with.
        memory: bytes on one device with ``micro_batch`` examples of the largest kind (with one, if none fits).
        capacity: bytes that there are, without the reserve.
        checkpointing: which parts' layers run again in backward.
        micro_batch: most examples that a device computes at once; 0 if not even one fits.
        accumulation: micro batches of a device in a step.
        examples: how many the stage computes.
        per_second: examples a second on all devices. hours: for all of them. cost: in dollars.
        notes: what to know.
    """

    stage: str
    decoder: str
    parts: dict[str, PartPlan]
    tasks: dict[str, float]
    flops: float
    model_flops: float
    precision: str
    zero: int
    devices: int
    mfu: float
    memory: DeviceMemory
    capacity: float
    checkpointing: str
    micro_batch: int
    accumulation: int
    examples: int
    per_second: float
    hours: float
    device_hours: float
    cost: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """The plan of pre-training beside the published run.

    Attributes:
        per_second: published examples a second and device.
        implied_mfu: the share of this device's peak that they amount to by our count.
        published_hours, planned_hours: device hours for the published number of examples.
        half_mfu, quarter_mfu: the share of the peak that takes a half, and a quarter, of the published hours.
    """

    per_second: float
    implied_mfu: float
    published_hours: float
    planned_hours: float
    half_mfu: float
    quarter_mfu: float


@dataclass(frozen=True)
class Plan:
    """All stages; ``published`` is None for families that no publication trained, ``notes`` say what is not planned."""

    profile: str
    device: str
    devices: int
    mfu: float
    dollars_per_hour: float
    stages: tuple[StagePlan, ...]
    published: Comparison | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Work:
    """One stage before it is planned; ``runs`` are the parts that run, ``batch`` examples make a step.

    ``weights`` is one of ``memory.WEIGHTS``; ``mfu`` is that of work which is not like training.
    ``compared``: what learns is held a second time, as it was at the start.
    """

    stage: str
    decoder: str
    flows: Mapping[str, Flow]
    runs: tuple[str, ...]
    mixture: Mixture
    examples: int
    batch: int
    precision: str
    weights: str
    zero: int
    mfu: float | None = None
    notes: tuple[str, ...] = ()
    compared: bool = False


def make_plan(params: dict[str, Any], profile: str, planning: Planning, choices: Choices, checkout: Path) -> Plan:
    """Plan pre-training, warm-ups, assistant, teachers, RACT, and the scoring of benchmarks by each decoder.

    Args:
        params: all sections of the profile.
        checkout: where the DeepSpeed configurations are.

    Raises:
        ConfigError: params, planning file and choices do not fit each other.
        ModelError: a decoder is unknown.
    """
    planner = _Planner(params, planning, choices, checkout)
    stages = tuple(planner.stage(work) for work in planner.works())
    published = planner.compare(stages[0]) if planner.family == _PUBLISHED_FAMILY else None
    return Plan(
        profile,
        planner.device_name,
        planner.devices,
        planner.mfu,
        planner.price,
        stages,
        published,
        tuple(planner.left_out()),
    )


def flows_of(trained: Collection[Part]) -> dict[str, Flow]:
    """What every part does for the gradient of the parts that learn: those before them all have none to pass on.

    If one projector learns, both are planned as learning: they are one part of ``models.model_size.PARTS``.
    """
    learn = {"projectors" if part in _PROJECTORS else part for part in trained} | (
        {"head"} if "decoder" in trained else set()
    )
    flows: dict[str, Flow] = {}
    for part in PARTS:
        behind = any(flow is not Flow.IDLE for flow in flows.values()) and part not in _ENCODERS
        flows[part] = Flow.TRAINED if part in learn else Flow.THROUGH if behind else Flow.IDLE
    return flows


class _Planner:
    """Params, planning file and choices, brought together."""

    def __init__(self, params: dict[str, Any], planning: Planning, choices: Choices, checkout: Path) -> None:
        self._params, self._planning, self._choices, self._checkout = params, planning, choices, checkout
        self._pretrain, self._warm_up = stage_config("pretrain", params), stage_config("warm_up", params)
        self._assistant, self._ract = stage_config("assistant", params), stage_config("ract", params)
        self._teach = stage_config("teach", params)
        self.family = decoder_record(self._pretrain.decoder).family
        self._workload: Workload = planning.workload(self.family)
        self.device_name = choices.device or self._workload.device
        self._device: Device = planning.device(self.device_name)
        self.devices = self._workload.devices if choices.devices is None else choices.devices
        self.mfu = self._workload.mfu if choices.mfu is None else choices.mfu
        self.price = self._device.dollars_per_hour if choices.price is None else choices.price
        self._sizes: dict[str, ModelSize] = {}
        if not 0.0 < self.mfu <= 1.0 or self.devices < 1 or self.price < 0.0:
            raise ConfigError("the MFU must lie in (0, 1], there must be one device at least, and no price is negative")

    def works(self) -> Iterator[_Work]:
        """The stages in the order of the line."""
        workload, spec = self._workload, FAMILIES[self.family][2]
        first, second, shares = self._pretrain, self._warm_up, self._pretrain.shares
        mixture = training_mixture(shares, workload, spec, 1.0 / workload.samples_per_medium)
        yield self._training("pretrain", first.decoder, flows_of(first.trained), first.training, mixture)
        once = training_mixture(shares, workload, spec, 1.0)
        features = self._training("warm_up", first.decoder, flows_of(()), second.training, once)
        yield replace(features, stage="warm_up features", runs=_ENCODERS, weights="float32", zero=0)
        cached = training_mixture(shares, workload, spec, 0.0)
        flows = flows_of((*_PROJECTORS, "decoder") if second.train_projectors else ("decoder",))
        for decoder in second.decoders:
            yield self._training("warm_up", decoder, flows, second.training, cached)
        yield self._fine_tuning()
        yield from self._teachers()
        yield from self._ract_works()
        scored = scoring_mixture(workload, spec)
        batch, examples = self._params["predict"]["batch"] * self.devices, sum(workload.scored.values())
        for decoder in (first.decoder, *second.decoders):
            work = self._training("predict", decoder, flows_of(()), first.training, scored)
            yield replace(work, examples=examples, batch=batch, weights="float32", zero=0)

    def _fine_tuning(self) -> _Work:
        """The assistant: conversations, and the opinions that are rehearsed beside them."""
        third = self._assistant
        told = Conversations(third.per_medium, third.max_tokens, third.rehearse)
        mixture = conversation_mixture(told, self._workload, FAMILIES[self.family][2])
        flows = flows_of([part for part in get_args(Part) if part not in third.frozen])
        return self._training("assistant", self._pretrain.decoder, flows, third.training, mixture)

    def _teachers(self) -> Iterator[_Work]:
        """The teacher of the engine ``own``."""
        if self._teach.engine == "own":
            teaching = self._teach
            for one in teaching_passages(teaching, self._workload, FAMILIES[self.family][2]):
                yield self._passage("teach", one, flows_of(teaching.trained), teaching.training)

    def _ract_works(self) -> Iterator[_Work]:
        """A teacher for each data set, what they write, and the encoder that learns it under a frozen reader."""
        if not self._plans_ract:
            return
        ract, spec = self._ract, FAMILIES[self.family][2]
        teaching, sets = ract.teachers, len(ract.data_sets)
        for one in teaching_passages(teaching, self._workload, spec):
            named = replace(one, name=one.name or "teachers", answers=sets * one.answers)
            yield self._passage("ract", named, flows_of(teaching.trained), teaching.training)
        labels = label_passage(ract, self._workload, spec)
        if labels is not None:
            yield self._passage("ract", labels, flows_of(()), teaching.training)
        batch = ract.training.batch_examples
        learnt = Passage("", True, False, answers_mixture({"score": 1.0}, self._workload, spec, 1.0), 0, batch)
        learnt = replace(learnt, answers=ract.training.steps * batch)
        yield self._passage("ract", learnt, flows_of(ract.trained), ract.training)

    def _passage(self, stage: str, one: Passage, flows: Mapping[str, Flow], training: TrainingConfig) -> _Work:
        """A part of teaching; where nothing learns, weights are whole on every device."""
        flows = flows if one.learns else flows_of(())
        work = self._training(stage, self._pretrain.decoder, flows, training, one.mixture)
        named = {"stage": f"{stage} {one.name}".strip(), "compared": one.compared}
        work = replace(work, examples=one.answers, batch=one.batch, **named)
        if one.drawn:
            mfu = self._workload.teaching.drawing_mfu
            work = replace(work, mfu=mfu, notes=(f"answers are drawn at an assumed MFU of {mfu:g}",))
        return work if one.learns else replace(work, weights="float32", zero=0)

    def left_out(self) -> Iterator[str]:
        """What a plan says nothing of, and why."""
        if self._teach.engine == "trl":
            yield f"teach is not planned: the shapes of {self._teach.trl.model} are not known here (engine trl)"
        if not self._plans_ract:
            yield f"ract is not planned on {self.device_name}: its training.device is {self._ract.training.device}"
        elif self._ract.labels.max_media is None:
            yield "ract labels are not planned: ract.labels.max_media is null, so their number is the pool's"

    @property
    def _plans_ract(self) -> bool:
        """Whether it is meant for such a device: it runs in one process, and a profile may leave it at a processor."""
        return self._device.processor == (self._ract.training.device == "cpu")

    def _training(
        self, stage: str, decoder: str, flows: Mapping[str, Flow], training: TrainingConfig, mixture: Mixture
    ) -> _Work:
        if decoder_record(decoder).family != self.family:
            msg = f"{stage}: decoder {decoder} is not of the family {self.family} of pretrain.decoder"
            raise ConfigError(msg)
        batch, zero = training.batch_examples, self._zero(stage, training.engine)
        weights = "frozen-bfloat16" if training.frozen_precision == "bfloat16" else "float32"
        examples, precision = training.steps * batch, training.precision
        return _Work(stage, decoder, flows, PARTS, mixture, examples, batch, precision, weights, zero)

    def _zero(self, stage: str, engine: str) -> int:
        """ZeRO stage: the user's, that of params' engine, or that of the planning file."""
        if self._choices.zero is not None:
            return self._choices.zero
        if engine.startswith(_ZERO):
            return int(engine.removeprefix(_ZERO))
        return self._workload.zero.get(stage, 0)

    def _size(self, decoder: str) -> ModelSize:
        if decoder not in self._sizes:
            encoder, motion, spec = FAMILIES[self.family]
            config = build_internvl_config(decoder_record(decoder), encoder, self._workload.vocabulary, 0)
            self._sizes[decoder] = measure_model(config, motion, spec.motion_px)
        return self._sizes[decoder]

    def stage(self, work: _Work) -> StagePlan:
        """Plan one stage."""
        size = self._size(work.decoder)
        busy = min(self.devices, work.batch)
        sharding = read_sharding(self._checkout, work.zero, busy)
        capacity = self._device.memory_mib * 2**20 * (1.0 - self._planning.reserve)
        step = Step(work.flows, numerics_of(work.flows, work.precision, self._choices.weights or work.weights))
        share = math.ceil(work.batch / busy)
        load = Load(size, step, work.mixture.longest, share, work.runs, one_by_one=self._device.processor)
        beside = _FLOAT32 * sum(size.parameters[part] for part in _learning(work)) if work.compared else 0
        found = fit(load, sharding, capacity - beside, self._choices.checkpointing)
        step = replace(step, checkpointed=CHECKPOINTING[found.checkpointing])
        costs, tasks = _average(work, size, step)
        flops = sum(cost.flops for cost in costs.values())
        model_flops = sum(cost.model_flops for cost in costs.values())
        mfu = self.mfu if work.mfu is None else work.mfu
        per_second = mfu * self._peak(work.precision) * busy / model_flops
        hours = work.examples / per_second / _HOUR
        return StagePlan(
            stage=work.stage,
            decoder=work.decoder,
            parts={part: _part_plan(part, size, work.flows[part], costs[part]) for part in work.runs},
            tasks=tasks,
            flops=flops,
            model_flops=model_flops,
            precision=work.precision,
            zero=work.zero,
            devices=busy,
            mfu=mfu,
            memory=replace(found.memory, weights=found.memory.weights + beside),
            capacity=capacity,
            checkpointing=found.checkpointing,
            micro_batch=found.micro_batch,
            accumulation=math.ceil(load.most / max(1, found.micro_batch)),
            examples=work.examples,
            per_second=per_second,
            hours=hours,
            device_hours=hours * busy,
            cost=hours * busy * self.price,
            notes=self._notes(work, busy, found, load, capacity),
        )

    def _notes(self, work: _Work, busy: int, found: Fit, load: Load, capacity: float) -> tuple[str, ...]:
        notes = list(work.notes)
        if busy < self.devices:
            notes.append(f"{work.batch} examples a step keep {busy} of {self.devices} devices busy")
        if found.micro_batch == 0:
            short = f"does not fit: {found.memory.peak / 2**30:.0f} GiB of {capacity / 2**30:.0f}"
            better = [
                stage
                for stage in range(work.zero + 1, 4)
                if fit(load, read_sharding(self._checkout, stage, busy), capacity, None).micro_batch
            ]
            notes.append(f"{short}; {f'--zero {better[0]} does' if better else 'take more or larger devices'}")
        return tuple(notes)

    def _peak(self, precision: str) -> float:
        """FLOPs a second of one device."""
        if precision not in self._device.tflops:
            msg = f"planning file: device {self.device_name} states no peak for {precision}"
            raise ConfigError(msg)
        return self._device.tflops[precision] * _TERA

    def compare(self, pretrain: StagePlan) -> Comparison:
        """Pre-training beside the published run."""
        published, peak = self._planning.published, self._peak(pretrain.precision)
        work = pretrain.model_flops * published.samples / _HOUR / peak  # device hours at the full peak
        return Comparison(
            per_second=published.samples / published.gpu_hours / _HOUR,
            implied_mfu=work / published.gpu_hours,
            published_hours=published.gpu_hours,
            planned_hours=work / self.mfu,
            half_mfu=2 * work / published.gpu_hours,
            quarter_mfu=4 * work / published.gpu_hours,
        )


def _learning(work: _Work) -> list[str]:
    return [part for part, flow in work.flows.items() if flow is Flow.TRAINED]


def _average(work: _Work, size: ModelSize, step: Step) -> tuple[dict[str, Cost], dict[str, float]]:
    """Costs of an average example per part, and FLOPs of an average example per task; nothing is padded."""
    sums = {part: Cost() for part in work.runs}
    flops: dict[str, float] = {}
    shares: dict[str, float] = {}
    for name, share, samples in work.mixture.parts:
        costs = [footprint(size, [sample], step) for sample in samples]
        for part in work.runs:
            for cost in costs:
                sums[part] = sums[part].plus(cost[part], share)
        spent = sum(cost[part].flops for cost in costs for part in work.runs)
        flops[name] = flops.get(name, 0.0) + share * spent
        shares[name] = shares.get(name, 0.0) + share
    return sums, {name: flops[name] / shares[name] for name in flops}


def _part_plan(part: str, size: ModelSize, flow: Flow, cost: Cost) -> PartPlan:
    return PartPlan(size.parameters[part], flow, cost.forward, cost.backward, cost.again)
