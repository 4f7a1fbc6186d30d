"""Plain checkpoints of several families that are asked, against transformers' own generation and forward pass."""

import copy
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_checkpoints import FAMILIES, make
from transformers import AutoModelForImageTextToText, AutoProcessor

from models.levels import LEVELS
from models.sampling import Draws, Sampling, greedy
from tasks.devices import ON_CPU
from tasks.errors import MediaError, StageError
from tasks.evaluation.subjects.checkpoint import CheckpointSubject, _Chooser, load_checkpoint
from tasks.evaluation.subjects.opening import open_subject
from tasks.evaluation.subjects.protocol import Answering, Asked, Shown

OPENING = "The quality of the image is"
TEXT = "It has noise. sharp text"


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(request.param, tmp_path_factory.mktemp("checkpoints") / request.param)


@pytest.fixture(scope="module")
def subject(folder: Path) -> CheckpointSubject:
    return load_checkpoint(folder, folder.name, ON_CPU)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two of one size, between them one of another."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(4)
    paths = []
    for number, size in enumerate([(40, 60), (64, 48), (40, 60)]):
        paths.append(folder / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def shown(subject: CheckpointSubject, pictures: list[Path]) -> list[Shown]:
    return [subject.open(path) for path in pictures]


@pytest.fixture(scope="module")
def asked(shown: list[Shown]) -> list[Asked]:
    told = Asked(f"A person says: {TEXT} Rate it", None, OPENING, TEXT)
    return [*(Asked("Rate it", medium, OPENING) for medium in shown), told, Asked("Describe", shown[0])]


def given(folder: Path, path: Path, question: str, opening: str) -> tuple[Any, Any, dict[str, Any]]:
    """Model, processor and inputs as transformers' documentation has them."""
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    space = "" if text.endswith("\n") or not opening else " "
    inputs = processor(text=f"{text}{space}{opening}", images=[Image.open(path).convert("RGB")], return_tensors="pt")
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), processor, dict(inputs)


@pytest.mark.parametrize("opening", ["", OPENING])
def test_greedy_answers_are_those_of_transformers(
    folder: Path, subject: CheckpointSubject, shown: list[Shown], pictures: list[Path], opening: str
):
    model, processor, inputs = given(folder, pictures[1], "Rate it", opening)
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=9)[0, inputs["input_ids"].shape[1] :]
    expected = processor.decode(ids, skip_special_tokens=True).strip()
    assert subject.answers([Asked("Rate it", shown[1], opening)], Answering(9)) == [expected]


def test_settings_of_its_own_change_no_answer(folder: Path, subject: CheckpointSubject, shown: list[Shown]):
    model: Any = AutoModelForImageTextToText.from_pretrained(folder).eval()
    model.generation_config.update(repetition_penalty=5.0, no_repeat_ngram_size=1, min_new_tokens=9)
    penalised = CheckpointSubject("penalised", model, AutoProcessor.from_pretrained(folder))
    asked = [Asked("Rate it", shown[1], OPENING)]
    assert penalised.answers(asked, Answering(9)) == subject.answers(asked, Answering(9))


def test_words_are_as_probable_as_the_forward_pass_says(
    folder: Path, subject: CheckpointSubject, shown: list[Shown], pictures: list[Path]
):
    model, processor, inputs = given(folder, pictures[1], "Rate it", OPENING)
    ids = [processor.tokenizer.encode(f" {word}", add_special_tokens=False)[-1] for word in LEVELS]
    with torch.no_grad():
        expected = model(**inputs).logits[0, -1, ids].double().softmax(-1)
    found = subject.word_probabilities([Asked("Rate it", shown[1], OPENING)], LEVELS)[0]
    assert np.allclose(found, expected.numpy(), atol=1e-6)


def test_company_changes_nothing(subject: CheckpointSubject, asked: list[Asked]):
    together = subject.word_probabilities(asked[:4], LEVELS)
    alone = np.concatenate([subject.word_probabilities([one], LEVELS) for one in asked[:4]])
    assert np.allclose(together, alone, atol=1e-5)
    layers = subject.layers(asked[:4], LEVELS, 3)
    for one, found in zip(asked[:4], layers, strict=True):
        (single,) = subject.layers([one], LEVELS, 3)
        assert np.allclose(found.reading.level_LC, single.reading.level_LC, atol=1e-5)
    sampling = Sampling(1.0, 0.9)
    drawn = subject.answers(asked, Answering(6, Draws(sampling, range(5))))
    assert drawn == [subject.answers([one], Answering(6, Draws(sampling, [n])))[0] for n, one in enumerate(asked)]
    assert drawn != subject.answers(asked, Answering(6, Draws(sampling, range(5, 10))))


