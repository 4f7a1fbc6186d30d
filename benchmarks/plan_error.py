"""Compare what `vital plan` predicts with what torch counts and the machine measures, on training steps that fit here.

    python benchmarks/plan_error.py [--only tiny | wide] [--threads 1] [--runs 7]
    python benchmarks/plan_error.py --device cuda [--decoder internvl3-1b] [--weights float32]

On the CPU the embedded decoders take steps of pre-training and of warm-up on random media (float32, as their params
say); on a GPU a decoder of InternVL3's sizes does, with random weights. Compared are

    parameters   counted on the meta device, against the model's own
    FLOPs        of forward and backward, against torch's FlopCounterMode: both must be equal
    kept         bytes that forward keeps for backward, against the storages that autograd saves
    optimizer    bytes of AdamW's state
    peak         most memory of a step of two micro-batches above what it began with: resident memory, or
                 torch.cuda.max_memory_allocated; gradients of the first are there while the second is computed
    seconds      of a step, from the FLOPs a second of its group's first case: processor seconds, or wall seconds on
                 a GPU

Steps of the embedded family are grouped by stage and mixture, so that the smallest decoder tells what the others take.
On the CPU there are also steps of InternVL3's widths in few layers: one tells what other depths, widths and loads take.
Exit code 1 if parameters or FLOPs differ, or if another figure is off by more than 15 %; seconds of an embedded warm-up
are told and not judged, since decoders that narrow wait for memory and not for arithmetic.
"""

import argparse
import ctypes
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from arguments import hub_decoders, positive, present_device
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models import losses
from models.decoders import build_internvl_config, decoder_record
from models.footprint import BFLOAT16, HELD, Cost, Flow, Sample, Step, footprint, kept_bytes, peak_bytes
from models.model_size import PARTS, measure_model
from models.quality_lmm import QualityLMM
from models.tokenizer import IMAGE_CONTEXT, IMAGE_END, IMAGE_START, TURN_END, TURN_START
from models.vision_encoder import VisualInput, VisualSpec
from tasks.training.base import domain_tokenizer
from tasks.training.freezing import hold_frozen, train_only
from tasks.training.memory import WEIGHTS, Sharding, device_memory, numerics_of
from tasks.training.planning import FAMILIES

LIMIT: Final = 0.15
VOCABULARY: Final = 151674
"""InternVL3's."""
SYSTEM: Final = "You look at pictures."
SCORED, TEXT = "The quality of the image is good", "relatively severe white noise"
STAGES: Final = ("pretrain", "warm_up")
EXACT: Final = ("parameters", "FLOPs")
MMAP_FROM: Final = 65536
"""Bytes from which the C library maps memory by itself, so that freed tensors leave resident memory at once."""


@dataclass(frozen=True)
class Case:
    """One training step.

    Attributes:
        images, clips: samples of each kind.
        tiles: of each; a clip has motion frames besides.
        group: cases of one group share the rate of its first.
        layers: depth of encoder and decoder; None is the decoder's own.
        judged: whether the prediction of seconds must hold.
    """

    decoder: str
    stage: str
    images: int
    clips: int
    tiles: int = 3
    group: str = ""
    layers: int | None = None
    checkpointed: bool = False
    judged: bool = True

    @property
    def name(self) -> str:
        """How the table calls it."""
        depth = f" of {self.layers} layers" if self.layers else ""
        recomputed = ", checkpointed" if self.checkpointed else ""
        media = f"{self.images} images, {self.clips} clips of {self.tiles} tiles"
        return f"{self.decoder}{depth}: {self.stage}, {media}{recomputed}"


@dataclass(frozen=True)
class Setting:
    """Where and how steps are run."""

    device: torch.device
    precision: str
    weights: str
    runs: int


