"""``vital rali align``, ``build`` and ``fit``: from a folder of photos, texts and scores to a student that scores."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_lmm import make_model

from models.rali.runtime import RaliScorer
from tasks.media import decode_image
from vital.rali_commands import rali
from vital.rali_options import declared, told

Vital = Callable[..., "subprocess.CompletedProcess[str]"]
COUNT = 16
FEW = [
    f"--set=rali.{setting}"
    for setting in (
        "view={kind: fragments, side: 56, fragment: 28, native: 1}",
        "tower={kind: compact, width: 12, hidden: 16}",
        "max_reject_share=0.1",
        "training={steps: 4, batch_examples: 8, threads: 1}",
        "build={dims: 6, recipe: {bases: 8, buckets: 6}}",
    )
]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads texts, photos of rising noise with texts, and scores on a scale where lower is better."""
    root, rng = tmp_path_factory.mktemp("ground"), np.random.default_rng(3)
    make_model().save_pretrained(root / "reader")
    (root / "photos").mkdir()
    for number in range(COUNT):
        noise = rng.normal(128, 2 + 5 * number, (70, 90, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noise).save(root / "photos" / f"{number:02}.png")
    (root / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    said = [
        {"path": f"{n:02}.png", "text": f"Grain {n // 4}. The quality is bad.", "source": "me"} for n in range(COUNT)
    ]
    lines = [*said, {"path": "gone.png", "text": "Soft."}]
    (root / "texts.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with (root / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "score"), *((f"{n:02}.png", 5 * n) for n in range(COUNT))])
    return root


@pytest.mark.slow
def test_three_commands_make_a_student_that_scores(vital: Vital, ground: Path):
    photos, work, student = ground / "photos", ground / "work", ground / "student"
    lower = ("--range", 0, 100, "--lower-is-better")
    said = ("--texts", ground / "texts.jsonl", "--reader", ground / "reader")
    done = vital("rali", "align", photos, *said, "--work", work, *FEW, "--json")
    assert done.returncode == 0, done.stderr
    aligned = json.loads(done.stdout)
    assert aligned["rejected"].pop("no_medium") == 1
    assert sum(aligned["rejected"].values()) == 1
    assert (aligned["media"], aligned["decoded"], aligned["explained"]) == (COUNT + 1, COUNT, COUNT)
    assert aligned["dropped_sentences"] == COUNT
    assert 0 <= aligned["recall_at_1"] <= 1
    scores = ("--scores", ground / "scores.csv")
    done = vital("rali", "build", photos, *scores, *lower, "--work", work, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["meaning"] == {"polarity": "dmos", "low": 0, "high": 100}
    done = vital("rali", "fit", photos, *scores, "--range", 1, 100, "--work", work, "--out", student)
    assert done.returncode == 2
    assert "vital rali build was told 0 to 100 (dmos): say the same" in done.stderr
    done = vital("rali", "fit", photos, *scores, "--work", work, "--out", student, "--set=rali.fit.steps=30")
    assert done.returncode == 0, done.stderr
    assert "before.std_ratio" in done.stdout
    assert "rejected." in done.stdout
    picture = photos / "00.png"
    done = vital("score", "--json", "--scorer", f"rali:{student}", picture)
    assert done.returncode == 0, done.stderr
    wanted = RaliScorer(student).score(decode_image(picture.read_bytes())[None])
    assert json.loads(done.stdout)["scores"]["rali"] == wanted
    settings = json.loads((work / "fit.json").read_text())["config"]
    assert (settings["fit"]["steps"], settings["build"]["dims"]) == (30, 6)


def test_what_does_not_fit_is_refused_before_any_work(vital: Vital, ground: Path, tmp_path: Path):
    photos, scores = ground / "photos", ("--scores", ground / "scores.csv")
    work = ("--work", tmp_path / "work")
    done = vital("rali", "build", photos, *scores, *work)
    assert done.returncode == 1
    assert "has no finished step align: run vital rali align with this --work first" in done.stderr
    done = vital("rali", "build", photos, *scores, *work, "--set=rali.align.enabled=false")
    assert (done.returncode, "scores.csv:3: the score 5 lies outside 0 to 1: declare --range" in done.stderr) == (
        1,
        True,
    )
    done = vital("rali", "fit", photos, *scores, *work, "--out", ground)
    assert (done.returncode, "holds something else than a student" in done.stderr) == (2, True)
    said = ("--texts", ground / "texts.jsonl")
    done = vital("rali", "align", photos, *said, *work, "--set=predict.batch=3")
    assert (done.returncode, "this command has the section rali alone" in done.stderr) == (2, True)
    done = vital("rali", "align", photos, *said, *work, "--set=rali.colours=3")
    assert (done.returncode, "rali.colours: unknown key" in done.stderr) == (1, True)
    done = vital("rali", "align", photos, *said, *work, "--profile", "paper", HF_HUB_CACHE=str(tmp_path / "hub"))
    assert done.returncode == 1
    assert "put the snapshot openai/clip-vit-large-patch14" in done.stderr
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("step", ["texts", "align", "build", "fit"])
def test_every_step_has_help_with_an_example(step: str):
    done = CliRunner().invoke(rali, [step, "--help"])
    assert done.exit_code == 0
    assert f"vital rali {step} photos/" in done.output


def test_a_declaration_counts_for_the_steps_after_it():
    first = declared((0.0, 100.0), lower_is_better=True)
    assert first.quality(25) == 0.75
    assert declared(None, told(first), lower_is_better=False) == first
    assert declared(None, lower_is_better=False).quality(0.25) == 0.25