def test_words_are_drawn_as_often_as_they_are_probable(subject: CheckpointSubject, shown: list[Shown]):
    one = Asked("Rate it", shown[0], OPENING)
    scores = subject.layers([one], LEVELS, 1)[0].reading
    answers = subject.answers([one] * 400, Answering(1, Draws(Sampling(1.0), range(400))))
    drawn = np.array([answers.count(word) / 400 for word in LEVELS])
    expected = scores.level_LC[-1] * (1 - scores.other_L[-1])
    assert np.abs(drawn - expected).max() < 4 * np.sqrt(0.25 / 400)


def test_an_answer_avoids_openings():
    chooser = _Chooser(greedy, [[[3], [2, 1]], [[2, 1]]], length=2)
    prompts_BT = torch.tensor([[9, 9], [9, 9]])
    scores_BV = torch.tensor([[0.0, 1.0, 2.0, 3.0]] * 2)
    first_B = chooser(prompts_BT, scores_BV).argmax(-1)
    assert first_B.tolist() == [2, 3]
    scores_BV[:, 1] = 9.0
    assert chooser(torch.cat([prompts_BT, first_B[:, None]], 1), scores_BV).argmax(-1).tolist() == [3, 1]


def test_the_last_layer_says_what_the_model_says(subject: CheckpointSubject, asked: list[Asked]):
    found = subject.layers(asked[:4], LEVELS, 4)
    for one, probs in zip(found, subject.word_probabilities(asked[:4], LEVELS), strict=True):
        assert one.reading.level_LC.shape[1] == 5
        assert len(one.reading.level_LC) == subject.model.config.get_text_config().num_hidden_layers
        assert np.allclose(one.reading.level_LC[-1], probs, atol=1e-5)
        assert {len(row) for row in one.top_words_LK} == {4}


def test_attention_falls_on_the_parts_of_the_question(subject: CheckpointSubject, shown: list[Shown]):
    encode = subject.processor.tokenizer.encode
    both = Asked("Describe it", shown[0], f"{TEXT} {OPENING}", TEXT)
    seen, blind = subject.attention([both, Asked(f"A person says: {TEXT} Rate it", None, OPENING, TEXT)])
    ids = subject._inputs(subject._rendered(both), both)["input_ids"][0]
    config = subject.model.config
    image = config.image_token_index if hasattr(config, "image_token_index") else config.image_token_id
    assert seen.tokens_G.sum() == len(ids)
    assert seen.tokens_G[0] == int((ids == image).sum()) > 0
    words = len(encode(f" {TEXT}", add_special_tokens=False))
    assert abs(seen.tokens_G[1] - words) <= 1  # a space may be a token of its own
    assert abs(blind.tokens_G[1] - words) <= 1
    assert abs(seen.tokens_G[2] - len(encode("Describe it", add_special_tokens=False))) <= 1
    assert blind.tokens_G[0] == 0
    for share in (seen, blind):
        assert np.allclose(share.shares_LHG.sum(-1), 1.0)
        assert share.shares_LHG[..., share.tokens_G > 0].min() > 0
    assert subject.model.get_decoder().config._attn_implementation == "sdpa"  # as it was


def test_a_folder_is_opened_as_what_it_is(folder: Path, pictures: list[Path], tmp_path: Path):
    opened = open_subject(str(folder))
    assert isinstance(opened.subject, CheckpointSubject)
    asked = opened.course.verdict_of(opened.subject.open(pictures[0]), "")
    assert "high, good, fair, poor, low" in asked.question
    assert asked.opening == OPENING
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(MediaError):
        opened.subject.open(tmp_path / "a.png")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(StageError, match="no checkpoint that transformers reads as a model of images and text"):
        open_subject(str(tmp_path))


def test_a_clip_is_shown_as_frames(subject: CheckpointSubject, tmp_path: Path):
    frames = [np.full((64, 64, 3), 25 * number, np.uint8) for number in range(10)]
    with av.open(tmp_path / "clip.mp4", "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    two = CheckpointSubject("two", subject.model, subject.processor, frames=2)
    clip, one = two.open(tmp_path / "clip.mp4"), subject.open(tmp_path / "clip.mp4")
    assert clip.is_video
    assert [round(float(np.asarray(frame).mean()) / 25) for frame in clip.content] == [0, 9]
    assert len(one.content) == 8
    tokens = [two.attention([Asked("Rate it", medium, OPENING)])[0].tokens_G[0] for medium in (clip, one)]
    assert tokens[1] == 4 * tokens[0] > 0


def test_pickles_and_code_of_others_are_refused(tmp_path: Path, folder: Path):
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(StageError, match="no checkpoint that transformers reads"):
        load_checkpoint(tmp_path, "pickle", ON_CPU)


def test_a_checkpoint_without_a_chat_template_says_so(subject: CheckpointSubject):
    processor = copy.deepcopy(subject.processor)
    processor.chat_template = processor.tokenizer.chat_template = None
    with pytest.raises(StageError, match="has no chat template"):
        CheckpointSubject("mute", subject.model, processor)
