"""The loss head against its peers: time, peak extra memory, and how far losses and gradients are from float64.

    python benchmarks/loss_head.py [--quick] [--device cpu|cuda] [--kind float32|bfloat16] [--cases ...] [--repeat N]

Cases, all at 2,048 positions of the decoder's sequence (``--quick``: a small vocabulary, to see that it works):

    text      410 supervised tokens (a fifth, as an answer behind its visual tokens): cross entropy
    all       every position supervised
    scoring   8 samples with one level word each: divergence from a five-level target over the whole vocabulary

Ways: ``naive`` makes float32 logits at every position and copies them shifted, as the authors' code does;
``rows_first`` makes logits of the supervised rows; ``torch`` is ``linear_cross_entropy`` in chunks, on those rows;
``liger`` its fused kernel, where it is installed and on CUDA; ``ours``; ``levels`` is ours normalised over the five
words alone. The head is frozen unless ``--trained``. Each way runs in a process of its own. On the CPU, memory is the
high-water mark of the resident set above where it stood before the first run, and times are wall and CPU seconds: a
shared machine disturbs the first, and more than one thread the second (waiting threads spin). Exactness is judged on
the first 128 supervised rows against whole logits in float64.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from arguments import positive, present_device
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models import losses
from models.vocabulary_head import LossHead, VocabularyHead

POSITIONS = 2048
SUPERVISED = {"text": 410, "all": POSITIONS, "scoring": 8}
CHECKED = 128
GIGA = 1e9


@dataclass(frozen=True)
class Setting:
    """What every way of one run shares."""

    vocabulary: int
    width: int
    device: str
    kind: str
    threads: int
    repeat: int
    skip: list[str]
    trained: bool = False


@dataclass(frozen=True)
class Work:
    """Inputs of one case: ``B`` positions of which ``row_N`` are supervised by ``id_N`` or ``target_N5``."""

    hidden_BD: Tensor
    head: VocabularyHead
    row_N: Tensor
    id_N: Tensor
    target_N5: Tensor
    level_5: Tensor
    scoring: bool

    @property
    def rows_ND(self) -> Tensor:  # noqa: N802 - a shape suffix
        """Hidden states of the supervised rows."""
        return self.hidden_BD[self.row_N]

    def loss_of(self, logits_NV: Tensor) -> Tensor:
        """Loss per supervised row from whole logits."""
        if self.scoring:
            log_probs_N5 = losses.level_log_probabilities(logits_NV, self.level_5, "vocabulary")
            return losses.level_divergence(log_probs_N5, self.target_N5)
        return losses.cross_entropy(logits_NV, self.id_N)


def make_work(case: str, setting: Setting) -> Work:
    """The same random inputs in every process."""
    torch.manual_seed(0)
    kind = getattr(torch, setting.kind)
    count = SUPERVISED[case]
    linear = nn.Linear(setting.width, setting.vocabulary, bias=False, device="meta")
    weight_VD = torch.randn(setting.vocabulary, setting.width).mul_(0.05).to(kind).to(setting.device)
    linear.weight = nn.Parameter(weight_VD, requires_grad=setting.trained)
    hidden_BD = torch.randn(POSITIONS, setting.width).to(kind).to(setting.device).requires_grad_()
    row_N = torch.arange(POSITIONS // count - 1, POSITIONS, POSITIONS // count)[:count].to(setting.device)
    id_N = torch.randint(setting.vocabulary, (count,)).to(setting.device)
    target_N5 = torch.rand(count, 5).softmax(1).to(setting.device)
    level_5 = torch.tensor([7, 2, 90, 41, 300], device=setting.device)
    return Work(hidden_BD, VocabularyHead.around(linear), row_N, id_N, target_N5, level_5, case == "scoring")


def naive(work: Work) -> Tensor:
    """Logits at every position, in float32, and their shifted copy."""
    logits_BV = work.head(work.hidden_BD).float()
    return work.loss_of(logits_BV.clone()[work.row_N])


def authors_text(work: Work) -> Tensor:
    """As ``naive``; cross entropy runs over all positions and ignores the others."""
    logits_BV = work.head(work.hidden_BD).float()
    labels_B = torch.full((POSITIONS,), -100, device=work.id_N.device)
    labels_B[work.row_N] = work.id_N
    return functional.cross_entropy(logits_BV.clone(), labels_B, reduction="none")[work.row_N]


def rows_first(work: Work) -> Tensor:
    """Whole logits of the supervised rows."""
    return work.loss_of(work.head(work.rows_ND))


def torch_chunked(work: Work) -> Tensor:
    """The operation of torch; it gives no loss per row, so this is their sum."""
    options = nn.LinearCrossEntropyOptions()
    return functional.linear_cross_entropy(work.rows_ND, work.head.weight, work.id_N, reduction="sum", options=options)[
        None
    ]


def liger(work: Work) -> Tensor:
    """Liger's fused kernel; also a sum."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy  # noqa: PLC0415 - may be absent

    return liger_fused_linear_cross_entropy(work.rows_ND, work.head.weight, work.id_N, reduction="sum")[None]


