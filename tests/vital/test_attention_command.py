"""``vital attention`` as people call it; what it shares with ``vital lens`` is tested there."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_lmm import make_model

from vital.attention_command import attention


def test_masses_of_groups_sum_to_one(tmp_path: Path):
    make_model().save_pretrained(tmp_path / "tiny")
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(tmp_path / "a.png")
    course = ["--way", "one_answer", "--describe", "Describe it.", "--max-tokens", "5"]
    words = ["--model", str(tmp_path / "tiny"), str(tmp_path / "a.png"), "--device", "cpu", "--json", *course]
    done = CliRunner().invoke(attention, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (model,) = json.loads(done.stdout)["models"]
    groups = model["figures"]["groups"]
    assert sum(group["mass"]["value"] for group in groups.values()) == pytest.approx(1.0, abs=1e-5)
    assert all(groups[name]["tokens"]["value"] > 0 for name in ("image", "description", "prompt", "other"))
    for row in [*model["by_layer"], *model["by_head"]]:
        assert sum(share["value"] for share in row["mass"].values()) == pytest.approx(1.0, abs=1e-5)
    assert [view["name"] for view in model["examples"][0]["views"]] == ["whole picture", "fragments 1"]
