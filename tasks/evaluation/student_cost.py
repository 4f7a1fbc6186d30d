"""What a score costs: a student without a language model beside a quality LMM, on the same pictures in one run.

Both look at decoded pictures; what each then does until the score is timed: cutting its tiles, and its network.
Decoding is the same for both and left out.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from models.quality_lmm import QualityLMM
from models.rali.runtime import ONNX_FILE, RaliScorer
from models.vision_encoder import prepare_image
from tasks.media import Pixels

WARM_UP: Final = 3
"""Calls that are not counted."""

TARGET: Final = 0.05
"""Student over teacher, of parameters and of time: the paper has .04 and .034. Memory is told and has no target."""

PUBLISHED: Final = {
    "student": ("CLIP ViT-L/14, vision tower with projection", 303_966_208),
    "teacher": ("Qwen2.5-VL-7B", 8_292_166_656),
}
"""Parameters of the paper's student and teacher, by their configurations (tests build both on the meta device)."""


@dataclass(frozen=True)
class Cost:
    """Of one model.

    Attributes:
        parameters: numbers. bytes: of its files. p50_ms, p95_ms: per picture, one at a time.
        cpu_s: of all its threads, for all pictures.
    """

    model: str
    parameters: int
    bytes: int
    p50_ms: float
    p95_ms: float
    cpu_s: float


@dataclass(frozen=True)
class CostTable:
    """Student and teacher.

    Attributes:
        pictures: that were timed. threads: of both.
        ratios: student over teacher.
    """

    student: Cost
    teacher: Cost
    pictures: int
    threads: int

    @property
    def ratios(self) -> dict[str, float]:
        """Of parameters, bytes, time and CPU seconds."""
        ours, theirs = asdict(self.student), asdict(self.teacher)
        return {name: ours[name] / theirs[name] for name in ("parameters", "bytes", "p50_ms", "p95_ms", "cpu_s")}

    @property
    def within(self) -> dict[str, bool]:
        """Whether parameters and time keep to the target."""
        return {name: self.ratios[name] <= TARGET for name in ("parameters", "p50_ms", "cpu_s")}


def measure(student: Path, teacher: Path, pictures: Sequence[Pixels], threads: int) -> CostTable:
    """Time both on every picture.

    Raises:
        MissingWeightsError, ModelError: a folder is not what it should be.
    """
    torch.set_num_threads(threads)
    scorer, model = RaliScorer(student, threads), QualityLMM.from_pretrained(teacher)

    def judged(picture: Pixels) -> float:
        return float(model.level_probabilities([prepare_image(picture, model.spec)])[0, 0])

    student_ms, student_s = _timed(lambda picture: scorer.raw(picture[None]), pictures)
    teacher_ms, teacher_s = _timed(judged, pictures)
    size = sum(value.numel() for value in model.parameters())
    weights = sum(path.stat().st_size for path in teacher.rglob("*.safetensors"))
    own_size = (student / ONNX_FILE).stat().st_size
    own = Cost(str(student), int(scorer.layout["parameters"]), own_size, *_percentiles(student_ms), student_s)
    other = Cost(str(teacher), size, weights, *_percentiles(teacher_ms), teacher_s)
    return CostTable(own, other, len(pictures), threads)


def _timed(score: Callable[[Pixels], float], pictures: Sequence[Pixels]) -> tuple[list[float], float]:
    """Milliseconds of each picture, and CPU seconds of all."""
    for picture in pictures[:WARM_UP]:
        score(picture)
    found, begun = [], time.process_time()
    for picture in pictures:
        started = time.perf_counter()
        score(picture)
        found.append(1e3 * (time.perf_counter() - started))
    return found, time.process_time() - begun


def _percentiles(milliseconds: Sequence[float]) -> tuple[float, float]:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return float(p50), float(p95)


def as_json(table: CostTable) -> dict[str, Any]:
    """What is written to a file."""
    told = {name: {"model": what, "parameters": count} for name, (what, count) in PUBLISHED.items()}
    ratio = PUBLISHED["student"][1] / PUBLISHED["teacher"][1]
    measured = {**asdict(table), "ratios": table.ratios, "target": TARGET, "within": table.within}
    return {**measured, "published": told | {"parameters_ratio": ratio}}


def markdown(table: CostTable) -> str:
    """The table."""
    head = ["", "parameters", "MB of files", "ms a picture, p50", "p95", "CPU s"]
    lines = [head, ["---"] * len(head)]
    for name, cost in (("student", table.student), ("teacher", table.teacher)):
        times = [f"{value:.2f}" for value in (cost.p50_ms, cost.p95_ms, cost.cpu_s)]
        lines.append([name, f"{cost.parameters:,}", f"{cost.bytes / 1e6:.2f}", *times])
    lines.append(["student / teacher", *(f"{ratio:.3f}" for ratio in table.ratios.values())])
    kept = {name: "kept" if within else "missed" for name, within in table.within.items()}
    lines.append([f"at most {TARGET}", kept["parameters"], "", kept["p50_ms"], "", kept["cpu_s"]])
    counts = ", ".join(f"{what} {count / 1e9:.3f} B" for what, count in PUBLISHED.values())
    share = PUBLISHED["student"][1] / PUBLISHED["teacher"][1]
    told = f"\n{table.pictures} pictures, {table.threads} threads. By their configurations, the paper's: {counts}: "
    told += f"{share:.3f}.\nThe paper tells 3.4 % of the time and 14.7 % of the memory.\n"
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n" + told
