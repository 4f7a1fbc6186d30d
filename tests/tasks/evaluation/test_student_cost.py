"""What a score costs: counts are the files' and the networks' own, ratios are what they say."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from models.quality_lmm import QualityLMM
from models.rali.student import RaliStudent
from tasks.evaluation import student_cost


def test_student_and_teacher_are_measured_on_the_same_pictures(
    line: Path, write_pretrained: Callable[[Path], None], write_student: Callable[[Path], RaliStudent]
):
    write_pretrained(line)
    student = write_student(line)
    folder, teacher = line / "artifacts/rali/student", line / "artifacts/pretrain/model"
    pictures = [np.random.default_rng(n).integers(0, 256, (80, 100, 3), dtype=np.uint8) for n in range(5)]
    table = student_cost.measure(folder, teacher, pictures, 1)
    assert table.student.parameters == sum(value.numel() for value in student.state_dict().values())
    assert table.teacher.parameters == sum(v.numel() for v in QualityLMM.from_pretrained(teacher).parameters())
    assert table.student.bytes == (folder / "student.onnx").stat().st_size
    assert table.pictures == 5
    assert 0 < table.student.p50_ms <= table.student.p95_ms
    assert table.ratios["parameters"] == pytest.approx(table.student.parameters / table.teacher.parameters)
    assert table.ratios["cpu_s"] == pytest.approx(table.student.cpu_s / table.teacher.cpu_s)
    assert table.within["parameters"] == (20 * table.student.parameters <= table.teacher.parameters)
    told = student_cost.as_json(table)
    assert told["published"]["parameters_ratio"] < 0.05
    assert f"| {table.student.parameters:,} |" in student_cost.markdown(table)


def test_a_target_is_kept_or_missed():
    costs = [student_cost.Cost("", 5, 50, 4.0, 9.0, 0.6), student_cost.Cost("", 100, 100, 100.0, 100.0, 10.0)]
    table = student_cost.CostTable(costs[0], costs[1], 3, 1)
    assert table.ratios == {"parameters": 0.05, "bytes": 0.5, "p50_ms": 0.04, "p95_ms": 0.09, "cpu_s": 0.06}
    assert table.within == {"parameters": True, "p50_ms": True, "cpu_s": False}
    assert "| at most 0.05 | kept |  | kept |  | missed |" in student_cost.markdown(table)


def test_published_sizes_are_those_of_the_configurations():
    with torch.device("meta"):
        vision = CLIPVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
            image_size=224, patch_size=14, projection_dim=768,
        )  # fmt: skip
        clip = CLIPVisionModelWithProjection(vision)
        text = {
            "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
        }  # fmt: skip
        seeing = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=seeing, tie_word_embeddings=False)
        qwen = Qwen2_5_VLForConditionalGeneration(config)
    for name, model in (("student", clip), ("teacher", qwen)):
        assert student_cost.PUBLISHED[name][1] == sum(parameter.numel() for parameter in model.parameters())
