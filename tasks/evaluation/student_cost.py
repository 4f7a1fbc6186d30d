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
from models.rali.runtime import RaliScorer
from models.vision_encoder import prepare_image
from tasks.media import Pixels

WARM_UP: Final = 3
"""Calls that are not counted."""

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
    """

    model: str
    parameters: int
    bytes: int
    p50_ms: float
    p95_ms: float


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
        """Of parameters, bytes and time."""
        ours, theirs = asdict(self.student), asdict(self.teacher)
        return {name: ours[name] / theirs[name] for name in ("parameters", "bytes", "p50_ms", "p95_ms")}


def measure(student: Path, teacher: Path, pictures: Sequence[Pixels], threads: int) -> CostTable:
    """Time both on every picture.

    Raises:
        MissingWeightsError, ModelError: a folder is not what it should be.
    """
    torch.set_num_threads(threads)
    scorer, model = RaliScorer(student, threads), QualityLMM.from_pretrained(teacher)

    def judged(picture: Pixels) -> float:
        return float(model.level_probabilities([prepare_image(picture, model.spec)])[0, 0])

    student_ms = _timed(lambda picture: scorer.raw(picture[None]), pictures)
    teacher_ms = _timed(judged, pictures)
    size = sum(value.numel() for value in model.parameters())
    own = _cost(str(student), int(scorer.layout["parameters"]), (student / "student.onnx").stat().st_size, student_ms)
    weights = sum(path.stat().st_size for path in teacher.rglob("*.safetensors"))
    return CostTable(own, _cost(str(teacher), size, weights, teacher_ms), len(pictures), threads)


def _timed(score: Callable[[Pixels], float], pictures: Sequence[Pixels]) -> list[float]:
    for picture in pictures[:WARM_UP]:
        score(picture)
    found = []
    for picture in pictures:
        started = time.perf_counter()
        score(picture)
        found.append(1e3 * (time.perf_counter() - started))
    return found


def _cost(model: str, parameters: int, size: int, milliseconds: Sequence[float]) -> Cost:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return Cost(model, parameters, size, float(p50), float(p95))


def as_json(table: CostTable) -> dict[str, Any]:
    """What is written to a file."""
    told = {name: {"model": what, "parameters": count} for name, (what, count) in PUBLISHED.items()}
    ratio = PUBLISHED["student"][1] / PUBLISHED["teacher"][1]
    return {**asdict(table), "ratios": table.ratios, "published": told | {"parameters_ratio": ratio}}


def markdown(table: CostTable) -> str:
    """The table."""
    head = ["", "parameters", "MB", "ms a picture, p50", "p95"]
    lines = [head, ["---"] * len(head)]
    for name, cost in (("student", table.student), ("teacher", table.teacher)):
        lines.append(
            [name, f"{cost.parameters:,}", f"{cost.bytes / 1e6:.2f}", f"{cost.p50_ms:.2f}", f"{cost.p95_ms:.2f}"]
        )
    lines.append(["student / teacher", *(f"{ratio:.3f}" for ratio in table.ratios.values())])
    counts = ", ".join(f"{what} {count / 1e9:.3f} B" for what, count in PUBLISHED.values())
    share = PUBLISHED["student"][1] / PUBLISHED["teacher"][1]
    told = f"\nBy their configurations, the paper's: {counts}: {share:.3f}. The paper tells 3.4 % of the time and\n"
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n" + told + "14.7 % of the memory.\n"
