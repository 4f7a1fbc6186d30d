import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from models.quality_lmm import QualityLMM
from models.questions import question_of
from models.vision_encoder import EMBEDDED_SPEC, PAPER_SPEC, VisualSpec, prepare_clip, prepare_image
from tasks.records import Split, Task
from tasks.training.examples import MappedExamples, open_examples
from tasks.training.lengths import SequenceLengths, view_size
from tasks.training_set import FOLDER, MediumRow

SMALL_PAPER = dataclasses.replace(PAPER_SPEC, tile_px=28, motion_px=16, key_frames=3)
SPECS = {"fragments": EMBEDDED_SPEC, "dynamic": SMALL_PAPER}
IMAGE = MediumRow("x", "x", "image", 0, 0, 1, 0.0, "collect", "0.tar", 0, 0)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize(("width", "height"), [(28, 28), (300, 40), (40, 300), (200, 150), (33, 29)])
def test_tiles_of_an_image_are_counted_from_its_size(spec: VisualSpec, width: int, height: int):
    pixels = np.zeros((height, width, 3), np.uint8)
    row = IMAGE._replace(width=width, height=height)
    assert view_size(row, spec) == (len(prepare_image(pixels, spec).tiles_TCHW), 0)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize(("frames", "fps"), [(1, 25.0), (2, 2.0), (9, 24.0), (40, 10.0), (40, 30.0)])
def test_tiles_and_motion_frames_of_a_clip_are_counted_from_its_frames(spec: VisualSpec, frames: int, fps: float):
    pixels = np.zeros((frames, 32, 40, 3), np.uint8)
    clip = prepare_clip(pixels, np.arange(frames) / fps, spec)
    row = IMAGE._replace(modality="video", width=40, height=32, frames=frames, fps=fps)
    assert clip.motion_CTHW is not None
    assert view_size(row, spec) == (len(clip.tiles_TCHW), clip.motion_CTHW.shape[1])


@pytest.fixture
def model(_line: Path) -> QualityLMM:
    return QualityLMM.from_pretrained(_line / "artifacts" / "base" / "small")


@pytest.fixture
def examples(_line: Path) -> MappedExamples:
    shares = dict.fromkeys(Task, 0.25)
    return open_examples(_line / "artifacts" / "assemble" / FOLDER, Split.WARM_UP, shares)


@torch.no_grad()
def test_visual_tokens_are_those_that_the_model_makes(model: QualityLMM, examples: MappedExamples):
    lengths = SequenceLengths(model, examples.medium)
    image = prepare_image(np.zeros((90, 70, 3), np.uint8), model.spec)
    clip = prepare_clip(np.zeros((12, 60, 80, 3), np.uint8), np.arange(12) / 12, model.spec)
    for modality, shown in (("image", image), ("video", clip)):
        row = next(row for row in map(examples.medium, examples.frame()["id"]) if row.modality == modality)
        (tokens_KD,) = model.visual_tokens([shown])
        assert lengths.visual(row.id) == len(tokens_KD)


def test_answers_count_with_their_end_of_turn_and_pairs_by_their_longer_member(
    model: QualityLMM, examples: MappedExamples
):
    lengths = SequenceLengths(model, examples.medium)
    pair, text = examples.of(Task.PAIR)[0], examples.of(Task.DESCRIPTION)[0]
    tokens = [len(model.tokenizer.encode(answer, add_special_tokens=False)) + 1 for answer in pair.answers]
    assert lengths.answer(pair) == sum(tokens)
    visual = [lengths.visual(medium) for medium in pair.ids]
    assert lengths.sequence(pair) == max(map(sum, zip(visual, tokens, strict=True)))
    assert lengths.answer(text) == len(model.tokenizer.encode(text.answers[0], add_special_tokens=False)) + 1


def test_a_question_counts_where_the_model_asks_one(model: QualityLMM, examples: MappedExamples):
    chosen = [examples.of(task)[0] for task in Task]
    empty = [SequenceLengths(model, examples.medium).sequence(example) for example in chosen]
    model.question = "asked"
    asked = [SequenceLengths(model, examples.medium).sequence(example) for example in chosen]
    for example, short, long in zip(chosen, empty, asked, strict=True):
        is_video = examples.medium(example.ids[0]).modality == "video"
        question = question_of(example.task, "asked", is_video=is_video)
        assert long - short == len(model.tokenizer.encode(question, add_special_tokens=False))