class Subject:
    """A model that takes the steps of one case."""

    def __init__(self, case: Case, setting: Setting) -> None:
        record = decoder_record(case.decoder)
        encoder, motion, self.spec = FAMILIES[record.family]
        if case.layers is not None:
            record, encoder = replace(record, layers=case.layers), replace(encoder, layers=case.layers)
        tokenizer = known_tokenizer()
        whole = record.hub is not None and case.layers is None
        context: Any = tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT)
        config = build_internvl_config(record, encoder, VOCABULARY if whole else len(tokenizer), int(context))
        torch.manual_seed(0)
        self.model = QualityLMM.from_config(config, motion, tokenizer, self.spec, SYSTEM)
        self.size = measure_model(config, motion, self.spec.motion_px)
        self.case, self.setting = case, setting
        self.flows = self._freeze(case.stage)
        self.numerics = numerics_of(self.flows, setting.precision, setting.weights)
        self._hold_weights()
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-5)
        number = torch.bfloat16 if self.numerics["image_encoder"] == BFLOAT16 else torch.float32
        self.media: list[Any] = [
            random_medium(self.spec, case.tiles, number, clip=i >= case.images) for i in range(self.count)
        ]
        if case.stage == "warm_up":
            with torch.no_grad(), self.autocast():
                self.media = list(self.model.visual_features(self.media))
        self.answers = [SCORED if index % 2 == 0 else TEXT for index in range(self.count)]

    @property
    def count(self) -> int:
        """Samples of a step."""
        return self.case.images + self.case.clips

    def _freeze(self, stage: str) -> dict[str, Flow]:
        model = self.model
        if stage == "pretrain":
            train_only(model, [model.image_encoder, model.motion_extractor])
            return dict(zip(PARTS, [Flow.TRAINED] * 2 + [Flow.THROUGH] * 3, strict=True))
        train_only(model, [model.projector, model.motion_projector, model.language_model, model.internvl.lm_head])
        return dict(zip(PARTS, [Flow.IDLE] * 2 + [Flow.TRAINED] * 3, strict=True))

    def _hold_weights(self) -> None:
        """Move the model, each part in the numbers that it is planned in."""
        model = self.model.to(self.setting.device)
        parts = (model.image_encoder, model.motion_extractor, model.projector, model.language_model)
        for module, part in zip(
            (*parts, model.internvl.lm_head, model.motion_projector), (*PARTS, "projectors"), strict=True
        ):
            if self.numerics[part] == BFLOAT16:
                module.bfloat16()
            elif self.numerics[part] == HELD:
                module.bfloat16().float()  # numbers that a checkpoint in bfloat16 could have
        if self.setting.weights == "frozen-bfloat16" and self.setting.precision == "bfloat16":
            hold_frozen(model, "bfloat16")
        if self.case.checkpointed:
            for module, part in ((model.image_encoder, "image_encoder"), (model.language_model, "decoder")):
                if self.flows[part] is not Flow.IDLE:
                    module.activation_checkpointing_enable()
                    module.train()

    def autocast(self) -> torch.autocast:
        """Context of a forward pass."""
        enabled = self.setting.precision == "bfloat16" and self.setting.weights != "bfloat16"
        return torch.autocast(self.setting.device.type, dtype=torch.bfloat16, enabled=enabled)

    def loss(self) -> Tensor:
        """Forward: every other sample is scored, level by divergence and sentence by focal loss, or text."""
        model = self.model
        with self.autocast():
            ids_BL, mask_BL = model.answer_ids(self.answers)
            hidden_BLD = model(self.media, ids_BL, mask_BL)
            level_BL = torch.isin(ids_BL, torch.tensor(model.level_ids, device=ids_BL.device)) & mask_BL
            end_BL = (level_BL.cumsum(1) > 0) & mask_BL
            log_probs_N5 = losses.level_log_probabilities(
                model.logits(hidden_BLD[level_BL]), torch.tensor(model.level_ids, device=ids_BL.device), "levels"
            )
            divergence_N = losses.level_divergence(log_probs_N5, torch.full_like(log_probs_N5, 0.2))
            text_BL = mask_BL & ~end_BL
            focal_N = losses.focal(model.logits(hidden_BLD[text_BL]), ids_BL[text_BL])
        return divergence_N.sum() + focal_N.sum()

    def step(self, micro_batches: int = 1) -> None:
        """One optimizer step; as in the engines, a parameter that nothing used has a zero gradient."""
        for _ in range(micro_batches):
            self.loss().backward()
        for parameter in self.model.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def samples(self) -> list[Sample]:
        """The step as the planner describes it."""
        encode = self.model.tokenizer.encode
        before = f"{TURN_START}system\n{SYSTEM}{TURN_END}\n{TURN_START}user\n{IMAGE_START}"
        after = f"{IMAGE_END}\n{TURN_END}\n{TURN_START}assistant\n"
        prompt = sum(len(encode(text, add_special_tokens=False)) for text in (before, after))
        encoded = float(self.case.stage == "pretrain")
        found = []
        for medium, answer in zip(self.media, self.answers, strict=True):
            tokens = len(encode(answer, add_special_tokens=False)) + 1
            tiles, frames = shape_of(medium)
            scored = answer == SCORED
            found.append(Sample(tiles, frames, prompt + tokens, int(scored), tokens - 2 * scored, encoded))
        return found

    def costs(self) -> dict[str, Cost]:
        """The planner's prediction."""
        checkpointed = frozenset({"image_encoder", "decoder"} if self.case.checkpointed else ())
        return footprint(self.size, self.samples(), Step(self.flows, self.numerics, checkpointed))


