"""A quality LMM that is asked: answers, words, layers and attention against the model's own forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_lmm import make_model

from models.errors import ModelError
from models.levels import LEVELS
from models.quality_lmm import IMAGE_PREFIX
from models.sampling import Sampling
from tasks.errors import MediaError
from tasks.evaluation.subjects.course import Course, Drawing, say
from tasks.evaluation.subjects.line import LineSubject
from tasks.evaluation.subjects.protocol import Answering, Asked, Shown

TEXT = "Edges are crisp. Much noise is visible."
COURSE = Course("two_stage", "Describe it.", "Rate it.", "A person says: {description} Rate the {medium}.")


@pytest.fixture(scope="module")
def subject() -> LineSubject:
    return LineSubject("tiny", make_model())


@pytest.fixture(scope="module")
def shown(subject: LineSubject, tmp_path_factory: pytest.TempPathFactory) -> list[Shown]:
    folder, rng = tmp_path_factory.mktemp("media"), np.random.default_rng(2)
    opened = []
    for number, size in enumerate([(60, 80), (120, 40)]):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        opened.append(subject.open(path))
    return opened


def test_words_are_as_probable_as_the_model_says(subject: LineSubject, shown: list[Shown]):
    asked = [Asked("", medium, IMAGE_PREFIX) for medium in shown]
    expected = subject.model.level_probabilities([medium.content for medium in shown])
    found = subject.word_probabilities(asked, LEVELS)
    assert np.allclose(found, expected.numpy(), atol=1e-6)
    alone = [subject.word_probabilities([one], LEVELS)[0] for one in asked]
    assert np.allclose(found, alone, atol=1e-6)  # neither padding nor company


def test_answers_are_those_of_the_model(subject: LineSubject, shown: list[Shown]):
    media = [medium.content for medium in shown]
    expected = subject.model.generate(media, "Is it sharp?", prefix="It is", max_new_tokens=5)
    assert subject.answers([Asked("Is it sharp?", medium, "It is") for medium in shown], Answering(5)) == expected
    with pytest.raises(ModelError, match="same openings"):
        subject.answers([Asked("", shown[0]), Asked("", shown[1], avoid=("No",))], Answering(2))


def test_the_last_layer_says_what_the_model_says(subject: LineSubject, shown: list[Shown]):
    asked = [COURSE.text_verdict_of(shown[0], TEXT), Asked("", shown[1], IMAGE_PREFIX)]
    found = subject.layers(asked, LEVELS, 4)
    probabilities = subject.word_probabilities(asked, LEVELS)
    for one, probs in zip(found, probabilities, strict=True):
        assert one.reading.level_LC.shape == (subject.model.language_model.config.num_hidden_layers, 5)
        assert np.allclose(one.reading.level_LC[-1], probs, atol=1e-5)
        assert [len(row) for row in one.top_words_LK] == [4] * len(one.reading.level_LC)


def test_attention_falls_on_the_parts_of_the_question(subject: LineSubject, shown: list[Shown]):
    tokens = len(subject.model.visual_tokens([shown[0].content])[0])
    with_text = Asked("Describe it.", shown[0], f"{TEXT} {IMAGE_PREFIX}", TEXT)
    (found,) = subject.attention([with_text])
    image, description, prompt, other = found.tokens_G.tolist()
    encode = subject.model.tokenizer.encode
    assert image == tokens
    assert description == len(encode(TEXT, add_special_tokens=False))
    assert prompt == len(encode("Describe it.", add_special_tokens=False))
    assert np.allclose(found.shares_LHG.sum(-1), 1.0)
    assert other > 0
    (blind,) = subject.attention([COURSE.text_verdict_of(shown[0], TEXT)])
    assert blind.tokens_G[0] == 0
    assert blind.shares_LHG[..., 0].max() == 0.0
    assert subject.model.language_model.config._attn_implementation != "eager"  # as it was before
    with pytest.raises(ModelError, match="part of neither"):
        subject.attention([Asked("", shown[0], IMAGE_PREFIX, TEXT)])


def test_two_stages_never_show_the_medium_to_the_verdict(subject: LineSubject, shown: list[Shown]):
    drawing = Drawing(Sampling(1.0), [3, 4])
    said = say(subject, COURSE, shown, drawing)
    assert said == say(subject, COURSE, shown, drawing)
    assert said != say(subject, COURSE, shown, Drawing(Sampling(1.0), [5, 6]))
    assert all(one.verdict.startswith(IMAGE_PREFIX) for one in said)
    asked = COURSE.verdict_of(shown[0], TEXT)
    assert asked.medium is None
    assert TEXT in asked.question
    one_answer = Course("one_answer", "Describe it.", "", "{description}").verdict_of(shown[0], TEXT)
    assert (one_answer.medium, one_answer.opening) == (shown[0], f"{TEXT} {IMAGE_PREFIX}")


def test_a_question_about_a_text_needs_a_place_for_it():
    with pytest.raises(ModelError, match="once"):
        Course("judge", "", "", "Rate the text.")


def test_media_that_do_not_decode_are_refused(subject: LineSubject, tmp_path: Path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    with pytest.raises(MediaError):
        subject.open(tmp_path / "x.png")


def test_equal_positions_of_equal_questions_have_one_embedding(subject: LineSubject, shown: list[Shown]):
    opened = subject._opened([Asked("Rate it.", shown[0], IMAGE_PREFIX, "")])[0]
    head = subject.model._head_embeddings(subject.model.visual_tokens([shown[0].content])[0], "Rate it.")
    assert torch.equal(opened.embeddings_XD[: len(head)], head)
