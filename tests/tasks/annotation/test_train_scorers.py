"""Training from pristine photographs alone: the same seed gives the same weights, killed or not."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import yaml
from PIL import Image

from models.errors import ModelError
from models.scorers import BUILT_INS, load_built_in
from models.scorers.losses import QUALITY_LOSSES, level_loss
from models.scorers.networks import NETWORKS
from tasks.annotation.scorer_samples import KINDS, MIXTURE, PRISTINE, camera_chain, render_clips, render_crops
from tasks.annotation.scorer_set import find_photographs, load_set, render_all
from tasks.annotation.scorer_training import Material, measure_all, raw_scores, train
from tasks.annotation.train_scorers import RECIPE, fit_calibration, read_recipe
from tasks.errors import ConfigError, StageError

CHECKOUT = Path(__file__).parents[3]
TINY = dataclasses.replace(read_recipe(RECIPE).rendering, crops=1, singles=2, chains=1, both=1, clips=2)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    for name in ("astronaut", "coffee", "rocket", "hubble_deep_field"):
        Image.fromarray(getattr(skimage.data, name)()[:512, :640, :3]).save(folder / f"{name}.png")
    return folder


QUICK = ("fragments", "level_probs")
"""Scorers of the two losses and of the two ways to see; the others learn in the long tests."""


def _recipe(tmp_path: Path, steps: int) -> Path:
    values = yaml.safe_load(RECIPE.read_text())
    values["rendering"] |= dataclasses.asdict(TINY)
    values |= {"held_out": 1, "knots": 3, "calibration_samples": 12}
    for own in values["scorers"].values():
        own |= {"steps": steps, "batch": 4, "versions": 2}
    path = tmp_path / f"recipe-{steps}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def _command(pristine: Path, recipe: Path, out: Path, cache: Path) -> list[str]:
    options = ["--recipe", str(recipe), "--out", str(out), "--cache", str(cache), "--workers", "1", "--only", "ranking"]
    return [sys.executable, "-m", "tasks.annotation.train_scorers", "--pristine", str(pristine), *options]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_training_ends_in_the_same_weights_and_they_load(pristine: Path, tmp_path: Path) -> None:
    recipe, cache = _recipe(tmp_path, 1500), tmp_path / "cache"
    whole = _run(_command(pristine, recipe, tmp_path / "whole", cache))
    assert whole.returncode == 0, whole.stderr
    checkpoint = next((cache / "checkpoints").glob("*.pt"))
    checkpoint.unlink()
    process = subprocess.Popen(
        _command(pristine, recipe, tmp_path / "killed", cache), cwd=CHECKOUT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "ranking.json").exists()
    again = _run(_command(pristine, recipe, tmp_path / "killed", cache))
    assert again.returncode == 0, again.stderr
    assert "continuing after step" in again.stderr
    for suffix in ("safetensors", "onnx", "json"):
        names = [tmp_path / folder / f"ranking.{suffix}" for folder in ("whole", "killed")]
        assert names[0].read_bytes() == names[1].read_bytes()
    photo = skimage.data.chelsea()[None]
    twins = [load_built_in("ranking", backend, tmp_path / "whole") for backend in ("onnx", "torch")]
    assert twins[0].raw(photo) == pytest.approx(twins[1].raw(photo), abs=1e-4)
    card = json.loads((tmp_path / "whole" / "ranking.json").read_text())
    assert card["training"]["photographs"] == 4
    assert card["training"]["samples"] == 3 * 5


def test_wrong_calls_get_one_line(tmp_path: Path) -> None:
    result = _run(_command(tmp_path / "none", RECIPE, tmp_path / "out", tmp_path / "cache"))
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].endswith("is not a folder of pristine photographs")
    with pytest.raises(StageError, match="too few"):
        find_photographs([tmp_path], 1)
    bad = tmp_path / "bad.yaml"
    bad.write_text(RECIPE.read_text().replace("loss: margin", "loss: guess"))
    with pytest.raises(ConfigError, match="unknown loss"):
        read_recipe(bad)


def test_rendering_is_reproducible_and_labels_order_damage(pristine: Path, tmp_path: Path) -> None:
    photographs = find_photographs([pristine], 3)
    folders = render_all(photographs, TINY, 3, tmp_path / "a", 2)
    again = render_all(photographs, TINY, 3, tmp_path / "b", 1)
    for first, second in zip(folders, again, strict=True):
        for name in ("stills.npy", "clips.npy", "labels.json"):
            assert (first / name).read_bytes() == (second / name).read_bytes()
    stills = load_set(folders, folders, clips=False)
    labels = stills.labels
    assert len(stills) == 4 * 5
    assert stills.sample(0).shape == (TINY.side, TINY.side, 3)
    target = labels.target({"gmsd": 1, "mdsi": 1})
    pristine_rows = labels.kind_N == PRISTINE
    assert target[pristine_rows].min() > target[~pristine_rows].max()
    assert ((target >= 0) & (target <= 1)).all()
    clips = load_set(folders, folders, clips=True)
    stutter = clips.labels.kind_N == "frame_stutter"
    assert clips.sample(0).shape == (8, TINY.clip_side, TINY.clip_side, 3)
    assert (clips.labels.smoothness_N[stutter] < 1).all()
    assert (clips.labels.smoothness_N[~stutter] == 1).all()
    with pytest.raises(StageError, match="known measures"):
        labels.target({"psnr": 1.0})


def _material(folders: list[Path]) -> Material:
    stills, clips = (load_set(folders, folders, clips=part) for part in (False, True))
    return Material(stills, clips, np.arange(len(stills)), np.arange(len(clips)))


def test_measurements_are_those_of_inference_and_are_made_once(pristine: Path, tmp_path: Path) -> None:
    material = _material(render_all(find_photographs([pristine], 1), TINY, 1, tmp_path, 1))
    figures = measure_all("fragments", material, tmp_path / "figures", "key")
    assert figures.clips is not None
    network = NETWORKS["fragments"]().eval()
    clip = torch.from_numpy(BUILT_INS["fragments"].view(material.clips.sample(2))[0])
    assert figures.clips[2].numpy() == pytest.approx(network.describe(clip)[0].numpy(), abs=1e-4)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "figures").iterdir()}
    again = measure_all("fragments", material, tmp_path / "figures", "key")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "figures").iterdir()} == kept
    assert torch.equal(again.stills, figures.stills)
    assert measure_all("ranking", material, tmp_path / "figures", "key").clips is None
    recipe = dataclasses.replace(read_recipe(RECIPE).scorers["fragments"], steps=1, batch=4, versions=2)
    standard = train("fragments", recipe, material, figures, 1, tmp_path / "checkpoint.pt").standard
    motion = standard(torch.cat([figures.stills, figures.clips]))[:, -76:]
    assert (
        motion.abs().mean() < 3.0
    )  # stills do not move: had they alone decided what is normal, all clips would be cut
    assert motion.std(dim=0).min() > 0.1


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.long) for name in sorted(BUILT_INS)],
)
def test_each_scorer_learns_the_order_of_its_own_samples(name: str, pristine: Path, tmp_path: Path) -> None:
    material = _material(render_all(find_photographs([pristine], 1), TINY, 1, tmp_path, 1))
    figures = measure_all(name, material, tmp_path / "figures", "key")
    recipe = dataclasses.replace(read_recipe(RECIPE).scorers[name], steps=150, batch=16, versions=4)
    network = train(name, recipe, material, figures, 1, tmp_path / "checkpoint.pt")
    target = material.stills.labels.target(recipe.target)
    raw = raw_scores(network, figures.stills, material.rows)
    assert np.corrcoef(raw.argsort().argsort(), target.argsort().argsort())[0, 1] > 0.8


def test_versions_of_a_crop_are_named_after_what_was_done(pristine: Path) -> None:
    photo = np.asarray(Image.open(pristine / "astronaut.png"))
    versions = next(render_crops(photo, TINY, [1]))
    assert [version.kind for version in versions[:1]] == [PRISTINE]
    assert [version.kind for version in versions[3:]] == [MIXTURE, MIXTURE]
    assert all(version.kind in KINDS for version in versions)
    assert len(set(KINDS)) == 27
    assert [clip.kind for clip in render_clips(photo, TINY, [1])] == [PRISTINE, "frame_stutter"]
    small = np.zeros((200, 900, 3), dtype=np.uint8)
    with pytest.raises(StageError, match="384"):
        next(render_crops(small, TINY, [1]))


def test_camera_chains_keep_size_and_differ_by_seed() -> None:
    photo = skimage.data.coffee()[:200, :260]
    chains = [camera_chain(photo, np.random.default_rng(seed)) for seed in (1, 1, 2, 3, 4, 5, 6)]
    assert all(chain.shape == photo.shape and chain.dtype == np.uint8 for chain in chains)
    assert (chains[0] == chains[1]).all()
    assert len({chain.tobytes() for chain in chains}) == 6


def test_calibration_follows_the_target_and_rises_strictly() -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(size=800)
    target = 1 / (1 + np.exp(-2 * raw)) + 0.05 * rng.normal(size=800)
    calibration = fit_calibration(raw, target, 12)
    grid = np.linspace(-1.5, 1.5, 31)
    assert np.abs([calibration(x) for x in grid] - 1 / (1 + np.exp(-2 * grid))).max() < 0.06
    assert (np.diff(calibration.quality) > 0).all()
    assert (calibration.quality[0], calibration.quality[-1]) == (0.0, 1.0)
    with pytest.raises(ModelError, match="all equal"):
        fit_calibration(np.zeros(50), np.linspace(0, 1, 50), 5)


@pytest.mark.parametrize("name", sorted(QUALITY_LOSSES))
def test_losses_are_least_for_the_right_order_and_pull_towards_it(name: str) -> None:
    target = torch.tensor([0.1, 0.4, 0.6, 0.95])
    loss = QUALITY_LOSSES[name]
    assert loss(target.clone(), target) < loss(target.flip(0), target)
    raw = torch.zeros(4, requires_grad=True)
    with torch.no_grad():
        raw += torch.tensor([0.02, -0.01, 0.01, 0.0])
    loss(raw, target).backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()
    assert raw.grad[0] > raw.grad[3]


def test_level_loss_is_least_at_the_two_levels_beside_the_target() -> None:
    target = torch.tensor([0.65])
    best = torch.log(torch.tensor([[1e-6, 0.75, 0.25, 1e-6, 1e-6]]))
    assert level_loss(best, target) < level_loss(torch.zeros(1, 5), target)
    assert level_loss(best, target).item() == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), abs=1e-4)


def test_the_recipe_covers_the_six_and_gives_each_its_own_way() -> None:
    recipe = read_recipe(RECIPE)
    assert set(recipe.scorers) == set(BUILT_INS)
    ways = {(own.loss, tuple(sorted(own.target.items()))) for own in recipe.scorers.values()}
    assert len(ways) == 6
