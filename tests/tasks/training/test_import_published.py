"""From the weights' places on a machine to model folders: the command in a process of its own."""

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from published_folders import MOTION, TILE, random_slowfast, write_internvl, write_released, write_released_probe

from models.errors import ModelError
from models.motion import SLOWFAST_R50
from models.probe_head import QualityProbe, load_encoder
from models.published import (
    AS_EVALUATED,
    AS_TRAINED,
    encoder_from_released,
    from_internvl,
    from_released,
    probe_from_released,
)
from models.quality_lmm import QualityLMM
from models.vision_encoder import PAPER_SPEC
from models.weights import weight_records
from tasks.errors import StageError
from tasks.training.import_published import How, import_published


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one snapshot of the hub and the SlowFast file."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def _snapshot(name: str) -> Path:
    path = weight_records()[name].path
    (path / "refs").mkdir(parents=True)
    (path / "refs" / "main").write_text("abc")
    return path / "snapshots" / "abc"


def test_a_base_is_made_of_the_snapshot_and_slowfast(places: Path, monkeypatch: pytest.MonkeyPatch):
    """The published spec wants tiles of 448 px, the tiny snapshot has 56: everything else is as it is."""
    small = dataclasses.replace(PAPER_SPEC, tile_px=TILE)
    smaller = functools.partial(from_internvl, spec=small)
    monkeypatch.setattr("tasks.training.import_published.from_internvl", smaller)
    stored = write_internvl(_snapshot("OpenGVLab/InternVL3-1B-hf"))
    slowfast = weight_records()["SLOWFAST_8x8_R50.pyth"].path
    slowfast.parent.mkdir(parents=True)
    torch.save({"model_state": random_slowfast(SLOWFAST_R50).state_dict()}, slowfast)
    folder = import_published("internvl3-1b", places / "base", How(3))
    assert folder == places / "base" / "internvl3-1b"
    assert [path.name for path in (places / "base").iterdir()] == ["internvl3-1b"]
    model = QualityLMM.from_pretrained(folder, torch.bfloat16)
    assert torch.equal(model.internvl.lm_head.weight, stored["language_model.lm_head.weight"])
    official = torch.load(slowfast, weights_only=True)["model_state"]
    first = model.motion_extractor.state_dict()["blocks.0.multipathway_blocks.1.conv.weight"]
    assert torch.equal(first, official["blocks.0.multipathway_blocks.1.conv.weight"].bfloat16())
    assert model.motion_projector.linear_1.weight.min() >= 0


def test_the_command_says_what_is_missing_and_leaves_nothing_half_made(places: Path, checkout: Path):
    command = [sys.executable, "-m", "tasks.training.import_published", "internvl3-8b", "--out", places / "base"]
    done = subprocess.run(command, cwd=checkout, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "put the snapshot OpenGVLab/InternVL3-8B-hf (https://huggingface.co/" in done.stderr
    assert "vital weights add FOLDER" in done.stderr
    assert "Traceback" not in done.stderr
    write_internvl(_snapshot("OpenGVLab/InternVL3-8B-hf"))
    again = subprocess.run(command, cwd=checkout, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert "put pytorchvideo's SLOWFAST_8x8_R50.pyth at" in again.stderr
    assert again.returncode == 1
    assert not (places / "base").exists()


def test_a_released_checkpoint_goes_through_its_own_loader(places: Path):
    """This one is laid out as the authors' are, but its motion extractor is smaller than their SlowFast-R50."""
    write_released(_snapshot("JZHWS/VITAL-Warm-up-1B"))
    with pytest.raises(ModelError, match="motion_extractor"):
        import_published("JZHWS/VITAL-Warm-up-1B", places, How(dtype=torch.float32))
    (places / "vital-warm-up-1b").mkdir()
    with pytest.raises(StageError, match="is there already"):
        import_published("JZHWS/VITAL-Warm-up-1B", places, How(dtype=torch.float32))


def test_what_the_authors_released_becomes_a_model_an_encoder_or_a_probe(places: Path, monkeypatch: pytest.MonkeyPatch):
    """The snapshots are tiny, and so is their motion extractor."""
    for loader in (from_released, encoder_from_released, probe_from_released):
        small = functools.partial(loader, motion=MOTION)
        monkeypatch.setattr(f"tasks.training.import_published.{loader.__name__}", small)
    write_released(_snapshot("JZHWS/VITAL-Base-8B"))
    write_released_probe(_snapshot("JZHWS/VITAL-Linear-Probe"))
    write_released_probe(_snapshot("JZHWS/VITAL-Vision-Encoder-300M"))
    for look, out in ((AS_EVALUATED, "evaluated"), (AS_TRAINED, "trained")):
        folder = import_published("JZHWS/VITAL-Base-8B", places / out, How(look=look))
        assert QualityLMM.from_pretrained(folder).spec.compatibility == look
    probe = import_published("JZHWS/VITAL-Linear-Probe", places, How())
    assert QualityProbe.from_pretrained(probe).readout == "released"
    image_encoder, extractor = load_encoder(import_published("JZHWS/VITAL-Vision-Encoder-300M", places, How()))
    assert image_encoder.config.num_hidden_layers == 13
    assert extractor.config.channels == 256