@cache
def known_tokenizer() -> PreTrainedTokenizerFast:
    """The embedded family's; its ids are valid in larger vocabularies too."""
    return domain_tokenizer(2048)


def shape_of(medium: Any) -> tuple[int, int]:
    """Tiles and motion frames of a medium, as pixels or as features."""
    if isinstance(medium, VisualInput):
        return len(medium.tiles_TCHW), 0 if medium.motion_CTHW is None else medium.motion_CTHW.shape[1]
    return len(medium.tiles_PSC), 0 if medium.motion_TM is None else len(medium.motion_TM)


def random_medium(spec: VisualSpec, tiles: int, number: torch.dtype, *, clip: bool) -> VisualInput:
    """A medium of noise; a clip has 16 motion frames."""
    pixels = torch.randn(tiles, 3, spec.tile_px, spec.tile_px, dtype=number)
    return VisualInput(pixels, torch.randn(3, 16, spec.motion_px, spec.motion_px, dtype=number) if clip else None)


# ------------------------------------------------------------------ what torch counts


def flops_of(call: Callable[[], Tensor]) -> tuple[int, int]:
    """FLOPs of a forward pass and of its backward; torch's formulas, taught the name of the processor's attention."""
    aten: Any = torch.ops.aten

    def forward(query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
        return sdpa_backward_flop_count(gradient, query, key, value)

    known = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,  # noqa: SLF001
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,  # noqa: SLF001
    }
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        result = call()
        done = counter.get_total_flops()
        result.backward()
    return done, counter.get_total_flops() - done


def saved_bytes(call: Callable[[], Tensor], model: nn.Module) -> int:
    """Bytes that autograd keeps after a forward pass: every storage once, weights and buffers left out."""
    tensors = [*model.parameters(), *model.buffers()]
    own = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    found: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = call()
    del kept
    return sum(size for size, _ in found.values())


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the moments; the counter of steps of each tensor is left out."""
    return sum(
        value.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    )


# ------------------------------------------------------------------ what the machine measures


def peak_increase(call: Callable[[], None], device: torch.device) -> int:
    """Most bytes during a call above those before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def seconds_of(call: Callable[[], None], device: torch.device, runs: int) -> float:
    """Least seconds of a call: the processor's own, whatever else the machine does, or the wall's on a GPU."""
    least = float("inf")
    for _ in range(runs):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        clock = time.perf_counter if device.type == "cuda" else time.process_time
        started = clock()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        least = min(least, clock() - started)
    return least


@dataclass(frozen=True)
class Outcome:
    """Quantity -> (measured, predicted), and the FLOPs of the step; seconds are predicted when a rate is known."""

    case: Case
    figures: dict[str, tuple[float, float]]
    flops: float
    seconds: float


def examine(case: Case, setting: Setting) -> Outcome:
    """Run one case: count, then measure."""
    subject = Subject(case, setting)
    costs = subject.costs()
    forward, backward = flops_of(subject.loss)
    subject.optimizer.zero_grad(set_to_none=True)
    kept = saved_bytes(subject.loss, subject.model)
    subject.step()
    step = Step(subject.flows, subject.numerics)
    trained = [part for part, flow in subject.flows.items() if flow is Flow.TRAINED]
    largest = None if setting.device.type == "cuda" else max(subject.size.largest[part] for part in trained)
    memory = device_memory(subject.size.parameters, step, Sharding(0, 1), peak_bytes(costs), largest)
    peak = peak_increase(lambda: subject.step(2), setting.device)
    seconds = seconds_of(subject.step, setting.device, setting.runs)
    flops = sum(cost.flops for cost in costs.values())
    parameters = sum(parameter.numel() for parameter in subject.model.parameters())
    figures = {
        "parameters": (parameters, sum(subject.size.parameters.values())),
        "FLOPs": (forward + backward, flops),
        "kept": (kept, kept_bytes(costs)),
        "optimizer": (optimizer_bytes(subject.optimizer), memory.optimizer),
        "peak": (peak, memory.gradients + max(memory.activations, memory.update)),
    }
    return Outcome(case, {name: (float(a), float(b)) for name, (a, b) in figures.items()}, flops, seconds)


def timed(outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, dict[str, tuple[float, float]]]]:
    """Add seconds, predicted from the FLOPs a second of the group's first case, which has none itself."""
    rates: dict[str, float] = {}
    for outcome in outcomes:
        figures = dict(outcome.figures)
        rate = rates.get(outcome.case.group)
        if rate is None:
            rates[outcome.case.group] = outcome.flops / outcome.seconds
        else:
            figures["seconds"] = (outcome.seconds, outcome.flops / rate)
        yield outcome, figures