def ours(work: Work) -> Tensor:
    """One pass over blocks of the vocabulary."""
    head = LossHead(work.head, work.level_5, "fused")
    if work.scoring:
        return losses.level_divergence(head.levels(work.rows_ND, "vocabulary"), work.target_N5)
    return -head.tokens(work.rows_ND, work.id_N)


def levels(work: Work) -> Tensor:
    """Normalised over five columns."""
    head = LossHead(work.head, work.level_5, "fused")
    return losses.level_divergence(head.levels(work.rows_ND, "levels"), work.target_N5)


WAYS: dict[str, Callable[[Work], Tensor]] = {
    "naive": naive, "rows_first": rows_first, "torch": torch_chunked, "liger": liger, "ours": ours, "levels": levels,
}  # fmt: skip


def ways_of(case: str, setting: Setting) -> list[str]:
    """Ways that can run: torch's and Liger's know cross entropy alone, Liger has no CPU kernel."""
    if case == "scoring":
        return ["naive", "rows_first", "ours", "levels"]
    found = ["naive", "rows_first", "ours", "torch"]
    if setting.device == "cuda" and importlib.util.find_spec("liger_kernel"):
        found.append("liger")
    return [way for way in found if way not in setting.skip]


def resident_gb(field: str) -> float:
    """``VmRSS`` now or ``VmHWM``, the mark since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024 / GIGA


class Meter:
    """Peak extra memory since it was made."""

    def __init__(self, device: str) -> None:
        self._device = device
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated() / GIGA
        else:
            Path("/proc/self/clear_refs").write_text("5")
            self._before = resident_gb("VmRSS")

    def peak_gb(self) -> float:
        """In GB."""
        top = torch.cuda.max_memory_allocated() / GIGA if self._device == "cuda" else resident_gb("VmHWM")
        return top - self._before


def work_once(case: str, way: str, setting: Setting, folder: Path) -> dict[str, float]:
    """The worker: measure one way of one case and leave losses and gradients in ``folder``."""
    torch.set_num_threads(setting.threads)
    work = make_work(case, setting)
    run = authors_text if way == "naive" and not work.scoring else WAYS[way]
    warm = torch.randn(64, 64, device=setting.device)
    (warm @ warm).sum().item()  # the products' own library takes its memory now
    meter, peak, loss_N = Meter(setting.device), 0.0, torch.zeros(0)
    walls, cpus = [], []
    for number in range(setting.repeat + (setting.device == "cuda")):
        work.hidden_BD.grad = work.head.weight.grad = None
        wall, cpu = time.perf_counter(), time.process_time()
        loss_N = run(work)
        loss_N.sum().backward()
        if setting.device == "cuda":
            torch.cuda.synchronize()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        if number == 0:
            peak = meter.peak_gb()
    assert work.hidden_BD.grad is not None
    gradient = work.hidden_BD.grad[work.row_N[:CHECKED]]
    torch.save({"loss": loss_N.detach()[:CHECKED].cpu(), "gradient": gradient.cpu()}, folder / f"{way}.pt")
    return {"wall": min(walls), "cpu": min(cpus), "peak": peak}


def exact(case: str, setting: Setting) -> dict[str, Tensor]:
    """Losses and gradients of the checked rows from whole logits in float64, a few rows at a time."""
    work = make_work(case, setting)
    found: dict[str, list[Tensor]] = {"loss": [], "gradient": []}
    weight_VD = work.head.weight.double()
    for part in range(0, min(CHECKED, len(work.row_N)), 16):
        some = slice(part, part + 16)
        rows = work.rows_ND[some].detach().double().requires_grad_()
        log_probs = (rows @ weight_VD.t()).log_softmax(1)
        if work.scoring:
            target = work.target_N5[some].double()
            loss = (target * (target.log() - log_probs[:, work.level_5])).sum(1)
        else:
            loss = -log_probs.gather(1, work.id_N[some, None])[:, 0]
        found["loss"].append(loss.detach().cpu())
        found["gradient"].append(torch.autograd.grad(loss.sum(), rows)[0].cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def error(found: Tensor, true: Tensor) -> float:
    """Largest difference over the largest true value; NaN where the way gives a sum alone."""
    if found.shape != true.shape:
        return float("nan")
    return ((found.double() - true).abs().max() / true.abs().max()).item()


def measure(case: str, way: str, setting: Setting, folder: Path) -> dict[str, float]:
    """Run the worker in a process of its own."""
    spec = json.dumps({"case": case, "way": way, "folder": str(folder), "setting": asdict(setting)})
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", spec]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        msg = f"{case} {way} failed:\n{done.stderr}"
        raise SystemExit(msg)
    return json.loads(done.stdout.splitlines()[-1])


def table(case: str, setting: Setting) -> dict[str, dict[str, float]]:
    """Print one case and return its numbers."""
    print(f"\n{case}: {SUPERVISED[case]} supervised of {POSITIONS} positions")
    print(f"{'':12s} {'wall s':>8s} {'CPU s':>8s} {'extra GB':>9s} {'loss error':>11s} {'gradient error':>15s}")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for way in ways_of(case, setting):
            found[way] = measure(case, way, setting, Path(name))
        true = exact(case, setting)
        for way, row in found.items():
            kept = torch.load(Path(name) / f"{way}.pt", weights_only=True)
            if way != "levels":  # another loss
                row |= {key: error(kept[key], true[key]) for key in ("loss", "gradient")}
            errors = f"{row.get('loss', float('nan')):11.1e} {row.get('gradient', float('nan')):15.1e}"
            print(f"{way:12s} {row['wall']:8.3f} {row['cpu']:8.3f} {row['peak']:9.3f} {errors}")
    return found


def judge(found: dict[str, dict[str, float]], setting: Setting) -> None:
    """Print the ratios against the goals."""
    mine, clock = found["ours"], "cpu" if setting.device == "cpu" else "wall"
    share, less = mine[clock] / found["rows_first"][clock], found["naive"]["peak"] / max(mine["peak"], 1e-4)
    worst = max(mine["loss"], mine["gradient"])
    bound = 1e-6 if setting.kind == "float32" else 2.0**-8
    goals = [
        (f"error {worst:.1e} <= {bound:.1e}", worst <= bound),
        (f"time of ours / rows_first {share:.2f} <= 1.10 ({clock})", share <= 1.1),
    ]
    if not setting.trained:  # a trained head's gradient alone is larger
        goals += [
            (f"extra memory {mine['peak']:.3f} GB <= 0.1", mine["peak"] <= 0.1),
            (f"memory of naive / ours {less:.0f} >= 40", less >= 40),
        ]
    for text, met in goals:
        print(f"  {'met   ' if met else 'MISSED'} {text}")
    print(f"  time of naive / ours {found['naive'][clock] / mine[clock]:.1f} ({clock})")


def main() -> None:
    """Print a table and the goals per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", type=present_device, choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--kind", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--cases", nargs="+", choices=tuple(SUPERVISED), default=list(SUPERVISED))
    parser.add_argument("--vocabulary", type=positive, help="InternVL3's 151,674")
    parser.add_argument("--width", type=positive, default=896, help="decoder width; 896 is InternVL3-1B's")
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--repeat", type=positive, default=2, help="the least time counts")
    parser.add_argument("--skip", nargs="+", choices=("torch", "liger"), default=[], help="torch's is slow on a CPU")
    parser.add_argument("--trained", action="store_true", help="the head learns too, as in the warm-up")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        spec = json.loads(arguments.worker)
        print(json.dumps(work_once(spec["case"], spec["way"], Setting(**spec["setting"]), Path(spec["folder"]))))
        return
    vocabulary = arguments.vocabulary or (16_384 if arguments.quick else 151_674)
    device, kind, repeat = arguments.device, arguments.kind, arguments.repeat
    setting = Setting(
        vocabulary, arguments.width, device, kind, arguments.threads, repeat, arguments.skip, arguments.trained
    )
    torch.set_num_threads(setting.threads)
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, threads {setting.threads}"
    print(f"V = {vocabulary:,}, D = {setting.width}, {kind}, {where}, torch {torch.__version__}")
    for case in arguments.cases:
        judge(table(case, setting), setting)


if __name__ == "__main__":
    main()
