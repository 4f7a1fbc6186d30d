"""Attention of whole models: heads that are written by hand, real ones against transformers, and places in pictures."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_lmm import SPEC, make_model

from models.distortions.clips import encode
from models.errors import ModelError
from models.instruments.attention_share import GROUPS
from models.sampling import Sampling
from models.vision_encoder import prepare_image
from tasks.evaluation.attention import OF_GROUPS, attention_questions, measure
from tasks.evaluation.recorded import Comparing
from tasks.evaluation.subjects.asking import ask_each
from tasks.evaluation.subjects.course import Course
from tasks.evaluation.subjects.line import LineSubject
from tests.tasks.evaluation.planted_minds import COURSE, Said, looks_at_marks

GREEDILY = Sampling()
COMPARING = Comparing(n_bootstrap=50, examples=2)
ONE_ANSWER = Course("one_answer", "Describe it.", "", "{description}", description_tokens=6)
SIZE = (120, 160)
MARK = (66, 84, 100, 150)  # top, left, bottom and right of what is not black


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    top, left, bottom, right = MARK
    pixels[top:bottom, left:right] = 255
    path = tmp_path_factory.mktemp("marked") / "marked.png"
    Image.fromarray(pixels).save(path)
    return path


def read(subject: LineSubject, paths: list[Path], course: Course = COURSE) -> list[dict[str, Any]]:
    found = ask_each(subject, paths, attention_questions(subject, course, GREEDILY, 0), 2)
    return [{"path": str(path), **record} for path, record in zip(paths, found, strict=True)]  # type: ignore[dict-item]


def test_a_planted_head_is_found_and_its_tokens_lie_where_the_picture_is_marked(marked: Path):
    subject = LineSubject("planted", looks_at_marks(prepare_image(np.zeros((*SIZE, 3), np.uint8), SPEC)))
    (record,) = read(subject, [marked])
    (model,) = measure([Said("planted", [record])], GREEDILY, COMPARING)["models"]
    mass = {(one["layer"], one["head"]): one["mass"]["image"]["value"] for one in model["by_head"]}
    assert min(mass[1, 1], mass[1, 2]) >= 0.95
    assert max(mass[1, 3], mass[1, 4]) < 0.8
    views = {view["name"]: view for view in record["views"]}
    assert list(views) == ["whole picture", "fragments 1"]
    top, left, bottom, right = np.array(MARK) / [*SIZE, *SIZE]
    weights = np.concatenate([view["weights"] for view in views.values()])
    boxes = np.concatenate([view["boxes"] for view in views.values()])
    over = (boxes[:, 0] < bottom) & (boxes[:, 2] > top) & (boxes[:, 1] < right) & (boxes[:, 3] > left)
    assert 0 < over.sum() < len(boxes)
    assert weights[over].min() > 5 * weights[~over].max(), "bright where the mark is, and nowhere else"
    (example,) = model["examples"]
    assert example["views"] == record["views"]


def test_shares_are_those_of_the_models_own_attention(photos: list[Path]):
    model = make_model()
    subject = LineSubject("tiny", model)
    records = read(subject, photos, ONE_ANSWER)
    for path, record in zip(photos, records, strict=True):
        asked = ONE_ANSWER.verdict_of(subject.open(path), record["description"])
        (opened,) = subject._opened([asked])
        model.language_model.set_attn_implementation("eager")
        with torch.no_grad():
            weights = model.language_model(inputs_embeds=opened.embeddings_XD[None], output_attentions=True).attentions
        model.language_model.set_attn_implementation("sdpa")
        rows_LHT = torch.cat(weights)[:, :, -1].numpy()
        mass = np.stack([rows_LHT[..., list(opened.groups[name])].sum(-1) for name in GROUPS], -1)
        assert np.allclose(record["mass_LHG"], mass, atol=1e-5)
        assert np.allclose(np.sum(record["mass_LHG"], axis=-1), 1.0, atol=1e-5)
        assert np.sum(record["mass"]) == pytest.approx(1.0, abs=1e-5)
        tokens = np.array([len(opened.groups[name]) for name in GROUPS])
        assert record["tokens"] == tokens.tolist()
        even = mass.mean((0, 1)) / (tokens / tokens.sum())
        assert record["per_token"] == pytest.approx(even, abs=1e-5)
        image_K = rows_LHT.mean((0, 1))[list(opened.groups["image"])]
        drawn = np.concatenate([view["weights"] for view in record["views"]])
        assert np.allclose(drawn, image_K, atol=1e-6)


def test_a_verdict_from_the_text_alone_looks_at_no_picture(photos: list[Path]):
    course = Course("two_stage", "Describe it.", "", "It says: {description}", description_tokens=6)
    records = read(LineSubject("tiny", make_model()), photos, course)
    (model,) = measure([Said("tiny", records, course)], GREEDILY, COMPARING)["models"]
    image = model["figures"]["groups"]["image"]
    assert (image["mass"]["value"], image["tokens"]["value"]) == (0.0, 0.0)
    assert {image[name]["value"] for name in ("per_token", "concentration", "effective")} == {None}
    assert {record["views"] for record in records} == {None}
    assert all(row["concentration"]["image"]["value"] is None for row in model["by_layer"])


def test_tokens_that_lie_nowhere_are_not_drawn(photos: list[Path]):
    several = dataclasses.replace(SPEC, fragment_px=14)  # a token covers four fragments
    (found,) = read(LineSubject("tiny", make_model(spec=several)), photos[:1])
    assert found["views"] is None
    assert found["tokens"][0] == 8


def test_clips_have_no_one_picture_to_draw_on(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (8, 64, 96, 3), dtype=np.uint8)
    path.write_bytes(encode(list(frames), 24.0))
    (found,) = read(LineSubject("tiny", make_model()), [path])
    assert found["views"] is None
    assert found["tokens"][0] > 0


def test_a_kernel_that_keeps_its_weights_is_an_error(photos: list[Path], monkeypatch: pytest.MonkeyPatch):
    model = make_model()
    monkeypatch.setattr(model.language_model, "set_attn_implementation", lambda _: None)  # one that will not change
    with pytest.raises(ModelError, match='attn_implementation="eager"'):
        read(LineSubject("tiny", model), photos[:1])


def record(path: str, image: float, concentration: float | None = 0.4) -> dict[str, Any]:
    """Attention of one layer and two heads, on the medium and the rest."""
    narrow = [concentration, None, None, 0.2]
    mass = [image, 0.0, 0.0, 1 - image]
    return {
        "path": path, "description": "", "entropy": 1.0, "effective_tokens": np.e, "mass": mass,
        "per_token": [2 * image, None, None, 2 - 2 * image], "concentration": narrow,
        "effective": [3.0, None, None, 4.0], "effective_share": [0.3, None, None, 0.4],
        "tokens": [10.0, 0.0, 0.0, 10.0],
        "mass_LHG": [[mass, mass]], "entropy_LH": [[1.0, 1.0]], "concentration_LG": [narrow],
        "views": None,
    }  # fmt: skip


def test_means_have_intervals_and_models_are_paired():
    ours = [record(f"{n}", 0.2 + 0.05 * (n % 3)) for n in range(12)]
    theirs = [record(f"{n}", 0.5) for n in range(6, 18)]
    report = measure([Said("a", ours), Said("b", theirs)], GREEDILY, COMPARING)
    mass = report["models"][0]["figures"]["groups"]["image"]["mass"]
    assert mass["value"] == pytest.approx(0.25)
    assert mass["low"] < 0.25 < mass["high"]
    assert report["models"][0]["by_layer"][0]["mass"]["image"]["value"] == pytest.approx(0.25)
    assert report["models"][0]["by_layer"][0]["effective_tokens"]["value"] == pytest.approx(np.e, abs=1e-5)
    assert [(one["layer"], one["head"]) for one in report["models"][0]["by_head"]] == [(1, 1), (1, 2)]
    (apart,) = report["differences"]
    assert apart["shared"] == 6
    assert apart["figures"]["groups"]["image"]["mass"]["value"] == pytest.approx(0.25 - 0.5)
    assert set(apart["figures"]["groups"]["other"]) == set(OF_GROUPS)
    assert apart["figures"]["groups"]["prompt"]["per_token"]["value"] is None
    alone = measure([Said("a", ours[:2]), Said("b", theirs[-2:])], GREEDILY, COMPARING)
    assert alone["differences"][0]["figures"] is None


def test_examples_are_those_looked_at_most_narrowly():
    records = [record("a", 0.2, 0.1), record("b", 0.2, 0.9), record("c", 0.2, None), record("d", 0.2, 0.9)]
    (model,) = measure([Said("one", records)], GREEDILY, Comparing(n_bootstrap=10, examples=3))["models"]
    assert [one["medium"] for one in model["examples"]] == ["b", "d", "a"]
