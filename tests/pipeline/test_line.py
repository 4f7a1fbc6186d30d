"""The real line, end to end: every real stage on a miniature pool, in a workspace, with a few steps of training."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data
import yaml
from PIL import Image

from tasks.stage import STAGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1700)]

Vital = Callable[..., "subprocess.CompletedProcess[str]"]

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry")
SETTINGS = (
    "collect.fractions={train: 0.4, warm_up: 0.2, held_out: 0.4}",
    "distort.children_per_image=3",
    "distort.children_per_clip=2",
    "distort.max_side=256",
    "describe.share=0.5",
    "pretrain.training.steps=6",
    "pretrain.training.batch_examples=8",
    "warm_up.training.steps=4",
    "warm_up.training.batch_examples=8",
    "assistant.training.steps=4",
    "assistant.training.batch_examples=8",
    "assistant.questions.held_out_questions=12",
    "linear_probe.training.steps=4",
    "linear_probe.training.batch_examples=8",
    "two_stage.training.steps=4",
    "two_stage.training.batch_examples=8",
    "two_stage.reasoner_steps=3",
    "teach.cold_start.steps=3",
    "teach.drawing.most_tokens=16",
    "teach.probe_tasks=1",
    "teach.training.steps=2",
    "teach.training.batch_examples=8",
    "teach.training.weight_decay=0.1",  # answers of a few steps earn nothing, and something has to move
    "ract.teachers.shares={score: 1.0}",
    "ract.teachers.cold_start={steps: 90, batch_examples: 8, learning_rate: 6.0e-3}",
    "ract.teachers.training.steps=1",
    "ract.teachers.training.batch_examples=8",
    "ract.teachers.training.weight_decay=0.1",
    "ract.teachers.probe_tasks=0",
    "ract.labels.max_media=24",
    "ract.labels.temperature=0.1",
    "ract.training.steps=3",
    "ract.training.batch_examples=4",
    "cross_swap.max_media=12",
    "cross_swap.most_tokens=8",
    "cross_swap.sampling.n_bootstrap=50",
    "rali.training.steps=4",
    "rali.training.batch_examples=8",
    "rali.build.dims=8",
    "rali.build.recipe={bases: 8, buckets: 4, grouping: buckets, seed: 0}",
    "rali.fit.steps=4",
    "answer.sampling.n_bootstrap=50",
    "reason.repeats=2",
    "reason.max_media=6",
    "reason.sampling.n_bootstrap=50",
    "correlate.sampling.n_bootstrap=50",
    # a few steps teach nothing: what is measured passes, so that promotion is reached
    "register.gates.pretrained={srcc: -1.0, gain_over_base: -2.0}",
    "register.gates.encoder={srcc: -1.0, gain_over_base: -2.0}",
    "register.gates.zero={srcc: -1.0}",
    "register.gates.warm_up={gain_over_pretrained: -2.0, gain_over_zero: -2.0}",
    "register.gates.assistant={accuracy_gain_low: -1.0, accuracy_over_blind: -1.0, gain_over_pretrained: -2.0}",
    "register.gates.probe={srcc: -1.0}",
    "register.gates.student={srcc: -1.0}",
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quarters of scikit-image's colour photographs, two clips that pan over them, and what a pool should not hold."""
    folder = tmp_path_factory.mktemp("pool")
    for name in PHOTOS:
        photo = getattr(skimage.data, name)()[..., :3]
        half = min(photo.shape[0] // 2, 256), min(photo.shape[1] // 2, 256)
        for part, (top, left) in enumerate([(0, 0), (0, -half[1]), (-half[0], 0), (-half[0], -half[1])]):
            crop = photo[top:, left:][: half[0], : half[1]]
            Image.fromarray(np.ascontiguousarray(crop)).save(folder / f"{name}{part}.png")
    for number, name in enumerate(("coffee", "astronaut", "chelsea", "rocket")):
        pan(getattr(skimage.data, name)()[..., :3], folder / f"clip{number}.mp4")
    shutil.copy(folder / "coffee0.png", folder / "again.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    return folder


def pan(photo: np.ndarray, path: Path) -> None:
    """Write a clip of 32 frames of 160x128 that moves over a photograph."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for step in range(32):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(photo[step : step + 128, 2 * step : 2 * step + 160])
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def code(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with the checkout's code and base models, so that the run leaves the checkout's stores alone."""
    root = tmp_path_factory.mktemp("line") / "checkout"
    for package in ("vital", "flows", "tasks", "models", "infra"):
        shutil.copytree(checkout / package, root / package, ignore=shutil.ignore_patterns("__pycache__", "seed"))
    for file in ("dvc.yaml", "params.yaml", ".gitignore"):
        shutil.copy(checkout / file, root)
    if not (checkout / "artifacts" / "base").is_dir():
        subprocess.run([sys.executable, "-m", "dvc", "pull", "infra/base/dvc.yaml"], cwd=checkout, check=True)
    shutil.copytree(checkout / "artifacts" / "base", root / "artifacts" / "base")
    (root / "data" / "pool").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=root, check=True)
    shutil.copy(checkout / ".dvc" / "config", root / ".dvc")
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    subprocess.run(["git", *identity, "commit", "--quiet", "--message", "The plant"], cwd=root, check=True)
    return root


def check_promoted(code: Path, photo: Path, vital: Vital) -> None:
    """What ``register`` offered and promotion took is found, loaded and asked, on the command line and in Python."""
    listed = json.loads(vital("registry", "list", "--json", root=code).stdout)
    assert {model["name"] for model in listed} >= {"vital-base", "vital-encoder", "vital-zero-nano", "vital-assistant"}
    assert all(model["stages"] == {"prod": "v0.0.1"} for model in listed)
    done = vital("assess", "--json", photo, root=code)
    assert done.returncode == 0, done.stderr
    assessed = json.loads(done.stdout)
    assert sum(assessed["level_probs"]) == pytest.approx(1.0, abs=1e-5)
    script = (
        "import json, sys, vital\nfrom tasks.evaluation.assess import assess_path\nfrom pathlib import Path\n"
        "print(json.dumps([assess_path(Path(sys.argv[1]), vital.load('vital-base#prod')).score, "
        "vital.assess(sys.argv[1], 'vital-zero-nano@v0.0.1').score]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(code)}
    said = subprocess.run(
        [sys.executable, "-c", script, str(photo)],
        cwd=code,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    base, other = json.loads(said.stdout)
    assert base == pytest.approx(assessed["score"], abs=1e-5)
    assert 0.1 <= other <= 0.9
    done = vital("score", "--json", "--scorer", "rali", photo, root=code)
    assert 0.0 <= json.loads(done.stdout)["scores"]["rali"] <= 1.0, done.stderr
    done = vital("assess", "--json", "--model", "vital-assistant", "--ask", "Is it blurry?", photo, root=code)
    assert isinstance(json.loads(done.stdout)["answer"], str), done.stderr


def test_the_line_runs_end_to_end_on_a_pool_of_ones_own(code: Path, pool: Path, vital: Vital, prefect_url: str):
    workspace = code / "workspaces" / "mine"
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    arguments = ["run", "--pool", pool, "--workspace", workspace, "--promote", *settings]
    done = vital(*arguments, root=code, PREFECT_API_URL=prefect_url, OMP_NUM_THREADS="2", timeout=1500)
    assert done.returncode == 0, done.stderr
    assert f"{len(STAGES)} of {len(STAGES)} stages ran" in done.stdout
    assert "vital-base@v0.0.1 is prod: new version" in done.stdout
    assert str(workspace / "artifacts" / "report" / "report.html") in done.stdout

    metrics = {stage: json.loads((workspace / "metrics" / f"{stage}.json").read_text()) for stage in STAGES}
    collected = metrics["collect"]
    assert collected["candidates"] == len(PHOTOS) * 4 + 4
    assert collected["rejects"] == 2
    assert metrics["score"]["opinions"] + metrics["score"]["rejects"] == metrics["score"]["candidates"]
    assert metrics["review"]["kept"] + metrics["review"]["rejected"] == metrics["review"]["assertions"]
    report = (workspace / "artifacts" / "report" / "report.html").read_text()
    assert all(f'id="{chapter}"' in report for chapter in ("pool", "review", "training", "questions", "gate"))

    lock = yaml.safe_load((workspace / "dvc.lock").read_text())
    assert set(lock["stages"]) == set(STAGES)
    again = vital(*arguments, root=code, PREFECT_API_URL=prefect_url)
    assert "No stage was executed" in again.stdout, again.stderr
    assert "vital-base@v0.0.1 is prod already" in again.stdout
    check_promoted(code, pool / "coffee1.png", vital)

    status = [sys.executable, "-m", "dvc", "status", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(code)}
    assert json.loads(subprocess.check_output(status, cwd=workspace, env=environment)) == {}
