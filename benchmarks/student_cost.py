"""What the student without a language model costs beside its teacher: parameters, bytes, time, CPU seconds, memory.

    python benchmarks/student_cost.py [--root FOLDER] [--pictures N] [--threads N]

Needs ``artifacts/collect``, ``distort``, ``pretrain`` and ``rali`` below the folder. Both score the same decoded
pictures of the line's pool, one at a time, in one run. The target is the paper's: parameters and time of the student at
most 5 % of its teacher's. Memory is told apart, without a target: the highest that a process of its own holds which has
loaded one of them and scored one picture, libraries included, beside what the weights alone take. Sizes of the paper's
models are counted in networks built from their configurations, without weights.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

import torch
from arguments import folder_with, positive
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.evaluation.student_cost import PUBLISHED, TARGET, CostTable, markdown, measure
from tasks.media import Pixels, decode_image
from tasks.pool import load_candidates, read_media
from tasks.records import Modality
from tasks.stage import Place

CHECKOUT: Final = Path(__file__).resolve().parents[1]
PEAK: Final = "print(*(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
"""Kilobytes, on the last line; getrusage would tell what this process held when it forked."""
STUDENT: Final = """
import sys; from pathlib import Path; import numpy as np
from models.rali.runtime import RaliScorer
RaliScorer(Path(sys.argv[1]), 1).raw(np.zeros((1, 256, 256, 3), dtype=np.uint8))
"""
TEACHER: Final = """
import sys; from pathlib import Path; import numpy as np
from models.quality_lmm import QualityLMM
from models.vision_encoder import prepare_image
model = QualityLMM.from_pretrained(Path(sys.argv[1]))
model.level_probabilities([prepare_image(np.zeros((256, 256, 3), dtype=np.uint8), model.spec)])
"""


def pictures_of(root: Path, count: int) -> list[Pixels]:
    """The first pictures of the pool by their ids, decoded."""
    place = Place(root, root, root)
    pool = load_candidates(place)
    rows = pool[pool["modality"] == Modality.IMAGE].head(count).to_dict("records")
    return [decode_image(read_media(place, row)) for row in rows]


def peak_mb(code: str, folder: Path) -> float:
    """Highest resident memory of a process that runs the code on a model's folder, MB."""
    command = [sys.executable, "-c", code + PEAK, str(folder)]
    done = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-2]) / 1024


def configured() -> dict[str, int]:
    """Parameters of the paper's student and teacher: their networks without weights."""
    with torch.device("meta"):
        student = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=24,
                num_attention_heads=16,
                patch_size=14,
                projection_dim=768,
            )
        )
        text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
        text |= {"num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False}
        vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
        settings = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
        teacher = Qwen2_5_VLForConditionalGeneration(settings)
    found = {"student": student, "teacher": teacher}
    return {name: sum(value.numel() for value in model.parameters()) for name, model in found.items()}


def tell_memory(table: CostTable, student: Path, teacher: Path) -> None:
    """Print what both hold in memory."""
    own, other = peak_mb(STUDENT, student), peak_mb(TEACHER, teacher)
    weights = 4e-6 * table.student.parameters, 4e-6 * table.teacher.parameters
    print(f"\nmemory of a process: student {own:.0f} MB, teacher {other:.0f} MB: {own / other:.3f}")
    print(f"weights alone, float32: {weights[0]:.2f} MB, {weights[1]:.2f} MB: {weights[0] / weights[1]:.3f}")


def tell_configured() -> None:
    """Print the paper's sizes, and hold them against the target and against what is written down."""
    counts = configured()
    if counts != {name: count for name, (_, count) in PUBLISHED.items()}:
        told = f"the configurations have {counts}, and tasks/evaluation/student_cost.py says otherwise"
        raise SystemExit(told)
    ratio = counts["student"] / counts["teacher"]
    told = " against ".join(f"{PUBLISHED[name][0]} {count / 1e9:.3f} B" for name, count in counts.items())
    print(f"by configuration: {told}: {ratio:.4f}, {'at most' if ratio <= TARGET else 'ABOVE'} {TARGET}")


def main() -> None:
    """Print the table, the memory and the paper's sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    needs = ("artifacts/collect", "artifacts/distort", "artifacts/pretrain/model", "artifacts/rali/student")
    parser.add_argument("--root", type=folder_with(*needs), default=CHECKOUT, help="workspace; this checkout")
    parser.add_argument("--pictures", type=positive, default=64)
    parser.add_argument("--threads", type=positive, default=1, help="of both")
    arguments = parser.parse_args()
    student, teacher = arguments.root / "artifacts/rali/student", arguments.root / "artifacts/pretrain/model"
    table = measure(student, teacher, pictures_of(arguments.root, arguments.pictures), arguments.threads)
    print(markdown(table), end="")
    tell_memory(table, student.resolve(), teacher.resolve())
    tell_configured()


if __name__ == "__main__":
    main()