def cases_of(device: str, decoder: str, only: str) -> list[Case]:
    """The cases whose group begins so; the first of each group tells the rate for the others."""
    if device == "cuda":
        loads = ((1, 0, 4), (2, 0, 4), (2, 0, 13), (2, 2, 10))
        plain = [Case(decoder, stage, *load, group=stage) for stage in STAGES for load in loads]
        return [*plain, Case(decoder, "pretrain", 2, 0, 13, "pretrain", checkpointed=True)]
    tiny = [
        Case(name, stage, *load, group=f"tiny {stage} {load}", judged=stage == "pretrain")
        for stage in STAGES
        for load in ((7, 1), (4, 4))
        for name in ("nano", "micro", "mini")
    ]
    wide = [
        Case("internvl3-1b", "pretrain", 1, 0, 1, "wide pretrain", 2),
        Case("internvl3-1b", "pretrain", 2, 0, 1, "wide pretrain", 3),
        Case("internvl3-2b", "pretrain", 1, 0, 2, "wide pretrain", 2),
        Case("internvl3-2b", "pretrain", 1, 0, 1, "wide pretrain", 2, checkpointed=True),
        Case("internvl3-1b", "warm_up", 1, 0, 2, "wide warm_up", 2),
        Case("internvl3-2b", "warm_up", 1, 0, 3, "wide warm_up", 2),
    ]
    again = Case("micro", "pretrain", 7, 1, group="tiny pretrain (7, 1)", checkpointed=True)
    return [case for case in (*tiny, again, *wide) if case.group.startswith(only)]


def main() -> None:
    """Run all cases, print the table, and fail if the plan is not good enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=present_device, choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--decoder",
        choices=hub_decoders(),
        default="internvl3-1b",
        help="on a GPU: whose sizes",
    )
    parser.add_argument("--weights", choices=tuple(WEIGHTS), default="float32", help="on a GPU: how weights are held")
    parser.add_argument("--only", choices=("", "tiny", "wide"), default="", help="on the CPU: some of the steps")
    parser.add_argument("--threads", type=positive, default=1, help="on the CPU: threads inside a product")
    parser.add_argument("--runs", type=positive, default=7, help="timed steps; the least counts")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.device == "cpu":
        ctypes.CDLL("libc.so.6").mallopt(-3, MMAP_FROM)  # M_MMAP_THRESHOLD
    gpu = arguments.device == "cuda"
    precision = "bfloat16" if gpu else "float32"
    setting = Setting(torch.device(arguments.device), precision, arguments.weights, arguments.runs)
    outcomes = []
    for case in cases_of(arguments.device, arguments.decoder, arguments.only):
        outcomes.append(examine(case, setting))
        told = {name: f"{measured:.4g} {predicted:.4g}" for name, (measured, predicted) in outcomes[-1].figures.items()}
        print(f"{case.name}: {told}, {outcomes[-1].seconds:.3f} s", file=sys.stderr, flush=True)
    sys.exit(report(list(timed(outcomes))))


def report(rows: Sequence[tuple[Outcome, dict[str, tuple[float, float]]]]) -> int:
    """Print the table; 1 if an exact figure differs or another is off by more than the limit."""
    units = {"parameters": 1e6, "FLOPs": 1e9, "kept": 1e6, "optimizer": 1e6, "peak": 1e6, "seconds": 1.0}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("step", no_wrap=True)
    for name, told in zip(units, ("M", "G", "MB", "MB", "MB", "s"), strict=True):
        table.add_column(f"{name}, {told}", justify="right", no_wrap=True)
    worst = dict.fromkeys(units, 0.0)
    for outcome, figures in rows:
        cells = []
        for name, unit in units.items():
            if name not in figures:
                cells.append(f"{outcome.seconds:.3f} (sets the rate)")
                continue
            measured, predicted = figures[name]
            error = predicted / measured - 1.0
            if name != "seconds" or outcome.case.judged:
                worst[name] = max(worst[name], abs(error))
            cells.append(f"{measured / unit:.4g} {error:+.1%}")
        table.add_row(outcome.case.name, *cells)
    Console(width=200).print(table)
    print(
        "measured, and by how much the prediction is off; worst: " + ", ".join(f"{n} {e:.2%}" for n, e in worst.items())
    )
    return int(any(worst[name] > 0 for name in EXACT) or any(error > LIMIT for error in worst.values()))


if __name__ == "__main__":
    main()
