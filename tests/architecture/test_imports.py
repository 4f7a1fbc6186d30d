"""Imports run one way, phases never meet, and heavy libraries have one owner."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_import_contracts_hold(checkout: Path):
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("vital", "torch prefect dvc pandas numpy pyarrow"),
        ("vital.cli", "torch prefect dvc pandas pyarrow rich"),
        ("tasks.media", "torch prefect dvc pandas pyarrow transformers"),
        ("models.opinion", "torch prefect dvc pandas pyarrow"),
        ("models.levels", "torch prefect dvc pandas pyarrow"),
        ("models.scorers", "torch prefect dvc pandas pyarrow"),
        ("tasks.annotation.score", "torch prefect ray transformers"),
        ("tasks.annotation.cache_plan", "torch prefect ray onnxruntime"),
        ("vital.score_command", "torch prefect ray pandas pyarrow"),
        ("vital.lens_command", "torch transformers prefect pandas pyarrow"),
        ("vital.attention_command", "torch transformers prefect pandas pyarrow"),
        ("flows.line", "torch transformers onnxruntime great_expectations datasets"),
        ("flows.story", "torch prefect pandas"),
        ("infra.workspace", "torch prefect dvc pandas boto3"),
    ],
)
def test_light_modules_do_not_pay_for_heavy_ones(module: str, unwanted: str, checkout: Path):
    script = f"import sys, {module}; print(*sorted(set({unwanted.split()}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
